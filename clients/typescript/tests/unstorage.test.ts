import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { type Client, Forbidden, UnsafeInteger } from "leasehold";
import { leaseholdDriver } from "leasehold/unstorage";
import { createStorage, type Driver } from "unstorage";

import { client, eventually, memoryServer, removeFiles, type Server, withOwnServer } from "./server.js";

let server: Server;
let db: Client;

before(async () => {
  server = await memoryServer();
  db = client(server);
});
after(() => server.end());

function storage(prefix: string, other: Client = db) {
  // The driver must be one by its type, too.
  const driver: Driver = leaseholdDriver({ client: other, prefix });
  return createStorage({ driver });
}

test("items are stored, found and removed", async () => {
  const store = storage("items/");
  const items = {
    "a:b": { n: [1, "ä"] },
    c: "text",
    n: 7,
    flag: false,
    none: null,
    empty: "",
    "100%": "%41",
    "e f": [],
  };
  for (const [key, value] of Object.entries(items)) {
    await store.setItem(key, value);
    assert.deepStrictEqual(await store.getItem(key), value === "" ? "" : value);
    assert.equal(await store.hasItem(key), true);
  }
  assert.deepStrictEqual(new Set(await store.getKeys()), new Set(Object.keys(items)));
  assert.deepStrictEqual(await store.getKeys("a"), ["a:b"]);
  const found = await store.getItems(["a:b", "absent", "c"]);
  assert.deepStrictEqual(
    found.map(({ key, value }) => [key, value]),
    [
      ["a:b", items["a:b"]],
      ["absent", null],
      ["c", "text"],
    ],
  );
  await store.removeItem("c");
  await store.removeItem("c");
  assert.equal(await store.getItem("c"), null);
  assert.equal(await store.hasItem("c"), false);
  // `clear` of unstorage does not call its driver for a part of a mount.
  await leaseholdDriver({ client: db, prefix: "items/" }).clear("a:");
  assert.deepStrictEqual(await store.getKeys("a"), []);
  await db.put("items", "of another program");
  await store.clear();
  assert.deepStrictEqual(await store.getKeys(), []);
  assert.equal((await db.get("items")).value, "of another program");
});

test("objects and lists are JSON for other clients", async () => {
  const store = storage("json/");
  await store.setItem("user:ann", { visits: 1 });
  assert.deepStrictEqual((await db.get("json/user/ann")).value, { visits: 1 });
  await db.increment("json/user/ann", 1, { path: "/visits" });
  assert.deepStrictEqual(await store.getItem("user:ann"), { visits: 2 });
  await db.put("json/number", 7);
  assert.equal(await store.getItem("number"), 7);
});

test("what JSON would not keep is kept as a text", async () => {
  const store = storage("texts/");
  for (const value of ["[1, 2", { text: "\0" }, { n: 2 ** 60 }, [1e21]]) {
    await store.setItem("key", value);
    assert.deepStrictEqual(await store.getItem("key"), value);
  }
  await db.put("texts/big", { n: 2n ** 60n });
  await assert.rejects(store.getItem("big"), UnsafeInteger);
  const exact = storage("texts/", client(server, { bigint: true }));
  assert.deepStrictEqual(await exact.getItem("big"), { n: 2n ** 60n });
});

test("raw items are bytes", async () => {
  const store = storage("raw/");
  await store.setItemRaw("a", Uint8Array.of(0, 255));
  assert.deepStrictEqual(await store.getItemRaw("a"), Uint8Array.of(0, 255));
  assert.equal((await db.get("raw/a")).media, "application/octet-stream");
  assert.equal(await store.getItemRaw("none"), null);
});

test("items expire, and their metadata says when", async () => {
  const store = createStorage({ driver: leaseholdDriver({ client: db, prefix: "ttl/", ttl: 100 }) as Driver });
  await store.setItem("a", 1);
  await store.setItem("b", 1, { ttl: 1_000 });
  const [a, b] = [await store.getMeta("a"), await store.getMeta("b")];
  assert.ok(a.mtime instanceof Date);
  assert.ok((a.ttl ?? 0) > 0 && (a.ttl ?? 0) <= 100 && (b.ttl ?? 0) > 100);
  assert.throws(() => leaseholdDriver({ client: db, prefix: "" }), TypeError);
});

test("a watch reports changes of all clients", async () => {
  const store = storage("watch/");
  await store.setItem("before", 1);
  const seen: string[] = [];
  const unwatch = await store.watch((event, key) => seen.push(`${event} ${key}`));
  await db.put("watch/a/b", 1);
  await store.removeItem("before");
  await db.put("elsewhere", 1);
  await eventually(() => seen.length >= 2);
  assert.deepStrictEqual(seen, ["update a:b", "remove before"]);
  await unwatch();
  await db.put("watch/a/c", 1);
  assert.equal(seen.length, 2);
});

test("a watch reports what has changed in a store that begins anew", async () => {
  await withOwnServer(async (own, folder) => {
    const writer = client(own);
    for (const key of ["gone", "other", "gone", "other", "gone", "other"]) {
      await writer.put(`unstorage/${key}`, 1);
    }
    const seen = new Set<string>();
    let mayConnect: Promise<void> = Promise.resolve();
    const held = client(own, { fetch: (...request) => mayConnect.then(() => fetch(...request)) });
    const store = createStorage({ driver: leaseholdDriver({ client: held }) as Driver });
    await store.watch((event, key) => seen.add(`${event} ${key}`));
    // A watch that connects between the start and the writes would see an empty store first.
    let connect = (): void => {};
    mayConnect = new Promise((resolve) => {
      connect = resolve;
    });
    await own.end("SIGKILL");
    removeFiles(folder);
    await own.start();
    await writer.put("unstorage/filler", 1);
    await writer.put("unstorage/other", 2);
    connect();
    try {
      await eventually(() => seen.size === 3);
      assert.deepStrictEqual(seen, new Set(["remove gone", "update filler", "update other"]));
    } finally {
      await store.unwatch();
    }
  });
});

test("a watch that is refused says so", async () => {
  const refused = new Forbidden("as planned", { status: 403 });
  const body = JSON.stringify({ error: refused.code, message: refused.message });
  const other = client(server, { fetch: async () => new Response(body, { status: 403 }) });
  await assert.rejects(
    storage("a/", other).watch(() => {}),
    Forbidden,
  );
});
