// Logs of all pods, searched by words or expressions. The address has it all: #/search/WORDS/regex/NAMESPACE/POD/SECONDS.
import { nearby } from "/around.js";
import { h } from "/dom.js";
import { plural } from "/format.js";
import { graph } from "/graph.js";
import { Lines } from "/lines.js";
import { get } from "/server.js";
import { pods } from "/store.js";

// As many as are asked for.
const MOST = 5000;
let count = 0;

export class Search {
  // asked: what the address has.
  constructor([, words, regex, namespace, name, since], failed) {
    this.asked = words === undefined ? null : { words, regex: regex === "regex", namespace: namespace ?? "", pod: name ?? "", since: since ?? "3600" };
    this.number = ++count;
    this.failed = failed;
    this.known = new Map();
    this.lines = new Lines("what was found", (one) => row(one, this.known.get(one.uid)));
    this.said = h("p", { class: "sub", role: "status" }, "Of all pods, the newest lines that have each of the words. Without words: the newest lines.");
    this.hits = h("div", {});
    this.element = h("div", {}, this.said, this.hits, this.lines.element);
  }

  start() {
    if (this.asked) this.look();
  }

  // The address, too: somebody may come back to it.
  submit(form) {
    const value = (id) => form.querySelector(`#${id}`).value.trim();
    this.asked = { words: value("filter"), regex: form.querySelector("#regex").checked, namespace: value("in-namespace"), pod: value("in-pod"), since: value("since") };
    const { words, regex, namespace, pod, since } = this.asked;
    const address = `#/search/${[words, regex ? "regex" : "", namespace, pod, since].map(encodeURIComponent).join("/")}`;
    if (location.hash !== address) history.pushState(null, "", address);
    this.key = location.hash;
    this.look();
  }

  async look() {
    const { words, regex, namespace, pod, since } = this.asked;
    const query = [["namespace", namespace], ["pod", pod], ["since", since], ["lines", MOST], ["entries", ""], ...words.split(/\s+/).filter(Boolean).map((word) => ["word", word])];
    this.said.textContent = "Searching …";
    const turn = (this.turn = Symbol());
    try {
      const found = await get("/api/search", regex ? [...query, ["regex", ""]] : query);
      if (turn !== this.turn) return;
      this.known = new Map(pods().map((one) => [one.uid, one]));
      this.lines.clear();
      this.lines.add(found.lines);
      this.hits.replaceChildren(...histogram(found.lines));
      this.said.textContent = found.lines.length ? `${plural(found.lines.length, "line")}${found.lines.length === MOST ? ", the newest; there may be more" : ""}` : "no line was found";
    } catch (error) {
      this.said.textContent = error.message;
      this.failed(error);
    }
  }

  view() {
    const ages = [["3600", "an hour"], ["86400", "a day"], ["0", "all"]];
    const { words, regex, namespace, pod, since } = this.asked ?? { since: "3600" };
    return [
      h("h1", {}, "Logs"),
      h(
        "form",
        { class: "tools", id: "search", "data-key": `search ${this.number}` },
        h("label", {}, "Words ", h("input", { type: "search", id: "filter", autocomplete: "off", value: words })),
        h("label", {}, h("input", { type: "checkbox", id: "regex", checked: regex }), " expressions"),
        h("label", {}, "Namespace ", h("input", { id: "in-namespace", autocomplete: "off", placeholder: "all", value: namespace })),
        h("label", {}, "Pod ", h("input", { id: "in-pod", autocomplete: "off", placeholder: "all, or web-*", value: pod })),
        h("label", {}, "Of the last ", h("select", { id: "since" }, ages.map(([seconds, text]) => h("option", { value: seconds, selected: seconds === since }, text)))),
        h("button", {}, "Search"),
      ),
      h("div", { "data-own": this.key }),
    ];
  }

  end() {
    this.turn = null;
  }
}

const BARS = 60;

// How many of what was found are of which time: when did it begin, is it over?
export function histogram(lines) {
  const times = lines.map((one) => Date.parse(one.time) / 1000);
  const [first, last] = [Math.min(...times), Math.max(...times)];
  if (!(last - first > 1)) return [];
  const step = (last - first) / BARS;
  const counts = Array.from({ length: BARS }, () => 0);
  for (const time of times) counts[Math.min(BARS - 1, Math.floor((time - first) / step))]++;
  const points = counts.map((count, at) => [first + (at + 0.5) * step, count]);
  const text = Object.assign((count) => plural(count, "line"), { round: (count) => (Number.isInteger(count) ? String(count) : "") });
  return [graph({ key: "hits", label: "Lines that were found, by time", since: first, until: last, step, text, series: [{ name: "lines", points }] })];
}

function row(one, of) {
  const name = `${one.namespace}/${one.pod} ${one.container}`;
  const where = of ? h("a", { href: `#/logs/${encodeURIComponent(of.id)}/${encodeURIComponent(one.container)}` }, name) : h("span", {}, name);
  return h("div", { class: one.stream === "stderr" ? "line stderr" : "line" }, h("time", {}, one.time.slice(0, 19).replace("T", " ")), where, " ", h("span", {}, one.line), " ", nearby([one.namespace, one.pod, one.uid, one.container], one));
}
