// A list of very many lines, of which only those near what is seen are in the page. Lines may be of any height: what was
// seen is measured, the rest is guessed from its length. What is seen stays in its place when lines come or go above it;
// who is at the end stays at the end.
import { h } from "/dom.js";
import { plural } from "/format.js";

const MOST = 200_000;
const MOST_CHARACTERS = 64 << 20;
// Of a reader who looks at older lines none are taken away until there are so many times more.
const PATIENCE = 2;
const AROUND = 15;
const NEAR_TOP = 600;

export class Lines {
  // row(item) makes an element. older(first, held) gives a promise of the items before the first one, none at the
  // beginning; held: how many of its time are there. Without it there are none.
  constructor(label, row, older) {
    this.row = row;
    this.older = older;
    this.inner = h("div", { role: "list" });
    this.element = h("div", { class: "lines", role: "region", tabindex: "0", "aria-label": label }, this.inner);
    this.said = h("p", { class: "unseen", role: "status" });
    this.clear();
    this.element.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.pressed(event));
    new ResizeObserver(() => this.resized()).observe(this.element);
  }

  clear() {
    this.items = [];
    this.heights = [];
    this.characters = 0;
    this.tops = null;
    this.from = this.to = 0; // what is in the page
    this.begun = !this.older; // nothing is before the first
    this.asking = false;
    this.atEnd = true;
    this.at = [0, 0]; // the line at the top, and how much of it is above
    this.set = 0;
    this.inner.replaceChildren();
    this.draw();
  }

  add(items) {
    for (const one of items) this.characters += this.keep(this.items, this.heights, one);
    const most = this.atEnd ? 1 : PATIENCE;
    let gone = Math.max(0, this.items.length - most * MOST);
    for (let over = this.characters - most * MOST_CHARACTERS; over > 0 && gone < this.items.length - 1; gone++) over -= this.items[gone].line.length;
    if (gone) this.dropFirst(gone);
    this.tops = null;
    this.draw();
  }

  keep(items, heights, one) {
    items.push(one);
    heights.push(-1);
    return one.line.length;
  }

  dropFirst(count) {
    this.heights.splice(0, count);
    for (const one of this.items.splice(0, count)) this.characters -= one.line.length;
    while (this.from < count && this.inner.firstChild) this.inner.firstChild.remove(), this.from++;
    this.from = Math.max(0, this.from - count);
    this.to = this.from + this.inner.childElementCount;
    this.at = this.at[0] < count ? [0, 0] : [this.at[0] - count, this.at[1]];
    this.begun = !this.older;
  }

  // Lines that were before the first one. What is seen does not move.
  async askOlder() {
    if (this.asking || this.begun || !this.items.length) return;
    if (this.items.length >= MOST || this.characters >= MOST_CHARACTERS) {
      this.said.textContent = "a page keeps no more: search for words, or use pyrun logs";
      return;
    }
    this.asking = true;
    const items = this.items;
    const first = items.find((one) => one.time);
    let held = 0;
    for (const one of items) {
      if (one.time && one.time !== first.time) break;
      if (one.time) held++;
    }
    try {
      const found = first ? await this.older(first, held) : [];
      if (items !== this.items || items.find((one) => one.time) !== first) return; // it began anew meanwhile
      this.begun = !found.length;
      this.put(found);
      this.said.textContent = found.length ? `${plural(found.length, "older line")}, ${this.items.length} in all` : "this is the first line";
    } catch (error) {
      this.begun = true; // it is not asked again and again
      this.said.textContent = error.message;
      this.failed?.(error);
    } finally {
      this.asking = false;
    }
    this.draw();
  }

  put(found) {
    this.items = found.concat(this.items);
    this.heights = found.map(() => -1).concat(this.heights);
    for (const one of found) this.characters += one.line.length;
    this.at = [this.at[0] + found.length, this.at[1]];
    this.from += found.length;
    this.to += found.length;
    this.tops = null;
  }

  // Above the first one, by who asks for older ones himself.
  prepend(found) {
    this.put(found);
    this.draw();
  }

  // This line comes into view, with some before it.
  show(number) {
    this.atEnd = false;
    this.at = [number, -this.element.clientHeight / 3];
    this.draw();
  }

  // How high a line may be, by its characters.
  guess(one) {
    let rows = 0;
    for (const line of one.line.split("\n")) rows += Math.max(1, Math.ceil((line.length + 14) / this.columns));
    return rows * this.lineHeight;
  }

  resized() {
    const probe = h("span", {}, "0".repeat(100));
    this.inner.append(probe);
    const wide = probe.getBoundingClientRect().width / Math.max(1, probe.getClientRects().length);
    this.lineHeight = parseFloat(getComputedStyle(this.element).lineHeight) || 18;
    this.columns = Math.max(1, Math.floor(this.inner.clientWidth / (wide / 100 || 8)));
    probe.remove();
    this.heights.fill(-1);
    for (const child of this.inner.children) child.seen = false;
    this.tops = null;
    this.draw();
  }

  sums() {
    if (this.tops) return this.tops;
    const tops = (this.tops = new Float64Array(this.items.length + 1));
    for (let n = 0; n < this.items.length; n++) {
      if (this.heights[n] < 0) this.heights[n] = this.guess(this.items[n]);
      tops[n + 1] = tops[n] + this.heights[n];
    }
    return tops;
  }

  // The line in which this place is.
  find(place) {
    const tops = this.sums();
    let low = 0;
    let high = this.items.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (tops[middle] <= place) low = middle;
      else high = middle - 1;
    }
    return Math.max(0, low);
  }

  draw() {
    if (!this.columns || !this.element.isConnected) return;
    const view = this.element.clientHeight;
    // What was guessed may be less than it takes to fill the view.
    for (let turn = 0; turn < 5; turn++) {
      const tops = this.sums();
      const total = tops[this.items.length];
      const top = this.atEnd ? Math.max(0, total - view) : (tops[this.at[0]] ?? 0) + this.at[1];
      this.fill(Math.max(0, this.find(top) - AROUND), Math.min(this.items.length, this.find(top + view) + 1 + AROUND));
      if (!this.measure() || turn === 4) break;
    }
    const tops = this.sums();
    this.inner.style.paddingTop = `${tops[this.from]}px`;
    this.inner.style.paddingBottom = `${tops[this.items.length] - tops[this.to]}px`;
    const wanted = this.atEnd ? this.element.scrollHeight - view : tops[this.at[0]] + this.at[1];
    if (Math.abs(this.element.scrollTop - wanted) > 0.5) this.element.scrollTop = wanted;
    this.set = this.element.scrollTop;
    if (this.atEnd) this.at = this.place();
    this.name();
    if (this.set < NEAR_TOP && this.items.length) this.askOlder();
  }

  place() {
    const at = this.find(this.element.scrollTop);
    return [at, this.element.scrollTop - this.sums()[at]];
  }

  // Puts these lines in the page. What stays is not touched, so that a selection and the focus stay.
  fill(from, to) {
    if (to <= this.from || from >= this.to) {
      this.inner.replaceChildren();
      this.from = this.to = from;
    }
    while (this.from < from) this.inner.firstChild.remove(), this.from++;
    while (this.to > to) this.inner.lastChild.remove(), this.to--;
    while (this.from > from) this.inner.prepend(this.make(--this.from));
    while (this.to < to) this.inner.append(this.make(this.to++));
  }

  make(number) {
    const element = this.row(this.items[number]);
    element.setAttribute("role", "listitem");
    return element;
  }

  // Whether a line has another height than was thought.
  measure() {
    let changed = false;
    let number = this.from;
    for (const child of this.inner.children) {
      if (!child.seen) {
        child.seen = true;
        const height = child.getBoundingClientRect().height;
        if (Math.abs(height - this.heights[number]) > 0.01) {
          this.heights[number] = height;
          changed = true;
        }
      }
      number++;
    }
    if (changed) this.tops = null;
    return changed;
  }

  // For screen readers: which line of how many.
  name() {
    let number = this.from;
    const all = this.begun ? String(this.items.length) : "-1";
    for (const child of this.inner.children) {
      number++;
      const place = String(number);
      if (child.getAttribute("aria-posinset") !== place) child.setAttribute("aria-posinset", place);
      if (child.getAttribute("aria-setsize") !== all) child.setAttribute("aria-setsize", all);
    }
  }

  scrolled() {
    if (!this.columns || Math.abs(this.element.scrollTop - this.set) < 1) return; // it was us
    this.atEnd = this.element.scrollTop + this.element.clientHeight >= this.element.scrollHeight - 4;
    this.at = this.place();
    this.draw();
  }

  // Besides the arrows, Page Up and Page Down, which the browser does.
  pressed(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target !== this.element) return;
    const acts = { Home: () => this.go(false), g: () => this.go(false), End: () => this.go(true), G: () => this.go(true), j: () => this.element.scrollBy(0, this.lineHeight), k: () => this.element.scrollBy(0, -this.lineHeight) };
    if (!acts[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  }

  go(end) {
    this.atEnd = end;
    this.at = [0, 0];
    this.draw();
  }
}
