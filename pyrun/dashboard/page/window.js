// Of a long list only the rows near what is seen are in the page; what is left out above and below is empty space.
import { h } from "/dom.js";

const ALL = 80;
const MORE = 20;
let drawn = null;
let height = 31;

function seen() {
  const list = document.querySelector(".long");
  const rows = list ? list.querySelectorAll(".row[data-key]") : [];
  const top = list ? list.getBoundingClientRect().top : 0;
  if (rows.length) height = (rows[rows.length - 1].getBoundingClientRect().bottom - rows[0].getBoundingClientRect().top) / rows.length || height;
  return [Math.floor(-top / height), Math.ceil((window.innerHeight - top) / height)];
}

// The items' rows, made by `row(item, number)`, with the space around them.
export function longList(items, row) {
  const [from, to] = items.length > ALL ? seen() : [0, items.length];
  const first = Math.min(Math.max(0, from - MORE), Math.max(0, items.length - ALL));
  const last = Math.min(items.length, Math.max(to + MORE, first + ALL / 2));
  drawn = { first, last, count: items.length };
  const space = (count, key) => h("svg", { class: "space", width: 1, height: Math.round(count * height), "data-key": key, "aria-hidden": "true" });
  const rows = items.slice(first, last).map((one, number) => row(one, first + number));
  return items.length > ALL ? [space(first, "space above"), rows, space(items.length - last, "space below")] : rows;
}

// Whether rows come into view that are not there.
export function isOutgrown() {
  if (!drawn || drawn.count <= ALL || !document.querySelector(".long")) return false;
  const [from, to] = seen();
  return (from < drawn.first && drawn.first > 0) || (to > drawn.last && drawn.last < drawn.count);
}
