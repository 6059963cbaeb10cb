/** The start of the console: the view that the address names, the state of the stream, and the token. */

import {DEFAULT_NAMESPACE, NAMESPACE, tokenRequests} from "./api.js";
import {askForToken, leaving} from "./dialogs.js";
import {KeysView} from "./keys.js";
import {LiveView} from "./live.js";
import {LocksView} from "./locks.js";
import {Selector, leaveForbiddenDefault} from "./namespaces.js";
import {StatusView} from "./status.js";
import {stream} from "./stream.js";
import {claims, currentToken, tokenChanges} from "./token.js";

const VIEWS = {keys: KeysView, locks: LocksView, live: LiveView, status: StatusView};
const STATES = {
    connecting: "Connecting", live: "Connected", hidden: "Paused", lost: "Connection lost", refused: "Not allowed",
};

const root = /** @type {HTMLElement} */ (document.getElementById("main"));
const streamState = /** @type {HTMLElement} */ (document.getElementById("stream"));
const selector = new Selector(/** @type {HTMLSelectElement} */ (document.getElementById("namespace")));
const tokenButton = /** @type {HTMLElement} */ (document.getElementById("token"));

/**
 * `unsaved`: the name of what the user has edited and not saved; "" for nothing. `list`: read again, but keep an edit.
 * @typedef {object} View
 * @property {(argument: string) => void} show
 * @property {() => void} close
 * @property {string} [unsaved]
 * @property {() => void} [list]
 */

/** @type {{name: string, view: View} | null} */
let shown = null;

function route() {
    const address = location.hash.slice(1), slash = address.indexOf("/");
    const asked = slash < 0 ? address : address.slice(0, slash), argument = slash < 0 ? "" : address.slice(slash + 1);
    const name = asked in VIEWS ? /** @type {keyof typeof VIEWS} */ (asked) : "keys";
    if (shown?.name !== name) {
        shown?.view.close();
        shown = {name, view: new VIEWS[name](root)};
        const place = NAMESPACE === DEFAULT_NAMESPACE ? "" : ` · ${NAMESPACE}`;
        document.title = `${name[0].toUpperCase()}${name.slice(1)}${place} · Leasehold`;
        for (const link of document.querySelectorAll("nav a")) {
            const isCurrent = link.getAttribute("href") === `#${name}`;
            link.toggleAttribute("aria-current", false);
            if (isCurrent) {
                link.setAttribute("aria-current", "page");
            }
        }
    }
    shown.view.show(argument);
}

function showToken() {
    tokenButton.textContent = currentToken() ? claims()?.sub ?? "Token" : "Token…";
    tokenButton.title = currentToken() ? "The token of this tab" : "Use a bearer token";
}

function showStream() {
    streamState.dataset.state = stream.state;
    streamState.textContent = STATES[stream.state];
    streamState.title = stream.reason || "The stream of changes";
}

addEventListener("hashchange", (event) => {
    const {hash} = location;
    if (hash === "#main") { // the link that skips to the content
        return;
    }
    if (!shown?.view.unsaved) {
        route();
        return;
    }
    history.pushState(null, "", event.oldURL); // until the user has decided; this dispatches no event
    leaving(shown.view.unsaved, () => {
        history.pushState(null, "", hash);
        route();
    });
});
addEventListener("beforeunload", (event) => {
    if (shown?.view.unsaved) {
        event.preventDefault(); // the browser asks
    }
});
tokenButton.addEventListener("click", () => askForToken());
tokenRequests.addEventListener("needed", () => askForToken(currentToken()
    ? "The service does not accept this token. It may have expired."
    : "The service needs a token."));
tokenChanges.addEventListener("change", () => {
    showToken();
    selector.refresh();
    if (shown?.view.unsaved) {
        shown.view.list?.();
        return;
    }
    if (leaveForbiddenDefault()) {
        return;
    }
    shown?.view.close();
    shown = null;
    route();
});
stream.addEventListener("state", showStream);
showToken();
if (!leaveForbiddenDefault()) {
    selector.refresh();
    stream.start();
    route();
}
