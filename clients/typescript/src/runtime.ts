/** The clock, pauses and chance. Tests replace them. */

import { hexadecimal } from "./names.js";

/** A change of the difference between both clocks that is no rounding. */
const JUMP_SECONDS = 0.05;

/**
 * Seconds, from an arbitrary origin. It never goes back.
 *
 * The monotonic clock of most systems stands still while the machine is suspended, and leases do not. The wall clock
 * shows such a gap, so whenever it has gained on the monotonic clock, the gap is added. If somebody sets the wall clock
 * forward, a lease therefore ends too early for this client, and never too late.
 */
export class Clock {
  private gap = 0;
  private difference: number;

  constructor(
    private readonly wall = wallSeconds,
    private readonly monotonic = monotonicSeconds,
  ) {
    this.difference = wall() - monotonic();
  }

  now(): number {
    const monotonic = this.monotonic();
    const gained = this.wall() - monotonic - this.difference;
    if (Math.abs(gained) > JUMP_SECONDS) {
      this.difference += gained;
      this.gap += Math.max(gained, 0);
    }
    return monotonic + this.gap;
  }
}

function wallSeconds(): number {
  return Date.now() / 1_000;
}

function monotonicSeconds(): number {
  return performance.now() / 1_000;
}

const clock = new Clock();

export const runtime = {
  clock: (): number => clock.now(),
  wallSeconds,
  /** From 0 to 1. It spreads clients, and protects nothing. */
  chance: (): number => Math.random(),
  sleep,
};

/** Rejects with the reason of the signal when it is aborted. */
function sleep(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const wake = (): void => {
      signal?.removeEventListener("abort", stop);
      resolve();
    };
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(wake, seconds * 1_000);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** A timer that does not keep the process alive where the runtime can tell (Node.js). Returns what stops it. */
export function inBackground(seconds: number, run: () => void): () => void {
  const timer: unknown = setTimeout(run, seconds * 1_000);
  if (typeof timer === "object" && timer !== null && "unref" in timer && typeof timer.unref === "function") {
    timer.unref();
  }
  return () => clearTimeout(timer as Parameters<typeof clearTimeout>[0]);
}

/** 128 random bits as hexadecimal digits. `crypto.randomUUID` does not exist on pages without TLS. */
export function randomKey(): string {
  return hexadecimal(crypto.getRandomValues(new Uint8Array(16)));
}
