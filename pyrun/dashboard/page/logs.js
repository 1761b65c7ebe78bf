// A container's log: the last lines, what follows, and what was before, as far as somebody looks for it.
import { nearby } from "/around.js";
import { h } from "/dom.js";
import { bytes } from "/format.js";
import { Lines } from "/lines.js";
import { tabs } from "/podtabs.js";
import { events, get } from "/server.js";
import { pod } from "/store.js";

const FIRST = 500;
const OLDER = 5000;

export class Logs {
  constructor(id, name, failed) {
    this.id = id;
    this.name = name;
    this.failed = failed;
    this.lines = new Lines(`log of ${name}`, (one) => row(one, this.words.trim() ? this.identity : null), (first, held) => this.before(first, held));
    this.lines.failed = failed;
    this.element = h("div", {}, this.lines.said, this.lines.element);
    this.words = "";
    this.stream = "";
    this.previous = false;
    this.regex = false;
    this.following = true;
    this.stop = new AbortController();
  }

  query() {
    const of = pod(this.id);
    this.identity = [of.namespace, of.name, of.uid, this.name];
    const query = [["namespace", of.namespace], ["pod", of.name], ["uid", of.uid], ["container", this.name], ["stream", this.stream]];
    const words = this.words.split(/\s+/).filter(Boolean).map((word) => ["word", word]);
    // What is found is shown with the lines that belong to it; without words those stand below each other anyway.
    return [...query, ...words, ...(words.length ? [["entries", ""]] : []), ...(this.previous ? [["previous", ""]] : [])];
  }

  // What was written, and then what is. Each start ends the one before.
  async start() {
    this.stop.abort();
    const stop = (this.stop = new AbortController());
    this.lines.clear();
    this.lines.begun = this.regex;
    try {
      const asked = [...this.query(), ["lines", FIRST]];
      if (this.previous || this.regex || !this.following) {
        const found = this.regex ? await get("/api/search", [...asked, ["regex", ""]]) : await get("/api/logs", asked);
        if (!stop.signal.aborted) this.first(found.lines);
        return;
      }
      let began = false;
      for await (const [kind, value] of events("/api/follow", asked, stop.signal)) {
        if (kind === "error") return this.tell(value.error);
        if (value.told) this.tell(value.told);
        else if (!began) this.first(value.lines);
        else this.lines.add(value.lines);
        began = true;
        if (value.skipped) this.tell(`${bytes(value.skipped)} skipped: more is written than can be shown`);
      }
    } catch (error) {
      if (stop.signal.aborted) return;
      this.tell(error.message);
      this.failed(error);
    }
  }

  first(lines) {
    if (!lines.length) return this.tell(this.words ? "no line has these words" : "nothing was written yet");
    this.lines.add(lines);
  }

  // Those of the first one's time that are there are the last of what is found.
  async before(first, held) {
    const stop = this.stop;
    const found = await get("/api/logs", [...this.query(), ["lines", OLDER + held], ["until", first.time]]);
    return stop.signal.aborted ? [] : found.lines.slice(0, Math.max(0, found.lines.length - held));
  }

  tell(text) {
    this.lines.add([{ time: "", line: text }]);
  }

  view() {
    const of = pod(this.id);
    if (!of) return [h("h1", {}, "No such pod"), h("p", {}, "It is gone, or never was.")];
    const box = (id, text, on) => h("label", {}, h("input", { type: "checkbox", id, checked: on }), ` ${text}`);
    const options = [["", "both"], ["stdout", "stdout"], ["stderr", "stderr"]];
    return [
      tabs(of, "logs", this.name),
      h(
        "form",
        { class: "tools", id: "log-tools", "data-key": "log-tools" },
        h("label", {}, "Words ", h("input", { type: "search", id: "filter", autocomplete: "off", value: this.words })),
        h("label", {}, "Stream ", h("select", { id: "stream" }, options.map(([value, text]) => h("option", { value, selected: value === this.stream }, text)))),
        box("regex", "expressions", this.regex),
        box("previous", "previous attempt", this.previous),
        box("follow", "follow", this.following),
        h("button", {}, "Search"),
      ),
      h("div", { "data-own": this.key }),
    ];
  }

  change(form) {
    this.submit(form);
  }

  // The form was sent, or a choice changed.
  submit(form) {
    this.words = form.querySelector("#filter").value;
    this.stream = form.querySelector("#stream").value;
    this.regex = form.querySelector("#regex").checked;
    this.previous = form.querySelector("#previous").checked;
    this.following = form.querySelector("#follow").checked;
    this.start();
  }

  end() {
    this.stop.abort();
  }
}

// of: whose lines are around it, where it was looked for.
function row(one, of) {
  if (!one.time) return h("div", { class: "line told" }, one.line);
  return h("div", { class: one.stream === "stderr" ? "line stderr" : "line" }, h("time", {}, one.time.slice(11, 23)), h("span", {}, one.line), of && [" ", nearby(of, one)]);
}
