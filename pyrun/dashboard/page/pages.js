// What each page shows, out of the store's values.
import { h } from "/dom.js";
import { fetched } from "/fetched.js";
import { ago, bytes, cores, figure, plural, when } from "/format.js";
import { graph } from "/graph.js";
import { pastOf } from "/history.js";
import { absent } from "/parts.js";
import { eventRow, tabs } from "/podtabs.js";
import { may } from "/server.js";
import { spark } from "/sparks.js";
import { happened, images, node, pod, pods, problems, store } from "/store.js";
import { longList } from "/window.js";

// How far apart values are: those of the store, and those that are pushed, which come when they change.
const HOUR_STEP_S = 30;
const LIVE_STEP_S = 30;

const link = (one) => `#/pod/${encodeURIComponent(one.id)}`;

// The last hour as the store has it, each figure with its largest value.
function lastHour(rows) {
  const past = pastOf();
  if (!past) return null;
  if (past.failed) return [h("h2", {}, "Last hour"), h("p", { class: "error" }, past.failed)];
  if (past.missing) return [h("h2", {}, "Last hour"), absent("metrics", past.missing)];
  const drawn = rows.map(([name, label, text]) => {
    const points = past.series.find((one) => one.name === name && !one.container)?.points ?? [];
    if (points.length < 2) return null;
    const wanted = { key: `hour ${name}`, label: `${label} in the last hour`, since: past.since, until: past.until, step: HOUR_STEP_S, text, series: [{ name: label, points }] };
    return h("div", { class: "gauge", "data-key": name }, h("h3", {}, label), graph(wanted));
  });
  return [h("h2", {}, "Last hour"), drawn.some(Boolean) ? h("div", { class: "gauges" }, drawn) : h("p", { class: "sub" }, "Nothing is kept of it yet.")];
}

const rate = (value) => `${bytes(value)}/s`;
const used = Object.assign((value) => `${cores(value * 1e9)} cores`, { round: (value) => `${figure(value)} cores` });
const nanocores = Object.assign((value) => `${cores(value)} cores`, { round: (value) => `${figure(value / 1e9)} cores` });

function problem(one, number) {
  const name = one.pod ? [one.namespace, "/", one.name, one.container && ` ${one.container}`] : "node";
  const where = one.pod ? h("a", { href: `#/pod/${encodeURIComponent(one.pod)}` }, name) : name;
  return h(
    "li",
    { class: `problem ${one.level === "broken" ? "broken" : "warning"}`, "data-key": `${number}` },
    h("strong", {}, h("span", { class: "mark", "aria-hidden": "true" }, one.level === "broken" ? "✗ " : "! "), where),
    h("span", { class: "what" }, one.what),
    h("span", { class: "since" }, `${ago(one.since)} ago`),
    h("p", { class: "why" }, one.why),
    one.hint && h("p", { class: "hint" }, one.hint),
    one.manifest && h("p", { class: "hint" }, `its manifest is ${one.manifest}`),
    one.pod && one.container && h("p", {}, h("a", { href: `#/logs/${encodeURIComponent(one.pod)}/${encodeURIComponent(one.container)}` }, "logs"), one.manifest && [" ", h("a", { href: `#/pod/${encodeURIComponent(one.pod)}/plan` }, "plan"), " ", h("a", { href: `#/pod/${encodeURIComponent(one.pod)}/yaml` }, "YAML")]),
    one.manifest && may("operate") && h("button", { type: "button", "data-act": "retry", "data-body": JSON.stringify({ pod: `${one.namespace}/${one.name}` }) }, `Try ${one.name} again now`),
  );
}

// Now, and since the page is open. More fields than one are lines of one graph, and named.
function gauge(label, key, field, text, unit, more = {}) {
  const kept = store.history.get(key) ?? [];
  const line = ([of, name]) => ({ name, points: kept.filter((one) => (one[of] ?? null) !== null).map((one) => [one.time / 1000, one[of]]) });
  const series = Object.entries({ [field]: label, ...more }).map(line);
  const [since, until] = [series[0].points[0]?.[0], series[0].points.at(-1)?.[0]];
  const wanted = { key: `now ${field}`, label: `${label} since this page is open`, since, until, step: LIVE_STEP_S, text: unit, series, live: true };
  return h("div", { class: "gauge", "data-key": field }, h("h3", {}, label), h("p", {}, text), until - since >= 10 && graph(wanted));
}

const sum = (one, field) => one.containers.reduce((total, each) => total + (each[field] ?? 0), 0);

// What pods are sorted by on the overview: how it is called, and how much of it one has (null: not known).
const MOST = {
  cpu: ["CPU", (one) => one.cpu],
  memory: ["memory", (one) => one.memory],
  written: ["disk", (one) => sum(one, "written")],
  restarts: ["restarts", (one) => counts(one)[1]],
};
let by = "cpu";

export function topBy(name, changed) {
  by = name;
  changed();
}

export function overview() {
  const here = node();
  const wrong = problems();
  const broken = wrong.filter((one) => one.level === "broken").length;
  const said = broken ? `${plural(broken, "thing")} broken` : wrong.length ? `Nothing broken, ${plural(wrong.length, "warning")}` : "Nothing is wrong";
  const [of, most] = MOST[by];
  const top = pods().filter((one) => most(one) !== null).sort((a, b) => most(b) - most(a)).slice(0, 8);
  return [
    h("h1", {}, here.name),
    h("p", { class: "sub" }, [here.runtime, here.version].filter(Boolean).join(" "), `, up ${ago(here.started)}, ${plural(here.cpus, "CPU")}`),
    h("h2", { id: "wrong" }, said),
    h("ul", { class: "problems", "aria-labelledby": "wrong" }, wrong.map(problem)),
    h(
      "div",
      { class: "gauges" },
      gauge("CPU", "node", "cpu", `${cores(here.cpu)} of ${plural(here.cpus, "core")}`, nanocores),
      gauge("Memory", "node", "memory", `${bytes(here.memory)} of ${bytes(here.total)}`, bytes),
      typeof here.received === "number" && gauge("Network", "node", "received", `${rate(here.received)} in, ${rate(here.sent)} out`, rate, { received: "in", sent: "out" }),
      here.disk && h("div", { class: "gauge" }, h("h3", {}, "Disk of images"), h("p", {}, `${bytes(here.disk.total - here.disk.free)} of ${bytes(here.disk.total)}`)),
      here.pressure && h("div", { class: "gauge" }, h("h3", {}, "Pressure"), h("p", {}, Object.entries(here.pressure).map(([what, share]) => `${what} ${figure(share)} %`).join(", ")), h("p", { class: "hint" }, "of the last 10 s something waited for it")),
    ),
    lastHour([
      ["node_cpu_usage_seconds_total", "CPU", used],
      ["node_memory_working_set_bytes", "Memory", bytes],
      ["node_network_receive_bytes_total", "Received", rate],
      ["node_network_transmit_bytes_total", "Sent", rate],
    ]),
    h("h2", {}, `Most ${of}`),
    h("label", { class: "tools" }, "By ", h("select", { id: "top-by" }, Object.entries(MOST).map(([name, [text]]) => h("option", { value: name, selected: name === by }, text)))),
    top.length ? rows(top, troubles()) : h("p", { class: "sub" }, pods().length ? "Not measured yet." : "There is no pod."),
    happened().length > 0 && [h("h2", {}, "Last events"), h("ol", { class: "events" }, happened().slice(0, 5).map((one) => eventRow(one, true)))],
  ];
}

// Of each pod by its id what is wrong first.
const troubles = () => new Map(problems().reverse().map((found) => [found.pod, found]));

function state(one, wrong) {
  const bad = wrong.get(one.id);
  if (bad) return [bad.level === "broken" ? "bad" : "odd", bad.what];
  if (one.containers.some((each) => each.state === "running")) return ["good", "Running"];
  return ["", one.ready ? "Ready" : "Ended"];
}

// [ready of all, restarts], as the node agent counts them; without one a container that runs is ready.
export function counts(one) {
  const told = one.kube && Object.values(one.kube.containers).filter((each) => !each.init);
  const found = told?.length ? told.map((each) => [each.ready, each.restarts]) : one.containers.map((each) => [each.state === "running", each.attempt]);
  return [`${found.filter(([ready]) => ready).length}/${found.length}`, found.reduce((sum, [, times]) => sum + times, 0)];
}

function rows(found, wrong) {
  const head = ["Namespace", "Pod", "Ready", "State", "Restarts", "Age", "CPU", "Memory", "Address"];
  return h(
    "div",
    { role: "table", class: "pods", "aria-label": "Pods", "aria-rowcount": found.length + 1 },
    h("div", { role: "row", class: "row head" }, head.map((word) => h("span", { role: "columnheader" }, word))),
    h("div", { role: "rowgroup", class: "long" }, longList(found, (one, number) => row(one, number, wrong))),
  );
}

function row(one, number, wrong) {
  const [mark, text] = state(one, wrong);
  const [ready, restarts] = counts(one);
  const cells = [
    one.namespace,
    h("a", { href: link(one) }, one.name),
    ready,
    h("span", { class: mark }, text),
    restarts,
    ago(one.created),
    [cores(one.cpu), spark(one, "cpu", "CPU", used)],
    [bytes(one.memory), spark(one, "memory", "Memory", bytes)],
    one.ips[0] ?? "",
  ];
  return h("div", { role: "row", class: "row", "data-key": one.id, "aria-rowindex": number + 2 }, cells.map((cell) => h("span", { role: "cell" }, cell)));
}

export function podList(filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const wrong = troubles();
  const text = (one) => [one.namespace, one.name, state(one, wrong)[1], ...one.ips, ...Object.entries(one.labels).map((pair) => pair.join("="))].join(" ").toLowerCase();
  const every = pods();
  const found = words.length ? every.filter((one) => words.every((word) => text(one).includes(word))) : every;
  return [
    h("h1", {}, "Pods"),
    h("label", { class: "filter" }, "Filter ", h("input", { id: "filter", type: "search", autocomplete: "off", placeholder: "name, label, state, address" })),
    h("p", { class: "sub" }, `${found.length} of ${every.length}`),
    rows(found, wrong),
  ];
}

function facts(pairs) {
  return h("dl", {}, pairs.filter(([, value]) => value !== "" && value !== null).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function container(of, one) {
  const logs = `#/logs/${encodeURIComponent(of.id)}/${encodeURIComponent(one.name)}`;
  const ended = one.state === "exited" ? `exit ${one.exit}${one.reason ? `, ${one.reason}` : ""}, ${ago(one.finished)} ago` : "";
  return h(
    "section",
    { class: "container", "data-key": one.name },
    h("h3", {}, one.name, " ", h("a", { href: logs }, "logs")),
    facts([
      ["State", one.state + (one.state === "running" ? ` for ${ago(one.started)}` : "")],
      ["Ended", ended],
      ["Message", one.message],
      ["Last line", one.last],
      ["Image", one.image],
      ["Restarts", one.attempt],
      ["CPU", cores(one.cpu)],
      ["Memory", bytes(one.memory) + (one.limit ? ` of ${bytes(one.limit)}` : "")],
      ["Written", bytes(one.written)],
      ["Earlier", one.earlier.map((each) => `attempt ${each.attempt}: exit ${each.exit}${each.reason ? ` ${each.reason}` : ""}, ${when(each.finished)}`).join("; ")],
      ["Id", one.id],
    ]),
  );
}

export function onePod(id) {
  const one = pod(id);
  if (!one) return [h("h1", {}, "No such pod"), h("p", {}, "It is gone, or never was. ", h("a", { href: "#/pods" }, "All pods"))];
  const wrong = problems().filter((found) => found.pod === id);
  const key = `pod/${id}`;
  const unmeasured = one.cpu !== null && one.memory === null;
  return [
    tabs(one, ""),
    h("ul", { class: "problems" }, wrong.map(problem)),
    h("h2", {}, "Now"),
    h("div", { class: "gauges" }, gauge("CPU", key, "cpu", `${cores(one.cpu)} cores`, nanocores), gauge("Memory", key, "memory", unmeasured ? "not measured: the pod's cgroup has no memory controller" : bytes(one.memory), bytes)),
    lastHour([
      ["pod_cpu_usage_seconds_total", "CPU", used],
      ["pod_memory_working_set_bytes", "Memory", bytes],
      ["pod_network_receive_bytes_total", "Received", rate],
      ["pod_network_transmit_bytes_total", "Sent", rate],
    ]),
    h("h2", {}, "Containers"),
    one.containers.map((each) => container(one, each)),
    h("h2", {}, "Pod"),
    facts([
      ["Phase", one.kube?.phase ?? ""],
      ["Conditions", one.kube && h("ul", {}, one.kube.conditions.map((each) => h("li", {}, `${each.type}: ${each.status} ${each.why}`)))],
      ["Manifest", one.kube?.manifest ?? ""],
      ["Sandbox", one.ready ? "ready" : "not ready"],
      ["Created", when(one.created)],
      ["Addresses", one.ips.join(", ")],
      ["Processes", one.processes],
      ["Received, sent", `${bytes(one.received)}, ${bytes(one.sent)}`],
      ["Labels", h("ul", {}, Object.entries(one.labels).map(([name, value]) => h("li", {}, `${name}=${value}`)))],
      ["Annotations", h("ul", {}, Object.entries(one.annotations).map(([name, value]) => h("li", {}, `${name}=${value}`)))],
      ["UID", one.uid],
      ["Id", one.id],
    ]),
  ];
}

// With the node agent's plan of what it would remove for room, and why the others stay; without one nobody removes any.
export function imageList() {
  const found = images();
  const sum = (list) => list.reduce((total, one) => total + one.size, 0);
  const plan = node().agent ? fetched.value?.images : [];
  const order = new Map((plan ?? []).map((one, place) => [one.id, { ...one, place }]));
  const going = [...order.values()].filter((one) => one.goes);
  const unused = found.filter((one) => !one.used.length && !one.pinned);
  const would = plan && `garbage collection would take ${going.length} of them now, ${bytes(going.reduce((total, one) => total + one.frees, 0))}`;
  const nobody = `no node agent runs, so there is no garbage collection by one; nothing uses ${unused.length} of them, ${bytes(sum(unused))}`;
  found.sort((one, other) => (order.get(one.id)?.place ?? Infinity) - (order.get(other.id)?.place ?? Infinity) || 0);
  return [
    h("h1", {}, "Images"),
    h("p", { class: "sub" }, `${found.length}, ${bytes(sum(found))}; ${node().agent ? (would ?? fetched.error) || "asking for the plan of garbage collection …" : nobody}`),
    node().agent && fetched.value?.why && h("p", { class: "why" }, fetched.value.why),
    h(
      "ul",
      { class: "images" },
      found.map((one) =>
        h(
          "li",
          { "data-key": one.id },
          h("strong", {}, one.tags.join(", ") || one.digests[0] || one.id),
          h("span", {}, bytes(one.size)),
          h("span", {}, one.used.length ? `used by ${one.used.join(", ")}` : one.pinned ? "pinned" : "not used"),
          verdict(order.get(one.id)),
          h("code", {}, one.id),
          !one.used.length && !one.pinned && may("operate") && h("button", { type: "button", "data-act": "remove-image", "data-body": JSON.stringify({ image: one.id }) }, `Remove ${one.tags[0] ?? "it"}`),
        ),
      ),
    ),
  ];
}

function verdict(one) {
  if (!one) return null;
  const used = `last used ${ago(one.used)} ago`;
  if (one.goes) return h("span", { class: "odd" }, `would go: ${one.why}; ${bytes(one.frees)} are free again`);
  return h("span", { class: "soft" }, `stays: ${one.why}; ${used}`);
}
