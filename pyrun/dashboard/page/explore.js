// Any metric that is kept: of which pods, for how long, as lines and as a table. The address has it all:
// #/metrics/NAME/SECONDS/POD.
import { h } from "/dom.js";
import { fetched } from "/fetched.js";
import { bytes, cores, plural } from "/format.js";
import { get } from "/server.js";

const RANGES = [["3600", "hour"], ["21600", "6 hours"], ["86400", "day"], ["604800", "week"], ["2592000", "30 days"], ["31536000", "year"]];
const FIRST = "pod_memory_working_set_bytes";
const POINTS = 240;
const LINES = 8;

export async function askMetric([, name, seconds, pod]) {
  const range = Number(seconds) || 3600;
  const step = Math.max(30, Math.ceil(range / POINTS));
  const names = await get("/api/metrics");
  const chosen = name || (names.names?.includes(FIRST) ? FIRST : names.names?.[0] ?? "");
  const found = chosen ? await get("/api/metric", { name: chosen, pod: pod ?? "", seconds: range, step }) : { series: [] };
  return { names, name: chosen, step, ...found };
}

// What a form of this page says, as an address.
export function addressOf(form) {
  return `#/metrics/${["name", "range", "pod"].map((one) => encodeURIComponent(form.querySelector(`#metric-${one}`).value.trim())).join("/")}`;
}

function written(name) {
  if (name.endsWith("_bytes")) return bytes;
  if (name.endsWith("_bytes_total")) return (value) => `${bytes(value)}/s`;
  if (name.endsWith("cpu_usage_seconds_total")) return (value) => `${cores(value * 1e9)} CPU`;
  return (value) => `${Number(value.toPrecision(3))}${name.endsWith("_total") ? "/s" : ""}`;
}

export function metricsPage([, , seconds, pod]) {
  const found = fetched.value;
  if (!found) return [h("h1", {}, "Metrics"), fetched.error ? h("p", { class: "error" }, fetched.error) : h("p", {}, "Asking the node …")];
  if (found.names.missing) return [h("h1", {}, "Metrics"), h("p", {}, found.names.missing)];
  const option = (chosen) => ([value, text]) => h("option", { value, selected: value === chosen }, text);
  const text = written(found.name);
  const most = Math.max(...found.series.flatMap((one) => one.points.map(([, value]) => value)), 0);
  return [
    h("h1", {}, "Metrics"),
    h(
      "form",
      { class: "tools", id: "explore" },
      h("label", {}, "Metric ", h("select", { id: "metric-name" }, found.names.names.map((name) => option(found.name)([name, name])))),
      h("label", {}, "Last ", h("select", { id: "metric-range" }, RANGES.map(option(seconds || "3600")))),
      h("label", {}, "Pod ", h("input", { id: "metric-pod", type: "search", autocomplete: "off", list: "metric-pods", placeholder: "all", value: pod ?? "" })),
      h("datalist", { id: "metric-pods" }, found.names.pods.map((name) => h("option", { value: name }))),
      h("button", {}, "Show"),
    ),
    fetched.error && h("p", { class: "error", role: "alert" }, fetched.error),
    h("p", { class: "sub" }, `${plural(found.count ?? 0, "line")}, the largest first; ${name(found.name)} each ${found.step} s${most ? `; the graph ends at ${text(most)}` : ""}`),
    found.series.length > 0 && h("div", { class: "graph" }, graph(found, most, text)),
    found.series.length > 0 && table(found, text),
  ];
}

const name = (metric) => (metric.endsWith("_total") ? `the rate of ${metric}` : metric);

function graph(found, most, text) {
  const [since, until] = [found.since, found.until];
  const place = ([time, value]) => `${(((time - since) * 100) / (until - since)).toFixed(2)},${(98 - (value * 96) / (most || 1)).toFixed(1)}`;
  const lines = found.series.slice(0, LINES).flatMap((one, number) => {
    const pieces = [[]];
    one.points.forEach((point, at) => {
      if (at && point[0] - one.points[at - 1][0] > 4 * Math.max(found.step, 60)) pieces.push([]);
      pieces.at(-1).push(place(point));
    });
    return pieces.map((piece) => h("polyline", { class: `line-${number}`, points: piece.join(" ") }));
  });
  const label = `${found.name} of the ${Math.min(LINES, found.series.length)} largest, at most ${text(most)}; the table has the figures`;
  return h("svg", { class: "spark many", viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": label }, lines);
}

function table(found, text) {
  const rows = found.series.map((one, number) => {
    const values = one.points.map(([, value]) => value);
    const mark = number < LINES && h("svg", { class: "spark mark", viewBox: "0 0 10 10", "aria-hidden": "true" }, h("polyline", { class: `line-${number}`, points: "0,5 10,5" }));
    const of = one.pod ? `${one.namespace}/${one.pod} ${one.container}` : "the node";
    const figures = [values.at(-1), Math.max(...values), values.reduce((sum, value) => sum + value, 0) / values.length];
    return h("tr", {}, h("td", {}, mark, " ", of), figures.map((value) => h("td", {}, text(value))));
  });
  const head = ["Of", "Last", "Largest", "Mean"].map((word) => h("th", { scope: "col" }, word));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures" }, h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)));
}
