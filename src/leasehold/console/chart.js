/** A small chart of one figure over time, in SVG. */

import {element} from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240, HEIGHT = 48;
/** A chart of fewer points leaves room on its left. */
const FEWEST = 30;

/** @param {number} value */
function shown(value) {
    return value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toFixed(1);
}

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 */
function drawn(tag, attributes) {
    const made = document.createElementNS(SVG, tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    return made;
}

export class Chart {
    /**
     * @param {string} label
     * @param {string} unit
     * @param {number} points The most that are shown.
     */
    constructor(label, unit, points) {
        this.label = label;
        this.unit = unit;
        this.points = points;
        /** @type {number[]} */
        this.values = [];
        this.now = element("strong", {}, "–");
        this.most = element("span", {class: "hint"});
        this.area = drawn("polygon", {class: "area"});
        this.line = drawn("polyline", {class: "curve", "vector-effect": "non-scaling-stroke"});
        this.svg = drawn("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img"});
        this.svg.append(this.area, this.line);
        this.root = element("section", {class: "chart"},
            element("h2", {}, label), element("p", {}, this.now, ` ${unit}`), this.svg, this.most);
    }

    /** @param {number} value */
    add(value) {
        this.values = [...this.values, value].slice(-this.points);
        const most = Math.max(...this.values), top = Math.max(most, 1e-9) * 1.1;
        const step = WIDTH / (Math.max(this.values.length, FEWEST) - 1), first = WIDTH - step * (this.values.length - 1);
        const points = this.values.map((each, at) =>
            `${(first + at * step).toFixed(1)},${(HEIGHT - 1 - (each / top) * (HEIGHT - 2)).toFixed(1)}`);
        this.line.setAttribute("points", points.join(" "));
        this.area.setAttribute("points", `${first.toFixed(1)},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}`);
        this.now.textContent = shown(value);
        this.most.textContent = `highest ${shown(most)}`;
        const unit = this.unit ? ` ${this.unit}` : "";
        this.svg.setAttribute("aria-label", `${this.label}: now ${shown(value)}${unit}, highest ${shown(most)}`);
    }
}
