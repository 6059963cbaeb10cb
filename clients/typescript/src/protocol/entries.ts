/** Reads and writes of entries. */

import { InvalidArgument } from "../errors.js";
import { asUint8Array, type Bytes, encode, fromBase64, isBytes, type Json } from "../json.js";
import { type Deletion, type Entry, withMember } from "../records.js";
import {
  change,
  get,
  JSON_TYPE,
  named,
  number,
  optionalTime,
  type Pairs,
  readBody,
  type Request,
  required,
  type Response,
  target,
} from "./messages.js";

/** Seconds after which an entry expires. `keep`: it keeps the expiry that it has. Undefined: it does not expire. */
export type Ttl = number | "keep" | undefined;
/** An entry, a revision, or an ETag. */
export type Match = Entry | number | string;

export const NOT_MODIFIED = 304;
/** As long as the deletion of millions of entries takes; the service responds at its end. */
export const DELETION_SECONDS = 600;

export interface Conditions {
  readonly ifMatch?: Match | undefined;
  readonly ifAbsent?: boolean | undefined;
  readonly leaseId?: string | undefined;
}

function etagOf(match: Match): string {
  if (typeof match === "object") {
    return match.etag;
  }
  return typeof match === "number" ? `"${match}"` : match;
}

function conditions({ ifMatch, ifAbsent, leaseId }: Conditions): Pairs {
  const headers: [string, string][] = [];
  if (ifMatch !== undefined) {
    headers.push(["If-Match", etagOf(ifMatch)]);
  }
  if (ifAbsent === true) {
    headers.push(["If-None-Match", "*"]);
  }
  if (leaseId !== undefined) {
    headers.push(["If-Lease", leaseId]);
  }
  return headers;
}

function options(path: string | undefined, ttl: Ttl): [string, string][] {
  const parameters: [string, string][] = [];
  if (path !== undefined) {
    parameters.push(["path", path]);
  }
  if (ttl !== undefined) {
    parameters.push(["ttl", ttl === "keep" ? ttl : number(ttl)]);
  }
  return parameters;
}

// Reads ---------------------------------------------------------------------------------------------------------------

export interface GetRequest {
  readonly path?: string | undefined;
  readonly waitSeconds?: number;
  readonly known?: Entry | undefined;
  readonly withBytes?: boolean;
}

/**
 * Without options it is the plain request that the service answers fastest. So bytes are not asked for at first: if the
 * entry has `media` and no value, ask again `withBytes`.
 */
export function getEntry(key: string, { path, waitSeconds = 0, known, withBytes = false }: GetRequest = {}): Request {
  const parameters = options(path, undefined);
  if (waitSeconds > 0) {
    parameters.push(["wait", number(waitSeconds)]);
  }
  if (withBytes) {
    parameters.push(["base64", ""]);
  }
  const headers: [string, string][] = [["Accept", JSON_TYPE]];
  if (known !== undefined) {
    headers.push(["If-None-Match", known.etag]);
  }
  return get(target(named("/kv", key), parameters), headers, waitSeconds);
}

export function getMany(keys: readonly string[]): Request {
  return get(target("/kv", [...keys.map((key) => ["key", key] as const), ["base64", ""]]));
}

export interface PageRequest {
  readonly prefix: string;
  readonly after: string | undefined;
  readonly limit: number;
  readonly reverse?: boolean | undefined;
  readonly values?: boolean | undefined;
  readonly path?: string | undefined;
}

export function page({ prefix, after, limit, reverse = false, values = true, path }: PageRequest): Request {
  const parameters: [string, string][] = [["limit", String(limit)], ...range(prefix, after)];
  if (reverse) {
    parameters.push(["reverse", ""]);
  }
  if (path !== undefined) {
    parameters.push(["path", path]);
  } else {
    parameters.push(values ? ["base64", ""] : ["values", "false"]);
  }
  return get(target("/kv", parameters));
}

/** The parameters of a list: its prefix, and the name after which it begins. */
export function range(prefix: string, after: string | undefined): [string, string][] {
  const parameters: [string, string][] = prefix === "" ? [] : [["prefix", prefix]];
  return after === undefined ? parameters : [...parameters, ["after", after]];
}

export interface Page {
  readonly entries: readonly Entry[];
  readonly next: string | undefined;
}

export function readPage(response: Response, isGuarded: boolean): Page {
  return readBody(response, (body, hasBigint) => ({
    entries: body.entries.map((each: Json) => entryFrom(each, isGuarded && hasBigint)),
    next: body.next ?? undefined,
  }));
}

export function count(prefix: string, after: string | undefined): Request {
  return get(target("/kv", [["count", ""], ...range(prefix, after)]));
}

/** One request counts a limited number of entries; `next` says where the next one goes on. */
export function readCount(response: Response): { count: number; next: string | undefined } {
  return readBody(response, (body) => ({ count: required(body.count, "count"), next: body.next ?? undefined }));
}

// Writes --------------------------------------------------------------------------------------------------------------

export interface WriteRequest extends Conditions {
  readonly path?: string | undefined;
  readonly ttl?: Ttl;
}

export function put(key: string, value: Json, write: WriteRequest & { media?: string | undefined }): Request {
  const address = target(named("/kv", key), options(write.path, write.ttl));
  const headers = conditions(write);
  if (isBytes(value)) {
    // A copy, because a caller may reuse the memory while the request is repeated.
    const content = asUint8Array(value).slice();
    return change("POST", address, content, { kind: write.media ?? "application/octet-stream", headers });
  }
  if (write.media !== undefined) {
    throw new InvalidArgument("media is for values that are bytes");
  }
  return change("POST", address, encode(value), { headers });
}

export function increment(key: string, by: number | bigint, write: WriteRequest): Request {
  const address = target(named("/kv", key), [["increment", ""], ...options(write.path, write.ttl)]);
  return change("POST", address, encode(by), { headers: conditions(write) });
}

export function merge(key: string, value: Json, write: WriteRequest): Request {
  const address = target(named("/kv", key), options(undefined, write.ttl));
  return change("PATCH", address, encode(value), {
    kind: "application/merge-patch+json",
    headers: conditions(write),
  });
}

export function patch(key: string, operations: readonly Json[], write: WriteRequest): Request {
  const address = target(named("/kv", key), options(undefined, write.ttl));
  return change("PATCH", address, encode(operations), {
    kind: "application/json-patch+json",
    headers: conditions(write),
  });
}

export function deleteEntry(key: string, write: WriteRequest): Request {
  const address = target(named("/kv", key), options(write.path, undefined));
  return change("DELETE", address, undefined, { headers: conditions(write) });
}

export function deletePrefix(prefix: string, write: Conditions): Request {
  const request = change("DELETE", target("/kv", [["prefix", prefix]]), undefined, { headers: conditions(write) });
  return { ...request, workSeconds: DELETION_SECONDS };
}

// Responses -----------------------------------------------------------------------------------------------------------

/** `content`: the value that was written, if the response does not repeat it because it is bytes. */
export function readEntry(response: Response, isGuarded: boolean, content?: Bytes): Entry {
  const etag = response.headers.get("etag") ?? undefined;
  return readBody(response, (body, hasBigint) => entryFrom(body, isGuarded && hasBigint, etag, content));
}

export function readDeletion(response: Response): Deletion {
  return readBody(response, deletionFrom);
}

export function readDeletedCount(response: Response): number {
  return readBody(response, (body) => required<number>(body.deleted, "deleted"));
}

/** Whether the entry was read without its value, because this is bytes. */
export function needsBytes(entry: Entry): boolean {
  return entry.media !== undefined && entry.value === undefined;
}

export function entryFrom(body: Json, isGuarded: boolean, etag?: string, content?: Bytes): Entry {
  const revision = required<number>(body.revision, "revision");
  const media: string | undefined = body.media ?? undefined;
  let value: Json = body.value;
  if (media !== undefined) {
    value = content === undefined ? bytesFrom(value) : asUint8Array(content);
  }
  return withMember(
    {
      key: required<string>(body.key, "key"),
      revision,
      etag: etag ?? `"${revision}"`,
      createdAt: optionalTime(body.created_at),
      updatedAt: optionalTime(body.updated_at),
      expiresAt: optionalTime(body.expires_at),
      path: body.path ?? undefined,
      media,
    },
    "value",
    value,
    isGuarded,
  );
}

export function deletionFrom(body: Json): Deletion {
  return Object.freeze({
    key: required<string>(body.key, "key"),
    revision: required<number>(body.revision, "revision"),
    path: body.path ?? undefined,
  });
}

function bytesFrom(base64: string | undefined | null): Uint8Array | undefined {
  return typeof base64 === "string" ? fromBase64(base64) : undefined;
}
