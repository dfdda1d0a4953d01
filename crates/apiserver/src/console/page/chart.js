// Small charts in SVG. The numbers beside them say the same, so assistive technology skips them.

import { svg } from "./dom.js";

const POINTS = 60;
const WIDTH = 120;
const HEIGHT = 36;

/** A line of the last minute. */
export class Sparkline {
  constructor() {
    this.values = [];
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line", "vector-effect": "non-scaling-stroke" });
    const box = `0 0 ${WIDTH} ${HEIGHT}`;
    this.node = svg("svg", { class: "spark", viewBox: box, preserveAspectRatio: "none", "aria-hidden": "true" },
      this.area, this.line);
  }

  /** Adds a value, which may be absent, and draws the line. */
  push(value) {
    this.values.push(value ?? null);
    if (this.values.length > POINTS) this.values.shift();
    const known = this.values.filter((it) => it !== null);
    const most = Math.max(...known, 1e-9);
    const first = POINTS - this.values.length;
    const points = this.values.flatMap((it, at) => (it === null ? [] : [[
      ((first + at) * WIDTH) / (POINTS - 1), HEIGHT - 2 - (it / most) * (HEIGHT - 5),
    ]]));
    const path = points.map(([x, y], at) => `${at === 0 ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    this.line.setAttribute("d", path);
    const [start, end] = [points.at(0)?.[0] ?? 0, points.at(-1)?.[0] ?? 0].map((x) => x.toFixed(1));
    const closed = points.length > 1 ? `${path}L${end} ${HEIGHT}L${start} ${HEIGHT}Z` : "";
    this.area.setAttribute("d", closed);
  }
}

/** A horizontal bar that shows a part of a whole. */
export class Bar {
  constructor() {
    this.part = svg("rect", { class: "part", height: "8", rx: "4", width: "0%" });
    this.node = svg("svg", { class: "meter", height: "8", width: "100%", "aria-hidden": "true" },
      svg("rect", { class: "whole", height: "8", rx: "4", width: "100%" }), this.part);
  }

  /** Sets the part, from 0 to 1. An almost full bar is red if that is a problem. */
  set(part, alarms) {
    const percent = Math.round(Math.min(Math.max(part || 0, 0), 1) * 100);
    this.part.setAttribute("width", `${percent}%`);
    this.node.classList.toggle("high", alarms && percent >= 90);
  }
}
