/** The comparison of three versions: the one that was edited, the one on the server now, and that of the user. */

import {button, element} from "./dom.js";
import {differences} from "./diff.js";
import {indented, isJson} from "./json_text.js";

/** Lines that did not change are left out, except so many around a change. */
const CONTEXT_LINES = 3;

/**
 * @param {import("./api.js").Entry | null} entry
 * @param {string} none
 */
function textOf(entry, none) {
    return entry === null ? none : entry.value === null ? `(${entry.size} bytes of ${entry.media})` : indented(entry.value);
}

/**
 * The text of the user in the form of the other versions, if it is JSON at all.
 * @param {string} text
 */
function inSameForm(text) {
    return isJson(text) ? indented(text) : text;
}

/**
 * @param {string} title
 * @param {string} before
 * @param {string} after
 */
function column(title, before, after) {
    const lines = differences(before, after);
    const near = new Set();
    lines.forEach(({kind}, at) => {
        for (let each = at - CONTEXT_LINES; kind !== "same" && each <= at + CONTEXT_LINES; each += 1) {
            near.add(each);
        }
    });
    const shown = element("pre", {tabindex: 0, "aria-label": title});
    let isGap = false;
    lines.forEach(({kind, text}, at) => {
        if (kind === "same" && near.size > 0 && !near.has(at)) {
            isGap = isGap || shown.append(element("span", {class: "gap"}, "⋯")) === undefined;
            return;
        }
        isGap = false;
        const [tag, sign] = {same: ["span", " "], removed: ["del", "−"], added: ["ins", "+"]}[kind];
        shown.append(element(tag, {}, `${sign} ${text}`));
    });
    return element("section", {}, element("h3", {}, title), shown);
}

/**
 * @param {import("./api.js").Entry | null} base
 * @param {import("./api.js").Entry | null} theirs
 * @param {string} mine
 * @param {(text: string) => void} use Puts a text into the editor.
 */
export function comparison(base, theirs, mine, use) {
    const before = textOf(base, ""), now = textOf(theirs, "");
    const origin = base ? `Revision ${base.revision}, which you edited` : "No entry, when you began";
    const current = theirs ? `Revision ${theirs.revision}, on the server now` : "Deleted on the server";
    return element("div", {class: "conflict"},
        element("h2", {tabindex: -1}, "The entry was changed meanwhile"),
        element("p", {}, "Nothing was saved. Compare the versions, then decide what the value below becomes."),
        element("div", {class: "columns"},
            column(origin, before, before), column(current, before, now), column("Your version", before, inSameForm(mine))),
        element("div", {class: "actions"},
            theirs?.value && button("Take the server’s version", () => use(now)),
            button("Take your version", () => use(mine))));
}
