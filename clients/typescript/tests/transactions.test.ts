import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { type Check, type Client, Conflict, type Entry, LeaseLost, PreconditionFailed } from "leasehold";

import { client, freshKey, memoryServer, type Server } from "./server.js";

let server: Server;
let db: Client;

before(async () => {
  server = await memoryServer();
  db = client(server);
});
after(() => server.end());

test("a transaction does everything at one revision", async () => {
  const key = freshKey();
  const first = await db.put(`${key}/a`, { n: 1 });
  await db.put(`${key}/b`, 1);
  const { revision, results } = await db
    .transaction()
    .check(`${key}/a`, { revision: first })
    .check(`${key}/a`, { value: 1, path: "/n" })
    .check(`${key}/c`, { revision: null })
    .check(`${key}/b`, { exists: true })
    .put(`${key}/a`, 2, { path: "/n", ttl: 60 })
    .delete(`${key}/b`)
    .increment(`${key}/c`, 5)
    .get(`${key}/a`)
    .get(`${key}/none`)
    .commit();
  const [put, deletion, sum, read, none] = results as Entry[];
  assert.ok(put?.expiresAt);
  assert.deepStrictEqual(deletion, { key: `${key}/b`, revision, path: undefined });
  assert.equal(sum?.value, 5);
  assert.deepStrictEqual(read?.value, { n: 2 });
  assert.equal(none, null);
  const done = await db
    .transaction()
    .merge(`${key}/a`, { m: 1 })
    .patch(`${key}/c`, [{ op: "replace", path: "", value: [1] }])
    .put(`${key}/d`, null)
    .commit();
  const revisions = await Promise.all(["a", "c", "d"].map(async (name) => (await db.get(`${key}/${name}`)).revision));
  assert.deepStrictEqual(new Set(revisions), new Set([done.revision]));
});

test("a check that does not hold refuses all of it", async () => {
  const key = freshKey();
  const entry = await db.put(key, 1);
  const refused = await db
    .transaction()
    .check(key, { revision: null })
    .check(key, { value: 1 })
    .put(key, 2)
    .commit()
    .catch((error: unknown) => error);
  assert.ok(refused instanceof PreconditionFailed);
  assert.deepStrictEqual(refused.failed, [{ index: 0, key, revision: entry.revision }]);
  assert.deepStrictEqual(await db.get(key), entry);
  assert.throws(() => db.transaction().check(key, {} as Check), TypeError);
});

test("an operation that is refused is named", async () => {
  const key = freshKey();
  await db.put(key, "text");
  const refused = await db
    .transaction()
    .put(`${key}/a`, 1)
    .increment(key)
    .commit()
    .catch((error: unknown) => error);
  assert.ok(refused instanceof Conflict);
  assert.deepStrictEqual([refused.details["index"], refused.details["key"]], [1, key]);
  assert.equal(await db.get(`${key}/a`, { default: null }), null);
});

test("a transaction with a lease is fenced", async () => {
  const key = freshKey();
  const lease = await db.lock(key);
  await lease.transaction().put(key, 1).commit();
  await db.transaction().checkLease(lease.leaseId).put(key, 2).commit();
  await lease.release();
  await assert.rejects(lease.transaction().put(key, 3).commit(), LeaseLost);
  await assert.rejects(db.transaction().checkLease(lease.leaseId).put(key, 3).commit(), PreconditionFailed);
  await assert.rejects(db.fenced(lease.leaseId).put(key, 3), LeaseLost);
  await assert.rejects(db.fenced(lease.leaseId).transaction().put(key, 3).commit(), LeaseLost);
  assert.equal((await db.get(key)).value, 2);
});
