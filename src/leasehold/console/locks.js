/** The view of locks: who holds them, until when, and how many requests wait. It follows the watch. */

import {ask, pathOf} from "./api.js";
import {confirmed} from "./dialogs.js";
import {announce, button, debounced, element, failure, message, throttled} from "./dom.js";
import {items, members} from "./json_text.js";
import {stream} from "./stream.js";
import {clock, duration, secondsUntil} from "./times.js";
import {seemsPermitted} from "./token.js";

const PAGE_LOCKS = 100;
/** The watch does not report how many requests wait. */
const REFRESH_MILLISECONDS = 3_000;

/** @param {string} text The JSON of a lock. */
function lockOf(text) {
    const found = members(text);
    /** @param {string} name */
    const simple = (name) => JSON.parse(found.get(name) ?? "null");
    return {
        name: simple("lock"), token: found.get("token") ?? "", owner: found.get("owner") ?? "null",
        since: simple("acquired_at"), expires: simple("expires_at"), ttl: Number(found.get("ttl")),
        waiters: simple("waiters"),
    };
}

/** @typedef {ReturnType<typeof lockOf>} Lock */

/** A row, whose cells are changed in place, so that the focus stays where it is. */
class Row {
    /** @param {string} name @param {() => void} release */
    constructor(name, release) {
        const mayRelease = seemsPermitted("admin") && seemsPermitted("write");
        this.owner = element("code", {});
        this.token = element("td", {class: "number", "data-label": "Fencing token"});
        this.time = element("span", {class: "countdown"});
        this.bar = element("meter", {min: 0, "aria-hidden": "true"});
        this.waiters = element("td", {class: "number", "data-label": "Waiting"});
        this.root = element("tr", {},
            element("th", {scope: "row", class: "key"}, name),
            element("td", {"data-label": "Holder"}, this.owner), this.token,
            element("td", {"data-label": "Ends in"}, this.time, this.bar), this.waiters,
            element("td", {class: "last"}, button("Release…", release, {
                disabled: !mayRelease, "aria-label": `Release ${name}`,
                title: mayRelease ? "End the lease of the holder" : "The token does not permit this: it needs admin",
            })));
    }

    /** @param {Lock} lock */
    show(lock) {
        this.lock = lock;
        this.owner.textContent = lock.owner === "null" ? "—" : lock.owner;
        this.token.textContent = lock.token;
        this.waiters.textContent = String(lock.waiters);
        this.time.title = `Acquired ${clock(new Date(lock.since))}, ends ${clock(new Date(lock.expires))}`;
        this.bar.max = lock.ttl;
        this.tick();
    }

    tick() {
        const left = Math.max(secondsUntil(this.lock?.expires), 0);
        this.time.textContent = left > 0 ? duration(Math.ceil(left)) : "has ended";
        this.bar.value = left;
    }
}

export class LocksView {
    /** @param {HTMLElement} root */
    constructor(root) {
        /** @type {Map<string, Row>} */
        this.rows = new Map();
        this.after = "";
        this.aborting = new AbortController();
        this.search = element("input", {
            type: "search", placeholder: "Prefix, such as jobs/", spellcheck: "false",
            "aria-label": "Show locks whose names begin with", oninput: debounced(() => this.restart(), 200),
        });
        this.body = element("tbody", {});
        this.table = element("table", {class: "locks", hidden: true},
            element("thead", {}, element("tr", {},
                ...["Lock", "Holder", "Fencing token", "Ends in", "Waiting"].map((name, at) =>
                    element("th", {scope: "col", class: at === 2 || at === 4 ? "number" : null}, name)),
                element("td", {}))), this.body);
        this.note = element("div", {});
        this.next = button("Next page", () => this.turn(), {hidden: true});
        this.first = button("First page", () => this.restart(), {hidden: true});
        root.replaceChildren(element("section", {class: "page"},
            element("div", {class: "title"}, element("h1", {}, "Locks"), this.search),
            this.table, this.note, element("div", {class: "actions"}, this.first, this.next)));
        const refreshSoon = throttled(() => this.refresh(), 100);
        this.end = stream.subscribe(({event}) => (event === "lock" || event === "gap") && refreshSoon());
        this.ticking = setInterval(() => this.rows.forEach((row) => row.tick()), 250);
        this.refreshing = setInterval(() => document.visibilityState === "visible" && this.refresh(), REFRESH_MILLISECONDS);
    }

    close() {
        this.end();
        this.aborting.abort();
        clearInterval(this.ticking);
        clearInterval(this.refreshing);
    }

    show() {
        this.refresh();
    }

    restart() {
        this.after = "";
        this.refresh();
    }

    turn() {
        this.after = this.following ?? "";
        this.refresh();
    }

    async refresh() {
        this.aborting.abort();
        const {signal} = this.aborting = new AbortController();
        try {
            const query = {prefix: this.search.value || null, after: this.after || null, limit: PAGE_LOCKS};
            const page = members((await ask("GET", "locks", {query, signal})).text);
            if (!signal.aborted) {
                this.following = JSON.parse(page.get("next") ?? "null");
                this.render(items(page.get("locks") ?? "[]").map(lockOf));
            }
        } catch (error) {
            if (!signal.aborted) {
                this.note.replaceChildren(failure(error));
            }
        }
    }

    /** @param {Lock[]} locks */
    render(locks) {
        const names = new Set(locks.map(({name}) => name));
        for (const [name, row] of this.rows) {
            if (!names.has(name)) {
                row.root.remove();
                this.rows.delete(name);
            }
        }
        locks.forEach((lock, at) => {
            const row = this.rows.get(lock.name) ?? new Row(lock.name, () => this.release(lock.name));
            this.rows.set(lock.name, row);
            row.show(lock);
            if (this.body.children[at] !== row.root) {
                this.body.insertBefore(row.root, this.body.children[at] ?? null);
            }
        });
        this.table.hidden = locks.length === 0;
        this.next.hidden = this.following === null;
        this.first.hidden = this.after === "";
        const prefix = this.search.value;
        this.note.replaceChildren(...(locks.length ? [] : [prefix
            ? message("No such lock is held", "No held lock has a name that begins with this text.")
            : message("No lock is held", "A lock appears here while a client holds it.")]));
    }

    /** @param {string} name */
    release(name) {
        const text = "The holder is not asked. Its lease ends now, and writes with this lease are refused from now on.";
        confirmed("Release this lock?", text, "Release", async () => {
            await ask("DELETE", pathOf("locks", name), {query: {force: "true"}});
            announce(`Released ${name}`);
            await this.refresh();
        }, name);
    }
}
