// Which page is shown, the keyboard, and logging in. The address is the state: #/pods, #/pod/ID, #/pod/ID/plan,
// #/logs/ID/NAME, #/images … A page with a part that looks after itself (logs, a terminal, an editor) has an owner: an
// object whose `element` is put where its `view` has a place for it.
import { Around } from "/around.js";
import { h, morph } from "/dom.js";
import { addressOf, askMetric, metricsPage } from "/explore.js";
import { chooseFetched, lookAgain } from "/fetched.js";
import { chooseHistory } from "/history.js";
import { Logs } from "/logs.js";
import { Manifest } from "/manifest.js";
import { eventsPage, nodePage, servicePage, servicesPage, tokensPage, volumesPage } from "/node.js";
import { imageList, onePod, overview, podList, topBy } from "/pages.js";
import { planPage, timeline } from "/podtabs.js";
import { Search } from "/search.js";
import { act, hasKey, learnRole, login, LoggedOut, logout, may, read } from "/server.js";
import { askSparks } from "/sparks.js";
import { follow, node, pod, problems, store } from "/store.js";
import { Shell } from "/terminal.js";
import { isOutgrown } from "/window.js";

const top = document.getElementById("top");
const content = document.getElementById("content");
const said = document.getElementById("said");
let filter = "";
let owner = null;
let kept = null; // what was looked for, while lines around one are shown
let made = null;
let asked = false;
let help = false;
let wrong = -1;

const KEYS = [["j, k", "next, previous"], ["Enter", "open"], ["l", "logs"], ["s", "shell"], ["e", "YAML"], ["/", "filter"], ["← →", "read out a graph that has the focus"], ["o p m i", "overview, pods, metrics, images"], ["?", "this help"]];

function route() {
  try {
    return location.hash.slice(2).split("/").map(decodeURIComponent);
  } catch {
    return [""];
  }
}

function show(element, ...children) {
  const fresh = element.cloneNode(false);
  fresh.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  morph(element, fresh);
  const place = owner && element.querySelector("[data-own]");
  if (place && place.firstChild !== owner.element) place.replaceChildren(owner.element);
}

function render() {
  if (asked) return show(content, loginPage());
  const [page, id, name] = route();
  const failed = problems().filter((one) => one.level === "broken").length;
  const tab = (to, text) => h("a", { href: `#/${to}`, "aria-current": page === to || (to === "search" && page === "around") || (to === "pods" && ["pod", "logs", "terminal"].includes(page)) ? "page" : null }, text);
  show(top, h("nav", { "aria-label": "Pages" }, tab("", failed ? `Overview (${failed})` : "Overview"), tab("pods", "Pods"), tab("search", "Logs"), tab("metrics", "Metrics"), tab("images", "Images"), tab("services", "Services"), tab("volumes", "Volumes"), tab("events", "Events"), tab("node", "Node"), may("admin") && [tab("apply", "Apply"), tab("tokens", "Tokens")], h("button", { id: "keys", "aria-expanded": String(help) }, "Keys"), h("button", { id: "logout" }, "Log out")), store.error && h("p", { class: "error", role: "alert" }, store.error));
  if (failed !== wrong) said.textContent = failed ? `${failed} broken` : "nothing is broken";
  wrong = failed;
  document.title = `${failed ? `(${failed}) ` : ""}${node()?.name ?? "pyrun"}`;
  if (!node()) return show(content, h("p", {}, "Asking the runtime …"));
  chooseOwner(page, id, name);
  chooseHistory(page === "pod" && !name ? id : page ? null : "", render, fail);
  chooseFetched(...asking(page, id, name), render, fail);
  const ofPod = { plan: planPage, timeline };
  const pages = { pods: () => podList(filter), pod: () => (ofPod[name] ?? onePod)(id), images: imageList, services: () => (id && name ? servicePage(id, name) : servicesPage()), volumes: volumesPage, events: eventsPage, node: nodePage, metrics: () => metricsPage(route()), tokens: () => tokensPage(made) };
  show(content, owner ? owner.view() : (pages[page] ?? overview)(), help && h("dl", { class: "help" }, KEYS.map(([key, text]) => [h("dt", {}, key), h("dd", {}, text)])));
  askSparks(render, fail);
}

function chooseOwner(page, id, name) {
  const kinds = {
    logs: () => new Logs(id, name, fail),
    terminal: () => new Shell(id, name, fail),
    search: () => new Search(route(), fail),
    around: () => new Around(route(), kept?.key ?? "", fail),
    apply: () => new Manifest("", fail),
    "pod/yaml": () => new Manifest(id, fail),
  };
  const make = kinds[page === "pod" ? `pod/${name}` : page];
  const key = make ? location.hash : "";
  if ((owner?.key ?? "") === key) return;
  const left = owner;
  if (page === "around" && (left instanceof Search || left instanceof Logs)) kept = left;
  else left?.end();
  if (kept?.key === key) {
    owner = kept;
    kept = null;
    return;
  }
  if (page !== "around") forget();
  owner = make ? make() : null;
  if (!owner) return;
  owner.key = key;
  if (pod(id) || !["logs", "terminal", "pod"].includes(page)) owner.start();
}

function forget() {
  kept?.end();
  kept = null;
}

// [key, what gives a promise] of what a page asks for.
function asking(page, id, name) {
  if (page === "pod" && name === "plan" && pod(id)) return [`plan ${id}`, () => read("plan", { pod: `${pod(id).namespace}/${pod(id).name}` })];
  if (page === "metrics") return [location.hash, () => askMetric(route())];
  if (page === "images" && node()?.agent) return ["garbage", () => read("garbage")];
  if (page === "node") return ["parts", () => read("parts")];
  if (page === "services" && id && name) return [`service ${id}/${name}`, () => read("service", { service: `${id}/${name}` })];
  if (page === "services" || (page === "volumes" && node()?.agent) || (page === "tokens" && may("admin"))) return [page, () => read(page)];
  return [null, null];
}

function fail(error) {
  if (error instanceof LoggedOut) return askToken();
  store.error = error.message;
  render();
}

function loginPage(error) {
  return h(
    "form",
    { class: "login", id: "login" },
    h("h1", {}, "pyrun"),
    h("label", {}, "Token ", h("input", { type: "password", id: "token", autocomplete: "current-password", required: true })),
    h("button", {}, "Log in"),
    h("p", { class: "hint" }, "pyrun dashboard says at its start in which file the token is."),
    error && h("p", { class: "error", role: "alert" }, error),
  );
}

function askToken(error) {
  asked = true;
  owner?.end();
  forget();
  owner = null;
  show(top);
  show(content, loginPage(error));
  document.getElementById("token")?.focus();
}

async function begin() {
  asked = false;
  await learnRole().catch(fail);
  if (asked) return;
  render();
  follow(() => render(), () => askToken());
}

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (event.target.id === "make-token") return makeToken();
  if (event.target.id === "explore") return explore(event.target);
  if (event.target.id !== "login") return owner?.submit?.(event.target);
  try {
    await login(document.getElementById("token").value.trim());
    await begin();
  } catch (error) {
    askToken(error.message);
  }
});

document.addEventListener("input", (event) => {
  if (event.target.id !== "filter" || owner) return;
  filter = event.target.value;
  render();
});

// The address alone: what is typed into stays where it is.
function explore(form) {
  history.replaceState(null, "", addressOf(form));
  render();
}

document.addEventListener("change", (event) => {
  if (event.target.id === "top-by") return topBy(event.target.value, render);
  if (event.target.form?.id === "explore") return explore(event.target.form);
  const form = event.target.closest?.("#log-tools");
  if (form && event.target.id !== "filter") owner?.change?.(form);
});

document.addEventListener("click", async (event) => {
  if (event.target.dataset?.act) return perform(event.target.dataset.act, JSON.parse(event.target.dataset.body));
  if (event.target.id === "keys") return toggleHelp();
  if (event.target.id !== "logout") return owner?.click?.(event.target);
  await logout();
  location.reload();
});

async function perform(name, body) {
  try {
    const done = await act(name, body);
    said.textContent = "done";
    store.error = "";
    return done;
  } catch (error) {
    fail(error);
    return null;
  } finally {
    lookAgain();
    render();
  }
}

async function makeToken() {
  const [name, role] = ["token-name", "token-role"].map((id) => document.getElementById(id).value.trim());
  const done = await perform("make-token", { name, role });
  made = done && { name, token: done.token };
  render();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || asked) return;
  if (event.target.closest?.(".screen")) return; // a terminal's keys are its own
  if (event.target.matches?.("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const links = [...content.querySelectorAll("a[href]")];
  const at = links.indexOf(document.activeElement);
  const acts = {
    j: () => links[Math.min(at + 1, links.length - 1)]?.focus(),
    k: () => links[Math.max(at - 1, 0)]?.focus(),
    l: () => links.find((one) => one.hash.startsWith("#/logs/"))?.click(),
    s: () => links.find((one) => one.hash.startsWith("#/terminal/"))?.click(),
    e: () => links.find((one) => one.hash.endsWith("/yaml"))?.click(),
    "/": () => document.getElementById("filter")?.focus(),
    o: () => (location.hash = "#/"),
    p: () => (location.hash = "#/pods"),
    m: () => (location.hash = "#/metrics"),
    i: () => (location.hash = "#/images"),
    "?": toggleHelp,
  };
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
});

function toggleHelp() {
  help = !help;
  render();
}

let scrolled = 0;
const look = () => {
  cancelAnimationFrame(scrolled);
  scrolled = requestAnimationFrame(() => !asked && isOutgrown() && render());
};
window.addEventListener("scroll", look, { passive: true });
window.addEventListener("resize", look);

window.addEventListener("hashchange", () => {
  filter = "";
  made = null;
  const field = document.getElementById("filter");
  if (field) field.value = "";
  render();
  content.focus({ preventScroll: true });
  window.scrollTo(0, 0);
});

if (hasKey()) begin();
else askToken();
