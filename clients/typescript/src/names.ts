/** Names of entries for texts that the service would refuse as keys, and limits of the service. */

export const MIN_TTL_SECONDS = 0.1;
export const MAX_TTL_SECONDS = 31_536_000;
const MAX_KEYS_OF_A_READ = 128;
/** The first line of a request may have 8 KiB. */
const MAX_CHARACTERS_OF_A_READ = 7_000;

/**
 * One segment of a key, for any text. Control characters, `/`, `%` and lone surrogates are escaped, and the dots of the
 * segments `.` and `..`. Different texts give different segments, and if one text begins with another one, so does its
 * segment, unless it is `.` or `..`.
 */
export function escapedSegment(text: string): string {
  const escaped = text.replace(/[%/\p{Cc}\p{Surrogate}]/gu, escape);
  return /^\.\.?$/.test(escaped) ? escaped.replaceAll(".", escape) : escaped;
}

function escape(character: string): string {
  const code = character.charCodeAt(0);
  const digits = code.toString(16).toUpperCase();
  return code > 0xff ? `%u${digits.padStart(4, "0")}` : `%${digits.padStart(2, "0")}`;
}

export function unescapedSegment(segment: string): string {
  return segment.replace(/%(?:u([0-9A-F]{4})|([0-9A-F]{2}))/g, (_, long: string | undefined, short: string) =>
    String.fromCharCode(Number.parseInt(long ?? short, 16)),
  );
}

export function hexadecimal(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The keys in pieces that one read of several entries can have. */
export function chunks(keys: readonly string[]): string[][] {
  const made: string[][] = [];
  let current: string[] = [];
  let characters = 0;
  for (const key of new Set(keys)) {
    const length = encodeURIComponent(key).length + "key=&".length;
    if (current.length === MAX_KEYS_OF_A_READ || characters + length > MAX_CHARACTERS_OF_A_READ) {
      made.push(current);
      [current, characters] = [[], 0];
    }
    current.push(key);
    characters += length;
  }
  if (current.length > 0) {
    made.push(current);
  }
  return made;
}
