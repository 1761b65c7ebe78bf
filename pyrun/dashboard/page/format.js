// How figures are written.
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) (value /= 1000), unit++;
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

// Nanoseconds a second.
export function cores(value) {
  if (value === null || value === undefined) return "–";
  const used = value / 1e9;
  return used.toFixed(used < 0.0995 ? 3 : 2);
}

export function ago(nanoseconds, now = Date.now()) {
  if (!nanoseconds) return "–";
  return duration(now / 1000 - nanoseconds / 1e9);
}

export function duration(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function when(nanoseconds) {
  return nanoseconds ? new Date(nanoseconds / 1e6).toISOString().replace("T", " ").slice(0, 19) + " UTC" : "–";
}

export function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

// Three digits of it, two of what is small; without zeros that say nothing.
export function figure(value) {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(Math.abs(value) < 0.1 ? 2 : 3)));
}
