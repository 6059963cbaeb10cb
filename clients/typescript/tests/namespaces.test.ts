import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { type Client, InvalidArgument, LeaseLost, NoSuchNamespace, NotFound, QuotaExceeded } from "leasehold";
import { KeyvLeasehold } from "leasehold/keyv";
import { leaseholdDriver } from "leasehold/unstorage";

import { all, client, freshKey, memoryServer, type Server } from "./server.js";

let server: Server;
let db: Client;

before(async () => {
  server = await memoryServer();
  db = client(server);
});
after(() => server.end());

test("namespaces share nothing but the connections", async () => {
  const key = freshKey();
  await db.createNamespace(key);
  const team = db.namespace(key);
  await db.put(key, "default");
  assert.equal(await team.get(key, { default: undefined }), undefined);
  await team.put(key, "team");
  await team.put(`${key}/n`, 1);
  assert.equal((await db.get(key)).value, "default");
  assert.equal((await team.get(key)).value, "team");
  assert.deepStrictEqual(
    (await all(team.list())).map((entry) => entry.key),
    [key, `${key}/n`],
  );
  const own = await db.lock(key);
  const lease = await team.lock(key, { wait: 0 });
  await lease.put(key, "fenced");
  await lease.transaction().increment(`${key}/n`).commit();
  await lease.release();
  await own.release();
  const watch = team.watch([], { snapshot: true });
  for await (const event of watch) {
    assert.ok(event.type === "put");
    assert.equal(event.entry.value, "fenced");
    break;
  }
  await team.deletePrefix(key);
  assert.equal((await db.get(key)).value, "default");
});

test("a client of a namespace sends all requests to it", async () => {
  const key = freshKey();
  const own = client(server, { namespace: key });
  await assert.rejects(own.put(key, 1), NoSuchNamespace);
  const created = await own.createNamespace(key);
  assert.deepStrictEqual([created.name, created.revision, created.entries, created.maxEntries], [key, 0, 0, undefined]);
  await own.put(key, 1);
  assert.equal((await own.namespaceInfo(key)).entries, 1);
  await assert.rejects(own.namespace("default").get(key), NotFound);
  assert.equal(await client(server, { namespace: "default" }).get(key, { default: undefined }), undefined);
});

test("a quota refuses what is beyond it", async () => {
  const key = freshKey();
  const own = client(server, { namespace: key });
  const created = await own.createNamespace(key, { maxEntries: 1, maxBytes: 1_000 });
  assert.deepStrictEqual([created.maxEntries, created.maxBytes], [1, 1_000]);
  await own.put("a", 1);
  await assert.rejects(own.put("b", 1), (error) => error instanceof QuotaExceeded && error.limit === 1);
  await own.put("a", 2);
  const changed = await own.createNamespace(key, { maxEntries: null });
  assert.deepStrictEqual([changed.maxEntries, changed.maxBytes], [undefined, 1_000]);
  await own.put("b", 1);
  await assert.rejects(own.put("b", "x".repeat(1_000)), QuotaExceeded);
  const info = await own.namespaceInfo(key);
  assert.deepStrictEqual([info.entries, info.bytes, info.createdAt], [2, 4, created.createdAt]);
});

test("namespaces are listed in pages and deleted", async () => {
  const key = freshKey();
  const names = [`${key}-a`, `${key}-b`, `${key}-c`];
  for (const name of names) {
    await db.createNamespace(name);
  }
  const [deleted = ""] = names;
  const { revision } = await db.namespace(deleted).put("a", 1);
  const listed = (await all(db.namespaces({ pageNamespaces: 1 }))).map((each) => each.name);
  assert.deepStrictEqual(
    listed.filter((name) => name.startsWith(`${key}-`)),
    names,
  );
  await db.deleteNamespace(deleted);
  await assert.rejects(db.namespace(deleted).get("a", { default: undefined }), NoSuchNamespace);
  await assert.rejects(db.namespaceInfo(deleted), NoSuchNamespace);
  const again = await db.createNamespace(deleted);
  assert.ok(again.revision >= revision);
  assert.equal(await db.namespace(deleted).get("a", { default: undefined }), undefined);
});

test("the leases of a namespace that is deleted are lost", async () => {
  const key = freshKey();
  await db.createNamespace(key);
  const renewed = await db.namespace(key).lock("a", { ttl: 60, renewEvery: 60 });
  const released = await db.namespace(key).lock("b", { ttl: 60, renewEvery: 60 });
  await db.deleteNamespace(key);
  await assert.rejects(renewed.renew(), LeaseLost);
  assert.ok(renewed.signal.aborted);
  await assert.rejects(released.release(), LeaseLost);
});

test("the adapters store in the namespace that they are given", async () => {
  const key = freshKey();
  await db.createNamespace(key);
  const team = db.namespace(key);
  await new KeyvLeasehold(team).set("a", 1);
  await leaseholdDriver({ client: team }).setItem("b", "2");
  assert.deepStrictEqual(
    (await all(team.list())).map((entry) => entry.key),
    ["keyv/a", "unstorage/b"],
  );
  assert.equal(await db.count("keyv/"), 0);
});

test("a name that no namespace can have is an error without a request", () => {
  for (const name of ["", "a/b", "..", "A", "a".repeat(64), "ä", "a\n"]) {
    assert.throws(() => client(server, { namespace: name }), InvalidArgument);
    assert.throws(() => db.namespace(name), InvalidArgument);
  }
});
