/** The client that users create. */

import { Namespace } from "./namespace.js";
import * as namespaces from "./protocol/namespaces.js";
import { MAX_RETRY_SECONDS } from "./protocol/retrying.js";
import type { NamespaceInfo } from "./records.js";
import { Sender } from "./sender.js";
import { Tokens, type TokenSource } from "./tokens.js";
import type { CallOptions } from "./writes.js";

const PAGE_NAMESPACES = 1_000;

export interface ClientOptions {
  /** The namespace of the entries and locks. `default` by default. */
  readonly namespace?: string;
  /**
   * A text, or a function that returns one; it is called again when the service refuses the token, and before the token
   * expires. It must not use this client.
   */
  readonly token?: string | TokenSource;
  /**
   * Read integers beyond ±(2^53 - 1) as bigints. Without it, reading a value with such an integer throws UnsafeInteger.
   */
  readonly bigint?: boolean;
  /** How long one attempt may bring nothing, without the time that the service was asked to wait. 10 by default. */
  readonly timeoutSeconds?: number;
  /** How long attempts begin: from 0 (no retries) to 300; 30 by default. */
  readonly retrySeconds?: number;
  /** Instead of the `fetch` of the runtime. It is called with a Request. */
  readonly fetch?: typeof fetch;
  /**
   * Gets a text for people for each retry, and for a lease that is lost or was not released. By default `console.warn`.
   */
  readonly onWarning?: (message: string) => void;
}

export interface QuotaOptions extends CallOptions {
  readonly maxEntries?: number | null | undefined;
  /** Of all keys and values. */
  readonly maxBytes?: number | null | undefined;
}

/**
 * A client of one service. `url`: `http://127.0.0.1:8080`, or with the path under which a proxy serves it.
 *
 * Each request is repeated if there is no response, or if the service cannot do it now. A change is done once.
 */
export class Client extends Namespace {
  private readonly service: Sender;

  constructor(url = "http://127.0.0.1:8080", options: ClientOptions = {}) {
    const { retrySeconds = 30, timeoutSeconds = 10 } = options;
    if (!(retrySeconds >= 0 && retrySeconds <= MAX_RETRY_SECONDS)) {
      throw new RangeError(`retrySeconds must be from 0 to ${MAX_RETRY_SECONDS}`);
    }
    const service = new Sender({
      // A `fetch` that is called as a method of another object is refused by browsers.
      fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
      url: checkedUrl(url),
      tokens: new Tokens(options.token),
      timeoutSeconds,
      retrySeconds,
      isGuarded: options.bigint !== true,
      warn: options.onWarning ?? ((message) => console.warn(message)),
    });
    super(service.below(namespaces.path(options.namespace ?? namespaces.DEFAULT)));
    this.service = service;
  }

  // Namespaces -------------------------------------------------------------------------------------------------------

  /** The entries and locks of a namespace. It makes no request. */
  namespace(name: string): Namespace {
    return new Namespace(this.service.below(namespaces.path(name)));
  }

  /**
   * Create a namespace, or change the quotas of one that exists. Needs a token with the permission `admin`.
   *
   * null removes a quota; one that is not given stays as it is, and a new namespace has none. A write beyond a quota
   * throws QuotaExceeded.
   */
  async createNamespace(name: string, { maxEntries, maxBytes, ...options }: QuotaOptions = {}): Promise<NamespaceInfo> {
    const request = namespaces.create(name, { maxEntries, maxBytes });
    return namespaces.readNamespace(await this.service.send(request, options));
  }

  /** The revision, the usage and the quotas of a namespace. Needs `admin`. NoSuchNamespace if there is none. */
  async namespaceInfo(name: string, options: CallOptions = {}): Promise<NamespaceInfo> {
    return namespaces.readNamespace(await this.service.send(namespaces.info(name), options));
  }

  /** All namespaces that the token may use, in the order of their names, read in pages. Needs `admin`. */
  async *namespaces(
    options: CallOptions & { readonly pageNamespaces?: number } = {},
  ): AsyncGenerator<NamespaceInfo, void, undefined> {
    let after: string | undefined;
    do {
      const request = namespaces.page(after, options.pageNamespaces ?? PAGE_NAMESPACES);
      const page = namespaces.readPage(await this.service.send(request, options));
      yield* page.namespaces;
      after = page.next;
    } while (after !== undefined);
  }

  /**
   * Delete a namespace and all that is in it. Needs `admin`. `default` cannot be deleted.
   *
   * Watches, waits and leases in it end with NoSuchNamespace. If it is created again, its revision goes on.
   * NoSuchNamespace if there is none: perhaps an attempt that got no response has deleted it.
   */
  async deleteNamespace(name: string, options: CallOptions = {}): Promise<void> {
    await this.service.send(namespaces.remove(name), options);
  }
}

function checkedUrl(text: string): string {
  const url = new URL(text);
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new TypeError(`the URL must begin with http:// or https://: ${text}`);
  }
  if (url.username !== "" || url.search !== "" || url.hash !== "") {
    throw new TypeError("the URL must not have a user, a query or a fragment");
  }
  return text.replace(/\/+$/, "");
}
