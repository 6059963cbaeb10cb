/** One entry: shown as text, changed on the server meanwhile, deleted, downloaded. `editor.js` changes it. */

import {ask, isAbsence, pathOf, readEntry, request} from "./api.js";
import {confirmed} from "./dialogs.js";
import {announce, button, element, failure, message, throttled} from "./dom.js";
import {Editor} from "./editor.js";
import {indented, kindOf, tokens} from "./json_text.js";
import {snippetPanel} from "./snippets.js";
import {stream} from "./stream.js";
import {ago, clock, duration, secondsUntil, size} from "./times.js";
import {seemsPermitted} from "./token.js";

/** More tokens are shown in one colour, because each of them takes an element. */
const MOST_COLOURED_TOKENS = 5_000;

/**
 * The value with a colour for each kind of token.
 * @param {string} text
 */
function coloured(text) {
    const shown = element("pre", {class: "value", tabindex: 0, "aria-label": "Value"});
    /** @type {{token: string, start: number, end: number}[]} */
    const found = [];
    for (const each of tokens(text)) {
        found.push(each);
        if (found.length > MOST_COLOURED_TOKENS) {
            shown.textContent = text;
            return shown;
        }
    }
    let at = 0;
    found.forEach(({token, start, end}, index) => {
        const kind = kindOf(token, found[index + 1]?.token ?? "");
        shown.append(text.slice(at, start), kind ? element("span", {class: kind}, token) : token);
        at = end;
    });
    shown.append(text.slice(at));
    return shown;
}

/**
 * @param {string} label
 * @param {string} text
 * @param {string} [title]
 */
function fact(label, text, title) {
    return element("div", {}, element("dt", {}, label), element("dd", {title}, text));
}

/**
 * Write the text of a fact anew each second, as long as it is shown.
 * @param {any} shown
 * @param {() => string} text
 */
function ticking(shown, text) {
    const timer = setInterval(() => {
        if (!shown.isConnected) {
            clearInterval(timer);
        }
        shown.lastChild.textContent = text();
    }, 1000);
    return shown;
}

/** @param {string} time */
function moment(time) {
    return [ago(time), clock(new Date(time))];
}

/** @param {import("./api.js").Entry} entry */
function facts(entry) {
    const [updated, updatedAt] = moment(entry.updated), [created, createdAt] = moment(entry.created);
    const list = element("dl", {class: "facts"},
        fact("Revision", String(entry.revision)),
        fact("Size", size(entry.size)),
        ticking(fact("Updated", updated, updatedAt), () => ago(entry.updated)),
        entry.created !== entry.updated && fact("Created", created, createdAt),
        entry.media && fact("Type", entry.media));
    if (entry.expires) {
        const expires = entry.expires;
        const left = () => duration(Math.ceil(secondsUntil(expires)));
        list.append(ticking(fact("Expires in", left(), clock(new Date(expires))), left));
    }
    return list;
}

/**
 * Download bytes. The browser cannot do this by a link alone, because it would not send the token.
 * @param {string} key
 */
async function download(key) {
    const response = await request("GET", pathOf("kv", key), {headers: {Accept: "*/*"}});
    const url = URL.createObjectURL(await response.blob());
    element("a", {href: url, download: key.slice(key.lastIndexOf("/") + 1)}).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export class EntryPanel {
    /**
     * @param {HTMLElement} root
     * @param {(key: string) => void} open Opens another entry; "" for none.
     */
    constructor(root, open) {
        this.root = root;
        this.open = open;
        this.key = "";
        /** @type {import("./api.js").Entry | null} */
        this.entry = null;
        /** @type {Editor | null} The form that is shown in place of the entry. */
        this.editor = null;
        /** The control that had the focus is gone, so the next page takes it. */
        this.takesFocus = false;
        this.aborting = new AbortController();
        this.readSoon = throttled(() => !this.editor && this.key && this.show(this.key), 150);
        this.end = stream.subscribe((change) => this.take(change));
    }

    close() {
        this.end();
        this.aborting.abort();
    }

    /** @param {string} key */
    async show(key) {
        this.aborting.abort();
        this.aborting = new AbortController();
        const {signal} = this.aborting;
        this.key = key;
        this.editor = null;
        try {
            this.entry = await readEntry(key, signal);
            this.render(this.entry);
        } catch (error) {
            if (!signal.aborted) {
                this.entry = null;
                this.renderAbsent(error);
            }
        }
    }

    /** Show that no entry is chosen. */
    clear() {
        this.aborting.abort();
        this.key = "";
        this.entry = null;
        this.editor = null;
        this.root.replaceChildren(message("Choose an entry",
            "Open folders with the arrow keys or the mouse. Changes appear as they are committed."));
        if (this.takesFocus) {
            this.takesFocus = false;
            document.getElementById("main")?.focus();
        }
    }

    /**
     * @param {string} title
     * @param {...Node} content
     */
    renderPage(title, ...content) {
        const back = element("a", {href: "#keys", class: "back"}, "All keys");
        this.root.replaceChildren(back, element("h1", {class: this.key && "key"}, title), ...content);
    }

    /** Whether the user would lose something that was typed if another page was shown now. */
    get hasUnsavedEdit() {
        return this.editor !== null && this.editor.isChanged;
    }

    /** @param {unknown} error */
    renderAbsent(error) {
        if (isAbsence(error)) {
            this.renderPage(this.key, message("There is no such entry", "It was deleted, it has expired, or it was never written.",
                button("Create it", () => this.create(this.key), {class: "primary"})));
        } else {
            this.renderPage(this.key, failure(error), element("div", {class: "actions"},
                button("Try again", () => this.show(this.key))));
        }
    }

    /** @param {import("./api.js").Entry} entry */
    render(entry) {
        const mayWrite = seemsPermitted("write");
        const title = mayWrite ? null : "The token does not permit writing";
        const actions = element("div", {class: "actions"},
            entry.value !== null && button("Edit", () => this.edit(), {class: "primary", disabled: !mayWrite, title}),
            entry.media && button(`Download ${size(entry.size)}`, () => this.download(), {class: "primary"}),
            button("Delete", () => this.remove(), {disabled: !mayWrite, title}));
        const body = entry.value === null
            ? message("Bytes", `This value is ${size(entry.size)} of ${entry.media}. Download it to see it.`)
            : this.valueView(entry.value);
        // The entry may be shown again because it was changed: what is open stays open, and the focus stays.
        const focused = this.root.contains(document.activeElement) ? document.activeElement?.textContent : null;
        const snippets = snippetPanel(entry.key);
        snippets.open = this.root.querySelector("details")?.open ?? false;
        this.renderPage(this.key, facts(entry), actions, body, snippets);
        /** @type {NodeListOf<HTMLElement>} */
        const controls = this.root.querySelectorAll("button, summary");
        ([...controls].find((each) => each.textContent === focused) ?? (this.takesFocus ? controls[0] : null))?.focus();
        this.takesFocus = false;
    }

    async download() {
        try {
            await download(this.key);
        } catch (error) {
            this.root.append(failure(error));
        }
    }

    /** @param {string} text */
    valueView(text) {
        const pretty = indented(text);
        if (pretty === text) {
            return coloured(text);
        }
        const holder = element("div", {class: "value-view"}, coloured(pretty));
        const asSent = element("input", {
            type: "checkbox", onchange: () => holder.lastChild.replaceWith(coloured(asSent.checked ? text : pretty)),
        });
        holder.prepend(element("label", {class: "switch"}, asSent, "Without line breaks, as the service sent it"));
        return holder;
    }

    edit() {
        const entry = /** @type {import("./api.js").Entry} */ (this.entry);
        this.editor = new Editor(entry.key, entry, (key) => this.finish(key));
        this.renderPage(entry.key, this.editor.form);
        this.root.querySelector("textarea")?.focus();
    }

    /** @param {string} key The beginning of the key. */
    create(key) {
        this.aborting.abort();
        this.key = "";
        this.entry = null;
        this.editor = new Editor(key, null, (written) => this.finish(written));
        this.renderPage("New entry", this.editor.form);
        const {fields} = this.editor;
        (key && !key.endsWith("/") ? fields.value : fields.key).focus();
    }

    /** @param {string | null} key null: nothing was written. */
    finish(key) {
        this.editor = null;
        this.takesFocus = true;
        if (key === null && this.entry === null) {
            this.open("");
        } else if (key !== null && key !== this.key) {
            this.open(key);
        } else {
            this.show(this.key);
        }
        if (key !== null) {
            announce("Saved");
        }
    }

    remove() {
        const entry = /** @type {import("./api.js").Entry} */ (this.entry);
        confirmed("Delete this entry?", `${entry.key} is removed at once. This cannot be undone.`, "Delete", async () => {
            await ask("DELETE", pathOf("kv", entry.key), {headers: {"If-Match": entry.etag}});
            announce("Deleted");
            this.takesFocus = true;
            this.open("");
        });
    }

    /** @param {import("./stream.js").Change} change */
    take({event, data}) {
        const isMine = event === "gap" || data.key === this.key;
        if (!isMine || !this.key || (event !== "gap" && this.entry && data.revision <= this.entry.revision)) {
            return;
        }
        if (!this.editor) {
            this.readSoon();
        } else if (event !== "gap") {
            this.editor.warn(event === "put"
                ? "The entry was changed on the server meanwhile." : "The entry was deleted meanwhile.");
        }
    }
}
