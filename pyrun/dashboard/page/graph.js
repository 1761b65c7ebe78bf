// A graph of values over time: axes with units, a line for each series, and what they were at a time, by a pointer or by
// the arrow keys. It is drawn anew from the same values whenever the time that is pointed at changes.
import { h, morph } from "/dom.js";
import { clock, ticksOf, timesOf } from "/scale.js";

export const LINES = 8;
// By key, what each graph in the page was drawn of.
const drawn = new Map();
// The graph that is pointed into, the time (seconds since 1970), and whether by keys: then the pointer may be elsewhere.
let pointed = { key: "", time: 0, byKeys: false };

// wanted: { key, label, since, until, step, text, series: [{ name, points: [[seconds, value]] }], tall, live }. text
// writes a value with its unit, text.round one of an axis, where that is shorter. Of more than LINES series the first are drawn. live: of what this page itself has seen.
export function graph(wanted) {
  drawn.set(wanted.key, wanted);
  const shown = wanted.series.slice(0, LINES);
  const values = shown.flatMap((one) => one.points.map(([, value]) => value));
  const ticks = ticksOf(Math.max(...values, 0), wanted.tall ? 5 : 3);
  const times = stops(wanted);
  const at = pointed.key === wanted.key ? nearest(times, pointed.time) : null;
  const found = shown.map((one) => valueAt(wanted, one, at ?? times.at(-1)));
  const attributes = {
    class: "graph", "data-key": wanted.key, "data-graph": wanted.key, tabindex: 0, role: "slider", "aria-label": told(wanted, shown),
    "aria-valuemin": times[0], "aria-valuemax": times.at(-1), "aria-valuenow": at ?? times.at(-1), "aria-valuetext": said(wanted, shown, found, at ?? times.at(-1)),
  };
  return h("div", attributes, picture(wanted, shown, ticks, at, found), shown.length > 1 ? legend(wanted, shown, found, at) : reading(wanted, values, found, at));
}

function picture(wanted, shown, ticks, at, found) {
  const { since, until, text, tall, live } = wanted;
  const top = ticks.at(-1) || 1;
  const x = (time) => ((time - since) * 100) / (until - since);
  const y = (value) => 100 - (value * 100) / top;
  const across = ticks.map((value) => [h("line", { class: "grid", x1: 0, x2: "100%", y1: `${y(value)}%`, y2: `${y(value)}%` }), h("text", { class: "up", x: -6, y: `${y(value)}%`, dy: 4 }, (text.round ?? text)(value))]);
  const along = timesOf(since, until, tall ? 5 : 3).map(([time, word]) => [h("line", { class: "grid", x1: `${x(time)}%`, x2: `${x(time)}%`, y1: 0, y2: "100%" }), h("text", { class: "along", x: `${x(time)}%`, y: "100%", dy: 16 }, word)]);
  const lines = shown.flatMap((one, number) => pieces(wanted, one.points).map((piece) => h("polyline", { class: `line-${number}`, points: piece.map(([time, value]) => `${x(time).toFixed(2)},${y(value).toFixed(2)}`).join(" ") })));
  const cursor = at !== null && h("line", { class: "cursor", x1: `${x(at)}%`, x2: `${x(at)}%`, y1: 0, y2: "100%" });
  const dots = at === null ? [] : found.map((value, number) => value !== null && h("circle", { class: `line-${number}`, cx: `${x(at)}%`, cy: `${y(value)}%`, r: 3 }));
  return h(
    "div",
    { class: tall ? "axes tall" : "axes", "aria-hidden": "true" },
    h("svg", { class: "plot" }, h("rect", { class: "area", width: "100%", height: "100%" }), across, along, h("svg", { class: live ? "drawn" : "drawn past", viewBox: "0 0 100 100", preserveAspectRatio: "none" }, lines), cursor, dots),
  );
}

// Where nothing was read for longer than a few steps a line is broken; what stands alone is a dot.
function pieces({ step }, points) {
  const found = [];
  points.forEach((point, at) => {
    if (!at || point[0] - points[at - 1][0] > gap(step)) found.push([]);
    found.at(-1).push(point);
  });
  return found.map((piece) => (piece.length > 1 ? piece : [piece[0], piece[0]]));
}

const gap = (step) => 3.5 * step;

function legend(wanted, shown, found, at) {
  const mark = (number) => h("svg", { class: "mark", viewBox: "0 0 24 10" }, h("polyline", { class: `line-${number}`, points: "0,5 24,5" }));
  const item = (one, number) => h("li", {}, mark(number), h("span", {}, one.name), h("strong", {}, written(wanted, found[number])));
  return [h("p", { class: "at" }, at === null ? "the last" : clock(at, wanted)), h("ul", { class: "legend" }, shown.map(item))];
}

function reading(wanted, values, found, at) {
  return h("p", { class: "at" }, at === null ? `at most ${wanted.text(Math.max(...values))}` : `${clock(at, wanted)}: ${written(wanted, found[0])}`);
}

const written = (wanted, value) => (value === null ? "–" : wanted.text(value));

function said(wanted, shown, found, time) {
  const each = shown.map((one, number) => `${shown.length > 1 ? `${one.name} ` : ""}${found[number] === null ? "nothing" : wanted.text(found[number])}`);
  return `${clock(time, wanted)}: ${each.join("; ")}`;
}

// In words what is seen at a glance.
function told(wanted, shown) {
  const one = ({ name, points }) => {
    const largest = points.reduce((most, point) => (point[1] > most[1] ? point : most), points[0]);
    const least = points.reduce((found, point) => Math.min(found, point[1]), Infinity);
    return `${shown.length > 1 ? `${name}: ` : ""}from ${wanted.text(least)} to ${wanted.text(largest[1])}, the most at ${clock(largest[0], wanted)}`;
  };
  return `${wanted.label}. ${shown.slice(0, 3).map(one).join("; ")}. Arrow keys read it out.`;
}

// The times at which anything was read.
function stops(wanted) {
  return [...new Set(wanted.series.slice(0, LINES).flatMap((one) => one.points.map(([time]) => time)))].sort((a, b) => a - b);
}

const nearest = (times, time) => times.reduce((best, one) => (Math.abs(one - time) < Math.abs(best - time) ? one : best), times[0]);

function valueAt(wanted, one, time) {
  let best = null;
  for (const point of one.points) if (!best || Math.abs(point[0] - time) < Math.abs(best[0] - time)) best = point;
  return best && Math.abs(best[0] - time) <= gap(wanted.step) / 2 ? best[1] : null;
}

function point(key, time, byKeys = false) {
  const before = pointed.key;
  pointed = { key, time, byKeys };
  for (const one of new Set([before, key])) {
    const element = one && document.querySelector(`[data-graph="${CSS.escape(one)}"]`);
    if (element) morph(element, graph(drawn.get(one)));
  }
}

function pointTo(event) {
  const element = event.target.closest?.("[data-graph]");
  if (!element) {
    if (pointed.key && !pointed.byKeys) point("", 0);
    return;
  }
  const { since, until } = drawn.get(element.dataset.graph);
  const { left, width } = element.querySelector(".area").getBoundingClientRect();
  point(element.dataset.graph, since + Math.min(1, Math.max(0, (event.clientX - left) / width)) * (until - since));
}

// How far a key goes from the place where it is.
const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };

function keyIn(event) {
  const key = event.target.dataset?.graph;
  if (!key || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Escape") return point("", 0);
  if (!(event.key in STEPS)) return;
  event.preventDefault();
  const times = stops(drawn.get(key));
  const at = pointed.key === key ? times.indexOf(nearest(times, pointed.time)) : times.length - 1;
  point(key, times[Math.min(times.length - 1, Math.max(0, at + STEPS[event.key]))], true);
}

document.addEventListener("pointermove", pointTo);
document.addEventListener("pointerdown", pointTo);
document.addEventListener("keydown", keyIn);
document.addEventListener("focusout", (event) => event.target.dataset?.graph === pointed.key && point("", 0));
