import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { type Client, type Lease, LeaseLost, LockHeld, LockNotFound } from "leasehold";

import { runtime } from "../dist/runtime.js";
import { all, client, eventually, freshKey, memoryServer, type Server, withOwnServer } from "./server.js";

let server: Server;
let db: Client;

before(async () => {
  server = await memoryServer();
  db = client(server);
});
after(() => server.end());

test("a lock has one holder and is free after the block", async () => {
  const key = freshKey();
  let released: Lease;
  {
    await using lease = await db.lock(key, { owner: { host: "a" }, ttl: 100 });
    released = lease;
    assert.deepStrictEqual([lease.name, lease.owner, lease.ttl], [key, { host: "a" }, 100]);
    assert.ok(0 < lease.remaining && lease.remaining <= 100);
    lease.check();
    const refused = await db.lock(key, { wait: 0 }).catch((error: unknown) => error);
    assert.ok(refused instanceof LockHeld);
    assert.deepStrictEqual(refused.owner, { host: "a" });
    assert.ok(refused.expiresAt instanceof Date);
    const holder = await db.holder(key);
    assert.deepStrictEqual(
      [holder?.lock, holder?.token, holder?.owner, holder?.waiters],
      [key, lease.token, lease.owner, 0],
    );
    assert.deepStrictEqual(
      (await all(db.holders(key, { pageLocks: 1 }))).map((each) => each.lock),
      [key],
    );
  }
  assert.equal(await db.holder(key), null);
  assert.ok(released.lost);
  assert.equal(released.signal.aborted, false);
  assert.throws(() => released.check(), /released/);
  await assert.rejects(released.put(key, 1), LeaseLost);
  const later = await db.lock(key);
  assert.ok(later.token > released.token);
  await later.release();
});

test("the writes of a lease are fenced", async () => {
  const key = freshKey();
  const work = async (): Promise<void> => {
    await using lease = await db.lock(key);
    await lease.put(key, { n: 1 });
    await lease.increment(key, 1, { path: "/n" });
    await lease.update(key, (value) => ({ ...value, a: 1 }));
    await lease.merge(key, { b: 1 });
    await lease.patch(key, [{ op: "remove", path: "/b" }]);
    await lease.transaction().put(`${key}/other`, 1).commit();
    await lease.delete(`${key}/other`);
    await db.unlock(key, { force: true });
    await lease.put(key, "late");
  };
  await assert.rejects(work(), LeaseLost);
  assert.deepStrictEqual((await db.get(key)).value, { n: 2, a: 1 });
});

test("locks at the same time are given one after the other", async () => {
  const key = freshKey();
  await db.put(key, 0);
  const work = (): Promise<number> =>
    db.withLock(
      key,
      async (lease) => {
        await lease.put(key, (await db.get(key)).value + 1);
        return lease.token;
      },
      { wait: 60 },
    );
  const tokens = await Promise.all([work(), work(), work(), work(), work(), work()]);
  assert.equal(new Set(tokens).size, 6);
  assert.equal((await db.get(key)).value, 6);
});

test("a lease is renewed until it is released", async () => {
  const key = freshKey();
  await using lease = await db.lock(key, { ttl: 2 });
  const first = await db.holder(key);
  await eventually(() => Date.now() > (first?.expiresAt.getTime() ?? Infinity) + 100);
  lease.check();
  await lease.put(key, "still held");
  assert.equal((await db.holder(key))?.token, lease.token);
});

test("a lock that was waited for longer than its ttl is held all the same", async () => {
  const key = freshKey();
  await server.lease(key, 3);
  await using lease = await db.lock(key, { ttl: 3, wait: 60 });
  lease.check();
  await lease.put(key, 1);
});

test("the end of a block says that the lease was lost, unless a call has said so", async () => {
  const key = freshKey();
  const unnoticed = async (): Promise<void> => {
    await using lease = await db.lock(key);
    await db.unlock(key, { token: lease.token });
  };
  await assert.rejects(unnoticed(), LeaseLost);
  const noticed = async (): Promise<unknown> => {
    await using lease = await db.lock(key);
    await db.unlock(key, { force: true });
    // Without `await`, the block would end while the request is on its way.
    return await lease.put(key, 1).catch((error: unknown) => error);
  };
  assert.ok((await noticed()) instanceof LeaseLost);
});

test("withLock throws the error of its function even if the lease is lost", async () => {
  const key = freshKey();
  const own = new Error("of the caller");
  const failing = db.withLock(key, async () => {
    await db.unlock(key, { force: true });
    throw own;
  });
  await assert.rejects(failing, own);
  const losing = db.withLock(key, () => db.unlock(key, { force: true }));
  await assert.rejects(losing, LeaseLost);
  assert.equal(await db.withLock(key, () => 7), 7);
  await server.lease(key);
  await assert.rejects(
    db.withLock(key, () => 8, { wait: 0 }),
    LockHeld,
  );
});

test("the signal of a lease is aborted when the service is gone", async () => {
  await withOwnServer(async (own) => {
    const warnings: string[] = [];
    const other = client(own, { retrySeconds: 0.2, onWarning: (message) => warnings.push(message) });
    const lease = await other.lock("a", { ttl: 1 });
    await own.end("SIGKILL");
    await eventually(() => lease.signal.aborted);
    assert.ok(lease.signal.reason instanceof LeaseLost);
    assert.ok(lease.lost && lease.remaining === 0);
    assert.throws(() => lease.check(), LeaseLost);
    await assert.rejects(lease.renew(), LeaseLost);
    await assert.rejects(lease.release(), LeaseLost);
    assert.ok(warnings.some((message) => message.startsWith("the lease on a is lost")));
  });
});

test("a lease that was ended by another is lost at the next renewal", async () => {
  const key = freshKey();
  const losing = db.withLock(
    key,
    async (lease) => {
      await db.unlock(key, { force: true });
      await eventually(() => lease.signal.aborted);
    },
    { ttl: 60, renewEvery: 0.1 },
  );
  await assert.rejects(losing, LeaseLost);
});

test("a lease survives a restart of the service", async () => {
  await withOwnServer(async (own) => {
    const other = client(own);
    await using lease = await other.lock("a", { ttl: 60, renewEvery: 0.1 });
    const before = await other.holder("a");
    await own.restart();
    await lease.put("b", 1);
    assert.equal((await other.holder("a"))?.token, before?.token);
    await eventually(() => lease.remaining > 59);
  });
});

test("a lease that cannot be released ends by itself, and this is a warning", async () => {
  await withOwnServer(async (own) => {
    const warnings: string[] = [];
    const other = client(own, { retrySeconds: 0.1, onWarning: (message) => warnings.push(message) });
    const lease = await other.lock("a", { ttl: 600 });
    await own.end("SIGKILL");
    await lease.release();
    assert.ok(warnings.some((message) => message.startsWith("the lock a was not released")));
  });
});

test("the time of a lease counts from before the request was sent", async () => {
  const { clock } = runtime;
  let late = 0;
  runtime.clock = () => clock() + late;
  try {
    const slow = client(server, {
      fetch: async (input) => {
        const response = await fetch(input);
        late += 5;
        return response;
      },
    });
    const lease = await slow.lock(freshKey(), { ttl: 20 });
    assert.ok(lease.remaining <= 15);
    await lease.renew();
    assert.ok(lease.remaining <= 15);
    await lease.release();
    // A response that took a third of the ttl says too little, so the lease is renewed before it is used.
    const renewed = await slow.lock(freshKey(), { ttl: 12 });
    assert.ok(renewed.remaining > 2 && renewed.remaining <= 7);
    late += 8;
    assert.ok(renewed.lost);
    assert.throws(() => renewed.check(), /not renewed in time/);
    assert.ok(renewed.signal.aborted);
  } finally {
    runtime.clock = clock;
  }
});

test("a lease is renewed and released by hand", async () => {
  const key = freshKey();
  const lease = await db.lock(key, { ttl: 10 });
  await lease.renew(100);
  assert.ok(lease.remaining > 10);
  assert.equal(lease.ttl, 100);
  await lease.release();
  await assert.rejects(lease.renew(), LeaseLost);
  await assert.rejects(lease.release(), LeaseLost);
  assert.equal(await db.holder(key), null);
});

test("a lock is ended by its token or by force", async () => {
  const key = freshKey();
  const { token } = await server.lease(key);
  await assert.rejects(db.unlock(key, { token: token + 1 }), LeaseLost);
  await db.unlock(key, { token });
  await assert.rejects(db.unlock(key, { force: true }), LockNotFound);
});

test("a wait for a lock ends when its signal is aborted", async () => {
  const key = freshKey();
  const { token } = await server.lease(key);
  const reason = new Error("enough");
  const controller = new AbortController();
  const waiting = db.lock(key, { wait: Infinity, signal: controller.signal });
  await eventually(async () => (await db.holder(key))?.waiters === 1);
  controller.abort(reason);
  await assert.rejects(waiting, reason);
  await eventually(async () => (await db.holder(key))?.waiters === 0);
  await db.unlock(key, { token });
});
