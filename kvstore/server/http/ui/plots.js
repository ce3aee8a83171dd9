// Requests per second and their latencies over the last minute.

import { draw, make } from "./elements.js";

const KEPT_MS = 60_000;
const WIDTH = 560;
const HEIGHT = 90;

class Plot {
  constructor(place, unit, names) {
    this.unit = unit;
    this.names = names;
    this.caption = make("figcaption");
    this.svg = draw("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.lines = ["first", "second", "third"].slice(0, names.length).map((kind) => draw("path", { class: kind }));
    this.svg.append(...this.lines);
    place.append(make("figure", {}, this.caption, this.svg));
  }

  show(points) {
    const now = performance.now();
    const highest = Math.max(1, ...points.flatMap((point) => point.values.map((value) => value ?? 0)));
    this.lines.forEach((line, index) => {
      const steps = points
        .filter((point) => point.values[index] !== null)
        .map((point) => {
          const x = WIDTH * (1 - (now - point.at) / KEPT_MS);
          return `${x.toFixed(1)} ${(HEIGHT - 4 - (HEIGHT - 10) * (point.values[index] / highest)).toFixed(1)}`;
        });
      line.setAttribute("d", steps.length > 1 ? `M ${steps.join(" L ")}` : "");
    });
    this.name(points.at(-1), highest);
  }

  name(point, highest) {
    const parts = this.names.map((name, index) => {
      const value = point.values[index];
      const part = make("b", { class: ["first", "second", "third"][index] });
      part.textContent = `${name} ${value === null ? "–" : `${round(value)} ${this.unit}`}`;
      return [part, "  "];
    });
    this.caption.replaceChildren(...parts.flat(), `maximum ${round(highest)} ${this.unit}`);
  }
}

export class Plots {
  constructor(place) {
    this.rates = new Plot(place, "per second", ["PUT", "GET", "others"]);
    this.times = new Plot(place, "ms", ["PUT p50", "PUT p99", "GET p99"]);
    this.points = [];
  }

  add(glimpse) {
    const { requests, interval_ms: interval } = glimpse;
    const rate = (served) => (1000 * (served?.count ?? 0)) / interval;
    const others = Object.entries(requests)
      .filter(([method]) => method !== "PUT" && method !== "GET")
      .reduce((sum, [, served]) => sum + rate(served), 0);
    const at = performance.now();
    const rates = [rate(requests.PUT), rate(requests.GET), others];
    const times = [requests.PUT?.p50_ms ?? null, requests.PUT?.p99_ms ?? null, requests.GET?.p99_ms ?? null];
    this.points.push({ at, rates, times });
    while (this.points[0].at < at - KEPT_MS) this.points.shift();
    this.rates.show(this.points.map((point) => ({ at: point.at, values: point.rates })));
    this.times.show(this.points.map((point) => ({ at: point.at, values: point.times })));
  }
}

function round(value) {
  return value >= 100 ? Math.round(value).toLocaleString("en") : Math.round(10 * value) / 10;
}
