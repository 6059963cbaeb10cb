/**
 * JSON as text. A value is never parsed and written again, because a number beyond 2^53 would be rounded. These
 * functions only find where the tokens of a text are, and change nothing but the white space between them.
 *
 * The text must be valid JSON. All texts come from the service, except the one that a user edits: see `isJson`.
 */

const QUOTE = 0x22, BACKSLASH = 0x5c, COMMA = 0x2c, COLON = 0x3a;
const OPEN_OBJECT = 0x7b, CLOSE_OBJECT = 0x7d, OPEN_ARRAY = 0x5b, CLOSE_ARRAY = 0x5d;

/** @param {number} code */
function isSpace(code) {
    return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
}

/** @param {number} code */
function isPunctuation(code) {
    return code === COMMA || code === COLON || code === OPEN_OBJECT || code === CLOSE_OBJECT
        || code === OPEN_ARRAY || code === CLOSE_ARRAY;
}

/**
 * Where the token ends that begins at `start`.
 * @param {string} text
 * @param {number} start
 */
function tokenEnd(text, start) {
    const first = text.charCodeAt(start);
    if (isPunctuation(first)) {
        return start + 1;
    }
    let at = start + 1;
    if (first === QUOTE) {
        while (at < text.length && text.charCodeAt(at) !== QUOTE) {
            at += text.charCodeAt(at) === BACKSLASH ? 2 : 1;
        }
        return Math.min(at + 1, text.length);
    }
    while (at < text.length && !isPunctuation(text.charCodeAt(at)) && !isSpace(text.charCodeAt(at))
        && text.charCodeAt(at) !== QUOTE) {
        at += 1;
    }
    return at;
}

/**
 * The tokens of a text in order, without white space.
 * @param {string} text
 * @returns {Generator<{token: string, start: number, end: number}>}
 */
export function* tokens(text) {
    let at = 0;
    while (at < text.length) {
        if (isSpace(text.charCodeAt(at))) {
            at += 1;
            continue;
        }
        const end = tokenEnd(text, at);
        yield {token: text.slice(at, end), start: at, end};
        at = end;
    }
}

/**
 * The texts of the parts of an array or object: `[name token or "", text of the part]`.
 * @param {string} text
 * @returns {[string, string][]}
 */
function parts(text) {
    /** @type {[string, string][]} */
    const found = [];
    let depth = 0, name = "", last = "", start = -1, end = 0;
    for (const {token, start: from, end: to} of tokens(text)) {
        const isClosing = token === "}" || token === "]";
        if (isClosing) {
            depth -= 1;
        }
        if (depth === 0 && isClosing || depth === 1 && token === ",") {
            if (start >= 0) {
                found.push([name, text.slice(start, end)]);
            }
            name = "";
            start = -1;
        } else if (depth === 1 && token === ":") {
            name = last;
            start = -1;
        } else if (depth >= 1 && start < 0) {
            start = from;
        }
        if (token === "{" || token === "[") {
            depth += 1;
        }
        last = token;
        end = to;
    }
    return found;
}

/**
 * The members of an object: the text of each value, by its name.
 * @param {string} text
 * @returns {Map<string, string>}
 */
export function members(text) {
    return new Map(parts(text).map(([name, value]) => [JSON.parse(name), value]));
}

/**
 * The texts of the elements of an array.
 * @param {string} text
 * @returns {string[]}
 */
export function items(text) {
    return parts(text).map(([, value]) => value);
}

/**
 * The same tokens, one member or element on a line.
 * @param {string} text
 */
export function indented(text) {
    /** @type {string[]} */
    const out = [];
    let depth = 0, before = "";
    for (const {token} of tokens(text)) {
        const isOpening = token === "{" || token === "[", isClosing = token === "}" || token === "]";
        const isEmpty = isClosing && (before === "{" || before === "[");
        depth -= isClosing ? 1 : 0;
        if (!isEmpty && (isClosing || before === "{" || before === "[" || before === ",")) {
            out.push("\n", "  ".repeat(depth));
        } else if (before === ":") {
            out.push(" ");
        }
        out.push(token);
        depth += isOpening ? 1 : 0;
        before = token;
    }
    return out.join("");
}

/**
 * The same tokens without white space between them.
 * @param {string} text
 */
export function compact(text) {
    return Array.from(tokens(text), ({token}) => token).join("");
}

/** @param {string} text What a user has typed. */
export function isJson(text) {
    try {
        JSON.parse(text); // only checked: the result, with rounded integers, is not used
    } catch {
        return false;
    }
    return true;
}

/**
 * What a token is, for its colour: `name` for the name of a member.
 * @param {string} token
 * @param {string} next The token after it.
 */
export function kindOf(token, next) {
    if (token.startsWith('"')) {
        return next === ":" ? "name" : "string";
    }
    if (token.length === 1 && isPunctuation(token.charCodeAt(0))) {
        return "";
    }
    return /^[-0-9]/.test(token) ? "number" : "word";
}
