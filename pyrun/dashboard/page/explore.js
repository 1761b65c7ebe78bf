// Any metric that is kept: of which pods, for how long, as lines and as a table. The address has it all:
// #/metrics/NAME/SECONDS/POD.
import { h } from "/dom.js";
import { fetched } from "/fetched.js";
import { bytes, cores, figure, plural } from "/format.js";
import { graph } from "/graph.js";
import { absent } from "/parts.js";
import { get } from "/server.js";

const RANGES = [["3600", "hour"], ["21600", "6 hours"], ["86400", "day"], ["604800", "week"], ["2592000", "30 days"], ["31536000", "year"]];
const FIRST = "pod_memory_working_set_bytes";
const POINTS = 240;

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
  if (name.endsWith("cpu_usage_seconds_total")) return Object.assign((value) => `${cores(value * 1e9)} CPU`, { round: (value) => `${figure(value)} CPU` });
  return (value) => `${figure(value)}${name.endsWith("_total") ? "/s" : ""}`;
}

export function metricsPage([, , seconds, pod]) {
  const found = fetched.value;
  if (!found) return [h("h1", {}, "Metrics"), fetched.error ? h("p", { class: "error" }, fetched.error) : h("p", {}, "Asking the node …")];
  if (found.names.missing) return [h("h1", {}, "Metrics"), absent("metrics", found.names.missing)];
  const option = (chosen) => ([value, text]) => h("option", { value, selected: value === chosen }, text);
  const text = written(found.name);
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
    h("p", { class: "sub" }, `${plural(found.count ?? 0, "line")}, the largest first; ${name(found.name)} each ${found.step} s`),
    found.series.length > 0 && h("div", { class: "wide" }, lines(found, text)),
    found.series.length > 0 && table(found, text),
  ];
}

const name = (metric) => (metric.endsWith("_total") ? `the rate of ${metric}` : metric);

function lines(found, text) {
  const series = found.series.map((one) => ({ name: nameOf(one), points: one.points }));
  const label = `${found.name}, the last ${RANGES.find(([seconds]) => Number(seconds) >= found.until - found.since - 1)?.[1] ?? ""}`;
  return graph({ key: "metric", label, since: found.since, until: found.until, step: Math.max(found.step, 30), text, series, tall: true });
}

const nameOf = (one) => (one.pod ? `${one.namespace}/${one.pod} ${one.container}`.trim() : "the node");

function table(found, text) {
  const rows = found.series.map((one) => {
    const values = one.points.map(([, value]) => value);
    const figures = [values.at(-1), Math.max(...values), values.reduce((sum, value) => sum + value, 0) / values.length];
    return h("tr", {}, h("td", {}, nameOf(one)), figures.map((value) => h("td", {}, text(value))));
  });
  const head = ["Of", "Last", "Largest", "Mean"].map((word) => h("th", { scope: "col" }, word));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures" }, h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)));
}
