/**
 * The bearer token. It is kept for this tab only (`sessionStorage`), and sent to this service only. What the console
 * reads in it decides what is shown; the service decides what is permitted.
 */

const NAME = "leasehold.token";

/** Dispatches `change` when another token is set. */
export const tokenChanges = new EventTarget();

/** @returns {string} The token, or "" */
export function currentToken() {
    return sessionStorage.getItem(NAME) ?? "";
}

/** @param {string} token A token, with or without `Bearer`; "" forgets the present one. */
export function setToken(token) {
    const bare = token.trim().replace(/^bearer\s+/i, "");
    if (bare) {
        sessionStorage.setItem(NAME, bare);
    } else {
        sessionStorage.removeItem(NAME);
    }
    tokenChanges.dispatchEvent(new Event("change"));
}

/**
 * The claims of the token, unverified; null without a token, or if it is not a JWT.
 * @returns {{sub?: string, permissions?: string[], prefixes?: string[], namespaces?: string[], exp?: number} | null}
 */
export function claims() {
    const payload = currentToken().split(".")[1];
    if (!payload) {
        return null;
    }
    try {
        const bytes = Uint8Array.from(atob(payload.replace(/-/g, "+").replace(/_/g, "/")), (each) => each.charCodeAt(0));
        return JSON.parse(new TextDecoder().decode(bytes));
    } catch {
        return null;
    }
}

/**
 * Whether the token seems to permit something. Without a token everything is tried, as the service may be open.
 * @param {"read" | "write" | "admin"} permission
 */
export function seemsPermitted(permission) {
    const found = claims();
    return found === null || (found.permissions ?? []).includes(permission);
}
