/**
 * A driver for unstorage:
 *
 *     const storage = createStorage({ driver: leaseholdDriver({ client: new Client() }) });
 *
 * The key `a:b` is the entry `unstorage/a/b`. Objects and arrays are stored as JSON, so that other clients can read and
 * change them; all other values as the texts that unstorage makes of them; and raw bytes as bytes.
 *
 * `watch` calls back for changes of all clients, and also after a lost connection for each key that has changed.
 */

import { NotFound } from "./errors.js";
import { decode, isBytes, type Json } from "./json.js";
import { chunks, escapedSegment, unescapedSegment } from "./names.js";
import type { Namespace } from "./namespace.js";
import type { Entry } from "./records.js";

export interface LeaseholdDriverOptions {
  readonly client: Namespace;
  /** All entries of the driver have keys that begin with this. `unstorage/` by default. */
  readonly prefix?: string;
  /** Seconds after which each entry expires. The option `ttl` of a call replaces it. */
  readonly ttl?: number;
  /** Gets the error that ends a watch. By default `console.error`. */
  readonly onError?: (error: unknown) => void;
}

type WatchEvent = "update" | "remove";
type Options = { readonly ttl?: number } | undefined;

export interface LeaseholdDriver {
  readonly name: "leasehold";
  readonly flags: { readonly ttl: true };
  readonly options: LeaseholdDriverOptions;
  getInstance(): Namespace;
  hasItem(key: string): Promise<boolean>;
  getItem(key: string): Promise<Json>;
  getItems(items: readonly { key: string }[]): Promise<{ key: string; value: Json }[]>;
  getItemRaw(key: string): Promise<Json>;
  setItem(key: string, value: string, options?: Options): Promise<void>;
  setItemRaw(key: string, value: unknown, options?: Options): Promise<void>;
  removeItem(key: string): Promise<void>;
  getMeta(key: string): Promise<{ mtime?: Date; ttl?: number } | null>;
  getKeys(base?: string): Promise<string[]>;
  clear(base?: string): Promise<void>;
  watch(callback: (event: WatchEvent, key: string) => unknown): Promise<() => Promise<void>>;
}

export function leaseholdDriver(options: LeaseholdDriverOptions): LeaseholdDriver {
  const { client, prefix = "unstorage/", onError = (error: unknown): void => console.error(error) } = options;
  if (prefix === "") {
    throw new TypeError("the prefix must not be empty, because clear() deletes everything that begins with it");
  }
  const nameOf = (key: string): string => prefix + key.split(":").map(escapedSegment).join("/");
  const keyOf = (name: string): string => name.slice(prefix.length).split("/").map(unescapedSegment).join(":");
  /** `base` ends with a colon, or is empty. */
  const prefixOf = (base: string | undefined): string => prefix + (base ?? "").split(":").map(escapedSegment).join("/");
  const read = (key: string): Promise<Entry | undefined> => client.get(nameOf(key), { default: undefined });
  const ttlOf = (call: Options): number | undefined => call?.ttl ?? options.ttl;

  return {
    name: "leasehold",
    flags: { ttl: true },
    options,
    getInstance: () => client,

    async hasItem(key) {
      return (await read(key)) !== undefined;
    },

    async getItem(key) {
      return itemOf(await read(key));
    },

    async getItems(items) {
      const found = new Map<string, Entry>();
      for (const chunk of chunks(items.map((item) => nameOf(item.key)))) {
        for (const entry of await client.getMany(chunk)) {
          found.set(entry.key, entry);
        }
      }
      return items.map(({ key }) => ({ key, value: itemOf(found.get(nameOf(key))) }));
    },

    async getItemRaw(key) {
      return (await read(key))?.value ?? null;
    },

    async setItem(key, value, call) {
      await client.put(nameOf(key), valueOf(value), { ttl: ttlOf(call) });
    },

    async setItemRaw(key, value, call) {
      await client.put(nameOf(key), value, { ttl: ttlOf(call) });
    },

    async removeItem(key) {
      try {
        await client.delete(nameOf(key));
      } catch (error) {
        if (!(error instanceof NotFound)) {
          throw error;
        }
      }
    },

    async getMeta(key) {
      const entry = await read(key);
      if (entry === undefined) {
        return null;
      }
      const { updatedAt, expiresAt } = entry;
      return {
        ...(updatedAt === undefined ? {} : { mtime: updatedAt }),
        ...(expiresAt === undefined ? {} : { ttl: Math.max((expiresAt.getTime() - Date.now()) / 1_000, 0) }),
      };
    },

    async getKeys(base) {
      const keys: string[] = [];
      for await (const entry of client.list(prefixOf(base), { values: false })) {
        keys.push(keyOf(entry.key));
      }
      return keys;
    },

    async clear(base) {
      await client.deletePrefix(prefixOf(base));
    },

    watch: (callback) => watchChanges(client, prefix, (event, name) => callback(event, keyOf(name)), onError),
  };
}

/**
 * Resolves when the watch has begun, so that no later change is missed. Returns what ends it.
 *
 * It watches with a snapshot, because the service may forget the changes of a long interruption. A snapshot is compared
 * with what is known, and only differences are reported.
 */
async function watchChanges(
  client: Namespace,
  prefix: string,
  report: (event: WatchEvent, name: string) => unknown,
  onError: (error: unknown) => void,
): Promise<() => Promise<void>> {
  const watch = client.watch(prefix, { snapshot: true, values: false });
  let known = new Map<string, string>();
  /** What was known before a reset, until the snapshot after it is complete. */
  let before: ReadonlyMap<string, string> | undefined;
  let hasBegun = false;
  let begin: () => void = () => {};
  let fail: (error: unknown) => void = onError;
  const beginning = new Promise<void>((resolve, reject) => {
    [begin, fail] = [resolve, reject];
  });

  const run = async (): Promise<void> => {
    for await (const event of watch) {
      switch (event.type) {
        case "put":
          known.set(event.key, versionOf(event.entry));
          if (hasBegun && before?.get(event.key) !== versionOf(event.entry)) {
            report("update", event.key);
          }
          break;
        case "delete":
          if (known.delete(event.key)) {
            report("remove", event.key);
          }
          break;
        case "reset":
          before ??= hasBegun ? known : undefined;
          known = new Map();
          break;
        case "ready":
          for (const name of before?.keys() ?? []) {
            if (!known.has(name)) {
              report("remove", name);
            }
          }
          before = undefined;
          hasBegun = true;
          begin();
          break;
      }
    }
  };
  const running = run().catch((error: unknown) => (hasBegun ? onError : fail)(error));
  await beginning;
  return async () => {
    watch.close();
    await running;
  };
}

/** The time tells apart the entries of two stores, if the service was restored or began anew. */
function versionOf(entry: Entry): string {
  return `${entry.revision} ${entry.updatedAt?.getTime()}`;
}

/** What unstorage gets; it parses texts itself. */
function itemOf(entry: Entry | undefined): Json {
  if (entry === undefined) {
    return null;
  }
  return isBytes(entry.value) ? new TextDecoder().decode(entry.value) : entry.value;
}

/**
 * What is stored for a text of unstorage: the object or the array that it shows. A text that JSON does not keep as it
 * is is stored as a text: one with U+0000, which the service refuses, and one with integers that a number cannot
 * represent.
 */
function valueOf(text: string): Json {
  if (!/^[[{]/.test(text) || text.includes("\\u0000")) {
    return text;
  }
  try {
    const { value, hasBigint } = decode(text);
    return hasBigint ? text : value;
  } catch (error) {
    if (error instanceof SyntaxError) {
      return text;
    }
    throw error;
  }
}
