// A container's log: the last lines, and what follows. Of a page that is kept open only the newest lines stay.
import { h } from "/dom.js";
import { bytes } from "/format.js";
import { events, get } from "/server.js";
import { pod } from "/store.js";

const KEPT = 3000;

export class Logs {
  constructor(id, name, failed) {
    this.id = id;
    this.name = name;
    this.failed = failed;
    this.list = h("div", { class: "lines", role: "log", tabindex: "0", "aria-label": `log of ${name}` });
    this.element = this.list;
    this.words = "";
    this.stream = "";
    this.previous = false;
    this.regex = false;
    this.following = true;
    this.stop = new AbortController();
  }

  query() {
    const of = pod(this.id);
    const query = [["namespace", of.namespace], ["pod", of.name], ["uid", of.uid], ["container", this.name], ["stream", this.stream]];
    return [...query, ...this.words.split(/\s+/).filter(Boolean).map((word) => ["word", word])];
  }

  // What was written, and then what is. Each start ends the one before.
  async start() {
    this.stop.abort();
    const stop = (this.stop = new AbortController());
    this.list.replaceChildren();
    try {
      const query = this.query();
      const coming = this.following && !this.previous && !this.regex ? events("/api/follow", query, stop.signal) : null;
      const first = await coming?.next(); // it says that it follows; from then on nothing is missed
      if (first && first.value?.[0] === "error") this.tell(first.value[1].error);
      const asked = [...query, ["lines", "500"], ...(this.previous ? [["previous", ""]] : []), ...(this.regex ? [["regex", ""]] : [])];
      const before = await get(this.regex ? "/api/search" : "/api/logs", asked).catch((error) => this.tell(error.message));
      if (stop.signal.aborted) return;
      this.add(before?.lines ?? []);
      const last = before?.lines.at(-1)?.time ?? "";
      if (before && !before.lines.length) this.tell(this.words ? "no line has these words" : "nothing was written yet");
      for (let next = first; coming && !next.done; next = await coming.next()) {
        const [kind, value] = next.value;
        if (kind === "error") return this.tell(value.error);
        // What was written between the two questions is in both answers.
        this.add(value.lines.filter((one) => one.time > last));
        if (value.skipped) this.tell(`${bytes(value.skipped)} skipped: more is written than can be shown`);
      }
    } catch (error) {
      if (!stop.signal.aborted) this.failed(error);
    }
  }

  add(lines) {
    const atEnd = this.list.scrollTop + this.list.clientHeight >= this.list.scrollHeight - 8;
    const fresh = document.createDocumentFragment();
    for (const one of lines) {
      const stream = one.stream === "stderr" ? "line stderr" : "line";
      fresh.append(h("div", { class: stream }, h("time", {}, one.time.slice(11, 23)), h("span", {}, one.line)));
    }
    this.list.append(fresh);
    while (this.list.childElementCount > KEPT) this.list.firstElementChild.remove();
    if (atEnd) this.list.scrollTop = this.list.scrollHeight;
  }

  tell(text) {
    this.list.append(h("div", { class: "line told" }, text));
  }

  view() {
    const of = pod(this.id);
    if (!of) return [h("h1", {}, "No such pod"), h("p", {}, "It is gone, or never was.")];
    const box = (id, text, on) => h("label", {}, h("input", { type: "checkbox", id, checked: on }), ` ${text}`);
    const options = [["", "both"], ["stdout", "stdout"], ["stderr", "stderr"]];
    return [
      h("h1", {}, h("a", { href: `#/pod/${encodeURIComponent(this.id)}` }, of.namespace, "/", of.name), ` ${this.name}`),
      h(
        "form",
        { class: "tools", id: "log-tools" },
        h("label", {}, "Words ", h("input", { type: "search", id: "filter", autocomplete: "off" })),
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
