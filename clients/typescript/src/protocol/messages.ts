/** Requests and responses, independent of `fetch`. */

import { InvalidKey, UnexpectedResponse } from "../errors.js";
import { decodeObject, type Json } from "../json.js";

export const JSON_TYPE = "application/json";

export type Pairs = readonly (readonly [name: string, value: string])[];

export interface Request {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Encoded. */
  readonly target: string;
  readonly headers: Pairs;
  readonly content?: string | Uint8Array;
  readonly isChange: boolean;
  /** How long the service was asked to wait before it responds. */
  readonly waitSeconds: number;
  /** How long it may work before it responds. The time in which retries may begin does not count this. */
  readonly workSeconds?: number;
}

export interface Response {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

export function get(target: string, headers: Pairs = [["Accept", JSON_TYPE]], waitSeconds = 0): Request {
  return { method: "GET", target, headers, isChange: false, waitSeconds };
}

/** `content` is JSON in a string, or bytes; `kind` its media type. */
export function change(
  method: Request["method"],
  target: string,
  content?: string | Uint8Array,
  { kind = JSON_TYPE, headers = [], waitSeconds = 0 }: { kind?: string; headers?: Pairs; waitSeconds?: number } = {},
): Request {
  const accept: Pairs = [["Accept", JSON_TYPE], ...headers];
  if (content === undefined) {
    return { method, target, headers: accept, isChange: true, waitSeconds };
  }
  return { method, target, headers: [...accept, ["Content-Type", kind]], content, isChange: true, waitSeconds };
}

/** The path with a query. A parameter with an empty value is a flag. */
export function target(path: string, parameters: Pairs = []): string {
  const query = parameters.map(([name, text]) => (text === "" ? name : `${name}=${escaped(text)}`)).join("&");
  return query === "" ? path : `${path}?${query}`;
}

/**
 * The path of an entry or of a lock: `/kv/users/ann`.
 *
 * Throws InvalidKey for names that `fetch` and proxies would turn into other ones: without this check, `a/../b` would
 * be the name `b`. All other rules for names are left to the service.
 */
export function named(collection: string, name: string): string {
  if (name.split("/").some((segment) => segment === "" || segment === "." || segment === "..")) {
    throw new InvalidKey(`${JSON.stringify(name)} has an empty segment, or a segment . or ..`);
  }
  return `${collection}/${escaped(name)}`;
}

function escaped(text: string): string {
  try {
    return encodeURIComponent(text).replaceAll("%2F", "/");
  } catch (error) {
    throw new InvalidKey(`${JSON.stringify(text)} contains a lone surrogate`, {}, { cause: error });
  }
}

/** A number of seconds without an exponent, which the service does not take in parameters. */
export function number(value: number): string {
  return value.toFixed(6).replace(/\.?0+$/, "");
}

/** What `read` makes of the body. Throws UnexpectedResponse if it is not of this form. */
export function readBody<T>(response: Response, read: (body: Json, hasBigint: boolean) => T): T {
  try {
    const { value, hasBigint } = decodeObject(response.text);
    return read(value, hasBigint);
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) {
      throw new UnexpectedResponse(`the body of the response is not one of the service: ${error.message}`, undefined, {
        cause: error,
      });
    }
    throw error;
  }
}

/** A member that the service always sends. Throws TypeError if it is missing. */
export function required<T>(value: T | undefined, name: string): T {
  if (value === undefined) {
    throw new TypeError(`${name} is missing`);
  }
  return value;
}

/** A time as the service writes it. The microseconds are cut off. */
export function optionalTime(text: string | undefined | null): Date | undefined {
  return text === undefined || text === null ? undefined : new Date(text);
}
