// A shell in a container: xterm on a WebSocket that speaks Kubernetes' channels (v5.channel.k8s.io).
import { h } from "/dom.js";
import { tabs } from "/podtabs.js";
import { act } from "/server.js";
import { pod } from "/store.js";

const STDIN = 0, STDERR = 2, STATUS = 3, SIZE = 4;
const SHELL = ["sh", "-c", "TERM=xterm-256color; export TERM; command -v bash >/dev/null && exec bash; exec sh"];

export class Shell {
  constructor(id, name, failed) {
    this.id = id;
    this.name = name;
    this.failed = failed;
    this.ended = false;
    this.undo = [];
    this.screen = h("div", { class: "screen" });
    this.state = h("p", { class: "sub", role: "status" }, "Opening …");
    this.spoken = h("input", { type: "checkbox", id: "spoken" });
    this.element = h("div", {}, this.state, h("label", {}, this.spoken, " for a screen reader"), this.screen);
  }

  async start() {
    try {
      const container = pod(this.id)?.containers.find((one) => one.name === this.name);
      if (!container) return this.tell("There is no such container.");
      const { ticket } = await act("terminal", { container: container.id, command: SHELL, tty: true });
      const [{ Terminal }, { FitAddon }] = await Promise.all([import("/xterm.js"), import("/xterm-fit.js"), stylesheet()]);
      if (this.ended) return;
      this.undo.push(withoutStyleElements());
      // Links that a program writes lead nowhere; titles and the clipboard are not given to it either.
      this.terminal = new Terminal({ scrollback: 5000, linkHandler: { activate() {} }, theme: { background: "#12161c" } });
      this.undo.push(() => this.terminal.dispose());
      const fit = new FitAddon();
      this.terminal.loadAddon(fit);
      this.terminal.open(this.screen);
      fit.fit();
      this.connect(ticket);
      const resized = new ResizeObserver(() => fit.fit());
      resized.observe(this.screen);
      this.undo.push(() => resized.disconnect());
    } catch (error) {
      this.tell(error.message);
      this.failed(error);
    }
  }

  connect(ticket) {
    const place = `${location.origin.replace(/^http/, "ws")}/api/terminal?ticket=${encodeURIComponent(ticket)}`;
    const socket = new WebSocket(place, ["v5.channel.k8s.io"]);
    socket.binaryType = "arraybuffer";
    const send = (channel, text) => {
      const data = new TextEncoder().encode(text);
      const message = new Uint8Array(data.length + 1);
      message[0] = channel;
      message.set(data, 1);
      if (socket.readyState === WebSocket.OPEN) socket.send(message);
    };
    const size = ({ cols, rows }) => send(SIZE, JSON.stringify({ Width: cols, Height: rows }));
    socket.addEventListener("open", () => {
      this.tell(`A shell in ${this.name}`);
      size(this.terminal);
      this.terminal.focus();
    });
    socket.addEventListener("message", ({ data }) => {
      const message = new Uint8Array(data);
      if (message[0] === STATUS) return this.tell(said(new TextDecoder().decode(message.subarray(1))));
      if (message[0] && message[0] <= STDERR) this.terminal.write(message.subarray(1));
    });
    socket.addEventListener("close", () => this.state.textContent.startsWith("A shell") && this.tell("The connection has ended."));
    this.terminal.onData((text) => send(STDIN, text));
    this.terminal.onResize(size);
    this.undo.push(() => socket.close());
  }

  // Not always: with it xterm takes no words of keyboards that compose them.
  click(target) {
    if (target === this.spoken && this.terminal) this.terminal.options.screenReaderMode = this.spoken.checked;
  }

  tell(text) {
    this.state.textContent = text;
  }

  view() {
    const of = pod(this.id);
    if (!of) return [h("h1", {}, "No such pod")];
    return [tabs(of, "terminal", this.name), h("div", { "data-own": this.key })];
  }

  end() {
    this.ended = true;
    for (const one of this.undo.reverse()) one();
  }
}

function said(text) {
  try {
    const status = JSON.parse(text);
    return status.status === "Success" ? "The shell has ended." : `The shell has ended: ${status.message}`;
  } catch {
    return "The shell has ended.";
  }
}

function stylesheet() {
  if (document.querySelector("link[href='/xterm.css']")) return null;
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = "/xterm.css";
  document.head.append(link);
  return new Promise((go) => link.addEventListener("load", go));
}

// xterm writes its styles into style elements, which the content policy forbids: they become sheets of the document.
function withoutStyleElements() {
  const make = document.createElement;
  document.createElement = function (tag, ...more) {
    if (String(tag).toLowerCase() !== "style") return make.call(document, tag, ...more);
    const element = make.call(document, "template");
    const sheet = new CSSStyleSheet();
    document.adoptedStyleSheets.push(sheet);
    Object.defineProperty(element, "sheet", { value: sheet });
    Object.defineProperty(element, "textContent", { get: () => "", set: (text) => sheet.replaceSync(text) });
    element.remove = function () {
      document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== sheet);
      Element.prototype.remove.call(element);
    };
    return element;
  };
  return () => (document.createElement = make);
}
