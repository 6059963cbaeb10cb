/** Times, durations and sizes as people read them. */

/** @param {number} seconds */
export function duration(seconds) {
    const rounded = Math.floor(seconds);
    if (rounded < 60) {
        return `${Math.max(rounded, 0)} s`;
    }
    if (rounded < 3600) {
        return `${Math.floor(rounded / 60)} min ${String(rounded % 60).padStart(2, "0")} s`;
    }
    if (rounded < 48 * 3600) {
        return `${Math.floor(rounded / 3600)} h ${String(Math.floor(rounded / 60) % 60).padStart(2, "0")} min`;
    }
    return `${Math.floor(rounded / 86400)} days`;
}

/**
 * How long ago a time was.
 * @param {string} time RFC 3339
 */
export function ago(time) {
    const seconds = (Date.now() - Date.parse(time)) / 1000;
    if (seconds < 5) {
        return "just now";
    }
    return `${duration(seconds).replace(/ \d+ s$/, seconds < 60 ? "$&" : "")} ago`;
}

/**
 * Seconds until a time, by the clock of this browser.
 * @param {string} time RFC 3339
 */
export function secondsUntil(time) {
    return (Date.parse(time) - Date.now()) / 1000;
}

/**
 * The local time of day, with the date if it is not today.
 * @param {Date} date
 */
export function clock(date) {
    const isToday = date.toDateString() === new Date().toDateString();
    return date.toLocaleString(undefined, isToday ? {timeStyle: "medium"} : {dateStyle: "medium", timeStyle: "medium"});
}

/** @param {number} bytes */
export function size(bytes) {
    if (bytes < 1000) {
        return bytes === 1 ? "1 byte" : `${bytes} bytes`;
    }
    const kilobytes = bytes / 1000;
    return kilobytes < 1000 ? `${kilobytes.toFixed(kilobytes < 10 ? 1 : 0)} kB` : `${(kilobytes / 1000).toFixed(2)} MB`;
}
