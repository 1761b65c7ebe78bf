// The state of the node as the server tells it, with what figures were in the last minutes.
import { events, LoggedOut } from "/server.js";

const KEPT = 150;
const AGAIN_MS = 2000;

export const store = { values: new Map(), history: new Map(), error: "", since: 0 };

export const node = () => store.values.get("node");
export const pods = () => all("pod/").sort((a, b) => order(`${a.namespace}/${a.name}`, `${b.namespace}/${b.name}`));
export const images = () => all("image/").sort((a, b) => b.size - a.size);
export const happened = () => all("event/").sort((a, b) => b.last - a.last);
export const eventsOf = (uid) => happened().filter((one) => one.uid === uid);
export const pod = (id) => store.values.get(`pod/${id}`);

export function problems() {
  const found = [...store.values].filter(([key]) => key.startsWith("problem/"));
  return found.sort(([a], [b]) => Number(a.slice(8)) - Number(b.slice(8))).map(([, value]) => value);
}

function all(prefix) {
  return [...store.values].filter(([key]) => key.startsWith(prefix)).map(([, value]) => value);
}

function order(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

// For ever; `changed` is called after each change, `loggedOut` once when the session is over.
export async function follow(changed, loggedOut) {
  for (;;) {
    try {
      let first = true;
      for await (const [kind, value] of events("/api/live")) {
        if (kind === "error") throw new Error(value.error);
        if (first) store.values.clear();
        first = false;
        take(value);
        store.error = "";
        changed();
      }
      throw new Error("the server has ended the connection");
    } catch (error) {
      if (error instanceof LoggedOut) return loggedOut();
      store.error = error.message;
      changed();
      await new Promise((go) => setTimeout(go, AGAIN_MS));
    }
  }
}

function take({ put, gone }) {
  for (const key of gone) {
    store.values.delete(key);
    store.history.delete(key);
  }
  for (const [key, value] of Object.entries(put)) {
    store.values.set(key, value);
    if (key === "node" || key.startsWith("pod/")) {
      const before = store.history.get(key) ?? [];
      before.push({ time: Date.now(), cpu: value.cpu, memory: value.memory, received: value.received, sent: value.sent });
      store.history.set(key, before.slice(-KEPT));
    }
  }
}
