import assert from "node:assert/strict";
import { test } from "node:test";

import * as errors from "leasehold";

import { decode, encode } from "../dist/json.js";
import { chunks, escapedSegment, unescapedSegment } from "../dist/names.js";
import { LeaseTerm } from "../dist/protocol/lease_term.js";
import { number } from "../dist/protocol/messages.js";
import { retryAfter } from "../dist/protocol/refusals.js";
import { backoff, pauseBeforeRetry } from "../dist/protocol/retrying.js";
import { expiryOf, secondsOfUse } from "../dist/protocol/tokens.js";
import { type Interest, type Received, WatchState } from "../dist/protocol/watching.js";
import { Clock } from "../dist/runtime.js";
import { seeded } from "./proxy.js";

// Errors --------------------------------------------------------------------------------------------------------------

test("each code of the service has its own class, which knows its code", () => {
  const { CLASS_BY_CODE, ServiceError } = errors;
  assert.equal(new Set(Object.values(CLASS_BY_CODE)).size, Object.keys(CLASS_BY_CODE).length);
  for (const [code, errorClass] of Object.entries(CLASS_BY_CODE)) {
    const error = new errorClass("text");
    assert.deepStrictEqual([error.code, error.name, error instanceof ServiceError], [code, errorClass.name, true]);
  }
});

// JSON ----------------------------------------------------------------------------------------------------------------

/** Any JSON value, with many integers near the bounds. */
function anyValue(chance: () => number, depth: number): unknown {
  const choice = Math.floor(chance() * (depth > 0 ? 8 : 6));
  switch (choice) {
    case 0:
      return [null, true, false, -0, 1e300, 2 ** 60, 0.1][Math.floor(chance() * 7)];
    case 1:
      return BigInt(Math.floor(chance() * 1e9)) * 2n ** 30n + 2n ** 60n;
    case 2:
      return Math.floor((chance() - 0.5) * 2 ** 54);
    case 3:
      return String.fromCharCode(...Array.from({ length: 8 }, () => Math.floor(chance() * 0xd7ff)));
    case 4:
      return `\\"${"\\".repeat(chance() * 4)}1234567890123456789"`;
    case 5:
      return chance();
    case 6:
      return Array.from({ length: chance() * 4 }, () => anyValue(chance, depth - 1));
    default:
      return Object.fromEntries(
        Array.from({ length: chance() * 4 }, () => [String(anyValue(chance, 0)), anyValue(chance, depth - 1)]),
      );
  }
}

test("a value is the same after it was encoded and decoded", () => {
  const chance = seeded(7);
  for (let times = 0; times < 2_000; times += 1) {
    const value = anyValue(chance, 4);
    assert.deepStrictEqual(decode(encode(value)).value, value);
  }
});

test("integers are numbers up to 2^53 - 1, and bigints beyond", () => {
  const text = '[9007199254740991, -9007199254740992, 1e16, 12345678901234567.0, {"a": 18446744073709551615}]';
  const { value, hasBigint } = decode(text);
  assert.ok(hasBigint);
  assert.deepStrictEqual(value, [2 ** 53 - 1, -(2n ** 53n), 1e16, 12345678901234568, { a: 2n ** 64n - 1n }]);
  assert.equal(decode('"12345678901234567890"').hasBigint, false);
  assert.throws(() => decode("[12345678901234567890"), SyntaxError);
});

// Retries -------------------------------------------------------------------------------------------------------------

const CUT = { reason: "cut" };

function answer(status: number, headers: Record<string, string> = {}) {
  return { status, headers: new Headers(headers), text: "" };
}

test("the pauses double up to five seconds", () => {
  for (let made = 1; made <= 100; made += 1) {
    const longest = Math.min(0.05 * 2 ** (made - 1), 5);
    assert.equal(backoff(made, 1), longest);
    assert.equal(backoff(made, 0), longest / 2);
  }
});

test("a pause that would last too long is not made", () => {
  assert.equal(pauseBeforeRetry(CUT, { made: 1, remaining: 0.05, jitter: 1 }), 0.05);
  assert.equal(pauseBeforeRetry(CUT, { made: 1, remaining: 0.049, jitter: 1 }), undefined);
  const asked = answer(503, { "Retry-After": "3" });
  assert.equal(pauseBeforeRetry(asked, { made: 1, remaining: 3, jitter: 0 }), 3);
  assert.equal(pauseBeforeRetry(asked, { made: 1, remaining: 2.9, jitter: 0 }), undefined);
  assert.equal(pauseBeforeRetry(asked, { made: 20, remaining: 9, jitter: 1 }), 5);
});

test("the header Retry-After", () => {
  const headers: [string, number | undefined][] = [
    ["7", 7],
    ["", undefined],
    ["Wed, 21 Oct 2026 07:28:00 GMT", undefined],
  ];
  for (const [text, seconds] of headers) {
    assert.equal(retryAfter(answer(503, { "Retry-After": text })), seconds);
  }
});

// Tokens, leases, numbers ---------------------------------------------------------------------------------------------

function jwt(claims: unknown): string {
  return `e30.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.c2ln`;
}

test("the expiry of a token", () => {
  const tokens: [string, number | undefined][] = [
    [jwt({ exp: 1.5 }), 1.5],
    [jwt({ exp: 7, name: "??>>~~" }), 7],
    [jwt({}), undefined],
    [jwt([1]), undefined],
    [jwt(null), undefined],
    [jwt({ exp: "1" }), undefined],
    ["opaque", undefined],
    ["a.b.c", undefined],
    ["a.ä.c", undefined],
  ];
  for (const [token, expiry] of tokens) {
    assert.equal(expiryOf(token), expiry, token);
  }
});

test("a token is used until shortly before it expires", () => {
  assert.equal(secondsOfUse(jwt({ exp: 1_100 }), 100), 970);
  assert.equal(secondsOfUse(jwt({ exp: 110 }), 100), 8);
  assert.equal(secondsOfUse(jwt({ exp: 90 }), 100), 0);
  assert.equal(secondsOfUse("opaque", 100), undefined);
});

test("the clock also runs while the machine is suspended, and never goes back", () => {
  let [wall, monotonic] = [1_000, 10];
  const clock = new Clock(
    () => wall,
    () => monotonic,
  );
  const started = clock.now();
  const elapsed = (): number => Math.round((clock.now() - started) * 1_000) / 1_000;
  [wall, monotonic] = [1_005, 15];
  assert.equal(elapsed(), 5);
  // Suspended for 60 seconds.
  [wall, monotonic] = [1_066, 16];
  assert.equal(elapsed(), 66);
  // The wall clock is set back, and the machine is suspended again.
  [wall, monotonic] = [500, 17];
  assert.equal(elapsed(), 67);
  [wall, monotonic] = [531, 18];
  assert.equal(elapsed(), 98);
  // Roundings of the wall clock are no gaps.
  for (let step = 1; step <= 1_000; step += 1) {
    [wall, monotonic] = [Math.floor(531_000 + step / 10) / 1_000, 18 + step / 10_000];
    clock.now();
  }
  assert.ok(elapsed() < 98.2);
});

test("a renewal never shortens a lease", () => {
  const term = new LeaseTerm(100, 30);
  assert.equal(term.renewed(110, 30).deadline, 140);
  assert.equal(term.renewed(110, 10), term);
});

test("a number in a parameter has no exponent", () => {
  const numbers: [number, string][] = [
    [30, "30"],
    [100, "100"],
    [0.1, "0.1"],
    [1e-6, "0.000001"],
    [31_536_000, "31536000"],
    [0, "0"],
  ];
  for (const [value, text] of numbers) {
    assert.equal(number(value), text);
  }
});

// Names ---------------------------------------------------------------------------------------------------------------

test("any text is a segment of a key, and is found again", () => {
  const texts = [
    "",
    ".",
    "..",
    "...",
    "a/b",
    "http://a//b/",
    "100%",
    "%2F",
    "\0\u{7f}\u{85}",
    "ä\u{1f600}",
    "\ud800x",
    "%~",
  ];
  const segments = texts.map(escapedSegment);
  assert.deepStrictEqual(segments.map(unescapedSegment), texts);
  assert.equal(new Set(segments).size, texts.length);
  for (const segment of segments) {
    assert.doesNotMatch(segment, /[/\p{Cc}\p{Surrogate}]|^\.{1,2}$|%~/u);
  }
});

test("a read of several entries has a limited number of keys and of characters", () => {
  const keys = Array.from({ length: 300 }, (_, number) => `key-${number}`);
  assert.deepStrictEqual(
    chunks(keys).map((chunk) => chunk.length),
    [128, 128, 44],
  );
  const long = Array.from({ length: 9 }, (_, number) => "ä".repeat(200) + number);
  assert.deepStrictEqual(
    chunks(long).map((chunk) => chunk.length),
    [5, 4],
  );
  assert.deepStrictEqual(chunks(["a", "a"]), [["a"]]);
  assert.deepStrictEqual(chunks([]), []);
});

// The events of a watch -----------------------------------------------------------------------------------------------

const INTEREST: Interest = { prefixes: [], snapshot: true, locks: false, values: true, heartbeatSeconds: 15 };

function line(event: string, data: object, id?: number): string {
  return `${JSON.stringify({ event, data, id })}\n`;
}

function put(key: string, revision: number, id?: number): string {
  return line("put", { key, value: 1, revision }, id);
}

function received(state: WatchState, ...lines: string[]): Received[] {
  return state.receive(new TextEncoder().encode(lines.join("")));
}

test("events are the same however the response is cut into pieces", () => {
  const text = put("ä\u{1f600}", 1) + line("ready", { revision: 2 }, 2) + line("delete", { key: "ä", revision: 3 }, 3);
  const bytes = new TextEncoder().encode(text);
  const whole = new WatchState(INTEREST, undefined, true).receive(bytes);
  assert.equal(whole.length, 3);
  for (let first = 0; first <= bytes.length; first += 1) {
    const state = new WatchState(INTEREST, undefined, true);
    const second = Math.min(first + 3, bytes.length);
    const pieces = [bytes.subarray(0, first), bytes.subarray(first, second), bytes.subarray(second)];
    assert.deepStrictEqual(
      pieces.flatMap((piece) => state.receive(piece)),
      whole,
    );
  }
});

test("the next request resumes at the last cursor", () => {
  const interest = { ...INTEREST, prefixes: ["a b/"], locks: true, values: false };
  const state = new WatchState(interest, undefined, true);
  assert.equal(state.request().target, "/watch?prefix=a%20b/&snapshot&locks&values=false&heartbeat=15");
  received(state, line("ready", { revision: 7 }, 7), put("a", 8), put("b", 9, 9), put("c", 10));
  assert.match(state.request().target, /&since=9&/);
});

test("what a snapshot that was cut off has reported is forgotten", () => {
  const state = new WatchState(INTEREST, undefined, true);
  const reset = { type: "reset", cursor: undefined };
  assert.deepStrictEqual(state.connected(), []);
  received(state, put("a", 1));
  assert.deepStrictEqual(state.connected(), [reset]);
  received(state, put("a", 1), line("ready", { revision: 1 }, 1), put("b", 2, 2), put("c", 3).slice(0, 20));
  assert.deepStrictEqual(state.connected(), []);
  // The rest of the line that was cut off is not mixed with the next response.
  const events = received(state, line("ready", { revision: 2 }, 2), line("delete", { key: "a", revision: 3 }, 3));
  assert.deepStrictEqual(events, [
    { type: "progress", cursor: 2 },
    { type: "delete", key: "a", revision: 3, cursor: 3 },
  ]);
});

test("a reset of the service begins a new snapshot", () => {
  const state = new WatchState(INTEREST, 5, true);
  const [reset, first] = received(state, line("reset", { revision: 9 }), put("a", 8));
  assert.deepStrictEqual(reset, { type: "reset", cursor: undefined });
  assert.equal(first?.type, "put");
  assert.doesNotMatch(state.request().target, /since/);
  assert.deepStrictEqual(state.connected(), [{ type: "reset", cursor: undefined }]);
});

test("unknown events change nothing, an end is told, and anything else is an error", () => {
  const state = new WatchState(INTEREST, undefined, true);
  assert.deepStrictEqual(received(state, line("invented later", {}, 6)), [{ type: "progress", cursor: 6 }]);
  const end = { error: "unavailable", message: "stops" };
  assert.deepStrictEqual(received(state, line("end", end)), [{ type: "end", ...end }]);
  for (const text of ["<html>\n", "[]\n", "{}\n", line("put", { key: "a" })]) {
    assert.throws(() => received(state, text), errors.UnexpectedResponse);
  }
});
