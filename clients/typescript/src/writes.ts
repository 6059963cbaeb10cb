/** The writes of entries, and transactions. A client and a lease have the same ones; those of a lease are fenced. */

import { LeaseLost, NotFound, PreconditionFailed } from "./errors.js";
import { type Bytes, isBytes, type Json } from "./json.js";
import * as entries from "./protocol/entries.js";
import type { Match, Ttl } from "./protocol/entries.js";
import type { Request, Response } from "./protocol/messages.js";
import { backoff } from "./protocol/retrying.js";
import type { Deletion, Entry } from "./records.js";
import { runtime } from "./runtime.js";
import type { Sender } from "./sender.js";
import { Transaction } from "./transaction.js";

export interface CallOptions {
  /** Ends the call, which then throws the reason of the signal. A change may have been made all the same. */
  readonly signal?: AbortSignal | undefined;
}

export interface WriteOptions extends CallOptions {
  /** Seconds; `"keep"` keeps the expiry that the entry has. */
  readonly ttl?: number | "keep" | undefined;
  /** An entry, a revision or an ETag. It is checked in the commit; PreconditionFailed if it does not hold. */
  readonly ifMatch?: Match | undefined;
}

export interface PartOptions extends WriteOptions {
  /** A JSON Pointer. */
  readonly path?: string | undefined;
}

export interface PutOptions extends PartOptions {
  /** PreconditionFailed if there is an entry. */
  readonly ifAbsent?: boolean | undefined;
  /** The media type of a value that is bytes. */
  readonly media?: string | undefined;
}

export interface UpdateOptions<T> extends CallOptions {
  readonly path?: string | undefined;
  readonly ttl?: Ttl;
  /** The value if there is no entry; without it, NotFound. */
  readonly default?: T;
  readonly retrySeconds?: number;
}

/** All writes throw LeaseholdError; each is done once, however often it had to be sent. */
export class Writes {
  /** What fences the writes. */
  readonly leaseId: string | undefined;

  constructor(
    protected readonly sender: Sender,
    leaseId?: string,
  ) {
    this.leaseId = leaseId;
  }

  /**
   * Store a value, or the part of it at `path` (a JSON Pointer; `/list/-` appends).
   *
   * Without `ttl` the entry does not expire. Bytes are stored with the media type `media`.
   */
  async put<T = Json>(key: string, value: T, options: PutOptions = {}): Promise<Entry<T>> {
    const request = entries.put(key, value, this.withFence(options));
    const response = await this.write(request, options);
    const content: Bytes | undefined = isBytes(value) ? value : undefined;
    return entries.readEntry(response, this.sender.isGuarded, content);
  }

  /**
   * Add a number to the value, or to the part at `path`, in the commit. A missing one counts as 0.
   *
   * The value of the result is the sum. The expiry is kept, unless `ttl` is given.
   */
  async increment(key: string, by: number | bigint = 1, options: PartOptions = {}): Promise<Entry<number>> {
    const request = entries.increment(key, by, this.keeping(options));
    return entries.readEntry(await this.write(request, options), this.sender.isGuarded);
  }

  /** Apply a merge patch (RFC 7396): null removes a member. NotFound if there is no entry. */
  async merge<T = Json>(key: string, value: Json, options: WriteOptions = {}): Promise<Entry<T>> {
    const request = entries.merge(key, value, this.keeping(options));
    return entries.readEntry(await this.write(request, options), this.sender.isGuarded);
  }

  /** Apply a JSON patch (RFC 6902), all of it or nothing (PatchFailed). NotFound if there is no entry. */
  async patch<T = Json>(key: string, operations: readonly Json[], options: WriteOptions = {}): Promise<Entry<T>> {
    const request = entries.patch(key, operations, this.keeping(options));
    return entries.readEntry(await this.write(request, options), this.sender.isGuarded);
  }

  /** Delete an entry, or the part of it at `path`. NotFound if it does not exist. */
  async delete(key: string, options: Omit<PartOptions, "ttl"> = {}): Promise<Deletion> {
    return entries.readDeletion(await this.write(entries.deleteEntry(key, this.withFence(options)), options));
  }

  /** Delete all entries whose keys begin with `prefix`, in steps. Returns how many. */
  async deletePrefix(prefix: string, options: CallOptions = {}): Promise<number> {
    const request = entries.deletePrefix(prefix, this.withFence({}));
    return entries.readDeletedCount(await this.write(request, options));
  }

  /**
   * Replace a value by what `change` makes of it; no concurrent change is lost.
   *
   * Reads the entry, and writes only if nobody wrote in between; otherwise it begins again, after a short random pause.
   * So `change` may be called several times. PreconditionFailed if others were always faster for `retrySeconds` (60).
   */
  async update<T = Json>(
    key: string,
    change: (value: T) => T | Promise<T>,
    options: UpdateOptions<T> = {},
  ): Promise<Entry<T>> {
    const { path, ttl = "keep", retrySeconds = 60, signal } = options;
    const isOptional = "default" in options;
    if (path !== undefined && isOptional) {
      throw new TypeError("a part has no default; give the default of the whole value, or use increment");
    }
    const retryUntil = runtime.clock() + retrySeconds;
    for (let attempts = 1; ; attempts += 1) {
      const found = await this.readForUpdate(key, path, isOptional, signal);
      const value = await change(found === undefined ? (options.default as T) : found.value);
      const media = isBytes(value) ? found?.media : undefined;
      try {
        return await this.put(key, value, { ttl, path, ifMatch: found, ifAbsent: found === undefined, media, signal });
      } catch (error) {
        if (!(error instanceof PreconditionFailed || error instanceof NotFound) || runtime.clock() >= retryUntil) {
          throw error;
        }
      }
      await runtime.sleep(runtime.chance() * backoff(attempts, 1), signal);
    }
  }

  private async readForUpdate(
    key: string,
    path: string | undefined,
    isOptional: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Entry | undefined> {
    try {
      const response = await this.sender.send(entries.getEntry(key, { path, withBytes: true }), { signal });
      return entries.readEntry(response, this.sender.isGuarded);
    } catch (error) {
      if (isOptional && error instanceof NotFound) {
        return undefined;
      }
      throw error;
    }
  }

  /** Several checks and operations, all or nothing, sent by `commit`. */
  transaction(): Transaction {
    return new Transaction((request, options) => this.write(request, options), this.sender.isGuarded, this.leaseId);
  }

  /** Throws LeaseLost if the lease is known to be over. Without a lease there is nothing to check. */
  protected checkFence(): void {}

  /** The service has said that the lease is not alive. */
  protected fenceLost(_error: LeaseLost): void {}

  private withFence<O extends object>(options: O): O & { leaseId: string | undefined } {
    return { ...options, leaseId: this.leaseId };
  }

  private keeping<O extends WriteOptions>(options: O): O & { leaseId: string | undefined } {
    return { ttl: "keep", ...withoutUndefined(options), leaseId: this.leaseId };
  }

  private async write(request: Request, { signal }: CallOptions): Promise<Response> {
    this.checkFence();
    try {
      return await this.sender.send(request, { signal });
    } catch (error) {
      if (error instanceof LeaseLost) {
        this.fenceLost(error);
      }
      throw error;
    }
  }
}

/** So that `ttl: undefined` means the same as no `ttl`. */
function withoutUndefined<O extends object>(options: O): O {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as O;
}
