// What is asked of the server. Each request has the key of the session; the cookie goes by itself.
const KEY = "pyrun-key";

export class LoggedOut extends Error {}

function key() {
  return localStorage.getItem(KEY) ?? "";
}

export function hasKey() {
  return key() !== "";
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { "x-pyrun-key": key() }, credentials: "same-origin" });
  if (answer.status === 401 && path !== "/api/login") {
    localStorage.removeItem(KEY);
    throw new LoggedOut();
  }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `HTTP ${answer.status}`);
  return answer;
}

export async function login(token) {
  const answer = await ask("/api/login", { method: "POST", body: JSON.stringify({ token }) });
  localStorage.setItem(KEY, (await answer.json()).key);
}

const ROLES = ["view", "operate", "admin"];
let role = "view";

// Who we are; what the page shows goes by it, and what is done by the server's own look.
export async function learnRole() {
  role = (await get("/api/me")).role;
}

export const may = (wanted) => ROLES.indexOf(role) >= ROLES.indexOf(wanted);

export const read = (act, query) => get(`/api/read/${act}`, query);

export async function act(name, body) {
  return (await ask(`/api/act/${name}`, { method: "POST", body: JSON.stringify(body) })).json();
}

export async function logout() {
  await ask("/api/logout", { method: "POST" }).catch(() => {});
  localStorage.removeItem(KEY);
}

export async function get(path, query) {
  return (await ask(query ? `${path}?${new URLSearchParams(query)}` : path)).json();
}

// Events as they come, until the signal or the server ends them (text/event-stream, of which we write a part only).
export async function* events(path, query, signal) {
  const answer = await ask(query ? `${path}?${new URLSearchParams(query)}` : path, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const found = /^event: (\w+)\ndata: (.*)$/s.exec(part);
        if (found) yield [found[1], JSON.parse(found[2])];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
