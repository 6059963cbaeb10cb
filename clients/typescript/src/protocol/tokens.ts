/** When a bearer token must be replaced. */

const LONGEST_MARGIN_SECONDS = 30;
const MARGIN_FRACTION = 0.2;

/** The token without the white space around it. Throws TypeError, whose message does not contain the token. */
export function checked(token: string): string {
  const text = token.trim();
  if (!/^[!-~]+$/.test(text)) {
    throw new TypeError("a token is text of printable ASCII characters without spaces");
  }
  return text;
}

/**
 * The claim `exp` of a JWT: seconds since 1970. Undefined if there is none, or the token is not a JWT.
 *
 * The signature is not checked: the service does that.
 */
export function expiryOf(token: string): number | undefined {
  const parts = token.split(".");
  if (parts.length !== 3) {
    return undefined;
  }
  let claims: unknown;
  try {
    claims = JSON.parse(atob((parts[1] ?? "").replaceAll("-", "+").replaceAll("_", "/")));
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof DOMException) {
      return undefined;
    }
    throw error;
  }
  const expiry = typeof claims === "object" && claims !== null && "exp" in claims ? claims.exp : undefined;
  return typeof expiry === "number" ? expiry : undefined;
}

/** How long the token is used: until 30 seconds or a fifth of its time before `exp`. Undefined: until it is refused. */
export function secondsOfUse(token: string, now: number): number | undefined {
  const expiry = expiryOf(token);
  if (expiry === undefined) {
    return undefined;
  }
  const lifetime = Math.max(expiry - now, 0);
  return lifetime - Math.min(LONGEST_MARGIN_SECONDS, lifetime * MARGIN_FRACTION);
}
