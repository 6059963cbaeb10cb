/** The bearer token: a text, or a function that is asked for one again when it is refused, and before it expires. */

import { TokenUnavailable } from "./errors.js";
import { checked, secondsOfUse } from "./protocol/tokens.js";
import { runtime } from "./runtime.js";

export type TokenSource = () => string | Promise<string>;

/**
 * The token that requests carry. Of many requests that need a new one, one asks the function for it.
 *
 * The others wait meanwhile, so the function must not use the same client.
 */
export class Tokens {
  private readonly source: TokenSource | undefined;
  private token: string | undefined;
  private useUntil: number | undefined;
  private asking: Promise<void> | undefined;

  constructor(source: string | TokenSource | undefined) {
    if (typeof source === "function") {
      this.source = source;
    } else if (source !== undefined) {
      this.token = checked(source);
    }
  }

  /** Throws TokenUnavailable. */
  async current(): Promise<string | undefined> {
    if (this.source !== undefined && !this.isUsable()) {
      await this.ask(this.source);
    }
    return this.token;
  }

  /** Whether there is another token than the one that was refused. Throws TokenUnavailable. */
  async replace(refused: string | undefined): Promise<boolean> {
    if (this.source === undefined) {
      return false;
    }
    if (this.token === refused) {
      await this.ask(this.source);
    }
    return this.token !== refused;
  }

  private isUsable(): boolean {
    return this.token !== undefined && (this.useUntil === undefined || runtime.clock() < this.useUntil);
  }

  private ask(source: TokenSource): Promise<void> {
    this.asking ??= this.askOnce(source).finally(() => {
      this.asking = undefined;
    });
    return this.asking;
  }

  private async askOnce(source: TokenSource): Promise<void> {
    try {
      this.token = checked(await source());
    } catch (error) {
      throw new TokenUnavailable(`the function for tokens failed: ${String(error)}`, { cause: error });
    }
    const seconds = secondsOfUse(this.token, runtime.wallSeconds());
    this.useUntil = seconds === undefined ? undefined : runtime.clock() + seconds;
  }
}
