/** The view of the service: its health, and its figures over the last minutes. Some are those of the namespace. */

import {DEFAULT_NAMESPACE, NAMESPACE, Refusal, SERVICE, ask} from "./api.js";
import {Chart} from "./chart.js";
import {element, failure} from "./dom.js";
import {figures, samples} from "./metrics_text.js";
import {readNamespace} from "./namespaces.js";
import {duration, size} from "./times.js";

const INTERVAL_MILLISECONDS = 2_000;
/** Four minutes. */
const POINTS = 120;

/** @type {[keyof ReturnType<typeof figures>, string, string, boolean][]} The last: whether it is shown as a rate. */
const CHARTS = [
    ["reads", "Reads", "per second", true],
    ["writes", "Other requests", "per second", true],
    ["revision", "Changes", "per second", true],
    ["errors", "Server errors", "per second", true],
    ["entries", "Entries", "", false],
    ["leases", "Leases", "", false],
    ["waiters", "Waiting for a lock", "", false],
    ["connections", "Connections", "", false],
];

/** The metrics have these of the namespace `default` only. */
const OF_DEFAULT = {revision: null, entries: null, leases: null, waiters: null};

/** @typedef {ReturnType<typeof readNamespace>} Figures */

/** @param {Awaited<Figures>} namespace */
function factsOf(namespace) {
    if (namespace === null) {
        return {};
    }
    const {entries, maxEntries, bytes, maxBytes} = namespace;
    const most = maxEntries === null ? "" : ` of ${maxEntries.toLocaleString("en")}`;
    return {
        Entries: `${entries.toLocaleString("en")}${most}`,
        "Keys and values": `${size(bytes)}${maxBytes === null ? "" : ` of ${size(maxBytes)}`}`,
    };
}

export class StatusView {
    /** @param {HTMLElement} root */
    constructor(root) {
        this.health = element("dl", {class: "facts"});
        this.state = element("span", {class: "badge"});
        this.note = element("div", {});
        this.charts = new Map(CHARTS.map(([name, label, unit]) => [name, new Chart(label, unit, POINTS)]));
        /** @type {ReturnType<typeof figures> | null} */
        this.before = null;
        this.beforeAt = 0;
        root.replaceChildren(element("section", {class: "page"},
            element("div", {class: "title"}, element("h1", {}, "Status"), this.state),
            this.health, this.note,
            element("div", {class: "charts"}, ...Array.from(this.charts.values(), ({root: each}) => each))));
        this.timer = setInterval(() => document.visibilityState === "visible" && this.refresh(), INTERVAL_MILLISECONDS);
    }

    close() {
        clearInterval(this.timer);
    }

    show() {
        this.refresh();
    }

    async refresh() {
        this.note.replaceChildren();
        const namespace = readNamespace();
        await Promise.all([this.readHealth(namespace), this.readMetrics(namespace), namespace].map((each) => each.catch((error) => {
            this.note.replaceChildren(failure(error));
        })));
    }

    /** @param {Figures} reading */
    async readHealth(reading) {
        // A degraded service answers with 503 and the same members, so this is no refusal.
        const response = await fetch(new URL("health", SERVICE), {cache: "no-store", credentials: "omit"}).catch(() => null);
        if (response === null) {
            this.showState("unreachable");
            throw new Refusal(0, "unreachable", "The service does not answer.");
        }
        if (!response.headers.get("Content-Type")?.startsWith("application/json")) {
            this.showState("unreachable"); // a proxy answers in its place
            throw new Refusal(response.status, "unreachable", `A proxy answered ${response.status} in place of the service.`);
        }
        const health = await response.json();
        this.showState(health.status ?? "unknown");
        const isOther = NAMESPACE !== DEFAULT_NAMESPACE, namespace = await reading;
        // The revision and the incarnation in the health are those of `default`.
        const facts = {
            ...(isOther ? {Namespace: NAMESPACE, Store: health.store, ...(namespace && {Revision: namespace.revision})}
                : {Store: health.store, Revision: health.revision, Incarnation: health.incarnation}),
            ...factsOf(namespace),
            Version: health.version, "Running for": duration(health.uptime_s ?? 0),
            ...(health.message ? {Reason: health.message} : {}),
        };
        this.health.replaceChildren(...Object.entries(facts).map(([name, text]) =>
            element("div", {}, element("dt", {}, name), element("dd", {}, String(text)))));
    }

    /** @param {string} state */
    showState(state) {
        this.state.textContent = state === "ok" ? "healthy" : state;
        this.state.className = `badge ${state === "ok" ? "put" : "delete"}`;
    }

    /** @param {Figures} reading */
    async readMetrics(reading) {
        const {text} = await ask("GET", "metrics", {base: SERVICE, headers: {Accept: "text/plain"}});
        const of = NAMESPACE === DEFAULT_NAMESPACE ? {} : {...OF_DEFAULT, ...await reading};
        const now = {...figures(samples(text)), ...of}, at = performance.now();
        for (const [name, , , isRate] of CHARTS) {
            const value = now[name], before = this.before?.[name];
            const chart = this.charts.get(name);
            if (chart && value !== null && !isRate) {
                chart.add(value);
            } else if (chart && value !== null && before !== null && before !== undefined && value >= before) {
                chart.add((value - before) / ((at - this.beforeAt) / 1000));
            }
            if (chart) {
                chart.root.hidden = value === null;
            }
        }
        this.before = now;
        this.beforeAt = at;
    }
}
