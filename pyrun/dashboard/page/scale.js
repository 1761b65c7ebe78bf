// Round figures for the axes of a graph. Times are seconds since 1970 and are shown in UTC, as everywhere on these pages.
const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;
const TIMES = [10, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY];
const MONTH = 30.5 * DAY;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

// 0 and so many further values or fewer, each a round figure, the last of them no less than `most`.
export function ticksOf(most, count) {
  if (!(most > 0)) return [0];
  const least = most / count;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one * count >= most * (1 - 1e-9));
  return Array.from({ length: Math.ceil(most / step - 1e-9) + 1 }, (_, number) => Number((number * step).toPrecision(6)));
}

// [time, how it is written] of at most so many, between the two.
export function timesOf(since, until, count) {
  const step = TIMES.find((one) => (until - since) / one <= count);
  if (!step) return monthsOf(since, until, count);
  const found = [];
  for (let time = Math.ceil(since / step) * step; time <= until; time += step) found.push([time, word(time, step)]);
  return found;
}

function monthsOf(since, until, count) {
  const step = [1, 2, 3, 6, 12].find((one) => (until - since) / (one * MONTH) <= count) ?? 12;
  const first = new Date(since * 1000);
  const found = [];
  for (let month = Math.ceil((first.getUTCMonth() + 1) / step) * step; ; month += step) {
    const time = Date.UTC(first.getUTCFullYear(), month) / 1000;
    if (time > until) return found;
    found.push([time, month % 12 ? MONTHS[month % 12] : String(new Date(time * 1000).getUTCFullYear())]);
  }
}

function word(time, step) {
  if (step >= DAY || time % DAY === 0) return day(time);
  return iso(time).slice(11, step < MINUTE ? 19 : 16);
}

// A time of a graph, exact enough for its length.
export function clock(time, { since, until }) {
  const text = iso(time).slice(11, until - since <= 2 * HOUR ? 19 : 16);
  return `${until - since >= DAY ? `${day(time)} ` : ""}${text} UTC`;
}

const iso = (time) => new Date(time * 1000).toISOString();

function day(time) {
  const found = new Date(time * 1000);
  return `${found.getUTCDate()} ${MONTHS[found.getUTCMonth()]}`;
}
