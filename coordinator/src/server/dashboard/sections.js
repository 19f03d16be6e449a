// The sections of the page, each from its part of the picture. What has not changed is not touched, so that nobody
// loses the place where they read.

import { curve, interval, pairs } from "./charts.js";
import { byId, bytes, changed, count, duration, el, figure, percent, plural, replace, short, sign, text, time, times, unseen } from "./dom.js";

const TITLES = { selecting: "Selecting", reporting: "Reporting", aggregating: "Aggregating", buffering: "Buffering", finished: "Finished" };
const width = (node, share) => node.style.setProperty("width", `${Math.max(0, Math.min(1, share || 0)) * 100}%`);
const cell = (value, attributes = {}) => el("td", attributes, value);
const number = (value) => cell(value, { class: "num" });
const head = (...value) => el("th", { scope: "row" }, ...value);

let buffered = false;

/** What the run does now, in a line. */
export function headline({ stage }) {
  const title = TITLES[stage.name] ?? stage.name;
  return stage.round ? `Round ${count(stage.round)} · ${title}` : title;
}

function detail({ stage, workers, rounds }) {
  switch (stage.name) {
    case "selecting": return `${count(workers.idle)} of ${plural(stage.waiting_for, "worker")} have checked in`;
    case "reporting": return `${count(stage.reports)} updates accepted, ${plural(stage.cohort, "worker")} drawn`;
    case "aggregating": return `${plural(stage.reports, "update")} become one step`;
    case "buffering": return `${count(stage.reports)} of ${plural(stage.waiting_for, "update")} gathered, ${plural(stage.cohort, "worker")} at work`;
    default: return `All ${count(rounds)} versions are committed`;
  }
}

function progress({ stage, workers }) {
  switch (stage.name) {
    case "selecting": return workers.idle / stage.waiting_for;
    case "reporting": return stage.reports / (stage.waiting_for ?? stage.cohort);
    case "buffering": return stage.reports / stage.waiting_for;
    default: return 1;
  }
}

export function run(picture) {
  const { stage, paused, version, rounds, digest } = picture;
  text("run", picture.run);
  text("now-headline", headline(picture));
  text("now-detail", detail(picture));
  byId("paused").hidden = !paused;
  width(byId("now-bar").firstElementChild, progress(picture));
  text("version", count(version));
  text("rounds", count(rounds));
  text("digest", digest);
  width(byId("run-bar").firstElementChild, version / rounds);
  if (changed("phase", stage.name)) phases(stage.name);
}

function phases(now) {
  buffered ||= now === "buffering";
  const names = buffered ? ["buffering", "aggregating"] : ["selecting", "reporting", "aggregating"];
  const at = names.indexOf(now);
  const step = (name, index) => {
    const done = now === "finished" || index < at;
    const state = done ? "done" : index === at ? "now" : "to come";
    const mark = el("span", { class: "mark", "aria-hidden": "true" }, done ? "✓" : String(index + 1));
    return el("li", { class: done ? "done" : null, "aria-current": index === at ? "step" : null }, mark, TITLES[name], unseen(`, ${state}`));
  };
  replace(byId("phases"), names.map(step));
}

export function history({ history: rounds }) {
  if (!changed("history", [rounds.length, rounds.at(-1)])) return;
  const committed = rounds.filter((round) => Number.isFinite(round.train_loss));
  const [first, last] = [committed[0], committed.at(-1)];
  text("loss-now", figure(last?.train_loss));
  text("loss-note", committed.length > 1 ? `in round ${last.round}, ${figure(first.train_loss)} in round ${first.round}` : "");
  curve(byId("loss-chart"), rounds);
  roundTable(rounds);
}

/** A thousand rows are made when somebody looks. */
function roundTable(rounds) {
  if (!byId("rounds-details").open) return;
  const row = (round) => el("tr", {},
    head(count(round.round)),
    cell(time(round.ended_ms), { class: "keep" }),
    cell(round.outcome === "committed" ? "committed" : `abandoned${round.why ? `: ${round.why}` : ""}`),
    number(`${count(round.reports)} of ${count(round.cohort)}`),
    number(figure(round.train_loss)), number(count(round.examples)), number(percent(round.clipped)), number(count(round.version)));
  replace(byId("rounds-rows"), [...rounds].reverse().map(row));
}

export function traffic({ bytes: moved }) {
  if (!changed("bytes", moved)) return;
  const { up, down, dense } = moved;
  const saved = dense - up - down;
  text("bytes-ratio", dense > 0 && up + down > 0 ? times(dense / (up + down)) : "–");
  text("bytes-note", saved > 0 ? `less than dense: ${bytes(saved)} saved` : "nothing to compare with yet");
  const most = Math.max(up, down, dense, 1);
  const row = (name, value, kind) => {
    const bar = el("span", {});
    width(bar, value / most);
    return el("tr", {},
      head(name, el("span", { class: `track ${kind}`, "aria-hidden": "true" }, bar)),
      cell(bytes(value), { class: "num" }));
  };
  replace(byId("bytes-rows"), row("Up, from workers", up, ""), row("Down, to workers", down, ""), row("Dense, both ways", dense, "dense"));
}

export function workers({ workers: all }) {
  if (!changed("workers", all)) return;
  const states = [
    ["busy", "At work", Math.max(0, all.connected - all.idle)],
    ["idle", "Connected and free", all.idle],
    ["away", "Not connected", Math.max(0, all.enrolled - all.connected - all.suspended - all.revoked)],
    ["suspended", "Suspended", all.suspended],
    ["revoked", "Revoked", all.revoked],
  ];
  text("workers-all", count(all.enrolled));
  const part = ([kind, , value]) => {
    const span = el("span", { class: kind });
    span.style.setProperty("flex-grow", String(value));
    return span;
  };
  replace(byId("workers-bar"), states.filter(([, , value]) => value > 0).map(part));
  const row = ([kind, name, value]) => el("tr", {}, head(el("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), name), cell(count(value)));
  replace(byId("workers-rows"), states.map(row));
}

export function arrivals({ counters }) {
  if (!changed("counters", counters)) return;
  const sum = (reasons) => Object.values(reasons).reduce((all, value) => all + value, 0);
  const tile = (name, value, note) => el("div", {}, el("dt", {}, name), el("dd", {}, count(value), " ", el("span", { class: "quiet" }, note)));
  replace(byId("arrivals"),
    tile("Accepted", counters.accepted, "updates"), tile("Too late", counters.discarded, "updates"),
    tile("Rejected", sum(counters.rejected), "updates"), tile("Refused", sum(counters.refused), "messages"));
  const reasons = [
    ...Object.entries(counters.rejected).map(([reason, value]) => [reason, "updates", value]),
    ...Object.entries(counters.refused).map(([reason, value]) => [reason, "messages", value]),
  ].sort((one, other) => other[2] - one[2] || one[0].localeCompare(other[0]));
  byId("reasons").hidden = reasons.length === 0;
  byId("reasons-none").hidden = reasons.length > 0;
  const most = Math.max(1, ...reasons.map(([, , value]) => value));
  replace(byId("reasons-rows"), reasons.map(([reason, of, value]) => {
    const bar = el("span", {});
    width(bar, value / most);
    return el("tr", {},
      head(reason, el("span", { class: `track ${of === "updates" ? "bad" : "dense"}`, "aria-hidden": "true" }, bar)),
      cell(of), number(count(value)));
  }));
}

const PHASES = { soaking: ["on", "◔"], paused: ["warn", "Ⅱ"], completed: ["good", "✓"], aborted: ["bad", "✕"], "rolled back": ["bad", "↶"] };
const VERDICTS = { passes: ["good", "✓"], undecided: ["warn", "?"], fails: ["bad", "✕"] };
const isActive = ({ phase }) => phase === "soaking" || phase === "paused";

function chip(table, word) {
  const [kind, character] = table[word] ?? ["", "•"];
  return el("span", { class: `chip ${kind}` }, sign(character), word);
}

/** A figure before and after, and whether that is better. */
function moved(pair, better) {
  if (!pair) return "–";
  const delta = pair.after - pair.before;
  const same = Math.abs(delta) < 0.0005;
  const good = better === "lower" ? delta < 0 : delta > 0;
  const word = same ? "same" : good ? "better" : "worse";
  const change = same ? "" : ` by ${figure(Math.abs(delta))}`;
  return el("span", {}, `${figure(pair.before)} → ${figure(pair.after)} `,
    el("span", { class: `moved ${same ? "" : good ? "good" : "bad"}` }, sign(same ? "＝" : delta > 0 ? "▲" : "▼"), ` ${word}${change}`));
}

export function rollouts({ rollouts: all }) {
  if (!changed("rollouts", all)) return;
  const active = all.filter(isActive);
  const shown = active.length ? active : all.slice(0, 1);
  const rest = all.filter((rollout) => !shown.includes(rollout));
  byId("rollout-none").hidden = all.length > 0;
  replace(byId("rollouts"), shown.map(rolloutCard));
  byId("earlier").hidden = rest.length === 0;
  replace(byId("earlier-rows"), rest.map((rollout) => el("tr", {},
    head(count(rollout.number)), cell(count(rollout.release)), cell(rollout.channel), cell(chip(PHASES, rollout.phase)),
    cell(moved(rollout.loss, "lower"), { class: "keep" }), cell(moved(rollout.accuracy, "higher"), { class: "keep" }),
    number(count(rollout.evaluated)), number(count(rollout.crashed)))));
  evaluations(all);
}

function rolloutCard(rollout) {
  const stage = rollout.stages[rollout.stage ?? -1];
  return el("article", { class: "rollout", "aria-labelledby": `rollout-${rollout.number}` },
    el("div", { class: "rollout-head" },
      el("h3", { id: `rollout-${rollout.number}` }, `Rollout ${rollout.number}: release ${rollout.release}`),
      chip(PHASES, rollout.phase), el("span", { class: "chip" }, `channel ${rollout.channel}`),
      el("span", { class: "quiet mono" }, unseen("digest "), short(rollout.digest))),
    el("ol", { class: "stages", "aria-label": "Stages" }, rollout.stages.map((each, at) => stageStep(rollout, each, at))),
    el("div", { class: "rollout-body" },
      el("div", {}, reports(rollout, stage), gates(rollout)),
      changes(rollout)));
}

function stageStep(rollout, { share, soak_ms, reports_min }, at) {
  const current = rollout.stage === at;
  const done = rollout.phase === "completed" || (rollout.stage !== null && at < rollout.stage);
  const [mark, word] = done ? ["✓", "done"] : current ? ["●", rollout.phase] : ["○", isActive(rollout) ? "to come" : "not reached"];
  const until = current && rollout.phase === "soaking" && rollout.since_ms !== null
    ? el("span", {}, "until ", time(rollout.since_ms + soak_ms), " at least")
    : `soaks ${duration(soak_ms)}`;
  return el("li", { class: done ? "done" : null, "aria-current": current ? "step" : null },
    el("span", { class: "state" }, sign(mark), `Stage ${at + 1}, ${word}`),
    el("span", { class: "share" }, percent(share / 1_000_000), " of workers"),
    until, `, ${plural(reports_min, "report")} needed`);
}

function reports(rollout, stage) {
  const tile = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  const inStage = stage ? `${count(rollout.in_stage)} of ${count(stage.reports_min)}` : count(rollout.in_stage);
  return el("div", {},
    el("dl", { class: "tiles" },
      tile("Reports in stage", inStage), tile("Evaluated", count(rollout.evaluated)),
      tile("Crashed", count(rollout.crashed)), tile("Not fetched", count(rollout.not_fetched))),
    el("dl", { class: "facts" },
      el("div", {}, el("dt", {}, "Held-out loss, before and after"), el("dd", {}, moved(rollout.loss, "lower"))),
      el("div", {}, el("dt", {}, "Held-out accuracy, before and after"), el("dd", {}, moved(rollout.accuracy, "higher")))));
}

function gates(rollout) {
  if (rollout.gates.length === 0) return el("p", { class: "empty" }, "It has no gates.");
  const caption = `gates-${rollout.number}`;
  const row = (gate) => el("tr", {}, head(gate.gate), cell(chip(VERDICTS, gate.verdict)),
    el("td", {}, el("span", { class: "keep" }, gate.interval ? `${figure(gate.interval[0])} to ${figure(gate.interval[1])}` : "not known"), interval(gate)),
    number(figure(gate.bound)));
  const titles = ["Gate", "Verdict", "Worse by"].map((name) => el("th", { scope: "col" }, name));
  return el("div", { class: "scroll gates", role: "region", "aria-labelledby": caption, id: `${caption}-region` },
    el("table", {},
      el("caption", { id: caption }, `Gates of rollout ${rollout.number}`),
      el("thead", {}, el("tr", {}, ...titles, el("th", { scope: "col", class: "num" }, "Allowed"))),
      el("tbody", {}, rollout.gates.map(row))));
}

function changes(rollout) {
  const item = (change) => el("li", {},
    el("p", {}, el("strong", {}, change.what), ` by ${change.by} `, el("span", { class: "quiet" }, time(change.at))),
    change.why ? el("p", { class: "quiet" }, change.why) : null);
  const title = `rollout-${rollout.number}-history`;
  return el("div", {}, el("h4", { class: "eyebrow", id: title }, "History"),
    el("ol", { class: "timeline", "aria-labelledby": title, reversed: true }, [...rollout.history].reverse().map(item)));
}

function evaluations(all) {
  const known = all.filter((rollout) => rollout.loss || rollout.accuracy).reverse();
  byId("evaluated-none").hidden = known.length > 0;
  for (const id of ["evaluated", "evaluated-legend", "evaluated-details"]) byId(id).hidden = known.length === 0;
  if (known.length === 0) return;
  pairs(byId("accuracy-chart"), "Accuracy", known, (rollout) => rollout.accuracy);
  pairs(byId("evaluated-loss-chart"), "Loss", known, (rollout) => rollout.loss);
  replace(byId("evaluated-rows"), known.map((rollout) => el("tr", {},
    head(count(rollout.number)), cell(count(rollout.release)),
    number(figure(rollout.accuracy?.before)), number(figure(rollout.accuracy?.after)),
    number(figure(rollout.loss?.before)), number(figure(rollout.loss?.after)))));
}

export function releases({ releases: all }) {
  if (!changed("releases", all)) return;
  byId("releases-none").hidden = all.length > 0;
  byId("releases").hidden = all.length === 0;
  const figures = (metrics) => Object.entries(metrics).map(([name, value]) => el("div", { class: "keep" }, el("span", { class: "quiet" }, `${name} `), figure(value)));
  replace(byId("releases-rows"), all.map((release) => el("tr", {},
    head(count(release.number)), cell(time(release.created_ms), { class: "keep" }), number(count(release.version)),
    cell(release.notes || "–", { class: "notes" }), cell(figures(release.metrics)), number(bytes(release.bytes)),
    cell(short(release.digest), { class: "mono" }))));
}

/** Draws everything again that depends on how wide the page is, or that was folded away. */
export function redraw(picture) {
  curve(byId("loss-chart"), picture.history);
  roundTable(picture.history);
  evaluations(picture.rollouts);
}

/** What is worth saying aloud of a rollout. */
export const spoken = (rollout) => {
  const stage = rollout.stage === null ? "" : `, stage ${rollout.stage + 1} of ${rollout.stages.length}`;
  return `Rollout ${rollout.number} is ${rollout.phase}${stage}`;
};

