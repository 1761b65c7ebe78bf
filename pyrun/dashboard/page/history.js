// The last hour of the pod that is shown, or of the node; asked for again as long as it is shown.
import { get, LoggedOut } from "/server.js";
import { pod } from "/store.js";

const AGAIN_MS = 30000;
let shown = null;
let past = null;
let timer = 0;

export const pastOf = () => past;

// of: a pod's id, "" for the node, null for neither.
export function chooseHistory(of, changed, failed) {
  if (of === shown) return;
  shown = of;
  past = null;
  clearTimeout(timer);
  if (of !== null) ask(of, changed, failed);
}

async function ask(of, changed, failed) {
  const one = of ? pod(of) : { namespace: "", name: "", uid: "" };
  if (!one) return;
  try {
    const found = await get("/api/history", { namespace: one.namespace, pod: one.name, uid: one.uid });
    if (of === shown) past = found;
  } catch (error) {
    if (error instanceof LoggedOut) return failed(error);
    if (of === shown) past = { series: [], failed: error.message };
  }
  if (of !== shown) return;
  changed();
  timer = setTimeout(() => ask(of, changed, failed), AGAIN_MS);
}
