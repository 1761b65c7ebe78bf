// Elements out of values. Text is always a text node: nothing here takes markup.
const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["circle", "line", "polyline", "rect", "svg", "text"]);

export function h(tag, attributes, ...children) {
  const element = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on") || name === "style" || name === "srcdoc") throw new Error(`${name} is not for here`);
    if (name === "href" && !String(value).startsWith("#")) throw new Error("links stay on this page");
    element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

// Makes `old` look like `fresh` with as few changes as can be, so that focus, selection and scrolling stay. Children are
// found again by data-key; what has data-own looks after itself.
export function morph(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.dataset.own && old.dataset.own === fresh.dataset.own) return;
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  // What is gone goes first: what stays is then at its place, and keeps the focus, which a move would take from it.
  const wanted = new Set([...fresh.children].map((child) => child.dataset.key));
  const keyed = new Map();
  for (const child of [...old.children]) {
    if (!child.dataset.key) continue;
    if (wanted.has(child.dataset.key)) keyed.set(child.dataset.key, child);
    else child.remove();
  }
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = child.dataset?.key;
    const found = key ? keyed.get(key) : at && !at.dataset?.key ? at : null;
    if (found && alike(found, child)) {
      if (found === at) at = at.nextSibling;
      else old.insertBefore(found, at);
      morph(found, child);
    } else {
      old.insertBefore(child, at);
    }
    if (key) keyed.delete(key);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
  for (const left of keyed.values()) left.remove();
}

function alike(old, fresh) {
  return old.nodeType === fresh.nodeType && old.nodeName === fresh.nodeName && old.dataset?.own === fresh.dataset?.own;
}
