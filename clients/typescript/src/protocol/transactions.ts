/** The checks and operations of a transaction, and its results. */

import { encode, type Json } from "../json.js";
import type { Deletion, Entry } from "../records.js";
import { deletionFrom, entryFrom } from "./entries.js";
import { change, readBody, type Request, required, type Response, target } from "./messages.js";

/**
 * An entry without its value (`increment` has the sum, and `get` the value), a deletion, or null for a missing entry.
 */
export type Result = Entry | Deletion | null;

export interface Done {
  /** Of all changes. */
  readonly revision: number;
  /** One for each operation. */
  readonly results: readonly Result[];
}

export function transaction(
  checks: readonly Json[],
  operations: readonly Json[],
  leaseId: string | undefined,
): Request {
  const headers: [string, string][] = leaseId === undefined ? [] : [["If-Lease", leaseId]];
  return change("POST", target("/txn", [["base64", ""]]), encode({ if: checks, do: operations }), { headers });
}

export function readDone(response: Response, isGuarded: boolean): Done {
  return readBody(response, (body, hasBigint) => ({
    revision: required<number>(body.revision, "revision"),
    results: body.results.map((each: Json) => resultFrom(each, isGuarded && hasBigint)),
  }));
}

function resultFrom(body: Json, isGuarded: boolean): Result {
  if (body.deleted) {
    return deletionFrom(body);
  }
  return body.revision === null ? null : entryFrom(body, isGuarded);
}
