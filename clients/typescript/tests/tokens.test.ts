import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";

import { Client, type Event, Forbidden, TokenUnavailable, Unauthenticated } from "leasehold";

import { runtime } from "../dist/runtime.js";
import { client, freshKey, memoryServer, type Server } from "./server.js";

const SECRET = "a-secret-of-the-tests-with-more-than-32-bytes";
let server: Server;
let folder: string;

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "leasehold-"));
  const file = path.join(folder, "secret");
  writeFileSync(file, `${SECRET}\n`, { mode: 0o600 });
  server = await memoryServer({ LEASEHOLD_AUTH_SECRET_FILE: file });
});
after(async () => {
  await server.end();
  rmSync(folder, { recursive: true });
});

function jwt(permissions: string[], lifetimeSeconds = 1e6, secret = SECRET): string {
  const part = (content: object): string => Buffer.from(JSON.stringify(content)).toString("base64url");
  const claims = { sub: "test", permissions, exp: Math.floor(Date.now() / 1_000) + lifetimeSeconds };
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

const good = (lifetimeSeconds?: number): string => jwt(["read", "write", "admin"], lifetimeSeconds);
const bad = (): string => jwt(["read", "write"], 1e6, "another-secret-of-more-than-32-bytes-length");

/** Supplies these tokens, one at each call, and the last one again and again. */
class Source {
  calls = 0;

  constructor(private readonly tokens: string[]) {}

  readonly next = async (): Promise<string> => {
    this.calls += 1;
    return this.tokens[Math.min(this.calls, this.tokens.length) - 1] ?? "";
  };
}

async function first(events: AsyncIterable<Event>): Promise<Event | undefined> {
  for await (const event of events) {
    return event;
  }
  return undefined;
}

test("a token is sent with each request", async () => {
  const key = freshKey();
  const db = client(server, { token: good() });
  await db.put(key, 1);
  await db.withLock(key, (lease) => lease.put(key, 1));
  assert.equal((await first(db.watch(key, { snapshot: true })))?.type, "put");
  const reader = client(server, { token: jwt(["read"]) });
  assert.equal((await reader.get(key)).value, 1);
  await assert.rejects(reader.put(key, 2), Forbidden);
});

test("a token that is refused and cannot be replaced", async () => {
  for (const token of [undefined, bad(), bad]) {
    const db = client(server, { token });
    await assert.rejects(db.put(freshKey(), 1), Unauthenticated);
    await assert.rejects(first(db.watch()), Unauthenticated);
  }
});

test("another token is asked for when one is refused", async () => {
  const source = new Source([bad(), good()]);
  const db = client(server, { token: source.next });
  await db.put(freshKey(), 1);
  await db.put(freshKey(), 2);
  assert.equal(source.calls, 2);
  const watching = new Source([bad(), good()]);
  await first(client(server, { token: watching.next }).watch());
  assert.equal(watching.calls, 2);
});

test("another token is asked for before one expires", async () => {
  const source = new Source([good(1_000), good()]);
  const db = client(server, { token: source.next });
  const { clock } = runtime;
  const started = clock();
  try {
    for (const [elapsed, calls] of [
      [0, 1],
      [900, 1],
      [971, 2],
      [10_000, 2],
    ] as const) {
      runtime.clock = () => started + elapsed;
      await db.put(freshKey(), 1);
      assert.equal(source.calls, calls);
    }
  } finally {
    runtime.clock = clock;
  }
});

test("of many requests one asks for a token", async () => {
  const source = new Source([good()]);
  const db = client(server, { token: source.next });
  const key = freshKey();
  await Promise.all(Array.from({ length: 8 }, () => db.increment(key)));
  assert.equal(source.calls, 1);
});

test("a function that cannot supply a token", async () => {
  const cause = new RangeError("no token today");
  const db = client(server, {
    token: () => {
      throw cause;
    },
  });
  const failed = await db.put(freshKey(), 1).catch((error: unknown) => error);
  assert.ok(failed instanceof TokenUnavailable);
  assert.match(failed.message, /no token today/);
  assert.equal(failed.cause, cause);
});

test("a token that no header can have is refused and not shown", async () => {
  await client(server, { token: () => `${good()}\n` }).put(freshKey(), 1);
  const failed = await client(server, { token: () => "secret\nsecret" })
    .put(freshKey(), 1)
    .catch(String);
  assert.match(String(failed), /^TokenUnavailable: .*printable/);
  assert.ok(!String(failed).includes("secret"));
  assert.throws(() => new Client(server.url, { token: "secret secret" }), /printable/);
});

test("a watch goes on with another token when its token expires", async () => {
  const key = freshKey();
  const source = new Source([good(2), good()]);
  const other = client(server, { token: good() });
  const watch = client(server, { token: source.next }).watch(key, { snapshot: true, heartbeatSeconds: 1 });
  const events = watch[Symbol.asyncIterator]();
  await events.next();
  // The service ends the first response by itself; this is the change after that.
  while (source.calls < 2) {
    await other.increment(key);
    await events.next();
  }
  await other.put(key, "last");
  for await (const event of watch) {
    if (event.type === "put" && event.entry.value === "last") {
      break;
    }
  }
});
