import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Keyv as Keyv5 } from "keyv";
import { Keyv as Keyv6 } from "keyv6";
import { type Client, type Json } from "leasehold";
import { KeyvLeasehold } from "leasehold/keyv";

import { all, client, memoryServer, type Server } from "./server.js";

/** What both versions have. */
interface Cache {
  get(key: string): Promise<Json>;
  getMany(keys: string[]): Promise<Json[]>;
  set(key: string, value: Json, ttl?: number): Promise<boolean>;
  setMany(entries: { key: string; value: Json; ttl?: number }[]): Promise<unknown>;
  has(key: string): Promise<boolean>;
  hasMany(keys: string[]): Promise<boolean[]>;
  delete(key: string): Promise<boolean>;
  deleteMany(keys: string[]): Promise<boolean | boolean[]>;
  clear(): Promise<void>;
  iterator?: Json;
}

let server: Server;
let db: Client;

before(async () => {
  server = await memoryServer();
  db = client(server);
});
after(() => server.end());

const VERSIONS: [string, (store: KeyvLeasehold, namespace: string) => Cache][] = [
  ["keyv 5", (store, namespace) => new Keyv5({ store, namespace, throwOnErrors: true, emitErrors: false }) as Cache],
  ["keyv 6", (store, namespace) => new Keyv6({ store, namespace }) as unknown as Cache],
];
const LONG = `http://host//${"ä".repeat(300)}/`;
const KEYS = ["a", "http://example.com/a//b/?c=d#e", "a//b", "trailing/", ".", "..", "a:b::c", "\0\n", "ä%41", LONG];

for (const [version, create] of VERSIONS) {
  const cache = (namespace: string, prefix = `${version.at(-1)}/`): Cache =>
    create(new KeyvLeasehold(client(server), { prefix }), namespace);

  test(`${version}: any text can be a key`, async () => {
    const sessions = cache("sessions");
    for (const [index, key] of KEYS.entries()) {
      assert.equal(await sessions.set(key, { index }), true);
      assert.deepStrictEqual(await sessions.get(key), { index });
      assert.equal(await sessions.has(key), true);
    }
    const values = KEYS.map((_, index) => ({ index }));
    assert.deepStrictEqual(await sessions.getMany([...KEYS, "none"]), [...values, undefined]);
    assert.deepStrictEqual(await sessions.hasMany(["none", ...KEYS]), [false, ...KEYS.map(() => true)]);
    const found = await all(sessions.iterator({}) as AsyncIterable<[string, Json]>);
    assert.deepStrictEqual(new Map(found), new Map(KEYS.map((key, index) => [key, { index }])));
    for (const key of KEYS) {
      assert.equal(await sessions.delete(key), true);
      assert.equal(await sessions.delete(key), false);
      assert.equal(await sessions.get(key), undefined);
    }
  });

  test(`${version}: namespaces and prefixes are apart`, async () => {
    const caches = [cache("n"), cache("n:n"), cache("other"), cache("n", "elsewhere/")];
    for (const [index, each] of caches.entries()) {
      await each.set("key", index);
      await each.set(LONG, index);
    }
    for (const [index, each] of caches.entries()) {
      assert.deepStrictEqual(await each.getMany(["key", LONG]), [index, index]);
    }
    await caches[2]?.clear();
    assert.deepStrictEqual(await caches[2]?.getMany(["key", LONG]), [undefined, undefined]);
    await caches[3]?.clear();
    assert.deepStrictEqual(await caches[3]?.getMany(["key", LONG]), [undefined, undefined]);
    assert.deepStrictEqual(await caches[0]?.getMany(["key", LONG]), [0, 0]);
    assert.equal(await db.count("elsewhere/"), 0);
  });

  test(`${version}: a time to live is one of the service, too, within its limits`, async () => {
    const sessions = cache("ttl", `${version.at(-1)}-ttl/`);
    await sessions.set("hour", 1, 3_600_000);
    await sessions.set("century", 1, 3_155_760_000_000);
    await sessions.set("ever", 1);
    await sessions.setMany([{ key: "many", value: 1, ttl: 60_000 }]);
    const left = new Map<string, number | undefined>();
    for await (const entry of db.list(`${version.at(-1)}-ttl/`)) {
      const name = entry.key.split(":").at(-1) ?? "";
      left.set(name, entry.expiresAt && Math.round((entry.expiresAt.getTime() - Date.now()) / 3_600_000));
    }
    assert.deepStrictEqual(
      left,
      new Map([
        ["hour", 1],
        ["century", 8760],
        ["ever", undefined],
        ["many", 0],
      ]),
    );
    await sessions.set("short", 1, 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(await sessions.get("short"), undefined);
  });

  test(`${version}: many keys at once`, async () => {
    const many = cache("many");
    const keys = Array.from({ length: 300 }, (_, number) => `key-${number}`);
    await many.setMany(keys.map((key) => ({ key, value: key })));
    assert.deepStrictEqual(await many.getMany(keys), keys);
    assert.equal(await db.count(`${version.at(-1)}/many:`), 300);
    const deleted = await many.deleteMany(keys);
    assert.ok(deleted === true || (Array.isArray(deleted) && deleted.every(Boolean)));
    assert.equal(await db.count(`${version.at(-1)}/many:`), 0);
  });
}

test("bytes and values that are not texts are stored as they are", async () => {
  const store = new KeyvLeasehold(db, { prefix: "raw/" });
  for (const key of ["bytes", LONG]) {
    await store.set(key, Buffer.from([0, 255]));
    assert.deepStrictEqual(await store.get(key), Buffer.from([0, 255]));
    await store.set(key, { a: [1, "\u{1f600}"] });
    assert.deepStrictEqual(await store.get(key), { a: [1, "\u{1f600}"] });
  }
  assert.deepStrictEqual(await store.getMany(["bytes", "none"]), [{ a: [1, "\u{1f600}"] }, undefined]);
  assert.throws(() => new KeyvLeasehold(db, { prefix: "" }), TypeError);
  assert.equal(await store.set("undefined", undefined), false);
});
