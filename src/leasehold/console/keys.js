/** The view of keys: the tree and the search on one side, an entry on the other. */

import {ask} from "./api.js";
import {leaving} from "./dialogs.js";
import {button, debounced, element, throttled} from "./dom.js";
import {EntryPanel} from "./entry.js";
import {members} from "./json_text.js";
import {stream} from "./stream.js";
import {seemsPermitted} from "./token.js";
import {Tree} from "./tree.js";

/** Counting stops here. */
const MOST_COUNTED = 10_000;

/** @param {string} text Percent-encoded, unless a user has typed it. */
function decoded(text) {
    try {
        return decodeURIComponent(text);
    } catch {
        return text;
    }
}

export class KeysView {
    /** @param {HTMLElement} root */
    constructor(root) {
        this.tree = new Tree((key) => this.open(key));
        this.search = element("input", {
            type: "search", id: "search", placeholder: "Prefix, such as users/", spellcheck: "false", autocomplete: "off",
            "aria-label": "Show keys that begin with",
            oninput: debounced(() => this.list(), 200),
            onkeydown: (/** @type {KeyboardEvent} */ event) => event.key === "ArrowDown" && this.focusTree(event),
        });
        this.count = element("p", {class: "count"});
        this.panel = element("section", {class: "panel", "aria-label": "Entry"});
        this.newButton = button("New", () => this.create(), {"aria-label": "New entry"});
        this.pane = element("section", {class: "pane", "aria-label": "Tree of keys"},
            element("div", {class: "line"}, this.search, this.newButton), this.count, this.tree.root);
        this.view = element("div", {class: "keys"}, this.pane, this.panel);
        root.replaceChildren(this.view);
        this.entry = new EntryPanel(this.panel, (key) => this.open(key));
        this.countSoon = throttled(() => this.showCount(), 500);
        this.end = stream.subscribe((change) => {
            if (change.event === "gap") {
                this.list();
            } else if (change.event !== "lock") {
                this.tree.take(change);
                this.countSoon();
            }
        });
        this.listed = this.list();
    }

    close() {
        this.end();
        this.entry.close();
        this.tree.aborting.abort();
    }

    /** What the user has typed and not saved: its name, or "". */
    get unsaved() {
        return this.entry.hasUnsavedEdit ? this.entry.key || "the new entry" : "";
    }

    async list() {
        this.newButton.disabled = !seemsPermitted("write");
        this.showCount();
        await this.tree.show(this.search.value);
        this.tree.select(this.entry.key);
    }

    /** @param {string} argument What follows `keys/` in the address: an encoded key. */
    async show(argument) {
        const key = decoded(argument);
        this.view.classList.toggle("has-entry", key !== "");
        if (key) {
            this.entry.show(key);
        } else {
            this.entry.clear();
        }
        await this.listed;
        await this.tree.select(key);
    }

    /**
     * Go to an entry; "" for none. The address decides what is shown, unless it is the present one.
     * @param {string} key
     */
    open(key) {
        const argument = encodeURIComponent(key), hash = key ? `#keys/${argument}` : "#keys";
        if (location.hash !== hash) {
            location.hash = hash;
        } else if (this.unsaved) {
            leaving(this.unsaved, () => this.show(argument));
        } else {
            this.show(argument);
        }
    }

    create() {
        if (this.unsaved) {
            leaving(this.unsaved, () => this.startNew());
        } else {
            this.startNew();
        }
    }

    startNew() {
        const folder = this.tree.root.querySelector('[tabindex="0"][aria-expanded]')?.getAttribute("data-path");
        this.view.classList.add("has-entry");
        this.entry.create(folder ?? this.search.value);
    }

    /** @param {Event} event */
    focusTree(event) {
        const first = this.tree.visible()[0];
        if (first) {
            event.preventDefault();
            this.tree.focus(first);
        }
    }

    async showCount() {
        const prefix = this.search.value;
        try {
            const query = {prefix: prefix || null, count: "true", limit: MOST_COUNTED};
            const found = members((await ask("GET", "kv", {query})).text);
            const count = Number(found.get("count")), isAll = found.get("next") === "null";
            if (prefix === this.search.value) {
                const many = isAll ? count.toLocaleString("en") : `More than ${MOST_COUNTED.toLocaleString("en")}`;
                const none = prefix ? "No key begins with this text." : "The store has no entries yet.";
                this.count.textContent = count === 0 ? none : `${many} ${count === 1 ? "entry" : "entries"}`;
            }
        } catch {
            this.count.textContent = ""; // the tree shows why
        }
    }
}
