// Lines around one that was found, of both streams and of other attempts, too; more of them at a button. The address has
// it all: #/around/NAMESPACE/POD/UID/CONTAINER/TIME/MARK. What is written at once has one time, so a mark tells which.
import { h } from "/dom.js";
import { plural } from "/format.js";
import { Lines } from "/lines.js";
import { get } from "/server.js";
import { pods } from "/store.js";

const FIRST = 20;
const MORE = 200;
const SIZES = [100, 1000, 10_000];

// FNV-1a of a line, or of the first one of an entry.
function markOf(line) {
  let hash = 0x811c9dc5;
  for (const one of line.split("\n", 1)[0]) hash = Math.imul(hash ^ one.codePointAt(0), 0x01000193) >>> 0;
  return hash.toString(16);
}

// A link to the lines around one; of: namespace, pod, uid and container.
export function nearby(of, one) {
  return h("a", { class: "near", href: `#/around/${[...of, one.time, markOf(one.line)].map(encodeURIComponent).join("/")}`, "aria-label": `±${FIRST} lines around that of ${one.time}` }, `±${FIRST} lines`);
}

export class Around {
  // of: what the address has. back: the address from which somebody came; "" where it was opened by itself.
  constructor([, namespace, name, uid, container, time, mark], back, failed) {
    this.of = { namespace, pod: name, uid, container };
    this.time = time;
    this.isIt = (one) => one.time === time && markOf(one.line) === mark;
    this.back = back;
    this.failed = failed;
    this.lines = new Lines(`lines around that of ${time}`, (one) => row(one, this.isIt(one)));
    this.said = h("p", { class: "sub", role: "status" }, "Reading …");
    const button = (id, text) => h("button", { type: "button", id, disabled: true }, text);
    this.before = button("more-before", `${MORE} more before`);
    this.after = button("more-after", `${MORE} more after`);
    this.element = h("div", {}, this.said, h("p", { class: "tools" }, this.before, this.after), this.lines.element);
  }

  async start() {
    try {
      const lines = await this.first();
      this.lines.add(lines);
      const at = lines.findIndex(this.isIt);
      this.lines.show(Math.max(at, 0));
      this.tell(at < 0 ? "The line itself is no longer there. " : "");
      this.before.disabled = this.after.disabled = false;
    } catch (error) {
      this.fail(error);
    }
  }

  // All lines of its time, and those around them.
  async first() {
    for (const size of SIZES) {
      const [before, after] = await Promise.all([this.ask("until", this.time, size), this.ask("since", this.time, size)]);
      const earlier = before.filter((one) => one.time !== this.time).slice(-FIRST);
      const later = after.filter((one) => one.time !== this.time).slice(0, FIRST);
      const whole = (earlier.length === FIRST || before.length < size) && (later.length === FIRST || after.length < size);
      if (whole || size === SIZES.at(-1)) return [...earlier, ...after.filter((one) => one.time === this.time), ...later];
    }
  }

  async ask(side, time, lines) {
    return (await get("/api/logs", { ...this.of, [side]: time, lines })).lines;
  }

  async click(target) {
    const side = { "more-before": "until", "more-after": "since" }[target.id];
    if (!side) return;
    target.disabled = true;
    const items = this.lines.items;
    const edge = side === "until" ? items[0] : items.at(-1);
    const time = edge?.time ?? this.time;
    const held = items.filter((one) => one.time === time).length;
    try {
      const found = await this.ask(side, time, MORE + held);
      const fresh = side === "until" ? found.slice(0, Math.max(0, found.length - held)) : found.slice(held);
      if (side === "until") this.lines.prepend(fresh);
      else this.lines.add(fresh);
      this.tell(fresh.length ? "" : side === "until" ? "That is the first line. " : "That is the last line so far. ");
    } catch (error) {
      this.fail(error);
    }
    target.disabled = false;
  }

  tell(text) {
    this.said.textContent = `${text}${plural(this.lines.items.length, "line")} around ${this.time}`;
  }

  fail(error) {
    this.said.textContent = error.message;
    this.failed(error);
  }

  view() {
    const here = pods().find((one) => one.uid === this.of.uid);
    return [
      h("h1", {}, `${this.of.namespace}/${this.of.pod} ${this.of.container}`),
      h("p", { class: "tools" }, h("a", { href: this.back || "#/search" }, this.back ? "Back to what was found" : "Search the logs"), here && h("a", { href: `#/logs/${encodeURIComponent(here.id)}/${encodeURIComponent(this.of.container)}` }, "The whole log")),
      h("div", { "data-own": this.key }),
    ];
  }

  end() {}
}

function row(one, found) {
  return h("div", { class: `line${one.stream === "stderr" ? " stderr" : ""}${found ? " hit" : ""}`, "aria-current": found ? "true" : null }, h("time", {}, one.time.slice(11, 23)), h("span", {}, one.line));
}
