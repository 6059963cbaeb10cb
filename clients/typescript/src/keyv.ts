/**
 * A storage adapter for Keyv 5 and 6:
 *
 *     const cache = new Keyv({ store: new KeyvLeasehold(new Client()), namespace: "sessions" });
 *
 * It follows the contract of Keyv 5: keys come with the namespace in front, and a ttl in milliseconds from now. Keyv 6
 * puts a bridge in front of such an adapter, because it does not say `capabilities.expires`. So it must have no
 * property `namespace` before Keyv sets one, otherwise the bridge would leave the namespaces to the adapter.
 *
 * Use one adapter for each Keyv instance.
 */

import { NotFound } from "./errors.js";
import { fromBase64, isBytes, type Json, toBase64 } from "./json.js";
import { MAX_TTL_SECONDS, MIN_TTL_SECONDS, chunks, escapedSegment, hexadecimal, unescapedSegment } from "./names.js";
import type { Namespace } from "./namespace.js";
import type { Entry } from "./records.js";

const MAX_KEY_BYTES = 512;
const PARALLEL_REQUESTS = 16;
/** No escaped key contains it, because an escape has two hexadecimal digits or `u`. */
const HASHED = "%~";

export interface KeyvLeaseholdOptions {
  /** All entries of the adapter have keys that begin with this. `keyv/` by default. */
  readonly prefix?: string;
}

type Listener = (...values: unknown[]) => void;

export class KeyvLeasehold {
  /** Keyv 5 iterates only over stores whose dialect it knows. It uses the dialect for nothing else. */
  readonly opts = { dialect: "redis", url: "" };
  declare namespace?: string | undefined;
  private readonly prefix: string;

  constructor(
    private readonly client: Namespace,
    { prefix = "keyv/" }: KeyvLeaseholdOptions = {},
  ) {
    if (prefix === "") {
      throw new TypeError("the prefix must not be empty, because clear() deletes everything that begins with it");
    }
    this.prefix = prefix;
  }

  async get(key: string): Promise<Json> {
    const entry = await this.client.get(await this.entryKey(key), { default: undefined });
    return entry === undefined ? undefined : contentOf(entry).value;
  }

  async getMany(keys: string[]): Promise<Json[]> {
    const entries = await this.entriesOf(keys);
    return entries.map((entry) => (entry === undefined ? undefined : contentOf(entry).value));
  }

  async set(key: string, value: Json, ttl?: number): Promise<boolean> {
    if (value === undefined) {
      return false;
    }
    const name = await this.entryKey(key);
    const content = name.includes(HASHED) ? withKey(key, value) : value;
    await this.client.put(name, content, { ttl: seconds(ttl) });
    return true;
  }

  async setMany(values: readonly { key: string; value: Json; ttl?: number }[]): Promise<boolean[]> {
    return inParallel(values, ({ key, value, ttl }) => this.set(key, value, ttl));
  }

  async delete(key: string): Promise<boolean> {
    try {
      await this.client.delete(await this.entryKey(key));
      return true;
    } catch (error) {
      if (error instanceof NotFound) {
        return false;
      }
      throw error;
    }
  }

  /** Whether all of them existed. */
  async deleteMany(keys: string[]): Promise<boolean> {
    return (await inParallel(keys, (key) => this.delete(key))).every(Boolean);
  }

  async has(key: string): Promise<boolean> {
    return (await this.client.get(await this.entryKey(key), { default: undefined })) !== undefined;
  }

  async hasMany(keys: string[]): Promise<boolean[]> {
    return (await this.entriesOf(keys)).map((entry) => entry !== undefined);
  }

  /** Deletes the entries of the namespace, or without one all entries of the prefix. */
  async clear(): Promise<void> {
    await this.client.deletePrefix(this.prefix + escapedSegment(this.keyPrefix(this.namespace)));
    if (this.namespace !== undefined) {
      // The names of long keys do not show their namespace.
      for await (const [key] of this.stored(this.prefix + HASHED, this.keyPrefix(this.namespace))) {
        await this.delete(key);
      }
    }
  }

  async *iterator(namespace?: string): AsyncGenerator<[string, Json], void, undefined> {
    const keyPrefix = this.keyPrefix(namespace);
    for await (const [key, value] of this.stored(this.prefix, "")) {
      if (key.startsWith(keyPrefix)) {
        yield [key, value];
      }
    }
  }

  /** Keyv listens for `error`. Errors of this adapter are thrown by its methods. */
  on(_event: string, _listener: Listener): this {
    return this;
  }

  private keyPrefix(namespace: string | undefined): string {
    return namespace === undefined || namespace === "" ? "" : `${namespace}:`;
  }

  private async *stored(prefix: string, keyPrefix: string): AsyncGenerator<[string, Json], void, undefined> {
    for await (const entry of this.client.list(prefix)) {
      const { key, value } = contentOf(entry);
      const name = key ?? unescapedSegment(entry.key.slice(this.prefix.length));
      if (name.startsWith(keyPrefix)) {
        yield [name, value];
      }
    }
  }

  private async entriesOf(keys: readonly string[]): Promise<(Entry | undefined)[]> {
    const names = await Promise.all(keys.map((key) => this.entryKey(key)));
    const found = new Map<string, Entry>();
    for (const chunk of chunks(names)) {
      for (const entry of await this.client.getMany(chunk)) {
        found.set(entry.key, entry);
      }
    }
    return names.map((name) => found.get(name));
  }

  /** Any text can be a key of Keyv. A key that is too long for the service is replaced by its hash. */
  private async entryKey(key: string): Promise<string> {
    const name = this.prefix + escapedSegment(key);
    if (new TextEncoder().encode(name).length <= MAX_KEY_BYTES) {
      return name;
    }
    const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(name));
    return this.prefix + HASHED + hexadecimal(new Uint8Array(hash));
  }
}

/** The content of an entry whose name is a hash has the key. */
function withKey(key: string, value: Json): Json {
  return isBytes(value) ? { key, base64: toBase64(value) } : { key, value };
}

function contentOf(entry: Entry): { key?: string; value: Json } {
  const value: Json = entry.media === undefined ? entry.value : asBuffer(entry.value);
  if (!entry.key.includes(HASHED)) {
    return { value };
  }
  return "base64" in value ? { key: value.key, value: asBuffer(fromBase64(value.base64)) } : value;
}

/** Keyv's values are Buffers where the runtime has them. */
function asBuffer(bytes: Uint8Array): Uint8Array {
  const { Buffer: buffers } = globalThis as { Buffer?: { from(content: ArrayBufferLike): Uint8Array } };
  return buffers === undefined ? bytes : buffers.from(bytes.slice().buffer);
}

/** A time to live in the range of the service. Keyv itself does not return a value that has expired. */
function seconds(ttl: number | undefined): number | undefined {
  if (ttl === undefined || ttl === null || ttl <= 0) {
    return undefined;
  }
  return Math.min(Math.max(ttl / 1_000, MIN_TTL_SECONDS), MAX_TTL_SECONDS);
}

async function inParallel<I, R>(items: readonly I[], run: (item: I) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let first = 0; first < items.length; first += PARALLEL_REQUESTS) {
    results.push(...(await Promise.all(items.slice(first, first + PARALLEL_REQUESTS).map(run))));
  }
  return results;
}
