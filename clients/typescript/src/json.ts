/**
 * JSON without loss. Pure functions.
 *
 * The service stores integers from -2^63 to 2^64 - 1 exactly, and other numbers as doubles. A number of JavaScript is a
 * double. So integers beyond ±(2^53 - 1) are read as bigints; what a caller without `bigint: true` gets instead is
 * decided where values are handed out (`records.ts`). A number beyond that range is written with an exponent, so that
 * the service keeps the same double.
 */

import { InvalidJson } from "./errors.js";

/**
 * null, booleans, numbers, bigints, strings, and arrays and objects of these. Only the caller knows what was stored,
 * and a union of these types would ask for a cast wherever a value is used.
 */
export type Json = any;

/** Far more than the service takes (128 levels), and far less than the stack holds. */
const MAX_NESTING = 1_000;

/** An integer of 16 digits or more, outside of a string or inside of one. */
const LONG_INTEGER = /(?:^|[[:,\s])-?\d{16,}(?![\d.eE])/;
const LONE_SURROGATE = /\p{Surrogate}/u;

/**
 * A value as compact JSON.
 *
 * Unlike `JSON.stringify` it writes bigints and -0, and throws InvalidJson for what JSON cannot represent: NaN,
 * infinities, functions, symbols, maps, sets, bytes, circular values, lone surrogates, and undefined in an array.
 * A member that is undefined is left out.
 */
export function encode(value: unknown): string {
  return written(value, "", 0);
}

function written(value: unknown, name: string, depth: number): string {
  switch (typeof value) {
    case "string":
      return quoted(value);
    case "number":
      return digits(value);
    case "bigint":
    case "boolean":
      return String(value);
    case "object":
      return value === null ? "null" : writtenObject(value, name, depth);
    default:
      throw new InvalidJson(`a value that is ${typeof value} cannot be sent`);
  }
}

function writtenObject(value: object, name: string, depth: number): string {
  if (depth > MAX_NESTING) {
    throw new InvalidJson("the value is circular or nested too deeply");
  }
  if ("toJSON" in value && typeof value.toJSON === "function") {
    return written(value.toJSON(name), name, depth + 1);
  }
  if (Array.isArray(value)) {
    // Not `map`, which leaves out the holes of an array.
    return `[${Array.from(value, (item, index) => written(item, String(index), depth + 1)).join(",")}]`;
  }
  if (value instanceof Map || value instanceof Set || isBytes(value)) {
    throw new InvalidJson(`a ${value.constructor.name} is not JSON`);
  }
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return `{${members.map(([key, member]) => `${quoted(key)}:${written(member, key, depth + 1)}`).join(",")}}`;
}

function quoted(text: string): string {
  if (LONE_SURROGATE.test(text)) {
    throw new InvalidJson("a text contains a lone surrogate");
  }
  return JSON.stringify(text);
}

function digits(value: number): string {
  if (!Number.isFinite(value)) {
    throw new InvalidJson(`${value} is not a number of JSON`);
  }
  if (Object.is(value, -0)) {
    return "-0.0";
  }
  return Number.isInteger(value) && !Number.isSafeInteger(value) ? value.toExponential() : String(value);
}

export interface Decoded {
  readonly value: Json;
  /** Whether an integer in it is a bigint. */
  readonly hasBigint: boolean;
}

/** Integers beyond ±(2^53 - 1) are bigints. Throws SyntaxError if the text is not JSON. */
export function decode(text: string): Decoded {
  const value: Json = JSON.parse(text);
  if (!LONG_INTEGER.test(text)) {
    return { value, hasBigint: false };
  }
  const reader = new ExactReader(text);
  return { value: reader.value(), hasBigint: reader.hasBigint };
}

/** As `decode`; throws SyntaxError if the value is not an object. */
export function decodeObject(text: string): Decoded {
  const decoded = decode(text);
  if (typeof decoded.value !== "object" || decoded.value === null || Array.isArray(decoded.value)) {
    throw new SyntaxError("not a JSON object");
  }
  return decoded;
}

/** Reads a text that `JSON.parse` has accepted. Node 20 does not show the text of a number to the reviver of it. */
class ExactReader {
  hasBigint = false;
  private at = 0;

  constructor(private readonly text: string) {}

  value(): Json {
    this.skipSpace();
    switch (this.text[this.at]) {
      case "{":
        return this.object();
      case "[":
        return this.array();
      case '"':
        return this.string();
      default:
        return this.scalar();
    }
  }

  private object(): Json {
    const found: Record<string, Json> = {};
    this.at += 1;
    while (this.skipSpace() !== "}") {
      const name = this.string();
      this.skipSpace();
      this.at += 1; // the colon
      // An assignment to `__proto__` would set the prototype.
      Object.defineProperty(found, name, { value: this.value(), writable: true, enumerable: true, configurable: true });
      if (this.skipSpace() === ",") {
        this.at += 1;
      }
    }
    this.at += 1;
    return found;
  }

  private array(): Json {
    const found: Json[] = [];
    this.at += 1;
    while (this.skipSpace() !== "]") {
      found.push(this.value());
      if (this.skipSpace() === ",") {
        this.at += 1;
      }
    }
    this.at += 1;
    return found;
  }

  private string(): string {
    this.skipSpace();
    const start = this.at;
    do {
      this.at = this.text.indexOf('"', this.at + 1);
    } while (this.isEscaped(this.at));
    this.at += 1;
    return JSON.parse(this.text.slice(start, this.at)) as string;
  }

  private isEscaped(quote: number): boolean {
    let first = quote;
    while (this.text[first - 1] === "\\") {
      first -= 1;
    }
    return (quote - first) % 2 === 1;
  }

  private scalar(): Json {
    const pattern = /[^\s,\]}]+/y;
    pattern.lastIndex = this.at;
    const token = pattern.exec(this.text)?.[0] ?? "";
    this.at += token.length;
    const value: Json = JSON.parse(token);
    if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(token)) {
      this.hasBigint = true;
      return BigInt(token);
    }
    return value;
  }

  private skipSpace(): string | undefined {
    while (/\s/.test(this.text[this.at] ?? "")) {
      this.at += 1;
    }
    return this.text[this.at];
  }
}

/** Whether an integer in the value is a bigint. */
export function containsBigint(value: Json): boolean {
  if (typeof value === "object" && value !== null) {
    return Object.values(value).some(containsBigint);
  }
  return typeof value === "bigint";
}

export type Bytes = Uint8Array | ArrayBuffer;

export function isBytes(value: unknown): value is Bytes {
  return value instanceof Uint8Array || value instanceof ArrayBuffer;
}

export function asUint8Array(bytes: Bytes): Uint8Array {
  return bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
}

export function toBase64(bytes: Bytes): string {
  let text = "";
  for (const byte of asUint8Array(bytes)) {
    text += String.fromCharCode(byte);
  }
  return btoa(text);
}

export function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
