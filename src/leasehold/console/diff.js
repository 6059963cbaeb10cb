/** The differences of two texts, line by line (longest common subsequence). Pure functions. */

/** More work than this, in pairs of lines, is not done: then the whole middle part differs. */
const MOST_PAIRS = 4_000_000;

/**
 * @typedef {object} Line
 * @property {"same" | "removed" | "added"} kind
 * @property {string} text
 */

/**
 * @param {string} before
 * @param {string} after
 * @returns {Line[]}
 */
export function differences(before, after) {
    const old = before.split("\n"), now = after.split("\n");
    let head = 0;
    while (head < old.length && head < now.length && old[head] === now[head]) {
        head += 1;
    }
    let tail = 0;
    while (tail < old.length - head && tail < now.length - head
        && old[old.length - 1 - tail] === now[now.length - 1 - tail]) {
        tail += 1;
    }
    return [
        ...marked("same", old.slice(0, head)),
        ...middle(old.slice(head, old.length - tail), now.slice(head, now.length - tail)),
        ...marked("same", old.slice(old.length - tail)),
    ];
}

/**
 * @param {Line["kind"]} kind
 * @param {string[]} lines
 * @returns {Line[]}
 */
function marked(kind, lines) {
    return lines.map((text) => ({kind, text}));
}

/**
 * @param {string[]} old
 * @param {string[]} now
 * @returns {Line[]}
 */
function middle(old, now) {
    if (old.length * now.length > MOST_PAIRS) {
        return [...marked("removed", old), ...marked("added", now)];
    }
    // common[i][j]: how many lines old[i..] and now[j..] have in common.
    const width = now.length + 1;
    const common = new Uint32Array((old.length + 1) * width);
    for (let i = old.length - 1; i >= 0; i -= 1) {
        for (let j = now.length - 1; j >= 0; j -= 1) {
            common[i * width + j] = old[i] === now[j]
                ? common[(i + 1) * width + j + 1] + 1
                : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
        }
    }
    /** @type {Line[]} */
    const lines = [];
    let i = 0, j = 0;
    while (i < old.length && j < now.length) {
        if (old[i] === now[j]) {
            lines.push({kind: "same", text: old[i]});
            i += 1;
            j += 1;
        } else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            lines.push({kind: "removed", text: old[i]});
            i += 1;
        } else {
            lines.push({kind: "added", text: now[j]});
            j += 1;
        }
    }
    return [...lines, ...marked("removed", old.slice(i)), ...marked("added", now.slice(j))];
}
