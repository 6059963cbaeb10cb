/**
 * The tree of keys (the WAI-ARIA pattern "tree view"). Each level is read when it is opened, a page at a time, and
 * changes that the watch reports are put into the levels that are open.
 */

import {Lister, childOf, compareKeys} from "./children.js";
import {announce, element, failure} from "./dom.js";

const PAGE_CHILDREN = 100;

/** A list of children, and the row that loads more of them. */
class Level {
    /**
     * @param {Tree} tree
     * @param {HTMLElement} list
     * @param {string} base
     * @param {string} prefix
     * @param {number} depth From 1.
     */
    constructor(tree, list, base, prefix, depth) {
        this.tree = tree;
        this.list = list;
        this.base = base;
        this.depth = depth;
        this.lister = new Lister(base, prefix);
        /** @type {{path: string, item: HTMLElement}[]} In the order of keys. */
        this.rows = [];
        this.more = element("li", {
            role: "treeitem", class: "more", "aria-level": depth, tabindex: -1, hidden: true, onclick: () => this.load(),
        }, element("span", {class: "row"}));
        list.replaceChildren(this.more);
        this.isLoading = false;
    }

    async load() {
        if (this.isLoading) {
            return;
        }
        this.isLoading = true;
        this.list.setAttribute("aria-busy", "true");
        const hadFocus = document.activeElement === this.more;
        const before = this.rows.length;
        let label = `Show ${PAGE_CHILDREN} more`;
        this.list.querySelector(":scope > .failed")?.remove();
        try {
            const signal = this.tree.aborting.signal;
            await this.lister.next(PAGE_CHILDREN, (children) => children.forEach((child) => this.add(child)), signal);
            this.showEmpty();
        } catch (error) {
            if (!this.tree.aborting.signal.aborted) {
                this.more.before(element("li", {role: "none", class: "failed"}, failure(error)));
                label = "Try again";
            }
        }
        this.isLoading = false;
        this.list.removeAttribute("aria-busy");
        this.more.firstChild.textContent = label;
        this.more.hidden = this.lister.isComplete;
        if (hadFocus && this.rows[before]) {
            this.tree.focus(this.rows[before].item);
        }
        this.tree.keepTabStop();
    }

    showEmpty() {
        if (this.rows.length === 0 && this.lister.isComplete && this.depth > 1) {
            this.more.before(element("li", {role: "none", class: "nothing"}, "No keys."));
        }
    }

    /** @param {import("./children.js").Child} child */
    add(child) {
        const at = this.placeOf(child.path);
        if (this.rows[at]?.path === child.path) {
            return;
        }
        this.list.querySelector(":scope > .nothing")?.remove();
        const item = this.tree.itemOf(child, this.depth);
        (this.rows[at]?.item ?? this.more).before(item);
        this.rows.splice(at, 0, {path: child.path, item});
    }

    /**
     * Where a path is in the rows, or belongs.
     * @param {string} path
     */
    placeOf(path) {
        let low = 0, high = this.rows.length;
        while (low < high) {
            const middle = (low + high) >> 1;
            if (compareKeys(this.rows[middle].path, path) < 0) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        return low;
    }

    /**
     * A key was written. A row behind the last one that was read is left to the next page.
     * @param {string} key
     */
    put(key) {
        const child = childOf(this.base, key);
        if (this.lister.isComplete || this.placeOf(child.path) < this.rows.length) {
            this.add(child);
        }
    }

    /** @param {string} path */
    remove(path) {
        const at = this.placeOf(path);
        if (this.rows[at]?.path === path) {
            const {item} = this.rows[at];
            const next = this.rows[at + 1] ?? this.rows[at - 1];
            if (item.contains(document.activeElement) && next) {
                this.tree.focus(next.item);
            }
            item.remove();
            this.rows.splice(at, 1);
            this.tree.keepTabStop();
        }
    }
}

export class Tree {
    /** @param {(key: string) => void} open Called when the user chooses an entry. */
    constructor(open) {
        this.open = open;
        this.aborting = new AbortController();
        /** @type {Map<string, Level>} The levels that were read, by their base. */
        this.levels = new Map();
        this.selected = "";
        this.root = element("ul", {
            role: "tree", "aria-label": "Keys", class: "tree",
            onkeydown: (/** @type {KeyboardEvent} */ event) => this.onKey(event),
            onclick: (/** @type {MouseEvent} */ event) => this.onClick(event),
        });
        this.prefix = "";
    }

    /**
     * Show the keys that begin with `prefix`.
     * @param {string} prefix
     */
    async show(prefix) {
        this.aborting.abort();
        this.aborting = new AbortController();
        this.levels.clear();
        this.prefix = prefix;
        const base = prefix.slice(0, prefix.lastIndexOf("/") + 1);
        const level = new Level(this, this.root, base, prefix, 1);
        this.levels.set(base, level);
        await level.load();
        return level.rows.length;
    }

    /**
     * @param {import("./children.js").Child} child
     * @param {number} depth
     */
    itemOf(child, depth) {
        const item = element("li", {
            role: "treeitem", "aria-level": depth, tabindex: -1, "data-path": child.path,
            "aria-expanded": child.isFolder ? "false" : null,
            "aria-selected": child.path === this.selected ? "true" : child.isFolder ? null : "false",
            "aria-label": child.isFolder ? `${child.name.slice(0, -1)}, folder` : child.name,
        }, element("span", {class: "row"}, child.name));
        item.style.setProperty("--depth", String(depth - 1));
        return item;
    }

    /** @param {HTMLElement} item */
    async toggle(item, isOpen = item.getAttribute("aria-expanded") === "false") {
        const path = item.dataset.path ?? "";
        item.setAttribute("aria-expanded", String(isOpen));
        let level = this.levels.get(path);
        if (isOpen && !level) {
            const list = element("ul", {role: "group"});
            item.append(list);
            level = new Level(this, list, path, path, Number(item.getAttribute("aria-level")) + 1);
            this.levels.set(path, level);
            await level.load();
            announce(`${level.rows.length} in ${path}`);
        }
    }

    /**
     * Mark the entry that is shown, and open the folders above it as far as they have been read.
     * @param {string} key
     */
    async select(key) {
        this.root.querySelector('[aria-selected="true"]')?.setAttribute("aria-selected", "false");
        this.selected = key;
        for (let slash = key.indexOf("/"); slash >= 0; slash = key.indexOf("/", slash + 1)) {
            const folder = this.find(key.slice(0, slash + 1));
            if (folder && folder.getAttribute("aria-expanded") === "false") {
                await this.toggle(folder, true);
            }
        }
        this.find(key)?.setAttribute("aria-selected", "true");
        this.keepTabStop();
    }

    /**
     * @param {string} path
     * @returns {HTMLElement | null}
     */
    find(path) {
        return this.root.querySelector(`[data-path="${CSS.escape(path)}"]`);
    }

    /** @param {import("./stream.js").Change} change */
    take({event, data}) {
        if (event === "put" && data.key.startsWith(this.prefix)) {
            for (const [base, level] of this.levels) {
                if (data.key.startsWith(base)) {
                    level.put(data.key);
                }
            }
        } else if (event === "delete") {
            const base = data.key.slice(0, data.key.lastIndexOf("/") + 1);
            this.levels.get(base)?.remove(data.key);
            this.removeEmpty(base);
        }
    }

    /**
     * Remove a folder, and those above it, if nothing is left in it.
     * @param {string} path
     */
    removeEmpty(path) {
        const level = this.levels.get(path);
        if (level && level.depth > 1 && level.rows.length === 0 && level.lister.isComplete) {
            this.levels.delete(path);
            const above = path.slice(0, path.lastIndexOf("/", path.length - 2) + 1);
            this.levels.get(above)?.remove(path);
            this.removeEmpty(above);
        }
    }

    /** @returns {HTMLElement[]} The rows that can be seen, from top to bottom. */
    visible() {
        return [...this.root.querySelectorAll('[role="treeitem"]')].filter((item) => item.checkVisibility());
    }

    /** @param {HTMLElement} item */
    focus(item) {
        this.root.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
        item.setAttribute("tabindex", "0");
        item.focus();
    }

    /** The tab key must reach one row, always. */
    keepTabStop() {
        if (!this.root.querySelector('[tabindex="0"]')) {
            this.root.querySelector('[role="treeitem"]:not([hidden])')?.setAttribute("tabindex", "0");
        }
    }

    /** @param {MouseEvent} event */
    onClick(event) {
        const item = /** @type {Element} */ (event.target).closest('[role="treeitem"]');
        if (item instanceof HTMLElement && item.dataset.path) {
            this.focus(item);
            this.choose(item);
        }
    }

    /** @param {HTMLElement} item */
    choose(item) {
        if (item.hasAttribute("aria-expanded")) {
            this.toggle(item);
        } else if (item.dataset.path) {
            this.open(item.dataset.path);
        } else {
            item.click();
        }
    }

    /** @param {KeyboardEvent} event */
    onKey(event) {
        const item = document.activeElement?.closest('[role="treeitem"]');
        if (!(item instanceof HTMLElement) || event.altKey || event.ctrlKey || event.metaKey) {
            return;
        }
        const rows = this.visible();
        const at = rows.indexOf(item);
        const isOpen = item.getAttribute("aria-expanded");
        /** @type {Record<string, () => void>} */
        const actions = {
            ArrowDown: () => this.focus(rows[Math.min(at + 1, rows.length - 1)]),
            ArrowUp: () => this.focus(rows[Math.max(at - 1, 0)]),
            Home: () => this.focus(rows[0]),
            End: () => this.focus(rows[rows.length - 1]),
            ArrowRight: () => isOpen === "false" ? this.toggle(item, true)
                : isOpen === "true" && rows[at + 1] && this.focus(rows[at + 1]),
            ArrowLeft: () => isOpen === "true" ? this.toggle(item, false) : this.focusAbove(item),
            Enter: () => this.choose(item),
            " ": () => this.choose(item),
        };
        if (actions[event.key]) {
            event.preventDefault();
            actions[event.key]();
        }
    }

    /** @param {HTMLElement} item */
    focusAbove(item) {
        const above = item.parentElement?.closest('[role="treeitem"]');
        if (above instanceof HTMLElement) {
            this.focus(above);
        }
    }
}
