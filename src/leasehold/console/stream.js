/**
 * The one watch of this tab. All views share it.
 *
 * It is a request whose response does not end, read as lines of JSON, because EventSource cannot send a token. It
 * resumes after the last `id`. It is closed while the tab is hidden, because a browser opens at most six connections to
 * a service for all its tabs.
 */

import {Refusal, request} from "./api.js";
import {tokenChanges} from "./token.js";

const HEARTBEAT_SECONDS = 10;
/** Longer than two heartbeats: the connection is lost if nothing has come. */
const SILENCE_MILLISECONDS = 25_000;
const FIRST_PAUSE = 500, LONGEST_PAUSE = 15_000;

/**
 * @typedef {object} Change
 * @property {"put" | "delete" | "lock" | "gap"} event `gap`: changes may be missing; read again.
 * @property {any} data Without values. The owner of a lock in it may have rounded numbers: do not show it.
 * @property {string} text The line, as the service sent it.
 */

/** @typedef {"connecting" | "live" | "hidden" | "lost" | "refused"} State */

class Stream extends EventTarget {
    constructor() {
        super();
        /** @type {Set<(change: Change) => void>} */
        this.listeners = new Set();
        /** @type {State} */
        this.state = "connecting";
        this.reason = "";
        this.cursor = "";
        this.wasLive = false;
        this.pause = FIRST_PAUSE;
        this.timer = 0;
        this.silence = 0;
        /** @type {AbortController | null} */
        this.running = null;
    }

    start() {
        document.addEventListener("visibilitychange", () => this.restart());
        addEventListener("online", () => this.restart());
        tokenChanges.addEventListener("change", () => {
            this.cursor = "";
            this.restart();
        });
        this.restart();
    }

    /**
     * Call `listener` with each change. Returns the function that ends it.
     * @param {(change: Change) => void} listener
     */
    subscribe(listener) {
        this.listeners.add(listener);
        return () => this.listeners.delete(listener);
    }

    restart() {
        this.running?.abort();
        clearTimeout(this.timer);
        clearTimeout(this.silence);
        this.running = null;
        if (document.visibilityState === "hidden") {
            this.setState("hidden");
            return;
        }
        this.running = new AbortController();
        this.run(this.running);
    }

    /** @param {AbortController} running */
    async run(running) {
        this.setState("connecting");
        try {
            await this.read(running);
            this.fail("lost", "The service has ended the stream.");
        } catch (error) {
            if (this.running !== running) {
                return;
            }
            if (error instanceof Refusal && (error.status === 401 || error.status === 403)) {
                this.setState("refused", error.message);
            } else if (error instanceof Refusal && error.status === 410) {
                this.cursor = "";
                this.restart();
            } else {
                this.fail("lost", error instanceof Refusal ? error.message : "The connection was lost.");
            }
        } finally {
            running.abort();
        }
    }

    /** @param {AbortController} running */
    async read(running) {
        this.expect(running);
        const query = {locks: "true", values: "false", heartbeat: HEARTBEAT_SECONDS};
        const headers = {Accept: "application/x-ndjson", ...(this.cursor ? {"Last-Event-ID": this.cursor} : {})};
        const response = await request("GET", "watch", {query, headers, signal: running.signal});
        const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
        const decoder = new TextDecoder();
        let rest = "";
        this.pause = FIRST_PAUSE;
        this.setState("live");
        if (this.wasLive && !this.cursor) {
            this.publish({event: "gap", data: {}, text: ""});
        }
        this.wasLive = true;
        for (;;) {
            const {done, value} = await reader.read();
            if (done || this.running !== running) {
                return;
            }
            this.expect(running);
            const lines = (rest + decoder.decode(value, {stream: true})).split("\n");
            rest = lines.pop() ?? "";
            lines.forEach((line) => this.take(line));
        }
    }

    /** @param {string} line */
    take(line) {
        const {event, id, data} = JSON.parse(line);
        if (event === "put" || event === "delete" || event === "lock") {
            this.publish({event, data, text: line});
        }
        this.cursor = id === undefined ? this.cursor : String(id);
    }

    /** @param {Change} change */
    publish(change) {
        for (const listener of [...this.listeners]) {
            listener(change);
        }
    }

    /** @param {AbortController} running */
    expect(running) {
        clearTimeout(this.silence);
        this.silence = setTimeout(() => running.abort(), SILENCE_MILLISECONDS);
    }

    /**
     * @param {State} state
     * @param {string} reason
     */
    fail(state, reason) {
        clearTimeout(this.silence);
        this.setState(state, reason);
        this.timer = setTimeout(() => this.restart(), this.pause);
        this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
    }

    /**
     * @param {State} state
     * @param {string} [reason]
     */
    setState(state, reason = "") {
        this.state = state;
        this.reason = reason;
        this.dispatchEvent(new Event("state"));
    }
}

export const stream = new Stream();
