/**
 * One level of the tree of keys, in pages. A folder is what keys have in common up to a slash.
 *
 * The service lists keys, not folders. So a lister reads a page of keys without values, and skips the rest of a folder
 * as soon as it has seen one of its keys. A level costs about one small request for each folder that is shown, however
 * many keys the folders have.
 */

import {ask} from "./api.js";
import {items, members} from "./json_text.js";

const PAGE_KEYS = 100;
/** A page of keys that are nearly all skipped is a waste, so pages are shorter while folders are large. */
const FEWEST_KEYS = 8;
/** The last character of Unicode: all other keys of a folder are before it. */
const LAST = "\u{10FFFF}";
const MOST_AFTER_BYTES = 512;

/**
 * @typedef {object} Child
 * @property {string} name Without the path of its folder; that of a folder ends with a slash.
 * @property {string} path The key of an entry, or the prefix of all keys of a folder.
 * @property {boolean} isFolder
 */

/** Lists the children of `base` whose paths begin with `prefix`, which begins with `base`. */
export class Lister {
    /**
     * @param {string} base "" or a text that ends with a slash.
     * @param {string} [prefix]
     */
    constructor(base, prefix = base) {
        this.base = base;
        this.prefix = prefix;
        /** @type {string | null} Where the next request goes on. */
        this.after = "";
        this.limit = PAGE_KEYS;
        this.lastFolder = "";
    }

    get isComplete() {
        return this.after === null;
    }

    /**
     * The next children, about `wanted` of them; fewer only if there are no more. `found` is called with those of each
     * request as they come.
     * @param {number} wanted
     * @param {(children: Child[]) => void} found
     * @param {AbortSignal} [signal]
     */
    async next(wanted, found, signal) {
        let count = 0;
        while (count < wanted && this.after !== null) {
            const limit = Math.min(this.limit, wanted - count + 1);
            const query = {prefix: this.prefix || null, after: this.after || null, values: "false", limit};
            const {text} = await ask("GET", "kv", {query, signal});
            const page = members(text);
            const keys = items(page.get("entries") ?? "[]").map((entry) => JSON.parse(members(entry).get("key") ?? '""'));
            const children = this.childrenOf(keys);
            this.goOn(keys, JSON.parse(page.get("next") ?? "null"));
            count += children.length;
            found(children);
        }
    }

    /** @param {string[]} keys */
    childrenOf(keys) {
        /** @type {Child[]} */
        const children = [];
        for (const key of keys) {
            const child = childOf(this.base, key);
            if (child.isFolder && child.path === this.lastFolder) {
                continue;
            }
            this.lastFolder = child.isFolder ? child.path : this.lastFolder;
            children.push(child);
        }
        return children;
    }

    /**
     * @param {string[]} keys
     * @param {string | null} next
     */
    goOn(keys, next) {
        if (next === null || keys.length === 0) {
            this.after = next;
            return;
        }
        const last = childOf(this.base, keys[keys.length - 1]);
        const end = last.path + LAST;
        const isSkipped = last.isFolder && new TextEncoder().encode(end).length <= MOST_AFTER_BYTES
            && this.after !== end;
        this.after = isSkipped ? end : next;
        this.limit = isSkipped ? Math.max(FEWEST_KEYS, this.limit >> 1) : Math.min(PAGE_KEYS, this.limit * 2);
    }
}

/**
 * The child of `base` that is a key, or contains it.
 * @param {string} base
 * @param {string} key
 * @returns {Child}
 */
export function childOf(base, key) {
    const slash = key.indexOf("/", base.length);
    const path = slash < 0 ? key : key.slice(0, slash + 1);
    return {name: path.slice(base.length), path, isFolder: slash >= 0};
}

/**
 * Compare two keys as the service does: by their bytes in UTF-8, which is the order of code points.
 * @param {string} one
 * @param {string} other
 */
export function compareKeys(one, other) {
    let at = 0;
    while (at < one.length && one.charCodeAt(at) === other.charCodeAt(at)) {
        at += 1;
    }
    // Half of a surrogate pair may be equal, but then both have one there, so the halves decide as the pairs would.
    const mine = one.charCodeAt(at), theirs = other.charCodeAt(at);
    if (Number.isNaN(mine) || Number.isNaN(theirs)) {
        return one.length - other.length;
    }
    return isSurrogate(mine) !== isSurrogate(theirs) ? (isSurrogate(mine) ? 1 : -1) : mine - theirs;
}

/** @param {number} code */
function isSurrogate(code) {
    return code >= 0xd800 && code <= 0xdfff;
}
