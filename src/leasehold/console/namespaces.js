/**
 * The namespace of this page, and the choice of another one.
 *
 * The namespace is in the query of the address (`?namespace=team-a#keys/users%2Fann`), so another one is another page:
 * the browser loads everything anew, and asks before an edit is lost. So nothing that was begun in one namespace, such
 * as an edit or the watch, can go on in another one.
 */

import {DEFAULT_NAMESPACE, NAMESPACE, Refusal, SERVICE, SPACE, ask} from "./api.js";
import {element} from "./dom.js";
import {items, members} from "./json_text.js";
import {claims, seemsPermitted} from "./token.js";

/** More are not listed; their addresses work. */
const MOST_LISTED = 1_000;
/** In the claim `namespaces` of a token: all of them. */
const EVERY = "*";

/**
 * The figures of a namespace.
 * @param {string} text The JSON of a namespace.
 */
function namespaceOf(text) {
    const found = members(text);
    /** @param {string} name */
    const simple = (name) => JSON.parse(found.get(name) ?? "null");
    return {
        name: simple("namespace"), revision: simple("revision"), entries: simple("entries"), bytes: simple("bytes"),
        maxEntries: simple("max_entries"), maxBytes: simple("max_bytes"),
    };
}

/** What namespaces contain concerns all keys, so a token that is limited to some of them may not see it. */
function mayManage() {
    return seemsPermitted("admin") && !claims()?.prefixes;
}

/** The figures of the namespace of this page; null for `default`, and if the token may not see them. */
export async function readNamespace() {
    if (NAMESPACE === DEFAULT_NAMESPACE || !mayManage()) {
        return null;
    }
    return namespaceOf((await ask("GET", SPACE.href.replace(/\/$/, ""))).text);
}

/** The namespaces that the token names; without the claim it is for `default`. */
function granted() {
    const found = claims()?.namespaces;
    return Array.isArray(found) ? found : [DEFAULT_NAMESPACE];
}

/** The names that the user may choose: those that the service lists, else those that the token names. */
async function readNames() {
    const named = granted().filter((name) => name !== EVERY);
    if (!mayManage()) {
        return named;
    }
    try {
        const page = members((await ask("GET", "ns", {base: SERVICE, query: {limit: MOST_LISTED}})).text);
        return items(page.get("namespaces") ?? "[]").map((each) => /** @type {string} */ (namespaceOf(each).name));
    } catch (error) {
        if (error instanceof Refusal) {
            return named; // the views show why the service cannot be asked
        }
        throw error;
    }
}

/**
 * The address of this page in another namespace.
 * @param {string} name
 */
function addressOf(name) {
    const view = location.hash.replace(/^#([a-z]*).*$/, "#$1"); // an entry of one is not one of the other
    return `${location.pathname}${name === DEFAULT_NAMESPACE ? "" : `?namespace=${name}`}${view}`;
}

/** The control in the head of the page. It is hidden while there is nothing to choose. */
export class Selector {
    /** @param {HTMLSelectElement} root */
    constructor(root) {
        this.root = root;
        root.addEventListener("change", () => {
            const {value} = root;
            root.value = NAMESPACE; // until the other page is there; the user may prefer to stay with an edit
            location.assign(addressOf(value));
        });
        root.addEventListener("pointerdown", () => this.refresh());
    }

    async refresh() {
        const names = new Set([...await readNames(), NAMESPACE]);
        this.root.hidden = names.size === 1 && NAMESPACE === DEFAULT_NAMESPACE;
        const shown = Array.from(this.root.options, ({value}) => value), wanted = [...names].sort();
        if (shown.join() !== wanted.join()) {
            this.root.replaceChildren(...wanted.map((name) => element("option", {value: name}, name)));
        }
        this.root.value = NAMESPACE;
    }
}

/**
 * Go to the first namespace of the token, if the address has none and the token is not for `default`.
 * @returns {boolean} Whether the browser leaves this page.
 */
export function leaveForbiddenDefault() {
    const names = granted();
    const isForThis = names.includes(EVERY) || names.includes(NAMESPACE);
    if (NAMESPACE !== DEFAULT_NAMESPACE || isForThis || names.length === 0) {
        return false;
    }
    location.replace(addressOf(names[0]));
    return true;
}
