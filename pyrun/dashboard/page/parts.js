// The parts of a node that need not run: what a page has of each, and how one is started. That one is absent is no fault.
import { h } from "/dom.js";

export const PARTS = {
  node: ["Node agent", "runs pods from files and tells their events, plans and volumes", "sudo pyrun node run"],
  proxy: ["Service proxy", "serves Services and counts what goes through them", "sudo pyrun proxy run"],
  dns: ["DNS", "answers pods by the names of Services", "sudo pyrun dns run"],
  metrics: ["Metrics store", "keeps what pods use: graphs of the last hour and longer", "sudo pyrun metrics --store /var/lib/pyrun-metrics"],
  collect: ["Log store", "seals and compresses logs that were rotated, and ships them", "sudo pyrun collect"],
};

// name: of PARTS. found: what was looked for, and that it is not there.
export function absent(name, found) {
  const [title, what, command] = PARTS[name];
  return [
    h("p", {}, `The ${title.toLowerCase().replace("dns", "DNS")} is optional, and none runs on this node. It ${what}.`),
    h("p", {}, "To start one: ", h("code", {}, command)),
    found && h("p", { class: "hint" }, found.replace(/; hint: .*/s, "")),
  ];
}
