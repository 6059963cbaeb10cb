/**
 * All errors of this package.
 *
 *     LeaseholdError
 *     ├── Unreachable                     no response within the time for retries
 *     ├── UnexpectedResponse              a response that is not one of the service, for example of a proxy
 *     ├── TokenUnavailable                the caller's function could not supply a token
 *     ├── UnsafeInteger                   an integer that a number cannot represent was read, without `bigint: true`
 *     └── ServiceError                    the service refused the request, or failed
 *         ├── BadRequest                  the request is wrong, whatever is stored
 *         │   ├── InvalidArgument         invalid_argument
 *         │   ├── InvalidJson             invalid_json
 *         │   ├── InvalidKey              invalid_key
 *         │   ├── InvalidPath             invalid_path
 *         │   ├── InvalidRequest          invalid_request
 *         │   ├── IdempotencyKeyReused    idempotency_key_reused
 *         │   ├── MethodNotAllowed        method_not_allowed
 *         │   ├── NoSuchNamespace         no_such_namespace
 *         │   ├── NoSuchRoute             no_such_route
 *         │   ├── NotAcceptable           not_acceptable
 *         │   ├── PreconditionRequired    precondition_required
 *         │   ├── RangeNotSatisfiable     range_not_satisfiable
 *         │   ├── TooLarge                too_large
 *         │   │   ├── HeadersTooLarge     headers_too_large
 *         │   │   └── UriTooLong          uri_too_long
 *         │   ├── UnsupportedMediaType    unsupported_media_type
 *         │   ├── UnsupportedMethod       not_implemented
 *         │   └── UpgradeRequired         upgrade_required
 *         ├── AccessDenied
 *         │   ├── Forbidden               forbidden
 *         │   └── Unauthenticated         unauthenticated
 *         ├── NotFound                    not_found
 *         │   ├── LockNotFound            lock_not_found
 *         │   └── PathNotFound            path_not_found
 *         ├── StateConflict               what is stored does not allow it
 *         │   ├── Conflict                conflict
 *         │   ├── LeaseLost               lease_lost
 *         │   ├── LockHeld                lock_held
 *         │   ├── PatchFailed             patch_failed
 *         │   ├── PreconditionFailed      precondition_failed
 *         │   ├── QuotaExceeded           quota_exceeded
 *         │   └── RevisionCompacted       revision_compacted
 *         └── ServiceFailure              the service could not do it now
 *             ├── InternalError           internal
 *             ├── RequestTimeout          request_timeout
 *             ├── StorageFull             storage_full
 *             ├── TooManyRequests         too_many_requests
 *             └── Unavailable             unavailable
 *
 * To add an error of the service, add a class, a line above, and a line in `CLASS_BY_CODE`. A code without a class is
 * thrown as `ServiceError`.
 */

import type { Json } from "./json.js";

/** `message` is for people. */
export class LeaseholdError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** There was no complete response. If the request was a change, it may have been made. */
export class Unreachable extends LeaseholdError {}

/** The response is not one of the service. If the request was a change, it may have been made. */
export class UnexpectedResponse extends LeaseholdError {
  constructor(
    message: string,
    /** Of HTTP; undefined if the status was right and the body was not. */
    readonly status?: number,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The function that supplies tokens threw an error, which is the `cause` of this one. */
export class TokenUnavailable extends LeaseholdError {}

/** A value contains an integer beyond ±(2^53 - 1), which a number cannot represent. Use `bigint: true`. */
export class UnsafeInteger extends LeaseholdError {}

export interface ServiceErrorDetails {
  /** For programs. */
  readonly code?: string;
  readonly status?: number;
  readonly requestId?: string;
  readonly traceId?: string;
  /** Seconds. */
  readonly retryAfter?: number;
  /** The other members of the body. Integers beyond ±(2^53 - 1) are bigints. */
  readonly details?: Readonly<Record<string, Json>>;
}

/** `status`, `requestId` and `traceId` are undefined if the client found the error without a request. */
export class ServiceError extends LeaseholdError {
  readonly code: string;
  readonly status: number | undefined;
  readonly requestId: string | undefined;
  readonly traceId: string | undefined;
  readonly retryAfter: number | undefined;
  readonly details: Readonly<Record<string, Json>>;

  constructor(message: string, response: ServiceErrorDetails = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = response.code ?? CODE_BY_CLASS.get(new.target) ?? "";
    this.status = response.status;
    this.requestId = response.requestId;
    this.traceId = response.traceId;
    this.retryAfter = response.retryAfter;
    this.details = response.details ?? {};
  }
}

export class BadRequest extends ServiceError {}
export class InvalidArgument extends BadRequest {}
export class InvalidJson extends BadRequest {}
export class InvalidKey extends BadRequest {}
export class InvalidPath extends BadRequest {}
export class InvalidRequest extends BadRequest {}
export class IdempotencyKeyReused extends BadRequest {}
export class MethodNotAllowed extends BadRequest {}
export class NoSuchNamespace extends BadRequest {}
export class NoSuchRoute extends BadRequest {}
export class NotAcceptable extends BadRequest {}
export class PreconditionRequired extends BadRequest {}
export class RangeNotSatisfiable extends BadRequest {}
export class TooLarge extends BadRequest {}
export class HeadersTooLarge extends TooLarge {}
export class UriTooLong extends TooLarge {}
export class UnsupportedMediaType extends BadRequest {}
export class UnsupportedMethod extends BadRequest {}
export class UpgradeRequired extends BadRequest {}

export class AccessDenied extends ServiceError {}
export class Forbidden extends AccessDenied {}
export class Unauthenticated extends AccessDenied {}

export class NotFound extends ServiceError {}
export class LockNotFound extends NotFound {}
export class PathNotFound extends NotFound {}

export class StateConflict extends ServiceError {}
export class Conflict extends StateConflict {}

/** The lease is not alive, or may not be: its time is over by the clock of this process. Then `status` is undefined. */
export class LeaseLost extends StateConflict {}

/** Another client holds the lock. */
export class LockHeld extends StateConflict {
  /** What the holder said about itself. */
  get owner(): Json {
    return this.details["owner"] ?? null;
  }

  /** When the lease of the holder ends, unless it is renewed. */
  get expiresAt(): Date | undefined {
    const text: unknown = this.details["expires_at"];
    return typeof text === "string" ? new Date(text) : undefined;
  }
}

export class PatchFailed extends StateConflict {
  /** The operation of the patch that failed, from 0. */
  get step(): number | undefined {
    return numberOrNothing(this.details["step"]);
  }
}

export class PreconditionFailed extends StateConflict {
  /** The current revision of the entry. Undefined if there is no entry, or in a transaction. */
  get revision(): number | undefined {
    return numberOrNothing(this.details["revision"]);
  }

  /** The checks of a transaction that do not hold, as the service describes them. */
  get failed(): readonly Readonly<Record<string, Json>>[] {
    const failed: unknown = this.details["failed"];
    return Array.isArray(failed) ? failed : [];
  }
}

/** The write would take the namespace beyond its quota. */
export class QuotaExceeded extends StateConflict {
  /** The quota: a number of entries or of bytes. */
  get limit(): number | undefined {
    return numberOrNothing(this.details["limit"]);
  }
}

/** The service no longer knows the changes since the cursor of a watch. */
export class RevisionCompacted extends StateConflict {
  /** A revision from which a watch can begin. */
  get oldest(): number | undefined {
    return numberOrNothing(this.details["oldest"]);
  }
}

export class ServiceFailure extends ServiceError {}
export class InternalError extends ServiceFailure {}
export class RequestTimeout extends ServiceFailure {}
export class StorageFull extends ServiceFailure {}
export class TooManyRequests extends ServiceFailure {}
export class Unavailable extends ServiceFailure {}

export const CLASS_BY_CODE: Readonly<Record<string, typeof ServiceError>> = {
  invalid_argument: InvalidArgument,
  invalid_json: InvalidJson,
  invalid_key: InvalidKey,
  invalid_path: InvalidPath,
  invalid_request: InvalidRequest,
  idempotency_key_reused: IdempotencyKeyReused,
  method_not_allowed: MethodNotAllowed,
  no_such_namespace: NoSuchNamespace,
  no_such_route: NoSuchRoute,
  not_acceptable: NotAcceptable,
  precondition_required: PreconditionRequired,
  range_not_satisfiable: RangeNotSatisfiable,
  too_large: TooLarge,
  headers_too_large: HeadersTooLarge,
  uri_too_long: UriTooLong,
  unsupported_media_type: UnsupportedMediaType,
  not_implemented: UnsupportedMethod,
  upgrade_required: UpgradeRequired,
  forbidden: Forbidden,
  unauthenticated: Unauthenticated,
  not_found: NotFound,
  lock_not_found: LockNotFound,
  path_not_found: PathNotFound,
  conflict: Conflict,
  lease_lost: LeaseLost,
  lock_held: LockHeld,
  patch_failed: PatchFailed,
  precondition_failed: PreconditionFailed,
  quota_exceeded: QuotaExceeded,
  revision_compacted: RevisionCompacted,
  internal: InternalError,
  request_timeout: RequestTimeout,
  storage_full: StorageFull,
  too_many_requests: TooManyRequests,
  unavailable: Unavailable,
};

const CODE_BY_CLASS = new Map<unknown, string>(
  Object.entries(CLASS_BY_CODE).map(([code, errorClass]) => [errorClass, code]),
);

function numberOrNothing(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}
