/** Namespaces: where one is in the address, and the requests that create, list and delete them. */

import { InvalidArgument } from "../errors.js";
import { encode, type Json } from "../json.js";
import type { NamespaceInfo } from "../records.js";
import { DELETION_SECONDS } from "./entries.js";
import { change, get, optionalTime, readBody, type Request, required, type Response, target } from "./messages.js";

/** It always exists, and has addresses without a namespace, too. */
export const DEFAULT = "default";

/** What precedes a target in this namespace. Throws InvalidArgument for a name that no namespace can have. */
export function path(name: string): string {
  return name === DEFAULT ? "" : address(name);
}

function address(name: string): string {
  if (!/^[a-z0-9-]{1,63}$/.test(name)) {
    const shown = JSON.stringify(name);
    throw new InvalidArgument(`a namespace has 1 to 63 of the characters a to z, 0 to 9 and -, so not ${shown}`);
  }
  return `/ns/${name}`;
}

export interface Quotas {
  readonly maxEntries?: number | null | undefined;
  readonly maxBytes?: number | null | undefined;
}

/**
 * Create it, or change its quotas. What is undefined is not sent, and stays as it is.
 *
 * As for a deletion, the service takes no idempotency key: a repetition makes no difference.
 */
export function create(name: string, { maxEntries, maxBytes }: Quotas): Request {
  const isGiven = maxEntries !== undefined || maxBytes !== undefined;
  const content = isGiven ? encode({ max_entries: maxEntries, max_bytes: maxBytes }) : undefined;
  return { ...change("PUT", address(name), content), isChange: false };
}

export function info(name: string): Request {
  return get(address(name));
}

export function remove(name: string): Request {
  return { ...change("DELETE", address(name)), isChange: false, workSeconds: DELETION_SECONDS };
}

export function page(after: string | undefined, limit: number): Request {
  return get(target("/ns", [["limit", String(limit)], ...(after === undefined ? [] : [["after", after] as const])]));
}

// Responses -----------------------------------------------------------------------------------------------------------

export function readNamespace(response: Response): NamespaceInfo {
  return readBody(response, namespaceFrom);
}

export function readPage(response: Response): { namespaces: NamespaceInfo[]; next: string | undefined } {
  return readBody(response, (body) => ({
    namespaces: body.namespaces.map((each: Json) => namespaceFrom(each)),
    next: body.next ?? undefined,
  }));
}

function namespaceFrom(body: Json): NamespaceInfo {
  return Object.freeze({
    name: required<string>(body.namespace, "namespace"),
    revision: required<number>(body.revision, "revision"),
    entries: required<number>(body.entries, "entries"),
    bytes: required<number>(body.bytes, "bytes"),
    maxEntries: body.max_entries ?? undefined,
    maxBytes: body.max_bytes ?? undefined,
    createdAt: optionalTime(body.created_at),
  });
}
