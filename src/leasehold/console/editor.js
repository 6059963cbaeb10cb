/** Writes an entry with the condition that it is still the one that was shown. If it is not, both are compared. */

import {Refusal, ask, isAbsence, pathOf, readEntry} from "./api.js";
import {comparison} from "./conflict.js";
import {button, element} from "./dom.js";
import {compact, indented, isJson} from "./json_text.js";

/**
 * The fields of the form.
 * @param {string} key
 * @param {import("./api.js").Entry | null} entry
 */
function fieldsOf(key, entry) {
    const fields = {
        key: element("input", {id: "key-field", value: key, required: true, autocomplete: "off", spellcheck: "false"}),
        value: element("textarea", {
            id: "value-field", spellcheck: "false", rows: 14, required: true, "aria-describedby": "save-hint",
        }),
        expiry: element("select", {id: "expiry-field", onchange: () => {
            fields.seconds.hidden = fields.expiry.value !== "after";
        }},
        entry && element("option", {value: "keep"}, entry.expires ? "as it is now" : "as it is now (never)"),
        element("option", {value: "never"}, "never"),
        element("option", {value: "after"}, "after some seconds")),
        seconds: element("input", {
            type: "number", min: "0.1", step: "any", value: "60", "aria-label": "Seconds until it expires", hidden: true,
        }),
    };
    fields.value.value = entry?.value ? indented(entry.value) : "";
    return fields;
}

/** The form of one edit, and what it sends. */
export class Editor {
    /**
     * @param {string} key
     * @param {import("./api.js").Entry | null} entry What is changed; null to create one.
     * @param {(key: string | null) => void} finish Gets the key that was written; null if the user gives up.
     */
    constructor(key, entry, finish) {
        this.base = entry;
        /** What is replaced if it is still there; null: there must be no entry. */
        this.expected = entry;
        this.fields = fieldsOf(key, entry);
        this.finish = finish;
        this.isSaving = false;
        this.warning = element("p", {class: "warning", role: "status", hidden: true});
        this.fault = element("p", {class: "failure", role: "alert", hidden: true});
        this.comparison = element("div", {});
        this.button = element("button", {class: "primary"}, entry ? "Save" : "Create");
        this.form = this.made();
        this.before = this.typed();
    }

    made() {
        const {key, value, expiry, seconds} = this.fields, isNew = this.base === null;
        const form = element("form", {
            class: "editor",
            onsubmit: (/** @type {Event} */ event) => {
                event.preventDefault();
                this.save();
            },
            onkeydown: (/** @type {KeyboardEvent} */ event) => {
                if ((event.ctrlKey || event.metaKey) && (event.key === "Enter" || event.key === "s")) {
                    event.preventDefault();
                    form.requestSubmit();
                }
            },
        },
        this.warning,
        isNew && element("label", {for: "key-field"}, "Key"), isNew && key,
        this.comparison,
        element("label", {for: "value-field"}, "Value (JSON)"), value,
        element("div", {class: "line"}, element("label", {for: "expiry-field"}, "Expires"), expiry, seconds),
        this.fault,
        element("div", {class: "actions"}, this.button, button("Cancel", () => this.finish(null)),
            element("span", {id: "save-hint", class: "hint"}, "Ctrl+Enter saves.")));
        return form;
    }

    typed() {
        return Object.values(this.fields).map(({value}) => value).join("\n");
    }

    /** Whether the user has typed or chosen anything. */
    get isChanged() {
        return this.typed() !== this.before;
    }

    get key() {
        return this.base?.key ?? this.fields.key.value;
    }

    async save() {
        if (this.isSaving) {
            return;
        }
        this.isSaving = true;
        this.button.disabled = true;
        try {
            await this.send();
        } finally {
            this.isSaving = false;
            this.button.disabled = false;
        }
    }

    async send() {
        const {value, expiry, seconds} = this.fields;
        this.fault.hidden = true;
        const isNever = expiry.value === "never" || (expiry.value === "keep" && this.expected === null);
        const ttl = isNever ? null : expiry.value === "keep" ? "keep" : seconds.value;
        /** @type {Record<string, string>} */
        const condition = this.expected ? {"If-Match": this.expected.etag} : {"If-None-Match": "*"};
        const headers = {"Content-Type": "application/json", Prefer: "return=minimal", ...condition};
        try {
            // The white space that the form has added could make a large value too large. If the text is not JSON, it is
            // sent as it is, so that the position in the error is the one in the form.
            const body = isJson(value.value) ? compact(value.value) : value.value;
            await ask("PUT", pathOf("kv", this.key), {query: {ttl}, headers, body});
            this.finish(this.key);
        } catch (error) {
            if (error instanceof Refusal && error.status === 412) {
                await this.compare();
            } else {
                this.show(error);
            }
        }
    }

    /** Read what is there now. The next save replaces exactly that. */
    async compare() {
        let theirs = null;
        try {
            theirs = await readEntry(this.key);
        } catch (error) {
            if (!isAbsence(error)) {
                this.show(error);
                return;
            }
        }
        const mine = this.fields.value.value;
        if (theirs?.value && compact(theirs.value) === compact(mine) && this.hasChosenExpiry(theirs)) {
            this.finish(this.key); // the save was done before, and its response was lost
            return;
        }
        this.expected = theirs;
        this.warning.hidden = true;
        this.button.textContent = theirs ? `Save over revision ${theirs.revision}` : "Create it again";
        this.comparison.replaceChildren(comparison(this.base, theirs, mine, (text) => {
            this.fields.value.value = text;
            this.fields.value.focus();
        }));
        this.comparison.querySelector("h2").focus();
    }

    /**
     * Whether an entry expires as the user has chosen. A number of seconds counts from the save, so it is never so.
     * @param {import("./api.js").Entry} entry
     */
    hasChosenExpiry(entry) {
        const {value} = this.fields.expiry;
        return value === "keep" || (value === "never" && entry.expires === null);
    }

    /** @param {string} text What has happened to the entry. After a comparison, the next save finds it out. */
    warn(text) {
        if (!this.comparison.hasChildNodes()) {
            this.warning.textContent = `${text} If you save, you see both versions first.`;
            this.warning.hidden = false;
        }
    }

    /** @param {unknown} error */
    show(error) {
        this.fault.textContent = error instanceof Error ? error.message : String(error);
        this.fault.hidden = false;
    }
}
