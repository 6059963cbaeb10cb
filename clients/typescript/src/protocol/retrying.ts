/**
 * Whether a request is sent again, and after which pause.
 *
 * Every request may be sent again: reads change nothing, and changes carry an idempotency key, which makes the service
 * do them once. Only how long a client tries is bounded, because the service keeps the outcome of a key for 10 minutes.
 */

import type { Response } from "./messages.js";
import { retryAfter } from "./refusals.js";

/** Half of the time for which the service keeps outcomes by default. */
export const MAX_RETRY_SECONDS = 300;
const FIRST_PAUSE_SECONDS = 0.05;
const LONGEST_PAUSE_SECONDS = 5;
export const TRANSIENT_STATUSES: ReadonlySet<number | undefined> = new Set([408, 429, 502, 503, 504]);
const INTERNAL_ERROR = 500;
/** Few, because an entry that the service cannot read is such an error each time. */
const ATTEMPTS_AT_INTERNAL_ERRORS = 3;

/** There was no complete response. */
export interface Disconnected {
  readonly reason: string;
}

export type Outcome = Response | Disconnected;

export function isResponse(outcome: Outcome): outcome is Response {
  return "status" in outcome;
}

export interface Attempts {
  /** How many were made so far. */
  readonly made: number;
  /** The seconds in which the next one must begin. */
  readonly remaining: number;
  /** From 0 to 1, so that clients that failed together do not return together. */
  readonly jitter: number;
}

/**
 * Seconds until the next attempt, or undefined if this outcome is final. Never shorter than the service asks for.
 */
export function pauseBeforeRetry(outcome: Outcome, { made, remaining, jitter }: Attempts): number | undefined {
  let asked = 0;
  if (isResponse(outcome)) {
    if (!isTransient(outcome.status, made)) {
      return undefined;
    }
    asked = retryAfter(outcome) ?? 0;
  }
  const pause = Math.max(asked, backoff(made, jitter));
  return pause <= remaining ? pause : undefined;
}

function isTransient(status: number, made: number): boolean {
  return status === INTERNAL_ERROR ? made < ATTEMPTS_AT_INTERNAL_ERRORS : TRANSIENT_STATUSES.has(status);
}

/** 0.05 s after the first attempt, then twice as much each time, up to 5 s, times 0.5 to 1. */
export function backoff(made: number, jitter: number): number {
  const longest = Math.min(FIRST_PAUSE_SECONDS * 2 ** Math.min(made - 1, 16), LONGEST_PAUSE_SECONDS);
  return longest * (0.5 + jitter / 2);
}
