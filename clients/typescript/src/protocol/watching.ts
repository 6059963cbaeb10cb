/** A watch: the request, its events, and the cursor at which it goes on after a lost connection. */

import { UnexpectedResponse } from "../errors.js";
import { decodeObject, type Json } from "../json.js";
import { type Event, withMember } from "../records.js";
import { entryFrom } from "./entries.js";
import { get, optionalTime, type Request, required, target } from "./messages.js";

const SILENT_HEARTBEATS = 2;
const GRACE_SECONDS = 5;

/** Everything up to the cursor that matches was sent. */
export interface Progress {
  readonly type: "progress";
  readonly cursor: number | undefined;
}

/** Why the service ends the response. */
export interface End {
  readonly type: "end";
  readonly error: string;
  readonly message: string;
}

export type Received = Event | Progress | End;

/** What a watch asks for. */
export interface Interest {
  readonly prefixes: readonly string[];
  readonly snapshot: boolean;
  readonly locks: boolean;
  readonly values: boolean;
  readonly heartbeatSeconds: number;
}

/** After so much silence the connection is lost: the service would have sent `progress`. */
export function silenceSeconds(interest: Interest): number {
  return SILENT_HEARTBEATS * interest.heartbeatSeconds + GRACE_SECONDS;
}

/**
 * What was received so far. It does no I/O.
 *
 * The cursor moves only with events that have an `id`. What came after the last one is repeated after a reconnect.
 */
export class WatchState {
  private rest = "";
  private decoder = new TextDecoder();
  /** Whether `ready` was reported; it is reported once, and once after each `reset`. */
  private isReady = false;
  private hasPartialSnapshot = false;

  constructor(
    private readonly interest: Interest,
    private cursor: number | undefined,
    private readonly isGuarded: boolean,
  ) {}

  /** The next request. It resumes at the cursor. */
  request(): Request {
    const parameters: [string, string][] = this.interest.prefixes
      .filter((prefix) => prefix !== "")
      .map((prefix) => ["prefix", prefix]);
    if (this.interest.snapshot) {
      parameters.push(["snapshot", ""]);
    }
    if (this.interest.locks) {
      parameters.push(["locks", ""]);
    }
    if (!this.interest.values) {
      parameters.push(["values", "false"]);
    }
    if (this.cursor !== undefined) {
      parameters.push(["since", String(this.cursor)]);
    }
    parameters.push(["heartbeat", String(this.interest.heartbeatSeconds)]);
    return get(target("/watch", parameters), [["Accept", "application/x-ndjson"]]);
  }

  /** A new response begins. If a snapshot was cut off, it begins again, so what it reported must be forgotten. */
  connected(): Event[] {
    this.rest = "";
    this.decoder = new TextDecoder();
    if (this.hasPartialSnapshot && this.cursor === undefined) {
      this.hasPartialSnapshot = false;
      return [{ type: "reset", cursor: undefined }];
    }
    return [];
  }

  /** The events in a piece of the response, which may end in the middle of one, or of a character. */
  receive(piece: Uint8Array): Received[] {
    const lines = (this.rest + this.decoder.decode(piece, { stream: true })).split("\n");
    this.rest = lines.pop() ?? "";
    return lines.map((line) => this.event(line));
  }

  private event(line: string): Received {
    try {
      const { value, hasBigint } = decodeObject(line);
      const kind = required<string>(value.event, "event");
      return this.read(kind, required(value.data, "data"), value.id ?? undefined, hasBigint);
    } catch (error) {
      if (error instanceof SyntaxError || error instanceof TypeError) {
        throw new UnexpectedResponse(`a line of the watch is not an event: ${error.message}`, undefined, {
          cause: error,
        });
      }
      throw error;
    }
  }

  private read(kind: string, body: Json, cursor: number | undefined, hasBigint: boolean): Received {
    if (cursor !== undefined) {
      this.cursor = cursor;
    }
    switch (kind) {
      case "ready":
        if (this.isReady) {
          return { type: "progress", cursor };
        }
        this.isReady = true;
        return { type: "ready", revision: required(body.revision, "revision"), cursor };
      case "reset":
        this.isReady = false;
        this.cursor = undefined;
        this.hasPartialSnapshot = true;
        return { type: "reset", cursor };
      case "end":
        return { type: "end", error: required(body.error, "error"), message: required(body.message, "message") };
      case "put":
      case "delete":
      case "lock":
        this.hasPartialSnapshot ||= this.cursor === undefined;
        return changeFrom(kind, body, cursor, this.isGuarded && hasBigint);
      default:
        // `progress`, or a kind of event that this version does not know.
        return { type: "progress", cursor };
    }
  }
}

function changeFrom(
  kind: "put" | "delete" | "lock",
  body: Json,
  cursor: number | undefined,
  isGuarded: boolean,
): Event {
  const revision = required<number>(body.revision, "revision");
  if (kind === "lock") {
    const lock = required<string>(body.lock, "lock");
    const isHeld = body.state === "held";
    const expiresAt = optionalTime(body.expires_at);
    const token: number | undefined = body.token ?? undefined;
    return withMember(
      { type: kind, lock, revision, isHeld, token, expiresAt, cursor },
      "owner",
      body.owner ?? undefined,
      isGuarded,
    );
  }
  const key = required<string>(body.key, "key");
  if (kind === "delete") {
    return { type: kind, key, revision, cursor };
  }
  return { type: kind, key, revision, entry: entryFrom(body, isGuarded), cursor };
}
