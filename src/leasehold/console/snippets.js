/** How to read an entry with curl, Python and JavaScript. The token is not in them; it stays in the environment. */

import {DEFAULT_NAMESPACE, NAMESPACE, SERVICE, SPACE, pathOf} from "./api.js";
import {announce, button, element} from "./dom.js";
import {currentToken} from "./token.js";

/** @param {string} text */
function shellQuoted(text) {
    return `'${text.replace(/'/g, "'\\''")}'`;
}

/**
 * @param {string} key
 * @returns {Record<string, string>}
 */
export function snippets(key) {
    const url = new URL(pathOf("kv", key), SPACE).href, base = SERVICE.href.replace(/\/$/, "");
    const hasToken = currentToken() !== "";
    const quoted = JSON.stringify(key);
    const namespace = NAMESPACE === DEFAULT_NAMESPACE ? "" : `, namespace=${JSON.stringify(NAMESPACE)}`;
    return {
        curl: `curl ${hasToken ? '-H "Authorization: Bearer $LEASEHOLD_TOKEN" ' : ""}${shellQuoted(`${url}?raw`)}`,
        Python: [
            ...(hasToken ? ["import os", ""] : []),
            "from leasehold_client import Client",
            "",
            `with Client(${JSON.stringify(base)}${namespace}${hasToken ? ', token=os.environ["LEASEHOLD_TOKEN"]' : ""}) as client:`,
            `    entry = client.get(${quoted})`,
        ].join("\n"),
        JavaScript: [
            `const response = await fetch(${JSON.stringify(`${url}?raw`)}`
                + (hasToken ? ", {\n    headers: {Authorization: `Bearer ${process.env.LEASEHOLD_TOKEN}`},\n});" : ");"),
            "const text = await response.text(); // JSON.parse would round integers beyond 2^53",
        ].join("\n"),
    };
}

/**
 * Copy a text. Without HTTPS browsers have no clipboard, so the text is selected for the user.
 * @param {string} text
 * @param {HTMLElement} shown
 */
async function copy(text, shown) {
    getSelection()?.selectAllChildren(shown);
    try {
        await navigator.clipboard.writeText(text);
        announce("Copied");
        return "Copied";
    } catch {
        return "Selected: press Ctrl+C";
    }
}

/** @param {string} key */
export function snippetPanel(key) {
    const blocks = Object.entries(snippets(key)).map(([language, text]) => {
        const shown = element("pre", {tabindex: 0, "aria-label": `${language}`}, text);
        const copying = button("Copy", async () => {
            copying.textContent = await copy(text, shown);
        }, {class: "quiet", "aria-label": `Copy as ${language}`});
        return element("section", {class: "snippet"},
            element("div", {class: "bar"}, element("h3", {}, language), copying), shown);
    });
    return element("details", {class: "snippets"}, element("summary", {}, "Use this entry in a program"), ...blocks);
}
