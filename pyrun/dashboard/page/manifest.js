// A pod's YAML as it is, and its file: edited, tried and applied. New objects, too.
import { h } from "/dom.js";
import { absent } from "/parts.js";
import { planLines, tabs } from "/podtabs.js";
import { act, may, read } from "/server.js";
import { node, pod } from "/store.js";

export class Manifest {
  // id: of a pod, "" for new objects.
  constructor(id, failed) {
    this.id = id;
    this.failed = failed;
    this.of = null;
    this.text = h("textarea", { id: "manifest", spellcheck: "false", "aria-label": "manifest", rows: "24", wrap: "off" });
    this.told = h("div", { role: "status", id: "tried" });
    this.shown = h("pre", { class: "yaml", tabindex: "0", "aria-label": "YAML" });
    this.element = h("div", {});
  }

  async start() {
    if (!this.id) {
      this.of = { file: "", version: "" };
      this.text.placeholder = "Pods, ConfigMaps and Secrets as YAML, with --- between";
      return this.edit();
    }
    const one = pod(this.id);
    if (!one) return;
    try {
      const found = await read("yaml", { pod: `${one.namespace}/${one.name}` });
      this.shown.textContent = found.lines.join("\n");
      const button = may("admin") ? h("button", { type: "button", id: "edit" }, "Edit its file") : h("p", { class: "sub" }, "The role admin may edit it.");
      this.element.replaceChildren(button, this.shown);
    } catch (error) {
      this.fail(error);
    }
  }

  fail(error) {
    this.element.append(h("p", { class: "error", role: "alert" }, error.message));
    this.failed(error);
  }

  async click(target) {
    if (target.id === "edit") await this.load();
    if (target.id === "dry" || target.id === "apply") await this.send(target.id === "dry");
  }

  async load() {
    const one = pod(this.id);
    try {
      this.of = await read("manifest", { pod: `${one.namespace}/${one.name}` });
      this.text.value = this.of.text;
      this.edit();
    } catch (error) {
      this.fail(error);
    }
  }

  edit() {
    const buttons = [["dry", "Dry run"], ["apply", "Apply"]].map(([id, text]) => h("button", { type: "button", id }, text));
    this.element.replaceChildren(h("p", { class: "sub" }, this.of.file), this.text, h("p", { class: "tools" }, buttons), this.told);
    this.text.focus();
  }

  async send(dry) {
    this.told.replaceChildren("…");
    try {
      const found = await act("change", { file: this.of.file, version: this.of.version, text: this.text.value, dry });
      this.told.replaceChildren(...this.result(found, dry));
      if (found.written && this.of.file) this.of.version = found.version;
    } catch (error) {
      this.told.replaceChildren(h("p", { class: "error", role: "alert" }, error.message));
      this.failed(error);
    }
  }

  result(found, dry) {
    const faults = found.faults.map((one) => h("li", { class: "bad" }, `line ${one.line}, column ${one.column}: ${one.pointer} ${one.text}`));
    if (faults.length) return [h("h2", {}, "Nothing was changed"), h("ul", {}, faults)];
    const objects = found.objects.map((one) => h("li", {}, `${one.kind} ${one.namespace}/${one.name} ${one.what}`));
    const lines = found.diff.map((line) => h("div", { class: line.startsWith("+") ? "good" : line.startsWith("-") ? "bad" : null }, line));
    return [
      h("h2", {}, found.written ? "Applied" : dry ? "It would be applied" : "Nothing was changed"),
      h("ul", {}, objects),
      h("pre", { class: "diff", tabindex: "0", "aria-label": "changes" }, lines),
      ...found.plan.flatMap((one) => [h("h3", {}, `Plan of ${one.pod}`), planLines(one.lines)]),
    ];
  }

  view() {
    const own = h("div", { "data-own": this.key });
    if (!this.id) return [h("h1", {}, "Apply"), node()?.agent ? own : absent("node")];
    const one = pod(this.id);
    return one ? [...tabs(one, "yaml"), own] : [h("h1", {}, "No such pod")];
  }

  end() {}
}
