/**
 * Requests to the service. All addresses are relative to the folder above the console, so they also work behind a
 * proxy that adds a prefix.
 */

import {members} from "./json_text.js";
import {currentToken} from "./token.js";

/** The address of the service, with a slash at its end. */
export const SERVICE = new URL("../", document.baseURI);

export const DEFAULT_NAMESPACE = "default";
/** The namespace of this page. It never changes: see `namespaces.js`. */
export const NAMESPACE = new URLSearchParams(location.search).get("namespace") || DEFAULT_NAMESPACE;
/** The address of what is in the namespace. A name that is none must not lead elsewhere, as `..` would. */
export const SPACE = NAMESPACE === DEFAULT_NAMESPACE
    ? SERVICE : new URL(`ns/${/^[a-z0-9-]+$/.test(NAMESPACE) ? NAMESPACE : "_"}/`, SERVICE);

/** Dispatches `needed` when the service asks for a token. */
export const tokenRequests = new EventTarget();

/** A response that is not a success. `status` is 0 if there was no response. */
export class Refusal extends Error {
    /**
     * @param {number} status
     * @param {string} code
     * @param {string} text
     */
    constructor(status, code, text) {
        super(text);
        this.status = status;
        this.code = code;
    }
}

/**
 * Whether the service has said that there is no such entry; its namespace exists.
 * @param {unknown} error
 */
export function isAbsence(error) {
    return error instanceof Refusal && error.status === 404 && error.code !== "no_such_namespace";
}

/**
 * The path of an entry or a lock, relative to its namespace.
 * @param {"kv" | "locks"} route
 * @param {string} name
 */
export function pathOf(route, name) {
    return `${route}/${name.split("/").map(encodeURIComponent).join("/")}`;
}

/**
 * @typedef {object} Options
 * @property {Record<string, string | number | null | undefined>} [query] `undefined` is left out, "" is a flag.
 * @property {Record<string, string>} [headers]
 * @property {string} [body]
 * @property {AbortSignal} [signal]
 * @property {URL} [base] The namespace, unless it is `SERVICE`.
 */

/**
 * Send a request, and wait for the head of its response. Raises `Refusal`.
 * @param {string} method
 * @param {string} path Relative to `base`.
 * @param {Options} [options]
 * @returns {Promise<Response>}
 */
export async function request(method, path, {query = {}, headers = {}, body, signal, base = SPACE} = {}) {
    const url = new URL(path, base);
    for (const [name, value] of Object.entries(query)) {
        if (value !== undefined && value !== null) {
            url.searchParams.append(name, String(value));
        }
    }
    const token = currentToken();
    const sent = {Accept: "application/json", ...headers, ...(token ? {Authorization: `Bearer ${token}`} : {})};
    let response;
    try {
        response = await fetch(url, {method, headers: sent, body, signal, cache: "no-store", credentials: "omit"});
    } catch (error) {
        if (signal?.aborted) {
            throw error;
        }
        const isRead = method === "GET";
        throw new Refusal(0, "unreachable", `The service did not answer.${isRead ? "" : " The change may have been made."}`);
    }
    if (response.ok) {
        return response;
    }
    throw await refusalOf(response);
}

/** @param {Response} response */
async function refusalOf(response) {
    const text = await response.text();
    let code = "", said = "";
    if (response.headers.get("Content-Type")?.startsWith("application/json") && text.startsWith("{")) {
        const found = members(text);
        code = JSON.parse(found.get("error") ?? '""');
        said = JSON.parse(found.get("message") ?? '""');
    }
    if (response.status === 401) {
        tokenRequests.dispatchEvent(new Event("needed"));
    }
    return new Refusal(response.status, code, explained(response.status, code, said));
}

/**
 * @param {number} status
 * @param {string} code
 * @param {string} said
 */
function explained(status, code, said) {
    if (status === 401) {
        return currentToken() ? "The service does not accept this token." : "The service needs a token.";
    }
    if (status === 403) {
        return `The service refuses this: ${said || "403"}.`;
    }
    return said ? `${said[0].toUpperCase()}${said.slice(1)} (${status} ${code}).` : `The service answered ${status}.`;
}

/**
 * As `request`, for a whole response as text.
 * @param {string} method
 * @param {string} path
 * @param {Options} [options]
 */
export async function ask(method, path, options = {}) {
    const response = await request(method, path, options);
    return {text: await response.text(), etag: response.headers.get("ETag") ?? ""};
}

/**
 * @typedef {object} Entry
 * @property {string} key
 * @property {string | null} value The JSON text of the value as the service sent it; null if it is bytes.
 * @property {string} etag
 * @property {number} revision
 * @property {string} created
 * @property {string} updated
 * @property {string | null} expires
 * @property {string | null} media The media type of bytes.
 * @property {number} size Bytes.
 */

/**
 * @param {string} text The JSON of an entry.
 * @param {string} etag
 * @returns {Entry}
 */
export function entryOf(text, etag) {
    const found = members(text);
    /** @param {string} name */
    const simple = (name) => found.has(name) ? JSON.parse(/** @type {string} */ (found.get(name))) : null;
    const value = found.get("value") ?? null;
    return {
        key: simple("key"), value, etag, revision: simple("revision"), created: simple("created_at"),
        updated: simple("updated_at"), expires: simple("expires_at"), media: simple("media"),
        size: value === null ? simple("size") ?? 0 : new TextEncoder().encode(value).length,
    };
}

/**
 * @param {string} key
 * @param {AbortSignal} [signal]
 */
export async function readEntry(key, signal) {
    const {text, etag} = await ask("GET", pathOf("kv", key), {signal});
    return entryOf(text, etag);
}
