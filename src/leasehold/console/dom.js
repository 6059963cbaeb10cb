/**
 * Elements and announcements. Text is always set as text, never as markup, so no value can become a part of the page.
 */

/**
 * Make an element. `attributes`: attributes by name; a function becomes a listener (`onclick`), `true` an attribute
 * without a value, and `false`, `null` and `undefined` are left out.
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {any} The element, of the class that the tag has.
 */
export function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (typeof value === "function") {
            made.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
        } else if (value !== false && value !== null && value !== undefined) {
            made.setAttribute(name, value === true ? "" : String(value));
        }
    }
    made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
    return made;
}

/**
 * Make a button.
 * @param {string} label
 * @param {(event: Event) => void} onclick
 * @param {Record<string, unknown>} [attributes]
 */
export function button(label, onclick, attributes = {}) {
    return element("button", {type: "button", onclick, ...attributes}, label);
}

/**
 * Tell users of screen readers what has happened. All others see it anyway.
 * @param {string} text
 */
export function announce(text) {
    const region = document.getElementById("announcements");
    if (region) {
        region.textContent = text;
    }
}

/**
 * A message in place of content: an empty list, or a failure.
 * @param {string} title
 * @param {string} text
 * @param {...Node} actions
 */
export function message(title, text, ...actions) {
    return element("div", {class: "message"}, element("h2", {}, title), element("p", {}, text), ...actions);
}

/** @param {unknown} error */
export function failure(error) {
    const text = error instanceof Error ? error.message : String(error);
    return element("p", {class: "failure", role: "alert"}, text);
}

/**
 * Call `action` at most once in so many `milliseconds`, also if the result is called all the time.
 * @param {() => void} action
 * @param {number} milliseconds
 */
export function throttled(action, milliseconds) {
    let timer = 0;
    return () => {
        timer ||= setTimeout(() => {
            timer = 0;
            action();
        }, milliseconds);
    };
}

/**
 * Call `action` once, `milliseconds` after the last call of the result.
 * @param {() => void} action
 * @param {number} milliseconds
 */
export function debounced(action, milliseconds) {
    let timer = 0;
    return () => {
        clearTimeout(timer);
        timer = setTimeout(action, milliseconds);
    };
}
