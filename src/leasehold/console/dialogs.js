/** Questions in a dialog: the token, and the confirmation of what cannot be undone. */

import {button, element} from "./dom.js";
import {claims, currentToken, setToken, tokenChanges} from "./token.js";

/**
 * @param {string} title
 * @param {Node[]} content
 * @returns {HTMLDialogElement}
 */
function dialog(title, content) {
    const shown = element("dialog", {"aria-labelledby": "dialog-title", onclose: () => shown.remove()},
        element("h2", {id: "dialog-title"}, title), ...content);
    document.body.append(shown);
    shown.showModal();
    return shown;
}

/** The user has closed the dialog, so the console does not open it again by itself. */
let isDeclined = false;

tokenChanges.addEventListener("change", () => {
    isDeclined = false;
});

/**
 * Ask for a token. `reason`: why, if the service has asked for it.
 * @param {string} [reason]
 */
export function askForToken(reason = "") {
    if (document.querySelector("dialog.token") || (reason && isDeclined)) {
        return;
    }
    isDeclined = true;
    const field = element("input", {
        id: "token-field", type: "password", autocomplete: "off", spellcheck: "false", required: true,
    });
    const form = element("form", {
        method: "dialog",
        onsubmit: () => setToken(field.value),
    },
    reason && element("p", {class: "failure", role: "alert"}, reason),
    element("label", {for: "token-field"}, "Bearer token"), field,
    element("p", {class: "hint"}, "It is kept for this tab only, until you close it. ",
        element("code", {}, "leasehold token"), " makes one."),
    element("div", {class: "actions"},
        button("Cancel", () => shown.close()),
        currentToken() && button("Forget the token", () => {
            setToken("");
            shown.close();
        }),
        element("button", {class: "primary"}, "Use this token")));
    const known = claims();
    const facts = known && element("p", {}, `Now: ${known.sub ?? "a token"}`
        + `, ${(known.permissions ?? []).join(", ") || "no permissions"}`
        + (known.prefixes ? `, only ${known.prefixes.join(", ")}` : ""));
    const shown = dialog("Token", [facts, form].filter((part) => part !== null));
    shown.classList.add("token");
    field.focus();
}

/**
 * Ask whether to discard an edit.
 * @param {string} name What is edited.
 * @param {() => void} leave
 */
export function leaving(name, leave) {
    confirmed("Discard this edit?", `What you have changed in ${name} is not saved.`, "Discard", async () => leave());
}

/**
 * Ask whether to do something. If `name` is given, it must be typed. `action` raises if it fails.
 * @param {string} title
 * @param {string} text
 * @param {string} label Of the button.
 * @param {() => Promise<void>} action
 * @param {string} [name]
 */
export function confirmed(title, text, label, action, name = "") {
    const fault = element("p", {class: "failure", role: "alert", hidden: true});
    const confirm = element("button", {class: "danger", disabled: name !== ""}, label);
    const field = element("input", {
        id: "name-field", autocomplete: "off", spellcheck: "false", oninput: () => {
            confirm.disabled = field.value !== name;
        },
    });
    const form = element("form", {
        onsubmit: async (/** @type {Event} */ event) => {
            event.preventDefault();
            confirm.disabled = true;
            try {
                await action();
                shown.close();
            } catch (error) {
                fault.textContent = error instanceof Error ? error.message : String(error);
                fault.hidden = false;
                confirm.disabled = false;
            }
        },
    },
    element("p", {}, text),
    name && element("label", {for: "name-field"}, "Type ", element("code", {}, name), " to confirm"),
    name && field, fault,
    element("div", {class: "actions"}, button("Cancel", () => shown.close()), confirm));
    const shown = dialog(title, [form]);
    if (name) {
        field.focus();
    }
}
