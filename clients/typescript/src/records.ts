/** What the service returns, as frozen data. */

import { UnsafeInteger } from "./errors.js";
import { containsBigint, type Json } from "./json.js";

/** An entry, or the part of it at `path`. */
export interface Entry<T = Json> {
  readonly key: string;
  /**
   * A Uint8Array if `media` is set. Undefined if it was not asked for, in the results of a transaction, in the events
   * of a watch if it is bytes, and if the token may not read.
   *
   * Without `bigint: true`, reading it throws UnsafeInteger if it contains an integer beyond ±(2^53 - 1).
   */
  readonly value: T;
  readonly revision: number;
  /**
   * What `ifMatch` sends. It protects against a restored store, too, unless the entry comes from a list, a transaction
   * or a watch.
   */
  readonly etag: string;
  readonly createdAt: Date | undefined;
  readonly updatedAt: Date | undefined;
  readonly expiresAt: Date | undefined;
  readonly path: string | undefined;
  readonly media: string | undefined;
}

/** What a deletion did; `path` if it removed only this part of the value. */
export interface Deletion {
  readonly key: string;
  readonly revision: number;
  readonly path: string | undefined;
}

/** A lease as the service grants it. `leaseId` is a secret of the holder. */
export interface Grant {
  readonly lock: string;
  readonly leaseId: string;
  readonly token: number;
  readonly owner: Json;
  readonly ttl: number;
}

/** A lease that is alive, as all clients see it. `waiters` is undefined in a list. */
export interface Holder {
  readonly lock: string;
  readonly token: number;
  readonly owner: Json;
  readonly ttl: number;
  readonly acquiredAt: Date;
  readonly expiresAt: Date;
  readonly waiters: number | undefined;
}

/** A namespace: what is in it, and its quotas. `bytes`: of keys and values. */
export interface NamespaceInfo {
  readonly name: string;
  readonly revision: number;
  readonly entries: number;
  readonly bytes: number;
  /** Undefined without a quota. */
  readonly maxEntries: number | undefined;
  readonly maxBytes: number | undefined;
  readonly createdAt: Date | undefined;
}

/** `cursor`: all changes up to this revision were reported; undefined in the middle of a revision. */
export type Event<T = Json> = EntryPut<T> | EntryDeleted | LockChanged | Ready | Reset;

export interface EntryPut<T = Json> {
  readonly type: "put";
  readonly key: string;
  readonly revision: number;
  readonly entry: Entry<T>;
  readonly cursor: number | undefined;
}

export interface EntryDeleted {
  readonly type: "delete";
  readonly key: string;
  readonly revision: number;
  readonly cursor: number | undefined;
}

/** `token`, `owner` and `expiresAt` are those of the lease, or undefined if the lock is free. */
export interface LockChanged {
  readonly type: "lock";
  readonly lock: string;
  readonly revision: number;
  readonly isHeld: boolean;
  readonly token: number | undefined;
  readonly owner: Json;
  readonly expiresAt: Date | undefined;
  readonly cursor: number | undefined;
}

/** The snapshot is complete. Without `snapshot` it is the first event. */
export interface Ready {
  readonly type: "ready";
  readonly revision: number;
  readonly cursor: number | undefined;
}

/** Forget everything: a snapshot follows. */
export interface Reset {
  readonly type: "reset";
  readonly cursor: number | undefined;
}

/**
 * The record with one more member. With `isGuarded`, reading a member that contains a bigint throws UnsafeInteger. So a
 * write whose response has such a value succeeds, and one such entry does not end a list or a watch.
 */
export function withMember<R extends object, N extends string>(
  record: R,
  name: N,
  value: Json,
  isGuarded: boolean,
): R & Record<N, Json> {
  const descriptor =
    isGuarded && containsBigint(value)
      ? {
          enumerable: true,
          get(): never {
            throw new UnsafeInteger(
              `${name} contains an integer beyond ±(2^53 - 1); create the client with { bigint: true } to read it`,
            );
          },
        }
      : { enumerable: true, value };
  return Object.freeze(Object.defineProperty(record, name, descriptor)) as R & Record<N, Json>;
}
