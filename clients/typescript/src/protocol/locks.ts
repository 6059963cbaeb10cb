/** Locks: acquire, renew, release, and who holds them. */

import { encode, type Json } from "../json.js";
import { type Grant, type Holder, withMember } from "../records.js";
import { range } from "./entries.js";
import { change, get, named, readBody, type Request, required, type Response, target } from "./messages.js";

/** As long as one request may wait. */
export const MAX_WAIT_SECONDS = 60;

export function acquire(lock: string, ttl: number, waitSeconds: number, owner: Json): Request {
  const content = encode({ ttl, wait: waitSeconds, owner });
  return change("POST", named("/locks", lock), content, { waitSeconds });
}

export function renew(lock: string, leaseId: string, ttl: number | undefined): Request {
  return change("PUT", named("/locks", lock), encode({ lease_id: leaseId, ttl }));
}

export function release(lock: string, leaseId: string): Request {
  return change("DELETE", named("/locks", lock), encode({ lease_id: leaseId }));
}

export function releaseByToken(lock: string, token: number): Request {
  return change("DELETE", named("/locks", lock), encode({ token }));
}

export function forceRelease(lock: string): Request {
  return change("DELETE", target(named("/locks", lock), [["force", ""]]));
}

export function holder(lock: string): Request {
  return get(named("/locks", lock));
}

export function page(prefix: string, after: string | undefined, limit: number): Request {
  return get(target("/locks", [["limit", String(limit)], ...range(prefix, after)]));
}

// Responses -----------------------------------------------------------------------------------------------------------

export function readGrant(response: Response, isGuarded: boolean): Grant {
  return readBody(response, (body, hasBigint) =>
    withMember(
      {
        lock: required<string>(body.lock, "lock"),
        leaseId: required<string>(body.lease_id, "lease_id"),
        token: required<number>(body.token, "token"),
        ttl: required<number>(body.ttl, "ttl"),
      },
      "owner",
      body.owner,
      isGuarded && hasBigint,
    ),
  );
}

export function readHolder(response: Response, isGuarded: boolean): Holder {
  return readBody(response, (body, hasBigint) => holderFrom(body, isGuarded && hasBigint));
}

export function readPage(response: Response, isGuarded: boolean): { holders: Holder[]; next: string | undefined } {
  return readBody(response, (body, hasBigint) => ({
    holders: body.locks.map((each: Json) => holderFrom(each, isGuarded && hasBigint)),
    next: body.next ?? undefined,
  }));
}

function holderFrom(body: Json, isGuarded: boolean): Holder {
  return withMember(
    {
      lock: required<string>(body.lock, "lock"),
      token: required<number>(body.token, "token"),
      ttl: required<number>(body.ttl, "ttl"),
      acquiredAt: new Date(required<string>(body.acquired_at, "acquired_at")),
      expiresAt: new Date(required<string>(body.expires_at, "expires_at")),
      waiters: body.waiters ?? undefined,
    },
    "owner",
    body.owner,
    isGuarded,
  );
}
