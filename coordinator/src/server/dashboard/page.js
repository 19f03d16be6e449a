// The stream of pictures: takes it up, says when it is lost, and hands every picture to the sections.

import { byId, clock, text } from "./dom.js";
import * as sections from "./sections.js";

/** Milliseconds between two announcements of phases at least: a round may last a second. */
const PHASES_SAID_EVERY = 20_000;
/** Milliseconds after which a stream that was refused is asked for again. */
const AGAIN_AFTER = 3_000;

let picture;
let drawing = false;

/** Draws the last picture that came, with the next frame. */
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const { run, history, traffic, workers, arrivals, rollouts, releases } = sections;
    for (const section of [run, history, traffic, workers, arrivals, rollouts, releases]) section(picture);
    document.title = `${sections.headline(picture)} – packfed`;
    scrollable();
  });
}

/** What scrolls is reached by the keyboard, and what does not is not. */
function scrollable() {
  for (const region of document.querySelectorAll(".scroll")) {
    const scrolls = region.scrollWidth > region.clientWidth || region.scrollHeight > region.clientHeight;
    if (scrolls) region.setAttribute("tabindex", "0");
    else region.removeAttribute("tabindex");
    more(region);
  }
}

/** Marks a region that goes on to the right of what is seen. */
const more = (region) => region.toggleAttribute("data-more", region.scrollLeft + region.clientWidth < region.scrollWidth - 1);

const announcer = { rollouts: undefined, phase: undefined, said: 0 };

/** Says aloud what a person would look up for: a rollout that went on, and now and then how the rounds go. */
function announce() {
  const rollouts = new Map(picture.rollouts.map((rollout) => [rollout.number, sections.spoken(rollout)]));
  const before = announcer.rollouts;
  const news = before ? [...rollouts].filter(([number, words]) => before.get(number) !== words).map(([, words]) => words) : [];
  announcer.rollouts = rollouts;
  const { stage, paused, version, rounds } = picture;
  const phase = `${stage.name}${paused}`;
  const due = Date.now() - announcer.said > PHASES_SAID_EVERY || stage.name === "finished";
  if (phase !== announcer.phase && due) {
    if (announcer.phase) news.push(`${sections.headline(picture)}${paused ? ", paused" : ""}. Version ${version} of ${rounds}.`);
    announcer.phase = phase;
    announcer.said = Date.now();
  }
  if (news.length) text("said", news.join(". "));
}

function state(name, words) {
  byId("live").dataset.state = name;
  text("live-state", words);
}

function take(event) {
  picture = JSON.parse(event.data);
  byId("lost").hidden = true;
  state("live", "Live");
  text("live-time", `as of ${clock(picture.at_ms)}`);
  announce();
  draw();
}

function lose() {
  state("lost", "Not connected");
  const shown = picture ? ` What you see is as of ${clock(picture.at_ms)}.` : "";
  text("lost", `The connection to the coordinator is lost; trying again.${shown}`);
  byId("lost").hidden = false;
}

function connect() {
  const stream = new EventSource("/events");
  stream.addEventListener("picture", take);
  stream.addEventListener("error", () => {
    lose();
    // A browser goes on by itself unless it was refused.
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN_AFTER);
  });
}

function again() {
  if (!picture) return;
  sections.redraw(picture);
  scrollable();
}

for (const fold of document.querySelectorAll("details")) fold.addEventListener("toggle", again);
// Scrolling is told to the region alone: it is listened for on the way down. New regions come with every rollout.
document.addEventListener("scroll", ({ target }) => target.matches?.(".scroll") && more(target), { capture: true, passive: true });
let width = 0;
new ResizeObserver(() => {
  if (document.body.clientWidth === width) return;
  width = document.body.clientWidth;
  requestAnimationFrame(again);
}).observe(document.body);
connect();
