/** A watch that connects again by itself. */

import {
  InternalError,
  type LeaseholdError,
  RequestTimeout,
  ServiceError,
  ServiceFailure,
  StorageFull,
  TooManyRequests,
  Unauthenticated,
  Unavailable,
  UnexpectedResponse,
  Unreachable,
} from "./errors.js";
import type { Json } from "./json.js";
import { backoff, TRANSIENT_STATUSES } from "./protocol/retrying.js";
import { type End, type Interest, silenceSeconds, WatchState } from "./protocol/watching.js";
import type { Event } from "./records.js";
import { runtime } from "./runtime.js";
import type { Sender, Stream } from "./sender.js";

/** The errors with which the service may end a watch that can be resumed. */
const ENDS: Readonly<Record<string, new (message: string) => ServiceError>> = {
  unauthenticated: Unauthenticated,
  internal: InternalError,
  request_timeout: RequestTimeout,
  storage_full: StorageFull,
  too_many_requests: TooManyRequests,
  unavailable: Unavailable,
};

export interface WatchSettings {
  readonly interest: Interest;
  readonly since: number | undefined;
  readonly reconnectSeconds: number;
  readonly signal: AbortSignal | undefined;
}

/**
 * The changes of entries and locks: `for await (const event of watch)`. It has no end of its own: leave the loop, or
 * call `close`, to end it. It can be iterated once.
 *
 * When the connection is lost, or the service stops, it connects again and goes on at its cursor. Nothing is missed,
 * but an event may be repeated. `reset` means: forget everything, a snapshot follows. Without `snapshot`,
 * RevisionCompacted if the service no longer knows the changes since the cursor.
 */
export class Watch<T = Json> implements AsyncIterable<Event<T>> {
  /** All changes up to this revision have been reported. `since` of another watch can begin here. */
  cursor: number | undefined;
  private readonly state: WatchState;
  private readonly closing = new AbortController();
  private readonly iterator: AsyncGenerator<Event<T>, void, undefined>;
  private stream: Stream | undefined;
  private token: string | undefined;
  private attempts = 0;
  private lostAt: number | undefined;
  private hasReplacedToken = false;

  constructor(
    private readonly sender: Sender,
    private readonly settings: WatchSettings,
  ) {
    this.cursor = settings.since;
    this.state = new WatchState(settings.interest, settings.since, sender.isGuarded);
    this.iterator = this.events();
  }

  /** Leaving the loop closes the connection. */
  [Symbol.asyncIterator](): AsyncGenerator<Event<T>, void, undefined> {
    return this.iterator;
  }

  /** End the watch, also while another function waits for its next event; then the loop of this one ends. */
  close(): void {
    this.closing.abort(new Error("the watch was closed"));
    this.disconnect();
  }

  private async *events(): AsyncGenerator<Event<T>, void, undefined> {
    const { signal } = this.settings;
    const giveUp = (): void => this.closing.abort(signal?.reason);
    signal?.throwIfAborted();
    signal?.addEventListener("abort", giveUp, { once: true });
    try {
      for (;;) {
        try {
          yield* this.receive();
        } catch (error) {
          this.disconnect();
          signal?.throwIfAborted();
          if (this.closing.signal.aborted) {
            return;
          }
          await this.prepareNextAttempt(error);
        }
      }
    } catch (error) {
      // `close` also ends a pause between attempts.
      if (!this.closing.signal.aborted || signal?.aborted === true) {
        throw error;
      }
    } finally {
      signal?.removeEventListener("abort", giveUp);
      this.disconnect();
    }
  }

  /** The events of one piece of the response. */
  private async *receive(): AsyncGenerator<Event<T>, void, undefined> {
    const { interest } = this.settings;
    const signal = this.closing.signal;
    if (this.stream === undefined) {
      signal.throwIfAborted();
      this.token = await this.sender.tokens.current();
      this.stream = await this.sender.openStream(this.state.request(), this.token, silenceSeconds(interest), signal);
      yield* this.state.connected();
    }
    const received = this.state.receive(await this.stream.read(signal));
    [this.attempts, this.lostAt, this.hasReplacedToken] = [0, undefined, false];
    for (const event of received) {
      if (event.type === "end") {
        throw asError(event);
      }
      this.cursor = event.cursor ?? this.cursor;
      if (event.type !== "progress") {
        yield event;
      }
    }
  }

  /** Wait before the next attempt. Throws the error if another attempt would not help. */
  private async prepareNextAttempt(error: unknown): Promise<void> {
    if (error instanceof Unauthenticated && !this.hasReplacedToken) {
      this.hasReplacedToken = true;
      if (await this.sender.tokens.replace(this.token)) {
        return;
      }
    }
    if (!isTransient(error)) {
      throw error;
    }
    const now = runtime.clock();
    this.lostAt ??= now;
    this.attempts += 1;
    const asked = error instanceof ServiceError ? (error.retryAfter ?? 0) : 0;
    const pause = Math.max(asked, backoff(this.attempts, runtime.chance()));
    if (now + pause > this.lostAt + this.settings.reconnectSeconds) {
      throw error;
    }
    this.sender.warnOfRetry(this.state.request(), error, this.attempts, pause);
    await runtime.sleep(pause, this.closing.signal);
  }

  private disconnect(): void {
    this.stream?.close();
    this.stream = undefined;
  }
}

function isTransient(error: unknown): error is LeaseholdError {
  if (error instanceof UnexpectedResponse) {
    return TRANSIENT_STATUSES.has(error.status);
  }
  return error instanceof Unreachable || error instanceof ServiceFailure;
}

/** If the history no longer reaches back to the cursor, the next request says whether a snapshot replaces it. */
function asError({ error, message }: End): LeaseholdError {
  const errorClass = Object.hasOwn(ENDS, error) ? ENDS[error] : undefined;
  return errorClass === undefined ? new Unreachable(message) : new errorClass(message);
}
