// The pages of the node: services, volumes, events, the node itself, tokens.
import { h } from "/dom.js";
import { eventRow } from "/podtabs.js";
import { bytes, cores, figure, plural, when } from "/format.js";
import { fetched } from "/fetched.js";
import { counts } from "/pages.js";
import { absent, PARTS } from "/parts.js";
import { may } from "/server.js";
import { happened, node, pods } from "/store.js";

const waiting = () => (fetched.error ? h("p", { class: "error" }, fetched.error) : h("p", {}, "Asking the node …"));

function table(label, head, rows) {
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h("table", {}, h("thead", {}, h("tr", {}, head.map((word) => h("th", { scope: "col" }, word)))), h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))),
  );
}

export function servicesPage() {
  const found = fetched.value;
  if (!found) return [h("h1", {}, "Services"), waiting()];
  if (found.missing) return [h("h1", {}, "Services"), absent("proxy", `${found.missing} is not there`)];
  const { status, counters } = found;
  const wrong = [...status.faults, ...status.refused];
  const about = (text) => h("a", { href: `#/services/${text.split(/[: ]/)[0].split("/").map(encodeURIComponent).join("/")}` }, text);
  const rows = (counters.frontends ?? []).map((one) => [about(one.name), `${one.address}:${one.port}`, one.active, one.accepted, one.failed, one.refused, bytes(one.bytes_in), bytes(one.bytes_out)]);
  return [
    h("h1", {}, "Services"),
    h("p", { class: "sub" }, `${status.frontends} addresses and ports with ${status.endpoints} endpoints, ${status.mode}`),
    status.waits_for.length > 0 && h("p", { class: "odd" }, `waits for ${status.waits_for.join(", ")}`),
    h("ul", {}, wrong.map((one) => h("li", { class: "bad" }, one))),
    table("Services", ["Service", "Address", "Open", "All", "Failed", "Refused", "In", "Out"], rows),
  ];
}

// What its selector takes, and who of that gets connections.
export function servicePage(namespace, name) {
  const title = [h("h1", {}, `${namespace}/${name}`), h("p", {}, h("a", { href: "#/services" }, "All services"))];
  const found = fetched.value;
  if (!found) return [title, waiting()];
  const wanted = Object.entries(found.selector);
  const taken = wanted.length ? pods().filter((one) => one.namespace === namespace && wanted.every(([label, value]) => one.labels[label] === value)) : [];
  const open = (one) => h("a", { href: `#/pod/${encodeURIComponent(one.id)}` }, `${one.namespace}/${one.name}`);
  const named = new Map(pods().map((one) => [`${one.namespace}/${one.name}`, one]));
  const state = (good, text) => h("span", { class: good ? "good" : "odd" }, text);
  const endpoint = (one) => [one.endpoint, one.port, named.has(one.pod) ? open(named.get(one.pod)) : one.pod || "–", state(one.ready, one.ready ? "ready" : "not ready"), state(one.gets, one.gets ? "yes" : "no"), [one.gets && one.gets !== "cluster" ? `policy ${one.gets}` : "", one.why].filter(Boolean).join("; ")];
  return [
    title,
    fetched.error && h("p", { class: "error" }, fetched.error),
    h("dl", {}, [["Type", found.type], ["Addresses", found.addresses.join(", ") || "none"], ["Selector", wanted.map((pair) => pair.join("=")).join(", ") || "none: its endpoints are made by somebody else"]].map(([word, value]) => [h("dt", {}, word), h("dd", {}, value)])),
    found.skipped && h("p", { class: "why" }, `Nothing is done for it here: ${found.skipped}`),
    h("h2", {}, "Pods that it selects on this node"),
    taken.length ? table("Pods", ["Pod", "Ready", "Address"], taken.map((one) => [open(one), readiness(one), one.ips.join(", ")])) : h("p", { class: "sub" }, "None."),
    h("h2", {}, "Endpoints"),
    found.count > found.endpoints.length && h("p", { class: "sub" }, `the first ${found.endpoints.length} of ${found.count}`),
    found.endpoints.length ? table("Endpoints", ["Endpoint", "Port", "Pod", "State", "Gets connections", "Why"], found.endpoints.map(endpoint)) : h("p", { class: "sub" }, found.skipped ? "None that the proxy looks at." : "None: who calls it is refused."),
  ];
}

function readiness(one) {
  const [ready] = counts(one);
  const [are, all] = ready.split("/");
  return h("span", { class: are === all ? "good" : "odd" }, ready);
}

export function volumesPage() {
  if (!node().agent) return [h("h1", {}, "Volumes"), absent("node")];
  const found = fetched.value?.volumes;
  if (!found) return [h("h1", {}, "Volumes"), waiting()];
  const rows = found.map((one) => [`${one.namespace}/${one.pod}`, one.name, one.kind, one.about, one.mounts.map((each) => `${each.container} ${each.path}${each.read_only ? " (read-only)" : ""}`).join(", ")]);
  return [h("h1", {}, "Volumes"), h("p", { class: "sub" }, `${plural(found.length, "volume")} of the pods of manifests`), rows.length > 0 && table("Volumes", ["Pod", "Volume", "Kind", "Of", "Seen by"], rows)];
}

export function eventsPage() {
  const found = happened();
  if (!node().agent) return [h("h1", {}, "Events"), absent("node")];
  return [h("h1", {}, "Events"), h("p", { class: "sub" }, `${found.length}, the newest first`), h("ol", { class: "events" }, found.map((one) => eventRow(one, true)))];
}

export function nodePage() {
  const here = node();
  const rows = [
    ["Runtime", `${here.runtime} ${here.version}`],
    ["Manifests", here.agent?.manifests ?? "no node agent runs"],
    ["CPU", `${cores(here.cpu)} of ${here.cpus}`],
    ["Memory", `${bytes(here.memory)} of ${bytes(here.total)}, ${bytes(here.available)} can be had`],
    ["Disk of images", here.disk ? `${bytes(here.disk.total - here.disk.free)} of ${bytes(here.disk.total)} on ${here.disk.path}` : "–"],
    ["Pods", pods().length],
    ["Started", when(here.started)],
  ];
  return [
    h("h1", {}, here.name),
    h("dl", {}, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    h("h2", {}, "Conditions"),
    h("ul", {}, here.conditions.map((one) => h("li", { class: one.status ? "good" : "bad" }, `${one.type}: ${one.status ? "yes" : "no"}`, one.message && h("span", { class: "why" }, ` ${one.reason} ${one.message}`)))),
    h("h2", {}, "Parts"),
    parts(),
    fetched.value?.limits?.length > 0 && [h("h2", {}, "Pods go when less is left"), h("dl", {}, fetched.value.limits.map((one) => [h("dt", {}, one.signal), h("dd", { class: one.met ? "bad" : null }, limitOf(one))]))],
    fetched.value?.configuration?.length > 0 && [h("h2", {}, "Configuration"), h("dl", {}, fetched.value.configuration.map((one) => [h("dt", {}, one.key), h("dd", {}, one.value, " ", h("span", { class: "soft" }, `by ${one.from}`))]))],
    here.agent?.faults.length > 0 && [h("h2", {}, "Faults of manifests"), h("ul", {}, here.agent.faults.map((one) => h("li", { class: "bad" }, one)))],
  ];
}

function limitOf({ signal, limit, available, grace, met, condition }) {
  if (available === null) return "can't be read";
  const text = /inodes|pid/.test(signal) ? figure : bytes;
  return `less than ${text(limit)}${grace === null ? "" : ` for ${grace} s`}; now ${text(available)}${met ? `, so ${condition}` : ""}`;
}

function parts() {
  const runs = fetched.value;
  if (!runs) return waiting();
  const row = ([name, [title, what, command]]) => [title, h("span", { class: runs[name] ? "good" : "soft" }, runs[name] ? "runs" : "does not run"), runs[name] ? what : ["optional: ", what, ". To start it: ", h("code", {}, command)]];
  return table("Parts", ["Part", "State", "What it does"], Object.entries(PARTS).map(row));
}

export function tokensPage(made) {
  if (!may("admin")) return [h("h1", {}, "Tokens"), h("p", {}, "The role admin may see them.")];
  const found = fetched.value;
  if (!found) return [h("h1", {}, "Tokens"), waiting()];
  const revoke = (one) => (one.made ? h("button", { type: "button", "data-act": "revoke-token", "data-body": JSON.stringify({ name: one.name }) }, `Revoke ${one.name}`) : "");
  return [
    h("h1", {}, "Tokens"),
    table("Tokens", ["Name", "Role", "Made", "Revoke"], found.tokens.map((one) => [one.name, one.role, one.made ? when(one.made) : "by the first start", revoke(one)])),
    h("h2", {}, "Another"),
    h(
      "form",
      { class: "tools", id: "make-token" },
      h("label", {}, "Name ", h("input", { id: "token-name", required: true, autocomplete: "off" })),
      h("label", {}, "Role ", h("select", { id: "token-role" }, ["view", "operate", "admin"].map((role) => h("option", { value: role }, role)))),
      h("button", {}, "Make a token"),
    ),
    made && h("p", { role: "status" }, `The token of ${made.name}, told this once: `, h("code", { id: "made" }, made.token)),
    h("h2", {}, "Who did what"),
    table("Audit", ["Time", "Who", "Role", "What", "Of", "Outcome"], found.audit.map((one) => [when(one.time), one.who, one.role, one.action, one.of, one.outcome])),
  ];
}
