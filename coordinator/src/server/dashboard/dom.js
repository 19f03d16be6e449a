// Making elements, and saying numbers. Whatever comes from the run becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** Sets an element's text if it is another one. */
export function text(id, value) {
  const node = byId(id);
  if (node.textContent !== value) node.textContent = value;
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** An element with attributes and children; a text among the children stays text. */
export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** As `el`, of a drawing. */
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Words for screen readers alone. */
export const unseen = (words) => el("span", { class: "unseen" }, words);

/** A sign that means nothing without the words beside it. */
export const sign = (character) => el("span", { "aria-hidden": "true" }, character);

/** Puts children in the place of others; what was folded open stays open, and the focus stays where it was. */
export function replace(parent, ...children) {
  const folds = new Map([...parent.querySelectorAll("details[id]")].map((fold) => [fold.id, fold.open]));
  const focused = parent.contains(document.activeElement) ? document.activeElement.closest("[id]")?.id : undefined;
  parent.replaceChildren(...children.flat());
  for (const [id, open] of folds) {
    const fold = byId(id);
    if (fold) fold.open = open;
  }
  const again = focused && byId(focused);
  if (again) (again.querySelector("summary") ?? again).focus({ preventScroll: true });
}

const seen = new Map();

/** Whether a part of the picture is another one than at the last call with this name. */
export function changed(name, value) {
  const now = JSON.stringify(value);
  if (seen.get(name) === now) return false;
  seen.set(name, now);
  return true;
}

const NONE = "–";
const whole = new Intl.NumberFormat("en");
const digits = (least, most) => new Intl.NumberFormat("en", { minimumFractionDigits: least, maximumFractionDigits: most });
const one = digits(0, 1);
const fine = digits(3, 3);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (value) => (isNumber(value) ? whole.format(value) : NONE);
/** A loss, an accuracy or another figure of a model. */
export const figure = (value) => (isNumber(value) ? fine.format(value).replace("-", "−") : NONE);
export const percent = (share) => (isNumber(share) ? `${one.format(share * 100)} %` : NONE);
/** How many times. */
export const times = (ratio) => (isNumber(ratio) ? `${ratio < 10 ? one.format(ratio) : whole.format(Math.round(ratio))}×` : NONE);
export const plural = (value, singular, several = `${singular}s`) => `${count(value)} ${value === 1 ? singular : several}`;
export const short = (hex) => (hex ? hex.slice(0, 12) : NONE);

export function bytes(value) {
  if (!isNumber(value)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  let scaled = value;
  while (scaled >= 999.5 && unit < units.length - 1) {
    scaled /= 1000;
    unit += 1;
  }
  return `${unit === 0 || scaled >= 99.5 ? whole.format(Math.round(scaled)) : digits(0, scaled < 10 ? 2 : 1).format(scaled)} ${units[unit]}`;
}

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const yearFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const minuteFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

export const clock = (ms) => (isNumber(ms) ? clockFormat.format(ms) : NONE);

/** The day unless it is today, and the time. */
export function moment(ms) {
  if (!isNumber(ms)) return NONE;
  const [day, today] = [new Date(ms), new Date()];
  if (day.toDateString() === today.toDateString()) return clockFormat.format(day);
  const date = day.getFullYear() === today.getFullYear() ? dayFormat : yearFormat;
  return `${date.format(day)}, ${minuteFormat.format(day)}`;
}

export const time = (ms) => (isNumber(ms) ? el("time", { datetime: new Date(ms).toISOString() }, moment(ms)) : NONE);

export function duration(ms) {
  if (!isNumber(ms)) return NONE;
  const units = [[86_400_000, "d"], [3_600_000, "h"], [60_000, "min"], [1_000, "s"]];
  const at = units.findIndex(([unit]) => ms >= unit);
  if (at < 0) return `${ms} ms`;
  const [unit, name] = units[at];
  const major = Math.floor(ms / unit);
  const [below, belowName] = units[at + 1] ?? [0, ""];
  const minor = below ? Math.floor((ms % unit) / below) : 0;
  return minor ? `${major} ${name} ${minor} ${belowName}` : `${major} ${name}`;
}
