// The pages of one pod beside its summary: its plan, and what happened to it.
import { h } from "/dom.js";
import { ago, when } from "/format.js";
import { fetched } from "/fetched.js";
import { may } from "/server.js";
import { eventsOf, pod } from "/store.js";

const MARKS = { done: ["✓", "good"], failed: ["✗", "bad"], "to come": ["·", "soft"] };

// current: one of the pages, or logs or terminal with the container that it is of.
export function tabs(one, current, container) {
  const at = `#/pod/${encodeURIComponent(one.id)}`;
  const pages = [["", "Summary"], ["timeline", "Timeline"], ["plan", "Plan"], ["yaml", "YAML"]];
  const link = (href, here, text) => h("a", { href, "aria-current": here ? "page" : null }, text);
  const tab = ([to, text]) => link(to ? `${at}/${to}` : at, to === current, text);
  const of = (kind, name, text) => link(`#/${kind}/${encodeURIComponent(one.id)}/${encodeURIComponent(name)}`, kind === current && name === container, text);
  const shells = one.containers.filter((each) => each.state === "running" && may("admin"));
  return [
    h("h1", {}, one.namespace, "/", one.name),
    h(
      "nav",
      { class: "tabs", "aria-label": "Of this pod" },
      one.kube ? pages.map(tab) : pages.slice(0, 2).map(tab),
      one.containers.map((each) => of("logs", each.name, `Logs of ${each.name}`)),
      shells.map((each) => of("terminal", each.name, `Shell in ${each.name}`)),
    ),
  ];
}

export function planLines(lines) {
  const parts = [];
  for (const line of lines) {
    if (parts.at(-1)?.part !== line.part) parts.push({ part: line.part, lines: [] });
    parts.at(-1).lines.push(line);
  }
  const item = (line) => {
    const [sign, mark] = MARKS[line.mark] ?? ["·", "soft"];
    return h(
      "li",
      { class: mark },
      h("span", { "aria-hidden": "true" }, sign, " "),
      line.mark && h("span", { class: "unseen" }, line.mark, ": "),
      line.text,
      line.place && h("code", {}, line.place),
      line.why && h("p", { class: "why" }, line.why),
    );
  };
  return h("dl", { class: "plan" }, parts.map((one) => [h("dt", {}, one.part), h("dd", {}, h("ul", {}, one.lines.map(item)))]));
}

export function planPage(id) {
  const one = pod(id);
  if (!one) return [h("h1", {}, "No such pod")];
  const lines = fetched.value?.lines;
  const count = (mark) => lines.filter((line) => line.mark === mark).length;
  return [
    ...tabs(one, "plan"),
    fetched.error && h("p", { class: "error" }, fetched.error),
    lines && h("p", { class: "sub" }, `${count("done")} done, ${count("failed")} failed, ${count("to come")} to come`),
    lines ? planLines(lines) : !fetched.error && h("p", {}, "Asking the node …"),
  ];
}

export function eventRow(one, named) {
  return h(
    "li",
    { class: one.type === "Warning" ? "bad" : null, "data-key": `${one.uid} ${one.reason} ${one.message}` },
    h("time", {}, when(one.last)),
    named && h("span", {}, `${one.namespace}/${one.name}`),
    h("strong", {}, one.reason),
    h("span", { class: "why" }, one.message),
    one.count > 1 && h("span", { class: "since" }, `${one.count} times, first ${ago(one.first)} ago`),
  );
}

export function timeline(id) {
  const one = pod(id);
  if (!one) return [h("h1", {}, "No such pod")];
  const found = eventsOf(one.uid).map((event) => [event.last, eventRow(event, false)]);
  const add = (time, key, text, bad) => time && found.push([time, h("li", { class: bad ? "bad" : null, "data-key": key }, h("time", {}, when(time)), h("span", {}, text))]);
  add(one.created, "made", "the sandbox was made");
  for (const each of one.containers.flatMap((container) => [container, ...container.earlier])) {
    add(each.started, `${each.id} began`, `${each.name} started, attempt ${each.attempt}`);
    add(each.finished, `${each.id} ended`, `${each.name} ended, attempt ${each.attempt}: exit ${each.exit}${each.reason ? ` ${each.reason}` : ""}`, each.exit);
  }
  found.sort((a, b) => b[0] - a[0]);
  return [...tabs(one, "timeline"), h("ol", { class: "events" }, found.map(([, row]) => row))];
}
