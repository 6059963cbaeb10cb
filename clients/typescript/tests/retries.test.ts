import assert from "node:assert/strict";
import { test } from "node:test";

import {
  type ClientOptions,
  Client,
  InternalError,
  NotFound,
  ServiceError,
  TooManyRequests,
  Unavailable,
  UnexpectedResponse,
  Unreachable,
} from "leasehold";

import { runtime } from "../dist/runtime.js";
import { client, withOwnServer } from "./server.js";

const ENTRY = '{"key": "a", "value": 1, "revision": 1}';
type Answer = (() => Response) | Error;

function answer(status: number, text: string, headers: Record<string, string> = {}): Answer {
  return () => new Response(text, { status, headers });
}

function error(status: number, code: string, headers: Record<string, string> = {}): Answer {
  return answer(status, JSON.stringify({ error: code, message: "as planned" }), headers);
}

function disconnected(reason: string): Error {
  return new TypeError("fetch failed", { cause: new Error(reason) });
}

interface Sent {
  readonly method: string;
  readonly path: string;
  readonly key: string | null;
  readonly text: string;
}

/** A client of a service that gives these answers, one after the other, and the last one again and again. */
function planned(answers: Answer[], options: ClientOptions = {}): { db: Client; sent: Sent[]; warnings: string[] } {
  const waiting = [...answers];
  const sent: Sent[] = [];
  const warnings: string[] = [];
  const respond = async (request: Request): Promise<Response> => {
    const text = await request.text();
    sent.push({
      method: request.method,
      path: new URL(request.url).pathname,
      key: request.headers.get("idempotency-key"),
      text,
    });
    const given = waiting.length > 1 ? waiting.shift() : waiting[0];
    if (typeof given !== "function") {
      throw given;
    }
    return given();
  };
  const db = new Client("http://service/", {
    fetch: (input) => respond(input as Request),
    onWarning: (message) => warnings.push(message),
    ...options,
  });
  return { db, sent, warnings };
}

/** The pauses between attempts. They take no time: the clock of the client moves. */
async function withPauses(use: (pauses: number[]) => Promise<void>): Promise<void> {
  const real = { ...runtime };
  const pauses: number[] = [];
  runtime.sleep = async (seconds) => {
    pauses.push(seconds);
  };
  runtime.clock = () => pauses.reduce((sum, pause) => sum + pause, 0);
  try {
    await use(pauses);
  } finally {
    Object.assign(runtime, real);
  }
}

test("a change is sent again unchanged until it is answered", async () => {
  await withPauses(async (pauses) => {
    const failures = [disconnected("cut"), disconnected("refused"), error(503, "unavailable"), answer(502, "<html>")];
    const { db, sent, warnings } = planned([...failures, answer(200, ENTRY)]);
    assert.equal((await db.put("a", 1)).revision, 1);
    await db.put("a", 1);
    const keys = sent.map((request) => request.key);
    assert.equal(new Set(keys.slice(0, 5)).size, 1);
    assert.match(keys[0] ?? "", /^"[0-9a-f]{32}"$/);
    assert.notEqual(keys[5], keys[0]);
    for (const request of sent) {
      assert.deepStrictEqual([request.method, request.path, request.text], ["POST", "/kv/a", "1"]);
    }
    assert.equal(pauses.length, 4);
    assert.ok(pauses.every((pause, index) => index === 0 || pause > (pauses[index - 1] ?? 0) / 2));
    assert.equal(warnings.length, 4);
    assert.match(warnings[0] ?? "", /^POST \/kv\/a: attempt 1 failed \(cut\)/);
    assert.match(warnings[2] ?? "", /HTTP 503, unavailable: as planned/);
  });
});

test("a read carries no idempotency key", async () => {
  const { db, sent } = planned([answer(200, ENTRY)]);
  await db.get("a");
  assert.equal(sent[0]?.key, null);
});

test("a retry waits as long as the service asks for", async () => {
  await withPauses(async (pauses) => {
    const { db } = planned([error(429, "too_many_requests", { "Retry-After": "7" }), answer(200, ENTRY)]);
    await db.get("a");
    assert.deepStrictEqual(pauses, [7]);
  });
});

test("a retry that would come too late is not waited for", async () => {
  await withPauses(async (pauses) => {
    const { db } = planned([error(429, "too_many_requests", { "Retry-After": "31" })]);
    const refused = await db.get("a").catch((failure: unknown) => failure);
    assert.ok(refused instanceof TooManyRequests);
    assert.equal(refused.retryAfter, 31);
    assert.deepStrictEqual(pauses, []);
  });
});

const LASTING: [string, Answer, new (...all: never[]) => Error][] = [
  ["refused connections", disconnected("refused"), Unreachable],
  ["an unavailable service", error(503, "unavailable"), Unavailable],
  ["a proxy without a service", answer(504, "<html>"), UnexpectedResponse],
];
for (const [name, failure, kind] of LASTING) {
  test(`retries end in time: ${name}`, async () => {
    await withPauses(async (pauses) => {
      const { db } = planned([failure], { retrySeconds: 20 });
      await assert.rejects(db.put("a", 1), kind);
      const seconds = pauses.reduce((sum, pause) => sum + pause, 0);
      assert.ok(10 < seconds && seconds <= 20);
    });
  });
}

const FINAL: [string, Answer, new (...all: never[]) => Error, number][] = [
  ["a refusal", error(404, "not_found"), NotFound, 1],
  ["a new code", error(418, "not_known_yet"), ServiceError, 1],
  ["a code that is a name of JavaScript", error(400, "constructor"), ServiceError, 1],
  ["an internal error", error(500, "internal"), InternalError, 3],
  ["a page", answer(404, "<html>"), UnexpectedResponse, 1],
  ["a redirect", answer(302, "", { Location: "http://other/" }), UnexpectedResponse, 1],
  ["a success that is none", answer(200, "<html>"), UnexpectedResponse, 1],
  ["an incomplete success", answer(200, '{"key": "a"}'), UnexpectedResponse, 1],
  ["null", answer(200, "null"), UnexpectedResponse, 1],
];
for (const [name, given, kind, attempts] of FINAL) {
  test(`what another attempt cannot change is thrown: ${name}`, async () => {
    await withPauses(async () => {
      const { db, sent } = planned([given]);
      const thrown = await db.get("a").catch((failure: unknown) => failure);
      assert.ok(thrown instanceof kind);
      assert.equal(thrown.name, kind.name);
      assert.equal(sent.length, attempts);
    });
  });
}

test("a redirect is not followed, and the error says to where", async () => {
  const { db } = planned([answer(302, "", { Location: "http://other/" })]);
  await assert.rejects(db.get("a"), { message: /^HTTP 302 redirects to http:\/\/other\// });
});

test("an attempt that is not answered in time is repeated", async () => {
  const silent = (request: Request): Promise<Response> =>
    new Promise((_, reject) => {
      request.signal.addEventListener("abort", () => reject(request.signal.reason as Error));
    });
  let calls = 0;
  const db = new Client("http://service", {
    timeoutSeconds: 0.05,
    onWarning: () => {},
    fetch: async (input) => {
      calls += 1;
      return calls === 1 ? silent(input as Request) : new Response(ENTRY);
    },
  });
  assert.equal((await db.get("a")).value, 1);
  assert.equal(calls, 2);
});

test("the deletion of a prefix may take minutes", async () => {
  const answered = (): Promise<Response> =>
    new Promise((resolve) => setTimeout(() => resolve(new Response('{"deleted": 7}')), 50));
  const slow = (request: Request): Promise<Response> =>
    Promise.race([
      answered(),
      new Promise<Response>((_, reject) => {
        request.signal.addEventListener("abort", () => reject(request.signal.reason as Error));
      }),
    ]);
  const db = new Client("http://service", {
    timeoutSeconds: 0.001,
    retrySeconds: 0,
    fetch: (input) => slow(input as Request),
  });
  assert.equal(await db.deletePrefix("many/"), 7);
  await assert.rejects(db.delete("a"), Unreachable);
});

test("without retries the first failure is thrown", async () => {
  await withOwnServer(async (own) => {
    const db = client(own, { retrySeconds: 0 });
    await own.end("SIGKILL");
    await assert.rejects(db.get("a"), (failure: Error) => {
      assert.ok(failure instanceof Unreachable);
      assert.ok(failure.message.startsWith(`${own.url} did not respond: connect ECONNREFUSED`), failure.message);
      return true;
    });
  });
});

test("requests during a restart are done once", async () => {
  await withOwnServer(async (own) => {
    const db = client(own);
    const count = async (): Promise<void> => {
      for (let times = 0; times < 20; times += 1) {
        await db.increment("n");
      }
    };
    await Promise.all([count(), own.restart(), count()]);
    assert.equal((await db.get("n")).value, 40);
  });
});

const INVALID: [string, ClientOptions][] = [
  ["127.0.0.1:8080", {}],
  ["ftp://127.0.0.1", {}],
  ["http://127.0.0.1:port", {}],
  ["http://user@127.0.0.1", {}],
  ["http://127.0.0.1/?a", {}],
  ["http://127.0.0.1:8080", { retrySeconds: 301 }],
  ["http://127.0.0.1:8080", { retrySeconds: -1 }],
  ["http://127.0.0.1:8080", { retrySeconds: NaN }],
  ["http://127.0.0.1:8080", { token: "ä" }],
];
for (const [url, options] of INVALID) {
  test(`a client with invalid settings is not created: ${url} ${JSON.stringify(options)}`, () => {
    assert.throws(() => new Client(url, options));
  });
}
