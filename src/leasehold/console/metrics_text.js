/** Reads the text format of Prometheus, as far as the service uses it. Pure functions. */

/** @typedef {{name: string, labels: Record<string, string>, value: number}} Sample */

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/**
 * @param {string} text
 * @returns {Sample[]}
 */
export function samples(text) {
    const found = [];
    for (const line of text.split("\n")) {
        const match = line.startsWith("#") ? null : LINE.exec(line);
        if (match) {
            const labels = Object.fromEntries(Array.from((match[2] ?? "").matchAll(LABEL), ([, name, value]) => [name, value]));
            found.push({name: match[1], labels, value: Number(match[3])});
        }
    }
    return found;
}

const REQUESTS = "http_server_request_duration_seconds_count";

/**
 * The figures that the console shows, at one moment.
 * @param {Sample[]} found
 */
export function figures(found) {
    /** @param {(labels: Record<string, string>) => boolean} fits */
    const requests = (fits) => found.filter(({name, labels}) => name === REQUESTS && fits(labels))
        .reduce((sum, {value}) => sum + value, 0);
    /** @param {string} name */
    const gauge = (name) => found.find((sample) => sample.name === `leasehold_${name}`)?.value ?? null;
    /** @param {Record<string, string>} labels */
    const isRead = (labels) => ["GET", "HEAD"].includes(labels.http_request_method);
    return {
        reads: requests(isRead),
        writes: requests((labels) => !isRead(labels)),
        errors: requests((labels) => labels.http_response_status_code >= "500"),
        revision: gauge("revision"),
        entries: gauge("entries"),
        leases: gauge("leases"),
        connections: gauge("connections"),
        waiters: gauge("waiters"),
    };
}
