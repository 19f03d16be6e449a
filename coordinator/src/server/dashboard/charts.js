// Curves as drawings. Each is redrawn for the width that it has, so that its words stay readable on a phone, and says
// in its label what it shows; the numbers themselves are in a table beside it.

import { count, figure, svg } from "./dom.js";

const EDGE = { top: 14, right: 18, bottom: 26, left: 46 };

/** Round values that span a range, about so many. */
export function ticks(least, most, about) {
  const rough = (most - least || Math.abs(most) || 1) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const values = [];
  for (let at = Math.floor(least / step); at <= Math.ceil(most / step + 1e-9); at += 1) values.push(at * step);
  return values.length > 1 ? values : [least, least + step];
}

const label = (value, values) => {
  const step = Math.abs(values[1] - values[0]);
  const places = Math.max(0, Math.min(6, Math.ceil(-Math.log10(step) - 1e-9) + (String(step).includes("25") ? 1 : 0)));
  return value.toFixed(places).replace("-", "−");
};

function frame(chart) {
  const box = chart.getBoundingClientRect();
  const [width, height] = [Math.max(200, Math.round(box.width)), Math.max(100, Math.round(box.height))];
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return { width, height, right: width - EDGE.right, bottom: height - EDGE.bottom };
}

function yAxis({ right, bottom }, values) {
  const [low, high] = [values[0], values[values.length - 1]];
  const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - EDGE.top);
  const marks = values.flatMap((value) => [
    svg("line", { class: "grid", x1: EDGE.left, x2: right, y1: y(value), y2: y(value) }),
    svg("text", { x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, label(value, values)),
  ]);
  return { y, marks };
}

/** The loss of every committed round, and a cross for every abandoned one. */
export function curve(chart, rounds) {
  const committed = rounds.filter((round) => round.outcome === "committed" && Number.isFinite(round.train_loss));
  const area = frame(chart);
  if (committed.length === 0) {
    chart.setAttribute("aria-label", "Training loss by round: no round is committed yet");
    chart.replaceChildren(empty(area, "The curve begins with the first committed round."));
    return;
  }
  const losses = committed.map((round) => round.train_loss);
  const [least, most] = [Math.min(...losses), Math.max(...losses)];
  const { y, marks } = yAxis(area, ticks(least >= 0 ? Math.max(0, least - (most - least) * 0.05) : least, most, 4));
  const [first, last] = [rounds[0].round, Math.max(rounds[rounds.length - 1].round, rounds[0].round + 1)];
  const x = (round) => EDGE.left + ((round - first) / (last - first)) * (area.right - EDGE.left);
  const spots = committed.map((round) => [x(round.round), y(round.train_loss)]);
  const path = spots.map(([px, py], at) => `${at ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
  const [end, start] = [spots[spots.length - 1], spots[0]];
  chart.setAttribute("aria-label", summary(committed, rounds.length - committed.length));
  chart.replaceChildren(
    ...marks,
    ...xLabels(x, first, last, area),
    svg("path", { class: "area", d: `${path}L${end[0].toFixed(1)} ${area.bottom}L${start[0].toFixed(1)} ${area.bottom}Z` }),
    svg("path", { class: "curve", id: "loss-curve", d: path }),
    ...rounds.filter((round) => round.outcome === "abandoned").map((round) => cross(x(round.round), area.bottom - 8)),
    svg("circle", { class: "end", cx: end[0], cy: end[1], r: 5 }),
  );
  chart.onpointermove = (event) => probe(chart, area, committed, spots, event.clientX - chart.getBoundingClientRect().left);
  chart.onpointerleave = () => chart.querySelector(".tip")?.remove();
}

function summary(committed, abandoned) {
  const [first, last] = [committed[0], committed[committed.length - 1]];
  const lowest = committed.reduce((low, round) => (round.train_loss < low.train_loss ? round : low));
  const tail = abandoned ? ` ${count(abandoned)} of the rounds shown led to no version.` : "";
  return `Training loss by round: ${figure(first.train_loss)} in round ${first.round}, ${figure(last.train_loss)} in round ${last.round}, lowest ${figure(lowest.train_loss)} in round ${lowest.round}.${tail}`;
}

function xLabels(x, first, last, area) {
  const about = Math.max(2, Math.floor((area.right - EDGE.left) / 58));
  const values = ticks(first, last, about).filter((value) => Number.isInteger(value) && value >= first && value <= last);
  return values.map((value) => svg("text", { x: x(value), y: area.bottom + 20, "text-anchor": "middle" }, String(value)));
}

const cross = (x, y) => svg("path", { class: "cross", d: `M${x - 3.5} ${y - 3.5}l7 7m0 -7l-7 7` });
const empty = (area, words) => svg("text", { x: area.width / 2, y: area.height / 2, "text-anchor": "middle" }, words);

/** What the curve says under a pointer. */
function probe(chart, area, committed, spots, px) {
  chart.querySelector(".tip")?.remove();
  const near = spots.reduce((best, [x], at) => (Math.abs(x - px) < Math.abs(spots[best][0] - px) ? at : best), 0);
  const [[x, y], round] = [spots[near], committed[near]];
  const words = `round ${round.round}: ${figure(round.train_loss)}`;
  const width = words.length * 6.9 + 18;
  const left = Math.min(Math.max(x - width / 2, EDGE.left), area.right - width);
  const top = y - 40 < 0 ? y + 14 : y - 40;
  chart.append(
    svg("g", { class: "tip" },
      svg("line", { class: "probe", x1: x, x2: x, y1: EDGE.top, y2: area.bottom }),
      svg("circle", { class: "end", cx: x, cy: y, r: 5 }),
      svg("rect", { x: left, y: top, width, height: 26, rx: 6 }),
      svg("text", { x: left + width / 2, y: top + 17, "text-anchor": "middle" }, words)),
  );
}

/** A figure before and after, for every rollout that has it, the oldest first. */
export function pairs(chart, name, rollouts, of) {
  const known = rollouts.filter((rollout) => of(rollout));
  const area = frame(chart);
  if (known.length === 0) {
    chart.setAttribute("aria-label", `${name} by rollout: not evaluated yet`);
    chart.replaceChildren(empty(area, "Not evaluated yet."));
    return;
  }
  const values = known.flatMap((rollout) => [of(rollout).before, of(rollout).after]);
  const { y, marks } = yAxis(area, ticks(Math.min(...values), Math.max(...values), 4));
  const slot = (area.right - EDGE.left) / known.length;
  const x = (at) => EDGE.left + slot * (at + 0.5);
  const every = Math.ceil(62 / slot);
  const drawn = known.flatMap((rollout, at) => {
    const { before, after } = of(rollout);
    return [
      svg("line", { class: "link", x1: x(at) - 9, x2: x(at) + 9, y1: y(before), y2: y(after) }),
      svg("circle", { class: "ring", cx: x(at) - 9, cy: y(before), r: 5 }),
      svg("circle", { class: "disc", cx: x(at) + 9, cy: y(after), r: 6 }),
      at % every === 0 ? svg("text", { x: x(at), y: area.bottom + 20, "text-anchor": "middle" }, `release ${rollout.release}`) : null,
    ].filter(Boolean);
  });
  const said = known.map((rollout) => `release ${rollout.release} from ${figure(of(rollout).before)} to ${figure(of(rollout).after)}`);
  chart.setAttribute("aria-label", `${name} by rollout: ${said.join("; ")}`);
  chart.replaceChildren(...marks, ...drawn);
}

/** Where the interval of a gate lies against its bound. */
export function interval({ interval: range, bound, verdict }) {
  if (!range) return null;
  const [least, most] = [Math.min(range[0], 0, bound), Math.max(range[1], 0, bound)];
  const x = (value) => 6 + ((value - least) / (most - least || 1)) * 108;
  return svg("svg", { class: "interval", viewBox: "0 0 120 16", preserveAspectRatio: "xMinYMid meet", "aria-hidden": "true", focusable: "false" },
    svg("line", { class: "axis", x1: 2, x2: 118, y1: 8, y2: 8 }),
    svg("line", { class: `span ${verdict}`, x1: x(range[0]), x2: x(range[1]), y1: 8, y2: 8 }),
    svg("line", { class: "bound", x1: x(bound), x2: x(bound), y1: 1, y2: 15 }));
}
