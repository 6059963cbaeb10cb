/// <reference lib="esnext.disposable" preserve="true" />
/** A lease: how long it certainly lasts, its renewal in the background, its end, and its fenced writes. */

import { LeaseholdError, LeaseLost, LockHeld, LockNotFound, NoSuchNamespace } from "./errors.js";
import type { Json } from "./json.js";
import { LeaseTerm } from "./protocol/lease_term.js";
import * as locks from "./protocol/locks.js";
import type { Grant } from "./records.js";
import { inBackground, runtime } from "./runtime.js";
import type { Sender } from "./sender.js";
import { Writes } from "./writes.js";

const RENEWALS_PER_TTL = 3;
const SHORTEST_PAUSE_SECONDS = 0.1;
/** How long the end of a lease tries to release it; it ends by itself if this fails. */
const RELEASE_SECONDS = 5;
/** Timers stand still while the machine is suspended, so the deadline is looked at more often than it is near. */
const LONGEST_LOOK_SECONDS = 1;

/** Older runtimes do not have the symbol; compilers then use this one. */
const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose");

/**
 * A lease on a lock, renewed in the background until it is released:
 *
 *     await using lease = await db.lock("jobs/nightly");
 *
 * Its writes are fenced: the service refuses them once the lease is not alive. `token` is the fencing token, which
 * grows with each acquisition, for other systems that compare it. `leaseId` is a secret.
 *
 * At the end of the block, LeaseLost is thrown if the lease was lost and no call of it has said so before.
 */
export class Lease extends Writes {
  override readonly leaseId: string;
  readonly name: string;
  readonly token: number;
  readonly owner: Json;
  private readonly renewEvery: number;
  private readonly lossController = new AbortController();
  private readonly ending = new AbortController();
  private term: LeaseTerm;
  private renewing: Promise<void> | undefined;
  private ended: Promise<LeaseLost | undefined> | undefined;
  private isReleased = false;
  private hasToldLoss = false;
  private stopLooking: () => void = () => {};
  private stopRenewing: () => void = () => {};

  /** `sentAt`: the clock before the request was sent. */
  constructor(sender: Sender, grant: Grant, sentAt: number, renewEvery?: number) {
    super(sender, grant.leaseId);
    this.leaseId = grant.leaseId;
    this.name = grant.lock;
    this.token = grant.token;
    this.owner = Object.getOwnPropertyDescriptor(grant, "owner")?.value;
    this.renewEvery = renewEvery ?? grant.ttl / RENEWALS_PER_TTL;
    this.term = new LeaseTerm(sentAt, grant.ttl);
  }

  /** Aborted with LeaseLost as its reason once the lease is over, or may be. A release does not abort it. */
  get signal(): AbortSignal {
    return this.lossController.signal;
  }

  get ttl(): number {
    return this.term.ttlSeconds;
  }

  /** Seconds for which the lease certainly lasts; 0 if it is lost. No request is made. */
  get remaining(): number {
    if (this.signal.aborted || this.isReleased) {
      return 0;
    }
    return Math.max(this.term.deadline - runtime.clock(), 0);
  }

  /** Whether the lease is over, or may be. No request is made. */
  get lost(): boolean {
    return this.remaining <= 0;
  }

  /** Throws LeaseLost if the lease is over, or may be. No request is made. */
  check(): void {
    if (this.isReleased) {
      throw new LeaseLost(`the lease on ${JSON.stringify(this.name)} was released`);
    }
    this.look();
    if (this.signal.aborted) {
      this.hasToldLoss = true;
      throw this.signal.reason;
    }
  }

  /**
   * Let the lease last `ttl` seconds from now; without it, as long as before. Throws LeaseLost.
   *
   * This is done in the background, too.
   */
  async renew(ttl?: number): Promise<void> {
    this.check();
    try {
      await this.renewOnce(ttl);
    } catch (error) {
      this.hasToldLoss ||= error instanceof LeaseLost;
      throw error;
    }
  }

  /** End the lease now. Throws LeaseLost if it was over before. The end of an `await using` block does this. */
  async release(): Promise<void> {
    this.check();
    const loss = await this.end();
    if (loss !== undefined) {
      this.hasToldLoss = true;
      throw loss;
    }
  }

  async [asyncDispose](): Promise<void> {
    const loss = await this.end();
    if (loss !== undefined && !this.hasToldLoss) {
      throw loss;
    }
  }

  /** Renew it from now on, and watch its deadline. */
  start(): this {
    this.lookLater();
    this.renewLater(this.renewEvery);
    return this;
  }

  /**
   * Stop the renewal and release the lease. Returns LeaseLost if it was over before.
   *
   * If the service does not respond, this is a warning, and the lease ends by itself.
   */
  end(): Promise<LeaseLost | undefined> {
    this.ended ??= this.endOnce();
    return this.ended;
  }

  private async endOnce(): Promise<LeaseLost | undefined> {
    this.stopRenewing();
    this.ending.abort();
    await this.renewing;
    this.look();
    if (!this.signal.aborted) {
      await this.releaseOnce();
    }
    this.stopLooking();
    return this.signal.aborted ? (this.signal.reason as LeaseLost) : undefined;
  }

  private async releaseOnce(): Promise<void> {
    const withinSeconds = Math.min(this.remaining, RELEASE_SECONDS);
    try {
      await this.sender.send(locks.release(this.name, this.leaseId), { withinSeconds });
    } catch (error) {
      if (error instanceof LeaseLost) {
        this.lose(error);
        return;
      }
      if (error instanceof LockNotFound || error instanceof NoSuchNamespace) {
        this.lose(new LeaseLost(`the lease on ${JSON.stringify(this.name)} was ended`, {}, { cause: error }));
        return;
      }
      if (!(error instanceof LeaseholdError)) {
        throw error;
      }
      this.sender.warn(`the lock ${this.name} was not released, and ends by itself: ${error.message}`);
    }
    this.isReleased = true;
  }

  // The renewal ------------------------------------------------------------------------------------------------------

  private renewLater(seconds: number): void {
    this.stopRenewing = inBackground(seconds, () => {
      this.renewing = this.renewInBackground().finally(() => {
        this.renewing = undefined;
      });
    });
  }

  private async renewInBackground(): Promise<void> {
    let pause = this.renewEvery;
    try {
      await this.renewOnce(undefined, this.ending.signal);
    } catch (error) {
      if (this.ending.signal.aborted || this.signal.aborted) {
        return;
      }
      if (!(error instanceof LeaseholdError)) {
        this.lose(new LeaseLost(`the lease on ${JSON.stringify(this.name)} cannot be renewed`, {}, { cause: error }));
        return;
      }
      const seconds = this.remaining.toFixed(1);
      this.sender.warn(`the lease on ${this.name} was not renewed; it ends in ${seconds} s: ${error.message}`);
      pause = Math.max(Math.min(this.renewEvery, this.remaining), SHORTEST_PAUSE_SECONDS);
    }
    if (!this.ending.signal.aborted && !this.signal.aborted) {
      this.renewLater(pause);
    }
  }

  private async renewOnce(ttl: number | undefined, signal?: AbortSignal): Promise<void> {
    const sentAt = runtime.clock();
    const request = locks.renew(this.name, this.leaseId, ttl);
    try {
      const response = await this.sender.send(request, { withinSeconds: this.remaining, signal });
      this.extend(sentAt, locks.readGrant(response, this.sender.isGuarded).ttl);
    } catch (error) {
      if (error instanceof LeaseLost) {
        this.lose(error);
      } else if (error instanceof NoSuchNamespace) {
        const text = `the lease on ${JSON.stringify(this.name)} has ended with its namespace`;
        const loss = new LeaseLost(text, {}, { cause: error });
        this.lose(loss);
        throw loss;
      }
      throw error;
    }
  }

  /** The service has renewed the lease, in a response to a request of `sentAt`. */
  extend(sentAt: number, ttlSeconds: number): void {
    this.term = this.term.renewed(sentAt, ttlSeconds);
  }

  // Its loss ---------------------------------------------------------------------------------------------------------

  private lookLater(): void {
    const seconds = Math.min(this.remaining, LONGEST_LOOK_SECONDS);
    this.stopLooking = inBackground(seconds, () => {
      this.look();
      if (!this.signal.aborted) {
        this.lookLater();
      }
    });
  }

  /** Notice that the deadline is over. */
  private look(): void {
    if (!this.isReleased && this.lost) {
      this.lose(new LeaseLost(`the lease on ${JSON.stringify(this.name)} was not renewed in time`));
    }
  }

  private lose(error: LeaseLost): void {
    if (!this.signal.aborted) {
      this.lossController.abort(error);
      this.stopRenewing();
      this.stopLooking();
      this.sender.warn(`the lease on ${this.name} is lost: ${error.message}`);
    }
  }

  protected override checkFence(): void {
    this.check();
  }

  protected override fenceLost(error: LeaseLost): void {
    this.lose(error);
    this.hasToldLoss = true;
  }
}

export interface Acquisition {
  readonly ttl: number;
  readonly wait: number;
  readonly owner: Json;
  readonly renewEvery?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Wait for a lock, in requests of up to 60 seconds. Throws LockHeld.
 *
 * A response that came late says little about how long the lease still lasts, because the time counts from before the
 * request was sent. Such a lease is renewed before it is used.
 */
export async function acquire(sender: Sender, name: string, acquisition: Acquisition): Promise<Lease> {
  const { ttl, wait, owner, renewEvery, signal } = acquisition;
  const giveUpAt = runtime.clock() + wait;
  for (;;) {
    const sentAt = runtime.clock();
    const patience = Math.min(Math.max(giveUpAt - sentAt, 0), locks.MAX_WAIT_SECONDS);
    const request = locks.acquire(name, ttl, patience, owner);
    try {
      const grant = locks.readGrant(await sender.send(request, { signal }), sender.isGuarded);
      const lease = new Lease(sender, grant, sentAt, renewEvery);
      if (runtime.clock() - sentAt <= ttl / RENEWALS_PER_TTL || (await isRenewed(sender, lease))) {
        return lease.start();
      }
    } catch (error) {
      if (!(error instanceof LockHeld) || runtime.clock() >= giveUpAt) {
        throw error;
      }
    }
  }
}

/** Whether the lease is alive. Its own clock cannot tell, so the service is asked in any case. */
async function isRenewed(sender: Sender, lease: Lease): Promise<boolean> {
  const sentAt = runtime.clock();
  try {
    const response = await sender.send(locks.renew(lease.name, lease.leaseId, undefined));
    lease.extend(sentAt, locks.readGrant(response, sender.isGuarded).ttl);
    return true;
  } catch (error) {
    if (error instanceof LeaseLost) {
      return false;
    }
    throw error;
  }
}
