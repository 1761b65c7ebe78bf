// Which page is shown, the keyboard, and logging in. The address is the state: #/pods, #/pod/ID, #/logs/ID/NAME, #/images.
import { h, morph } from "/dom.js";
import { Logs } from "/logs.js";
import { chooseHistory } from "/history.js";
import { imageList, onePod, overview, podList } from "/pages.js";
import { hasKey, login, LoggedOut, logout } from "/server.js";
import { follow, node, problems, store } from "/store.js";

const top = document.getElementById("top");
const content = document.getElementById("content");
const said = document.getElementById("said");
let filter = "";
let logs = null;
let asked = false;
let help = false;
let wrong = -1;

const KEYS = [["j, k", "next, previous"], ["Enter", "open"], ["l", "logs"], ["/", "filter"], ["o p i", "overview, pods, images"], ["?", "this help"]];

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
}

function render() {
  if (asked) return show(content, loginPage());
  const [page, id, name] = route();
  const failed = problems().filter((one) => one.level === "broken").length;
  const tab = (to, text) => h("a", { href: `#/${to}`, "aria-current": page === to || (to === "pods" && ["pod", "logs"].includes(page)) ? "page" : null }, text);
  show(top, h("nav", { "aria-label": "Pages" }, tab("", failed ? `Overview (${failed})` : "Overview"), tab("pods", "Pods"), tab("images", "Images"), h("button", { id: "logout" }, "Log out")), store.error && h("p", { class: "error", role: "alert" }, store.error));
  if (failed !== wrong) said.textContent = failed ? `${failed} broken` : "nothing is broken";
  wrong = failed;
  document.title = `${failed ? `(${failed}) ` : ""}${node()?.name ?? "pyrun"}`;
  if (!node()) return show(content, h("p", {}, "Asking the runtime …"));
  chooseLogs(page, id, name);
  chooseHistory(page === "pod" ? id : page ? null : "", render, fail);
  const views = { pods: () => podList(filter), pod: () => onePod(id), logs: () => logs.view(), images: imageList };
  show(content, (views[page] ?? overview)(), help && h("dl", { class: "help" }, KEYS.map(([key, text]) => [h("dt", {}, key), h("dd", {}, text)])));
}

function chooseLogs(page, id, name) {
  if (page === "logs" && logs?.id === id && logs?.name === name) return;
  logs?.end();
  logs = page === "logs" ? new Logs(id, name, fail) : null;
  if (logs && store.values.has(`pod/${id}`)) logs.start();
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
  logs?.end();
  logs = null;
  show(top);
  show(content, loginPage(error));
  document.getElementById("token")?.focus();
}

function begin() {
  asked = false;
  render();
  follow(() => render(), () => askToken());
}

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (event.target.id === "log-tools") return logs?.choose(event.target);
  try {
    await login(document.getElementById("token").value.trim());
    begin();
  } catch (error) {
    askToken(error.message);
  }
});

document.addEventListener("input", (event) => {
  if (event.target.id !== "filter" || logs) return;
  filter = event.target.value;
  render();
});

document.addEventListener("change", (event) => {
  const form = event.target.closest?.("#log-tools");
  if (form && event.target.id !== "filter") logs?.choose(form);
});

document.addEventListener("click", async (event) => {
  if (event.target.id !== "logout") return;
  await logout();
  location.reload();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || asked) return;
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
    "/": () => document.getElementById("filter")?.focus(),
    o: () => (location.hash = "#/"),
    p: () => (location.hash = "#/pods"),
    i: () => (location.hash = "#/images"),
    "?": () => ((help = !help), render()),
  };
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
});

window.addEventListener("hashchange", () => {
  filter = "";
  const field = document.getElementById("filter");
  if (field) field.value = "";
  render();
  content.focus({ preventScroll: true });
  window.scrollTo(0, 0);
});

if (hasKey()) begin();
else askToken();
