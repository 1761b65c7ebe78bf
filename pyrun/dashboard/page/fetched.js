// What a page asks for by itself, beside what is pushed; asked for again as long as the page is shown.
import { LoggedOut } from "/server.js";

const AGAIN_MS = 4000;
let shown = null;
let timer = 0;

export const fetched = { value: null, error: "" };

// key: of the page, null for none. ask: gives a promise.
export function chooseFetched(key, ask, changed, failed) {
  if (key === shown) return;
  shown = key;
  fetched.value = null;
  fetched.error = "";
  clearTimeout(timer);
  if (key !== null) look(key, ask, changed, failed);
}

async function look(key, ask, changed, failed) {
  let value = null;
  let error = "";
  try {
    value = await ask();
  } catch (wrong) {
    if (wrong instanceof LoggedOut) return failed(wrong);
    error = wrong.message;
  }
  if (key !== shown) return;
  if (!error || !fetched.value) fetched.value = value;
  fetched.error = error;
  changed();
  timer = setTimeout(() => look(key, ask, changed, failed), AGAIN_MS);
}

// It has changed, by what somebody did here.
export function lookAgain() {
  shown = null;
}
