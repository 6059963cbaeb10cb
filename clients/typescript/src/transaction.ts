/** A transaction: its checks and operations are gathered, and sent by `commit`. */

import { type Bytes, isBytes, type Json, toBase64 } from "./json.js";
import type { Request, Response } from "./protocol/messages.js";
import { type Done, readDone, transaction } from "./protocol/transactions.js";
import type { Entry } from "./records.js";

export interface OperationOptions {
  /** Seconds; `"keep"` keeps the expiry that the entry has. */
  readonly ttl?: number | "keep" | undefined;
}

export interface PartOperationOptions extends OperationOptions {
  /** A JSON Pointer. */
  readonly path?: string | undefined;
}

/** One of these: `revision` (null: there is no entry), `exists`, or `value`, with `path` for a part. */
export type Check =
  | { readonly revision: number | Entry | null }
  | { readonly exists: boolean }
  | { readonly value: Json; readonly path?: string };

type Write = (request: Request, options: { readonly signal?: AbortSignal | undefined }) => Promise<Response>;

/**
 * Several checks and operations, in this order. The service does all of them, or nothing. Each key may be written once.
 *
 *     const { results } = await db.transaction().check("a", { revision: null }).put("a", 1).get("b").commit();
 */
export class Transaction {
  private readonly checks: Json[] = [];
  private readonly operations: Json[] = [];

  constructor(
    private readonly write: Write,
    private readonly isGuarded: boolean,
    private readonly leaseId: string | undefined,
  ) {}

  check(key: string, check: Check): this {
    if (!("revision" in check || "exists" in check || "value" in check)) {
      throw new TypeError("a check needs revision, exists or value");
    }
    const expected: Record<string, Json> = { key, ...check };
    if ("revision" in check && typeof check.revision === "object") {
      expected["revision"] = check.revision?.revision ?? null;
    }
    this.checks.push(expected);
    return this;
  }

  /** The lease must be alive. `lease.transaction()` does this for its own lease. */
  checkLease(leaseId: string): this {
    this.checks.push({ lease: leaseId });
    return this;
  }

  put(key: string, value: Json | Bytes, options: PartOperationOptions & { readonly media?: string } = {}): this {
    const { media, ...others } = options;
    if (isBytes(value)) {
      return this.add("put", key, { base64: toBase64(value), media: media ?? "application/octet-stream", ...others });
    }
    return this.add("put", key, { value, ...others });
  }

  /** A merge patch (RFC 7396). */
  merge(key: string, value: Json, options: OperationOptions = {}): this {
    return this.add("merge", key, { value, ...options });
  }

  /** A JSON patch (RFC 6902). */
  patch(key: string, operations: readonly Json[], options: OperationOptions = {}): this {
    return this.add("patch", key, { patch: operations, ...options });
  }

  increment(key: string, by: number | bigint = 1, options: PartOperationOptions = {}): this {
    return this.add("increment", key, { value: by, ...options });
  }

  delete(key: string, options: { readonly path?: string | undefined } = {}): this {
    return this.add("delete", key, { ...options });
  }

  /** Its result is the entry as the transaction sees it, or null. */
  get(key: string): this {
    return this.add("get", key, {});
  }

  /**
   * Send it. PreconditionFailed (with `failed`) if a check does not hold; the error of an operation that is refused has
   * its number as `details.index`.
   */
  async commit(options: { readonly signal?: AbortSignal | undefined } = {}): Promise<Done> {
    const request = transaction(this.checks, this.operations, this.leaseId);
    return readDone(await this.write(request, options), this.isGuarded);
  }

  private add(op: string, key: string, members: Record<string, Json>): this {
    this.operations.push({ op, key, ...members });
    return this;
  }
}
