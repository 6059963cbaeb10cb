import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { type Client, type Event, type Json, type Watch, Unreachable } from "leasehold";

import { get } from "../dist/protocol/messages.js";
import { Sender } from "../dist/sender.js";
import { Tokens } from "../dist/tokens.js";
import { Proxy, seeded } from "./proxy.js";
import { all, client, freshKey, memoryServer, removeFiles, type Server, withOwnServer } from "./server.js";

let server: Server;
let db: Client;

before(async () => {
  server = await memoryServer();
  db = client(server);
});
after(() => server.end());

/** A copy of the entries that a watch reports. */
class Copy {
  readonly values = new Map<string, Json>();
  resets = 0;

  apply(event: Event): void {
    switch (event.type) {
      case "reset":
        this.values.clear();
        this.resets += 1;
        break;
      case "put":
        this.values.set(event.key, event.entry.value);
        break;
      case "delete":
        this.values.delete(event.key);
        break;
    }
  }

  /** Apply the events until the entry `last` has this value. */
  async follow(watch: AsyncIterable<Event>, last: Json): Promise<void> {
    for await (const event of watch) {
      this.apply(event);
      if (this.values.get("last") === last) {
        return;
      }
    }
  }

  async agreesWith(other: Client): Promise<void> {
    const entries = await all(other.list());
    assert.deepStrictEqual(this.values, new Map(entries.map((entry) => [entry.key, entry.value])));
  }
}

async function next(watch: Watch): Promise<Event> {
  const { done, value } = await watch[Symbol.asyncIterator]().next();
  assert.ok(!done && value);
  return value;
}

test("a watch reports a snapshot and then changes", async () => {
  const key = freshKey();
  const first = await db.put(`${key}/a`, 1);
  const watch = db.watch(`${key}/`, { snapshot: true, locks: true });
  const put = await next(watch);
  assert.ok(put.type === "put");
  assert.deepStrictEqual([put.key, put.entry.value, put.revision], [first.key, 1, first.revision]);
  const ready = await next(watch);
  assert.ok(ready.type === "ready");
  assert.deepStrictEqual([watch.cursor, ready.cursor], [ready.revision, ready.revision]);
  const second = await db.put(`${key}/b`, 2);
  const later = await next(watch);
  assert.ok(later.type === "put");
  assert.deepStrictEqual([later.entry.value, later.cursor], [2, second.revision]);
  const { revision } = await db.delete(`${key}/b`);
  const deleted = { type: "delete", key: `${key}/b`, revision, cursor: revision };
  assert.deepStrictEqual(await next(watch), deleted);
  const lease = await db.lock(`${key}/lock`, { owner: "a" });
  const held = await next(watch);
  assert.ok(held.type === "lock");
  assert.deepStrictEqual([held.lock, held.isHeld, held.token, held.owner], [lease.name, true, lease.token, "a"]);
  await lease.release();
  const free = await next(watch);
  assert.ok(free.type === "lock");
  assert.deepStrictEqual(
    [free.isHeld, free.token, free.owner, free.expiresAt],
    [false, undefined, undefined, undefined],
  );
  watch.close();
  assert.deepStrictEqual(await watch[Symbol.asyncIterator]().next(), { done: true, value: undefined });
  const resumed = db.watch([`${key}/b`, `${key}/c`], { since: first.revision, values: false });
  assert.equal((await next(resumed)).type, "ready");
  assert.deepStrictEqual(await next(resumed), deleted);
  resumed.close();
});

test("a watch ends with the loop, by close, and by its signal", async () => {
  const watchers = async (): Promise<string> => {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    return /^leasehold_watchers (\d+)$/m.exec(text)?.[1] ?? "";
  };
  const before = await watchers();
  for await (const event of db.watch()) {
    assert.equal(event.type, "ready");
    break;
  }
  const closed = db.watch();
  await next(closed);
  const waiting = all(closed);
  closed.close();
  assert.deepStrictEqual(await waiting, []);
  const reason = new Error("enough");
  const controller = new AbortController();
  const aborted = db.watch([], { signal: controller.signal });
  await next(aborted);
  const ending = all(aborted);
  controller.abort(reason);
  await assert.rejects(ending, reason);
  await assert.rejects(all(db.watch([], { signal: controller.signal })), reason);
  const giveUpAt = Date.now() + 60_000;
  while ((await watchers()) !== before) {
    assert.ok(Date.now() < giveUpAt, "the connections of ended watches stay open");
  }
});

test("a reader may be slower than the service may be silent", async () => {
  const silenceSeconds = 0.1;
  const pieces = [Uint8Array.of(1), Uint8Array.of(2)];
  const sender = new Sender({
    fetch: async (input) => {
      const { signal } = input as Request;
      const body = new ReadableStream({
        start: (stream) => signal.addEventListener("abort", () => stream.error(signal.reason)),
        pull: (stream) => {
          const piece = pieces.shift();
          return piece === undefined ? new Promise(() => {}) : stream.enqueue(piece);
        },
      });
      return new Response(body);
    },
    url: "http://service",
    tokens: new Tokens(undefined),
    timeoutSeconds: 10,
    retrySeconds: 0,
    isGuarded: true,
    warn: () => {},
  });
  const { signal } = new AbortController();
  const stream = await sender.openStream(get("/watch"), undefined, silenceSeconds, signal);
  assert.deepStrictEqual(await stream.read(signal), Uint8Array.of(1));
  await new Promise((resolve) => setTimeout(resolve, 3_000 * silenceSeconds));
  assert.deepStrictEqual(await stream.read(signal), Uint8Array.of(2));
  await assert.rejects(stream.read(signal), /nothing came for 0.1 s/);
});

test("a watch goes on after restarts and misses nothing", async () => {
  await withOwnServer(async (own) => {
    const writer = client(own);
    const copy = new Copy();
    const write = async (): Promise<void> => {
      for (let number = 0; number < 60; number += 1) {
        await writer.put(`entry/${number % 7}`, number);
        if (number % 3 === 0) {
          await writer.delete(`entry/${number % 7}`);
        }
        if (number === 20 || number === 40) {
          await own.restart();
        }
      }
      await writer.put("last", "end");
    };
    await Promise.all([copy.follow(client(own).watch([], { snapshot: true }), "end"), write()]);
    await copy.agreesWith(writer);
    assert.equal(copy.resets, 0);
  });
});

test("a watch whose connections are cut at any byte misses nothing", async () => {
  await withOwnServer(async (own) => {
    const proxy = new Proxy(own.url, seeded(3), 1_000, 4_000);
    const watching = client(await proxy.start());
    const writer = client(own);
    for (let number = 0; number < 20; number += 1) {
      await writer.put(`entry/${number}`, "ä".repeat(20));
    }
    const copy = new Copy();
    const write = async (): Promise<void> => {
      for (let number = 0; number < 60 || proxy.cuts <= 2; number += 1) {
        await writer.put(`entry/${number % 7}`, `ö${number}`);
        if (number % 3 === 0) {
          await writer.delete(`entry/${number % 7}`);
        }
      }
      await writer.put("last", "end");
    };
    try {
      await Promise.all([copy.follow(watching.watch([], { snapshot: true }), "end"), write()]);
      await copy.agreesWith(writer);
      assert.ok(proxy.cuts > 2);
    } finally {
      await proxy.end();
    }
  });
});

test("a watch gives up when it is told to", async () => {
  await withOwnServer(async (own) => {
    const watch = client(own).watch([], { reconnectSeconds: 0.2 });
    assert.equal((await next(watch)).type, "ready");
    await own.end("SIGKILL");
    await assert.rejects(next(watch), Unreachable);
  });
});

test("a watch of a store that begins anew reports a reset", async () => {
  await withOwnServer(async (own, folder) => {
    const writer = client(own);
    const watch = client(own).watch([], { snapshot: true });
    const copy = new Copy();
    for (let number = 0; number < 5; number += 1) {
      await writer.put(`entry/${number}`, 1);
    }
    const events = watch[Symbol.asyncIterator]();
    const follow = async (last: string): Promise<void> => {
      while (copy.values.get("last") !== last) {
        copy.apply(await next(watch));
      }
    };
    await writer.put("last", "old");
    await follow("old");
    await own.end("SIGKILL");
    removeFiles(folder);
    await own.start();
    await writer.put("last", "new");
    await follow("new");
    assert.equal(copy.resets, 1);
    assert.deepStrictEqual(copy.values, new Map([["last", "new"]]));
    await events.return();
  });
});
