/** The view of changes as they are committed: the newest first. */

import {button, element, message} from "./dom.js";
import {stream} from "./stream.js";
import {clock} from "./times.js";

/** Older rows are removed. */
const MOST_ROWS = 500;

const LABELS = {put: "written", delete: "deleted", lock: "lock", gap: "gap"};

/** @param {import("./stream.js").Change} change */
function subject({event, data}) {
    if (event === "lock") {
        const state = data.state === "held" ? `held, token ${data.token}` : "free";
        return [element("span", {class: "key"}, data.lock), element("span", {class: "hint"}, state)];
    }
    if (event === "gap") {
        return [element("span", {class: "hint"}, "Changes before this line may be missing.")];
    }
    const link = event === "put" && element("a", {class: "key", href: `#keys/${encodeURIComponent(data.key)}`}, data.key);
    return [link || element("span", {class: "key"}, data.key)];
}

export class LiveView {
    /** @param {HTMLElement} root */
    constructor(root) {
        /** @type {{change: import("./stream.js").Change, time: Date}[]} Those that are not shown yet. */
        this.waiting = [];
        this.isPaused = false;
        this.frame = 0;
        this.filter = element("input", {
            type: "search", placeholder: "Filter by name", spellcheck: "false", "aria-label": "Show names that contain",
            oninput: () => this.applyFilter(),
        });
        this.kinds = ["put", "delete", "lock"].map((kind) => element("label", {class: "switch"},
            element("input", {type: "checkbox", checked: true, value: kind, onchange: () => this.applyFilter()}),
            {put: "Written", delete: "Deleted", lock: "Locks"}[kind]));
        this.pause = button("Pause", () => this.togglePause(), {"aria-pressed": "false"});
        this.body = element("tbody", {});
        this.table = element("table", {class: "live", hidden: true},
            element("thead", {}, element("tr", {},
                ...["Time", "Revision", "Change", "Name"].map((name) => element("th", {scope: "col"}, name)))), this.body);
        this.note = message("Waiting for changes", "Each change of an entry or a lock appears here when it is committed.");
        root.replaceChildren(element("section", {class: "page"},
            element("div", {class: "title"}, element("h1", {}, "Live"), this.filter, ...this.kinds, this.pause,
                button("Clear", () => this.clear())),
            this.table, this.note));
        this.end = stream.subscribe((change) => {
            this.waiting.push({change, time: new Date()});
            if (this.waiting.length > MOST_ROWS) {
                this.waiting.shift();
            }
            this.schedule();
        });
    }

    close() {
        this.end();
        cancelAnimationFrame(this.frame);
    }

    show() {}

    /** Rows are added once a frame, however many changes come. */
    schedule() {
        if (this.isPaused) {
            this.showPause();
        } else if (!this.frame) {
            this.frame = requestAnimationFrame(() => this.flush());
        }
    }

    flush() {
        this.frame = 0;
        const rows = this.waiting.map(({change, time}) => this.rowOf(change, time)).reverse();
        this.waiting = [];
        this.body.prepend(...rows);
        while (this.body.rows.length > MOST_ROWS) {
            this.body.lastChild.remove();
        }
        this.table.hidden = this.body.rows.length === 0;
        this.note.hidden = !this.table.hidden;
    }

    /**
     * @param {import("./stream.js").Change} change
     * @param {Date} time
     */
    rowOf(change, time) {
        const row = element("tr", {"data-kind": change.event, "data-name": change.data.key ?? change.data.lock ?? ""},
            element("td", {class: "hint"}, clock(time)),
            element("td", {class: "number"}, String(change.data.revision ?? "")),
            element("td", {}, element("span", {class: `badge ${change.event}`}, LABELS[change.event])),
            element("td", {}, ...subject(change)));
        row.hidden = !this.fits(row);
        return row;
    }

    /** @param {HTMLElement} row */
    fits(row) {
        const kinds = this.kinds.map((label) => label.firstChild).filter(({checked}) => checked).map(({value}) => value);
        return row.dataset.kind === "gap"
            || (kinds.includes(row.dataset.kind) && (row.dataset.name ?? "").includes(this.filter.value));
    }

    applyFilter() {
        for (const row of this.body.rows) {
            row.hidden = !this.fits(row);
        }
    }

    togglePause() {
        this.isPaused = !this.isPaused;
        this.pause.setAttribute("aria-pressed", String(this.isPaused));
        this.showPause();
        if (!this.isPaused && this.waiting.length) {
            this.schedule();
        }
    }

    showPause() {
        const count = this.waiting.length;
        const many = count >= MOST_ROWS ? `${MOST_ROWS} or more` : count;
        this.pause.textContent = !this.isPaused ? "Pause" : count ? `Continue (${many} new)` : "Continue";
    }

    clear() {
        this.waiting = [];
        this.body.replaceChildren();
        this.showPause();
        this.flush();
    }
}
