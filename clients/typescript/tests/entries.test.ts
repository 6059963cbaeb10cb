import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import {
  type Client,
  Conflict,
  InvalidArgument,
  InvalidJson,
  InvalidKey,
  type Json,
  NotFound,
  PatchFailed,
  PathNotFound,
  PreconditionFailed,
  TooLarge,
  UnsafeInteger,
} from "leasehold";

import { all, client, freshKey, memoryServer, type Server } from "./server.js";

let server: Server;
let db: Client;
let exact: Client;

before(async () => {
  server = await memoryServer();
  db = client(server);
  exact = client(server, { bigint: true });
});
after(() => server.end());

const VALUES: Json[] = [
  null,
  true,
  0,
  -0,
  1.5,
  1e300,
  2 ** 60,
  1e20,
  -(2 ** 53),
  Number.MAX_SAFE_INTEGER,
  Number.MIN_SAFE_INTEGER,
  5e-324,
  2n ** 64n - 1n,
  -(2n ** 63n),
  "",
  "ä\u{1f600}\u2028",
  "12345678901234567890",
  '\\"9007199254740993"',
  [],
  {},
  [1, [2, { a: null }]],
  { "": 0 },
  { ["__proto__"]: 2n ** 60n },
  [{ a: [2n ** 53n, "}", 1e16, -0] }],
];

for (const value of VALUES) {
  const shown = JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? `${each}n` : each));
  test(`the value ${shown} is read as it was written`, async () => {
    const key = freshKey();
    const written = await exact.put(key, value);
    const read = await exact.get(key);
    assert.deepStrictEqual(read.value, value);
    assert.deepStrictEqual(written.value, value);
    assert.deepStrictEqual([read.key, read.revision, read.etag], [key, written.revision, written.etag]);
    assert.ok(read.createdAt instanceof Date && Math.abs(read.createdAt.getTime() - Date.now()) < 3_600_000);
  });
}

test("an integer that a number cannot represent is refused to a reader without bigint", async () => {
  const key = freshKey();
  for (const integer of [2n ** 53n, -(2n ** 53n), 2n ** 64n - 1n]) {
    const written = await db.put(key, { list: [integer] });
    assert.throws(() => written.value, UnsafeInteger);
    const read = await db.get(key);
    assert.throws(() => read.value, UnsafeInteger);
    assert.throws(() => JSON.stringify(read), UnsafeInteger);
    assert.deepStrictEqual((await exact.get(key)).value, { list: [integer] });
  }
  await assert.rejects(
    db.update(key, (value: Json) => value),
    UnsafeInteger,
  );
  const others = await all(db.list(key.slice(0, 3)));
  assert.ok(others.some((entry) => entry.key === key));
  const sum = await db.increment(key, 1, { path: "/list/0" }).catch((error: unknown) => error);
  assert.ok(sum instanceof Conflict);
  assert.equal((await exact.increment(`${key}/n`, 2n ** 53n)).value, 2n ** 53n);
  assert.equal((await exact.increment(`${key}/n`, 1)).value, 2n ** 53n + 1n);
});

const REFUSED: [string, Json][] = [
  ["NaN", NaN],
  ["Infinity", [Infinity]],
  ["a lone surrogate", "\ud800"],
  ["2^64", 2n ** 64n],
  ["U+0000", "\0"],
  ["undefined", undefined],
  ["undefined in a list", [undefined]],
  ["a hole in a list", [1, , 2]],
  ["a function", { a: () => 1 }],
  ["a map", new Map()],
  ["bytes within a value", { a: new Uint8Array(1) }],
];
for (const [name, value] of REFUSED) {
  test(`${name} is refused as a value`, async () => {
    const key = freshKey();
    await assert.rejects(db.put(key, value), InvalidJson);
    assert.equal(await db.get(key, { default: null }), null);
  });
}

test("a circular value is refused", async () => {
  const value: Json = {};
  value.self = [value];
  await assert.rejects(db.put(freshKey(), value), InvalidJson);
});

test("members that are undefined are left out, and toJSON is called", async () => {
  const date = new Date(0);
  const entry = await db.put<Json>(freshKey(), { a: undefined, date });
  assert.deepStrictEqual(entry.value, { date: "1970-01-01T00:00:00.000Z" });
});

const KEYS = ["a b", "100%", "%41", "%2e", "ä/ö", "a?b#c", "a+b&c=d", "~!$'()*,;:@", "a\\b", "..a/.b./c..", '"q"'];
for (const suffix of KEYS) {
  test(`the key ${suffix} is sent as it is`, async () => {
    const name = `${freshKey()}/${suffix}`;
    assert.equal((await db.put(name, 1)).key, name);
    assert.deepStrictEqual(
      (await all(db.list(name))).map((entry) => entry.key),
      [name],
    );
    assert.deepStrictEqual(
      (await db.getMany([name])).map((entry) => entry.key),
      [name],
    );
    assert.equal((await db.delete(name)).key, name);
    const lease = await db.lock(name);
    assert.equal(lease.name, name);
    await lease.release();
  });
}

test("a key that would become another one on its way is refused", async () => {
  const count = await db.count();
  for (const key of ["", "/", "a//b", "a/../b", "./a", "a/.", "a/", "\ud800"]) {
    await assert.rejects(db.put(key, 1), InvalidKey);
  }
  assert.equal(await db.count(), count);
});

test("an entry or a part that does not exist", async () => {
  const key = freshKey();
  const missing = await db.get(key).catch((error: unknown) => error);
  assert.ok(missing instanceof NotFound);
  assert.deepStrictEqual([missing.status, missing.code, missing.name], [404, "not_found", "NotFound"]);
  assert.ok(missing.requestId);
  assert.equal(await db.get(key, { default: 7 }), 7);
  assert.equal(await db.get(key, { default: undefined }), undefined);
  await db.put(key, { a: 1 });
  await assert.rejects(db.get(key, { path: "/b" }), PathNotFound);
  assert.equal(await db.get(key, { path: "/b", default: null }), null);
  await assert.rejects(db.put(key, 1, { path: "/a/b" }), Conflict);
});

test("a part is read, written and deleted", async () => {
  const key = freshKey();
  await db.put(key, { a: 1, list: [1] });
  assert.equal((await db.put(key, 2, { path: "/b/c" })).path, "/b/c");
  await db.put(key, 2, { path: "/list/-" });
  assert.deepStrictEqual((await db.get(key, { path: "/list" })).value, [1, 2]);
  assert.equal((await db.delete(key, { path: "/a" })).path, "/a");
  assert.deepStrictEqual((await db.get(key)).value, { list: [1, 2], b: { c: 2 } });
});

test("a write with a condition is done only if it holds", async () => {
  const key = freshKey();
  const first = await db.put(key, 1, { ifAbsent: true });
  const refused = await db.put(key, 2, { ifAbsent: true }).catch((error: unknown) => error);
  assert.ok(refused instanceof PreconditionFailed);
  assert.equal(refused.revision, first.revision);
  const second = await db.put(key, 2, { ifMatch: first });
  const third = await db.put(key, 3, { ifMatch: second.revision });
  const fourth = await db.put(key, 4, { ifMatch: third.etag });
  for (const ifMatch of [first, second.revision, third.etag, '"1.000000"']) {
    await assert.rejects(db.delete(key, { ifMatch }), PreconditionFailed);
    await assert.rejects(db.increment(key, 1, { ifMatch }), PreconditionFailed);
  }
  assert.ok((await db.delete(key, { ifMatch: fourth })).revision > fourth.revision);
});

test("the time to live is set, kept and removed", async () => {
  const key = freshKey();
  const first = await db.put(key, { n: 1 }, { ttl: 1000 });
  assert.ok(first.expiresAt);
  const kept = [
    await db.put(key, { n: 1 }, { ttl: "keep" }),
    await db.increment(key, 1, { path: "/n", ttl: undefined }),
    await db.merge(key, { a: 1 }),
    await db.patch(key, [{ op: "remove", path: "/a" }]),
    await db.update(key, (value) => value),
  ];
  for (const entry of kept) {
    assert.deepStrictEqual(entry.expiresAt, first.expiresAt);
  }
  assert.equal((await db.put(key, { n: 1 })).expiresAt, undefined);
  assert.ok((await db.increment(key, 1, { path: "/n", ttl: 0.5 })).expiresAt);
});

test("patches and increments", async () => {
  const key = freshKey();
  await assert.rejects(db.merge(key, {}), NotFound);
  assert.equal((await exact.increment(key, 2n ** 63n)).value, 2n ** 63n);
  await assert.rejects(exact.increment(key, 2n ** 63n), Conflict);
  assert.equal((await db.increment(key, -(2n ** 63n) + 1n)).value, 1);
  await db.put(key, { a: 1, b: 2 });
  assert.deepStrictEqual((await db.merge(key, { a: null, c: 3 })).value, { b: 2, c: 3 });
  const moved = await db.patch(key, [{ op: "move", from: "/b", path: "/d" }]);
  assert.deepStrictEqual(moved.value, { c: 3, d: 2 });
  const steps = [
    { op: "remove", path: "/c" },
    { op: "test", path: "/d", value: 9 },
  ];
  const failed = await db.patch(key, steps).catch((error: unknown) => error);
  assert.ok(failed instanceof PatchFailed);
  assert.equal(failed.step, 1);
  assert.deepStrictEqual((await db.get(key)).value, { c: 3, d: 2 });
});

test("updates at the same time lose nothing", async () => {
  const key = freshKey();
  const count = async (): Promise<void> => {
    for (let times = 0; times < 10; times += 1) {
      await db.update(key, (value) => ({ n: value.n + 1 }), { default: { n: 0 } });
    }
  };
  await Promise.all([count(), count(), count(), count()]);
  assert.deepStrictEqual((await db.get(key)).value, { n: 40 });
  assert.equal((await db.update<number>(key, async (value) => value * 2, { path: "/n" })).value, 80);
});

test("an update without a value or with a failing function changes nothing", async () => {
  const key = freshKey();
  await assert.rejects(
    db.update(key, (value: Json) => value),
    NotFound,
  );
  const fail = (): number => {
    throw new PreconditionFailed("of the caller");
  };
  await assert.rejects(db.update(key, fail, { default: 1 }), /of the caller/);
  await assert.rejects(
    db.update(key, (value: number) => value, { default: 1, path: "/a" }),
    TypeError,
  );
  assert.equal(await db.get(key, { default: null }), null);
});

test("a list has all pages", async () => {
  const key = freshKey();
  const keys = [0, 1, 2, 3, 4, 5, 6].map((number) => `${key}/${number}`);
  for (const [number, each] of keys.entries()) {
    await db.put(each, number % 2 === 1 ? { n: number } : {});
  }
  const prefix = `${key}/`;
  const list = (options: Parameters<Client["list"]>[1]) => all(db.list(prefix, options));
  assert.deepStrictEqual(
    (await list({ pageEntries: 2 })).map((entry) => entry.key),
    keys,
  );
  const values = (await list({ pageEntries: 3, after: keys[4] })).map((entry) => entry.value);
  assert.deepStrictEqual(values, [{ n: 5 }, {}]);
  assert.deepStrictEqual(
    (await list({ pageEntries: 2, reverse: true })).map((entry) => entry.key),
    [...keys].reverse(),
  );
  assert.deepStrictEqual(
    (await list({ pageEntries: 2, path: "/n" })).map((entry) => entry.value),
    [1, 3, 5],
  );
  assert.deepStrictEqual(new Set((await list({ values: false })).map((entry) => entry.value)), new Set([undefined]));
  assert.deepStrictEqual(await all(db.list(`${key}-none`)), []);
  assert.equal(await db.count(prefix), 7);
  const some = await db.getMany([keys[3] ?? "", `${key}-none`, keys[1] ?? ""]);
  assert.deepStrictEqual(
    some.map((entry) => entry.key),
    [keys[3], keys[1]],
  );
  assert.deepStrictEqual(await db.getMany([]), []);
  assert.equal(await db.deletePrefix(prefix), 7);
  assert.equal(await db.count(prefix), 0);
});

test("bytes are stored as they are", async () => {
  const key = freshKey();
  const content = Uint8Array.from({ length: 256 }, (_, index) => index);
  const written = await db.put(key, content, { media: "image/png" });
  const read = await db.get(key);
  assert.deepStrictEqual([read.value, read.media, read.etag], [content, "image/png", written.etag]);
  assert.deepStrictEqual(written.value, content);
  const { results } = await db
    .transaction()
    .put(`${key}/b`, new ArrayBuffer(0), { media: "text/plain" })
    .get(key)
    .commit();
  assert.deepStrictEqual((results[1] as typeof read).value, content);
  const listed = (await all(db.list(key))).map((entry) => [entry.value, entry.media]);
  assert.deepStrictEqual(listed, [
    [content, "image/png"],
    [new Uint8Array(0), "text/plain"],
  ]);
  assert.equal((await db.update(key, (value: Uint8Array) => value.slice(0, 2))).media, "image/png");
  assert.deepStrictEqual((await db.get(key)).value, Uint8Array.of(0, 1));
  await assert.rejects(db.put(key, "text", { media: "image/png" }), InvalidArgument);
});

test("a value that is too large is refused", async () => {
  const refused = await db.put(freshKey(), "x".repeat(2 ** 20)).catch((error: unknown) => error);
  assert.ok(refused instanceof TooLarge);
  assert.equal(refused.details["limit"], 2 ** 20);
});

test("a read waits for an entry and for a change", async () => {
  const key = freshKey();
  const [waited, written] = await Promise.all([db.get(key, { wait: Infinity }), db.put(key, { a: 1 })]);
  assert.deepStrictEqual(waited, written);
  const [part] = await Promise.all([db.get(key, { path: "/b", wait: 60 }), db.put(key, 2, { path: "/b" })]);
  assert.equal(part.value, 2);
  const known = await db.get(key);
  const [changed] = await Promise.all([db.get(key, { changedFrom: known, wait: 60 }), db.put(key, 3)]);
  assert.equal(changed.value, 3);
  assert.equal(await db.get(key, { changedFrom: changed, wait: 0.1 }), changed);
  assert.equal(await db.get(`${key}/none`, { wait: 0.1, default: null }), null);
});

test("a call ends when its signal is aborted", async () => {
  const reason = new Error("enough");
  const controller = new AbortController();
  const waiting = db.get(freshKey(), { wait: Infinity, signal: controller.signal });
  setTimeout(() => controller.abort(reason), 50);
  await assert.rejects(waiting, reason);
  await assert.rejects(db.put(freshKey(), 1, { signal: AbortSignal.abort(reason) }), reason);
});
