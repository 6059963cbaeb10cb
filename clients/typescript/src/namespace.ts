/** The entries and locks of one namespace: all reads, watches and locks. A client is this, too. */

import { NotFound } from "./errors.js";
import type { Json } from "./json.js";
import { acquire, type Lease } from "./lease.js";
import * as entries from "./protocol/entries.js";
import * as locks from "./protocol/locks.js";
import type { Entry, Holder } from "./records.js";
import { runtime } from "./runtime.js";
import { Watch } from "./watch.js";
import { type CallOptions, Writes } from "./writes.js";

const MAX_WAIT_SECONDS = 60;
const PAGE_ENTRIES = 1_000;

export interface GetOptions extends CallOptions {
  /** A JSON Pointer. */
  readonly path?: string;
  /** Seconds to wait; Infinity waits for ever. */
  readonly wait?: number;
  /** Wait while the entry is still this one. If it does not change, this very object is returned. */
  readonly changedFrom?: Entry;
}

export interface ListOptions extends CallOptions {
  /** Only keys greater than this one, or with `reverse` less than it. */
  readonly after?: string;
  readonly reverse?: boolean;
  /** False leaves out the values. */
  readonly values?: boolean;
  /** Only this part of each value, and only entries that have it. */
  readonly path?: string;
  readonly pageEntries?: number;
}

export interface WatchOptions {
  /** First all entries. */
  readonly snapshot?: boolean;
  /** First what has changed after this revision (`Watch.cursor`). */
  readonly since?: number;
  /** Also changes of locks. */
  readonly locks?: boolean;
  /** False leaves out the values. */
  readonly values?: boolean;
  readonly heartbeatSeconds?: number;
  /** How long it tries to connect again; by default as long as it takes. */
  readonly reconnectSeconds?: number;
  /** Ends the watch with the reason of the signal. */
  readonly signal?: AbortSignal;
}

export interface LockOptions {
  /** Seconds; 30 by default. */
  readonly ttl?: number;
  /** Seconds to wait until the lock is free; 5 by default, Infinity waits for ever. */
  readonly wait?: number;
  /** What other clients see of the holder. */
  readonly owner?: Json;
  /** Seconds between renewals; by default a third of the ttl. */
  readonly renewEvery?: number;
  /** Ends the wait. It does not end a lease that was acquired. */
  readonly signal?: AbortSignal;
}

/**
 * One namespace of a service: `Client.namespace`. It uses the options of its client.
 *
 * NoSuchNamespace if there is none with this name, Forbidden if the token may not use it.
 */
export class Namespace extends Writes {
  // Reads ------------------------------------------------------------------------------------------------------------

  /**
   * Read an entry, or the part of it at `path`.
   *
   * `wait`: seconds to wait while there is no such entry or part, or with `changedFrom` while the entry is still this
   * one. `default` is returned if there is no entry or part; without it, NotFound.
   */
  async get<T = Json>(key: string, options?: GetOptions): Promise<Entry<T>>;
  async get<T = Json, D = undefined>(key: string, options: GetOptions & { readonly default: D }): Promise<Entry<T> | D>;
  async get(key: string, options: GetOptions & { readonly default?: unknown } = {}): Promise<unknown> {
    const { path, wait = 0, changedFrom, signal } = options;
    const giveUpAt = runtime.clock() + wait;
    for (;;) {
      const waitSeconds = Math.min(Math.max(giveUpAt - runtime.clock(), 0), MAX_WAIT_SECONDS);
      try {
        const request = entries.getEntry(key, { path, waitSeconds, known: changedFrom });
        const response = await this.sender.send(request, { signal });
        if (response.status !== entries.NOT_MODIFIED) {
          const entry = entries.readEntry(response, this.sender.isGuarded);
          return entries.needsBytes(entry) ? await this.getBytes(key, signal) : entry;
        }
      } catch (error) {
        if (!(error instanceof NotFound)) {
          throw error;
        }
        if (runtime.clock() >= giveUpAt) {
          if ("default" in options) {
            return options.default;
          }
          throw error;
        }
        continue;
      }
      if (runtime.clock() >= giveUpAt) {
        return changedFrom;
      }
    }
  }

  private async getBytes(key: string, signal: AbortSignal | undefined): Promise<Entry> {
    const response = await this.sender.send(entries.getEntry(key, { withBytes: true }), { signal });
    return entries.readEntry(response, this.sender.isGuarded);
  }

  /** Up to 128 entries of one moment, in this order, without the missing ones. */
  async getMany<T = Json>(keys: readonly string[], options: CallOptions = {}): Promise<readonly Entry<T>[]> {
    if (keys.length === 0) {
      return [];
    }
    return entries.readPage(await this.sender.send(entries.getMany(keys), options), this.sender.isGuarded).entries;
  }

  /**
   * All entries whose keys begin with `prefix`, in the order of their keys, read in pages while you iterate.
   *
   * An entry that nobody changes meanwhile comes once; others may be there or not.
   */
  async *list<T = Json>(prefix = "", options: ListOptions = {}): AsyncGenerator<Entry<T>, void, undefined> {
    const { pageEntries = PAGE_ENTRIES, reverse, values, path, signal } = options;
    let after = options.after;
    do {
      const request = entries.page({ prefix, after, limit: pageEntries, reverse, values, path });
      const page = entries.readPage(await this.sender.send(request, { signal }), this.sender.isGuarded);
      yield* page.entries;
      after = page.next;
    } while (after !== undefined);
  }

  /** How many entries have keys that begin with `prefix`. */
  async count(prefix = "", options: CallOptions = {}): Promise<number> {
    let total = 0;
    let after: string | undefined;
    do {
      const counted = entries.readCount(await this.sender.send(entries.count(prefix, after), options));
      total += counted.count;
      after = counted.next;
    } while (after !== undefined);
    return total;
  }

  /**
   * Changes of entries whose keys begin with this prefix, or with one of these, and with `locks` of locks: see Watch.
   */
  watch<T = Json>(prefix: string | readonly string[] = [], options: WatchOptions = {}): Watch<T> {
    const { snapshot = false, locks: withLocks = false, values = true, heartbeatSeconds = 15 } = options;
    const prefixes = typeof prefix === "string" ? [prefix] : prefix;
    return new Watch(this.sender, {
      interest: { prefixes, snapshot, locks: withLocks, values, heartbeatSeconds },
      since: options.since,
      reconnectSeconds: options.reconnectSeconds ?? Infinity,
      signal: options.signal,
    });
  }

  // Locks ------------------------------------------------------------------------------------------------------------

  /**
   * Acquire a lock, and renew its lease until it is released. Throws LockHeld if it is not free within `wait` seconds.
   *
   *     await using lease = await db.lock("jobs/nightly");
   */
  lock(name: string, options: LockOptions = {}): Promise<Lease> {
    const { ttl = 30, wait = 5, owner = null, renewEvery, signal } = options;
    return acquire(this.sender, name, { ttl, wait, owner, renewEvery, signal });
  }

  /**
   * Call a function while this client holds the lock, and return its result.
   *
   * If the lease is lost, `lease.signal` is aborted, and LeaseLost is thrown at the end, unless the function throws an
   * error of its own.
   */
  async withLock<R>(name: string, body: (lease: Lease) => R | Promise<R>, options: LockOptions = {}): Promise<R> {
    const lease = await this.lock(name, options);
    let result: R;
    try {
      result = await body(lease);
    } catch (error) {
      await lease.end();
      throw error;
    }
    const loss = await lease.end();
    if (loss !== undefined) {
      throw loss;
    }
    return result;
  }

  /** Writes that are refused unless this lease, which another program renews, is alive. */
  fenced(leaseId: string): Writes {
    return new Writes(this.sender, leaseId);
  }

  /** Who holds a lock; null if nobody does. */
  async holder(name: string, options: CallOptions = {}): Promise<Holder | null> {
    try {
      return locks.readHolder(await this.sender.send(locks.holder(name), options), this.sender.isGuarded);
    } catch (error) {
      if (error instanceof NotFound) {
        return null;
      }
      throw error;
    }
  }

  /** All leases that are alive on locks whose names begin with `prefix`. */
  async *holders(
    prefix = "",
    options: CallOptions & { readonly pageLocks?: number } = {},
  ): AsyncGenerator<Holder, void, undefined> {
    let after: string | undefined;
    do {
      const request = locks.page(prefix, after, options.pageLocks ?? PAGE_ENTRIES);
      const page = locks.readPage(await this.sender.send(request, options), this.sender.isGuarded);
      yield* page.holders;
      after = page.next;
    } while (after !== undefined);
  }

  /**
   * End the lease on a lock: your own one with this fencing `token`, or with `force` that of anyone.
   *
   * LockNotFound if no lease is alive, LeaseLost if another one is.
   */
  async unlock(name: string, which: { readonly token: number } | { readonly force: true }): Promise<void> {
    const request = "token" in which ? locks.releaseByToken(name, which.token) : locks.forceRelease(name);
    await this.sender.send(request);
  }
}
