/**
 * Does a script of calls: `node calls.js URL RETRY_SECONDS [BUG] < SCRIPT > RESULTS`. `tests/harness/client_calls.py`
 * writes the script, one call in a line, and compares the results with those of the Python clients.
 */

import { createInterface } from "node:readline";

import { Client, type Deletion, type Entry, type Json, LeaseholdError, ServiceError } from "leasehold";

import { decode, encode, fromBase64, isBytes, toBase64 } from "../dist/json.js";
import { runtime } from "../dist/runtime.js";
import { all } from "./server.js";

interface Call {
  readonly method: string;
  readonly arguments: readonly Json[];
  readonly options: Readonly<Record<string, Json>>;
}

/** The calls that are not a method of the same name with the same arguments. */
async function result(db: Client, { method, arguments: given, options }: Call): Promise<Json> {
  const [first, second, third] = given;
  const named = camelCased(options);
  switch (method) {
    case "put":
      return db.put(first, second, named);
    case "put_bytes":
      return db.put(first, fromBase64(second), { media: third });
    case "increment":
      return db.increment(first, second);
    case "merge":
      return db.merge(first, second);
    case "patch":
      return db.patch(first, second);
    case "delete":
      return db.delete(first);
    case "delete_prefix":
      return db.deletePrefix(first);
    case "transaction": {
      const done = await db.transaction().increment("sum", second).put(first, second).commit();
      return [done.revision, done.results];
    }
    case "lock": {
      await using lease = await db.lock(first, { ttl: 600, wait: 0 });
      return [lease.token, await lease.put("fenced", second)];
    }
    case "get":
      return db.get(first, { default: null });
    case "get_many":
      return db.getMany(first);
    case "list":
      return all(db.list(first, named));
    case "count":
      return db.count(first);
    default:
      throw new Error(`the script has an unknown call: ${method}`);
  }
}

function camelCased(options: Readonly<Record<string, Json>>): Record<string, Json> {
  const renamed = (name: string): string => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(options).map(([name, value]) => [renamed(name), value]));
}

/** A result as it must be in every run. Times and ETags differ between runs. */
function shown(value: Json): Json {
  if (Array.isArray(value)) {
    return value.map(shown);
  }
  if (typeof value !== "object" || value === null) {
    return value;
  }
  if ("etag" in value) {
    const { key, revision, path = null, media = null } = value as Entry;
    const content = value.value ?? null;
    return [key, isBytes(content) ? { base64: toBase64(content) } : content, revision, path, media];
  }
  const { key, revision } = value as Deletion;
  return [key, revision];
}

function shownError(error: unknown): string {
  if (!(error instanceof LeaseholdError)) {
    throw error;
  }
  return error instanceof ServiceError ? error.code : error.name;
}

/** The planted bug: changes without idempotency keys. */
const withoutKeys: typeof fetch = (input, init) => {
  const request = new Request(input, init);
  request.headers.delete("Idempotency-Key");
  return fetch(request);
};

// Otherwise it would pause nearly all the time.
const { sleep } = runtime;
runtime.sleep = (seconds, signal) => sleep(seconds / 50, signal);

const [url = "", retrySeconds = "", bug] = process.argv.slice(2);
const db = new Client(url, {
  bigint: true,
  retrySeconds: Number(retrySeconds),
  onWarning: () => {},
  ...(bug === "changes without keys" ? { fetch: withoutKeys } : {}),
});
for await (const line of createInterface({ input: process.stdin })) {
  const call = decode(line).value as Call;
  const answer: Json = await result(db, call).then(shown, shownError);
  process.stdout.write(`${encode(answer)}\n`);
}
