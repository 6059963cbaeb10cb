/** What users import. */

export { Client } from "./client.js";
export type { ClientOptions, QuotaOptions } from "./client.js";
export * from "./errors.js";
export type { Bytes, Json } from "./json.js";
export type { Lease } from "./lease.js";
export type { GetOptions, ListOptions, LockOptions, Namespace, WatchOptions } from "./namespace.js";
export type { Match, Ttl } from "./protocol/entries.js";
export type { Done, Result } from "./protocol/transactions.js";
export type {
  Deletion,
  Entry,
  EntryDeleted,
  EntryPut,
  Event,
  Holder,
  LockChanged,
  NamespaceInfo,
  Ready,
  Reset,
} from "./records.js";
export type { TokenSource } from "./tokens.js";
export type { Check, Transaction } from "./transaction.js";
export type { Watch } from "./watch.js";
export type { CallOptions, PartOptions, PutOptions, UpdateOptions, WriteOptions, Writes } from "./writes.js";
