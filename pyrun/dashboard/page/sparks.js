// Tiny graphs of the last hour beside figures in a list of pods: all that are seen are asked for at once.
import { h } from "/dom.js";
import { get, LoggedOut } from "/server.js";

const STEP_S = 120;
const AGAIN_MS = 60000;
const SETTLE_MS = 200;
const APART_MS = 2000; // of requests, where rows come and go
const MOST = 100;
const KEPT = 1000;
// By uid: when it was asked for, and of each figure its points (as they are drawn) and words, or null.
const known = new Map();
let seen = new Set();
let waiting = 0;
let asking = false;
let last = 0;

// field: cpu or memory. text: writes a value. Nothing as long as nothing is known.
export function spark(one, field, label, text) {
  if (seen.size < MOST) seen.add(one.uid);
  const found = known.get(one.uid)?.[field];
  if (!found) return null;
  found.label ??= `${label} in the last hour: from ${text(found.least)} to ${text(found.most)}`;
  return h("svg", { class: "spark", viewBox: "0 0 60 16", preserveAspectRatio: "none", role: "img", "aria-label": found.label }, h("polyline", { points: found.points }));
}

// After a page was drawn: asks for what was seen in it and is not known, or of old.
export function askSparks(changed, failed) {
  const uids = [...seen];
  seen = new Set();
  const old = Date.now() - AGAIN_MS;
  if (asking || !uids.some((uid) => !(known.get(uid)?.at > old))) return;
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    asking = true;
    last = Date.now();
    try {
      take(uids, await get("/api/sparks", [["step", STEP_S], ...uids.map((uid) => ["uid", uid])]));
    } catch (error) {
      if (error instanceof LoggedOut) return failed(error);
      take(uids, {}); // a list does without them
    } finally {
      asking = false;
    }
    changed();
  }, Math.max(SETTLE_MS, last + APART_MS - Date.now()));
}

function take(uids, found) {
  if (known.size > KEPT) known.clear();
  for (const uid of uids) {
    const of = found.pods?.[uid] ?? {};
    known.set(uid, { at: Date.now(), cpu: drawn(of.cpu, found), memory: drawn(of.memory, found) });
  }
}

function drawn(points, { since, until }) {
  if (!(points?.length > 1)) return null;
  const values = points.map(([, value]) => value);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const place = ([time, value]) => `${(((time - since) * 60) / (until - since)).toFixed(1)},${(15 - (value * 14) / (most || 1)).toFixed(1)}`;
  return { least, most, points: points.map(place).join(" ") };
}
