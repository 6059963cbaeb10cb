/** Sends a request again and again, until there is a final response or the time for retries is over. */

import { LeaseholdError, ServiceError, Unreachable } from "./errors.js";
import type { Request as Message, Response as Answer } from "./protocol/messages.js";
import { refusalOf } from "./protocol/refusals.js";
import { type Disconnected, isResponse, type Outcome, pauseBeforeRetry } from "./protocol/retrying.js";
import { randomKey, runtime } from "./runtime.js";
import type { Tokens } from "./tokens.js";

const UNAUTHENTICATED = 401;
const LOWEST_ERROR = 300;
const NOT_MODIFIED = 304;

export interface SenderOptions {
  readonly fetch: typeof fetch;
  readonly url: string;
  readonly tokens: Tokens;
  readonly timeoutSeconds: number;
  readonly retrySeconds: number;
  /** Whether values with bigints are refused to the caller (`UnsafeInteger`). */
  readonly isGuarded: boolean;
  readonly warn: (message: string) => void;
}

export interface SendOptions {
  /** Replaces the time in which retries may begin, and limits each attempt. */
  readonly withinSeconds?: number;
  readonly signal?: AbortSignal | undefined;
}

export class Sender {
  readonly tokens: Tokens;
  readonly isGuarded: boolean;
  readonly warn: (message: string) => void;

  constructor(private readonly options: SenderOptions) {
    this.tokens = options.tokens;
    this.isGuarded = options.isGuarded;
    this.warn = options.warn;
  }

  /** The same connections and tokens, for targets below a path such as `/ns/team`, or "" for none. */
  below(path: string): Sender {
    return path === "" ? this : new Sender({ ...this.options, url: this.options.url + path });
  }

  /**
   * The response, if it is a success. A change is done once, however often it is sent.
   *
   * Throws LeaseholdError, or the reason of the signal.
   */
  async send(message: Message, { withinSeconds, signal }: SendOptions = {}): Promise<Answer> {
    const keyed = message.isChange ? withIdempotencyKey(message, randomKey()) : message;
    let seconds = message.waitSeconds + this.options.retrySeconds;
    let timeout = this.options.timeoutSeconds;
    if (withinSeconds !== undefined) {
      // Half of the time, so that an attempt to which nobody responds leaves time for another one.
      seconds = withinSeconds;
      timeout = Math.min(timeout, Math.max(withinSeconds / 2, 0.001));
    }
    const retryUntil = runtime.clock() + seconds;
    let hasReplacedToken = false;
    for (let made = 1; ; made += 1) {
      const token = await this.tokens.current();
      const outcome = await this.attempt(keyed, token, timeout, signal);
      if (isResponse(outcome)) {
        if (isSuccess(outcome.status)) {
          return outcome;
        }
        if (outcome.status === UNAUTHENTICATED && !hasReplacedToken) {
          hasReplacedToken = true;
          if (await this.tokens.replace(token)) {
            continue;
          }
        }
      }
      const remaining = retryUntil - runtime.clock();
      const pause = pauseBeforeRetry(outcome, { made, remaining, jitter: runtime.chance() });
      if (pause === undefined) {
        throw this.failure(outcome, made);
      }
      this.warnOfRetry(message, outcome, made, pause);
      await runtime.sleep(pause, signal);
    }
  }

  private async attempt(
    message: Message,
    token: string | undefined,
    timeoutSeconds: number,
    signal: AbortSignal | undefined,
  ): Promise<Outcome> {
    const deadline = new Deadline(timeoutSeconds + message.waitSeconds + (message.workSeconds ?? 0), signal);
    // Outside of `try`: an error here is one of the caller, and no lost connection.
    const request = this.prepared(message, token, deadline.signal);
    try {
      const received = await this.options.fetch(request);
      return { status: received.status, headers: received.headers, text: await textOf(received, deadline) };
    } catch (error) {
      signal?.throwIfAborted();
      return { reason: reasonOf(error) };
    } finally {
      deadline.end();
    }
  }

  /**
   * One attempt of a request whose response does not end. Throws LeaseholdError if it is refused.
   *
   * `silenceSeconds`: how long the response may bring nothing.
   */
  async openStream(
    message: Message,
    token: string | undefined,
    silenceSeconds: number,
    signal: AbortSignal,
  ): Promise<Stream> {
    const deadline = new Deadline(silenceSeconds, signal);
    const request = this.prepared(message, token, deadline.signal);
    try {
      const received = await this.options.fetch(request);
      if (isSuccess(received.status) && received.body !== null) {
        return new Stream(received.body.getReader(), deadline, this.options.url);
      }
      const answer = { status: received.status, headers: received.headers, text: await textOf(received, deadline) };
      deadline.end();
      throw refusalOf(answer);
    } catch (error) {
      deadline.end();
      throw asLost(error, this.options.url, signal);
    }
  }

  private prepared(message: Message, token: string | undefined, signal: AbortSignal): Request {
    const headers = new Headers();
    for (const [name, text] of message.headers) {
      headers.set(name, text);
    }
    // Compression by a proxy would change the ETags, and conditions would fail. Browsers ignore this.
    headers.set("Accept-Encoding", "identity");
    if (token !== undefined) {
      headers.set("Authorization", `Bearer ${token}`);
    }
    return new Request(this.options.url + message.target, {
      method: message.method,
      headers,
      body: (message.content as BodyInit | undefined) ?? null,
      signal,
      cache: "no-store",
      // A redirect would turn a POST into a GET.
      redirect: "manual",
    });
  }

  private failure(outcome: Outcome, made: number): LeaseholdError {
    if (isResponse(outcome)) {
      return refusalOf(outcome);
    }
    const times = made === 1 ? "" : ` after ${made} attempts`;
    return new Unreachable(`${this.options.url} did not respond${times}: ${outcome.reason}`);
  }

  warnOfRetry(message: Message, outcome: Outcome | LeaseholdError, made: number, pause: number): void {
    const path = message.target.split("?", 1)[0];
    const reason = outcome instanceof Error ? describe(outcome) : describeOutcome(outcome);
    this.warn(
      `${message.method} ${path}: attempt ${made} failed (${reason}); the next one is in ${pause.toFixed(2)} s`,
    );
  }
}

/** A response whose body is read piece by piece. */
export class Stream {
  constructor(
    private readonly reader: ReadableStreamDefaultReader<Uint8Array>,
    private readonly deadline: Deadline,
    private readonly url: string,
  ) {
    deadline.pause();
  }

  /** The next piece. Throws Unreachable if the connection is lost, and at the end of the response. */
  async read(signal: AbortSignal): Promise<Uint8Array> {
    this.deadline.restart();
    try {
      const { value } = await this.reader.read();
      if (value !== undefined) {
        return value;
      }
    } catch (error) {
      throw asLost(error, this.url, signal);
    } finally {
      // The caller may take longer for a piece than the service is silent.
      this.deadline.pause();
    }
    throw new Unreachable(`${this.url} ended the response`);
  }

  close(): void {
    this.deadline.cut();
  }
}

/** Aborts `signal` when nothing came for so long, or when the caller gives up. */
class Deadline {
  private readonly controller = new AbortController();
  readonly signal = this.controller.signal;
  private readonly giveUp = (): void => this.controller.abort(this.outer?.reason);
  private timer: ReturnType<typeof setTimeout>;

  constructor(
    private readonly seconds: number,
    private readonly outer: AbortSignal | undefined,
  ) {
    outer?.throwIfAborted();
    outer?.addEventListener("abort", this.giveUp, { once: true });
    this.timer = this.started();
  }

  restart(): void {
    this.pause();
    this.timer = this.started();
  }

  pause(): void {
    clearTimeout(this.timer);
  }

  end(): void {
    this.pause();
    this.outer?.removeEventListener("abort", this.giveUp);
  }

  /** End the request and close its connection. */
  cut(): void {
    this.end();
    this.controller.abort(new Error("the client has closed the response"));
  }

  private started(): ReturnType<typeof setTimeout> {
    return setTimeout(() => {
      this.controller.abort(new Error(`nothing came for ${this.seconds} s`));
    }, this.seconds * 1_000);
  }
}

async function textOf(received: Response, deadline: Deadline): Promise<string> {
  if (received.body === null) {
    return "";
  }
  const reader = received.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    deadline.restart();
    const { done, value } = await reader.read();
    if (done) {
      return text + decoder.decode();
    }
    text += decoder.decode(value, { stream: true });
  }
}

function withIdempotencyKey(message: Message, key: string): Message {
  return { ...message, headers: [...message.headers, ["Idempotency-Key", `"${key}"`]] };
}

function isSuccess(status: number): boolean {
  // Browsers show a redirect as the status 0.
  return (status >= 200 && status < LOWEST_ERROR) || status === NOT_MODIFIED;
}

/** `fetch` throws a TypeError whose cause says more. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return cause instanceof Error ? cause.message || cause.name : String(cause);
}

function asLost(error: unknown, url: string, signal: AbortSignal): unknown {
  signal.throwIfAborted();
  return error instanceof LeaseholdError
    ? error
    : new Unreachable(`${url} did not respond: ${reasonOf(error)}`, { cause: error });
}

function describeOutcome(outcome: Outcome): string {
  return isResponse(outcome) ? describe(refusalOf(outcome)) : (outcome satisfies Disconnected).reason;
}

function describe(error: Error): string {
  if (error instanceof ServiceError) {
    return `${error.status === undefined ? "" : `HTTP ${error.status}, `}${error.code}: ${error.message}`;
  }
  return error.message;
}
