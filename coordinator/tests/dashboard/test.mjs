// The dashboard in a browser, against a live run: DASHBOARD is its address, SCREENSHOTS a folder for pictures of it.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import puppeteer from "puppeteer-core";
import { standIn } from "./stand_in.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SAMPLE = JSON.parse(readFileSync(new URL("sample.json", import.meta.url), "utf8"));
const LIVE = process.env.DASHBOARD ?? assert.fail("DASHBOARD is not set; `run` beside this file starts a fleet and sets it");
const SCREENSHOTS = process.env.SCREENSHOTS;
const SECTIONS = ["Now", "Training loss", "Bytes saved", "Workers", "Updates and rejections", "Rollout", "Releases as workers evaluated them", "Releases"];
const DESK = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 740, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
/** Every look in which the page is checked: screen, scheme. */
const LOOKS = [["desk", DESK, "light"], ["desk", DESK, "dark"], ["phone", PHONE, "light"], ["phone", PHONE, "dark"]];

let browser;

before(async () => {
  if (SCREENSHOTS) mkdirSync(SCREENSHOTS, { recursive: true });
  // The sandbox of a browser needs a user of its own, which a container seldom has; the only page is ours.
  const args = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
  browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
});
after(() => browser?.close());

/** A page, and everything that it complained of or asked from elsewhere. */
async function open(url, viewport = DESK, scheme = "light") {
  const page = await browser.newPage();
  const wrong = [];
  page.on("console", (said) => ["error", "warn"].includes(said.type()) && wrong.push(`console: ${said.text()}`));
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("requestfailed", (request) => wrong.push(`failed: ${request.url()}`));
  page.on("response", (response) => response.status() >= 400 && wrong.push(`${response.status()}: ${response.url()}`));
  page.on("request", (request) => new URL(request.url()).origin !== new URL(url).origin && wrong.push(`elsewhere: ${request.url()}`));
  await page.setViewport(viewport);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }, { name: "prefers-reduced-motion", value: "reduce" }]);
  await page.goto(url, { waitUntil: "domcontentloaded" });
  await page.waitForFunction(() => document.getElementById("live").dataset.state === "live");
  await page.waitForFunction(() => document.getElementById("version").textContent !== "–");
  return { page, wrong };
}

const textOf = (page, id) => page.$eval(`#${id}`, (node) => node.textContent);

async function shoot(page, name) {
  if (SCREENSHOTS) await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
}

/** Violations of WCAG 2.2 A and AA, and of what axe calls good practice. */
async function violations(page) {
  await page.evaluate(AXE);
  const found = await page.evaluate(() => {
    const values = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    return window.axe.run(document, { runOnly: { type: "tag", values } });
  });
  return found.violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.target} ${node.failureSummary}`));
}

async function check(page, name) {
  await shoot(page, name);
  assert.deepEqual(await violations(page), [], name);
  const [page_width, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(page_width <= screen, `${name} is ${page_width} wide on a screen of ${screen}`);
}

test("a live run is on the page, and its curve moves while rounds are committed", { timeout: 60_000 }, async () => {
  const { page, wrong } = await open(LIVE);
  const titles = await page.$$eval("main > section > h2, main > section > * > h2", (nodes) => nodes.map((node) => node.textContent));
  assert.deepEqual(titles, SECTIONS);
  for (const landmark of ["header", "main", "footer"]) assert.equal((await page.$$(landmark)).length, 1, landmark);
  await page.waitForFunction(() => (document.getElementById("loss-curve")?.getAttribute("d").split("L").length ?? 0) > 2);
  const seen = async () => [await page.$eval("#loss-curve", (path) => path.getAttribute("d")), await textOf(page, "version")];
  const [curve, version] = await seen();
  await page.waitForFunction((was) => document.getElementById("loss-curve").getAttribute("d") !== was, {}, curve);
  await page.waitForFunction((was) => document.getElementById("version").textContent !== was, {}, version);
  assert.match(await textOf(page, "bytes-ratio"), /^\d[\d.,]*×$/);
  assert.match(await page.title(), / – packfed$/);
  assert.match(await page.$eval("#loss-chart", (chart) => chart.getAttribute("aria-label")), /Training loss by round: \d/);
  const rows = await page.$$eval("#workers-rows tr", (all) => all.map((row) => row.textContent));
  assert.equal(rows.length, 5);
  assert.deepEqual(wrong, []);
  await page.close();
});

test("a live run is accessible on every screen", { timeout: 90_000 }, async () => {
  for (const [screen, viewport, scheme] of LOOKS) {
    const { page, wrong } = await open(LIVE, viewport, scheme);
    await check(page, `live-${screen}-${scheme}`);
    assert.deepEqual(wrong, []);
    await page.close();
  }
});

test("a long run with rollouts and releases is accessible on every screen, with all tables open", { timeout: 90_000 }, async () => {
  const stand = await standIn(LIVE, SAMPLE);
  for (const [screen, viewport, scheme] of LOOKS) {
    const { page, wrong } = await open(stand.url, viewport, scheme);
    await check(page, `sample-${screen}-${scheme}`);
    await page.$$eval("details", (folds) => folds.forEach((fold) => { fold.open = true; }));
    await page.waitForSelector("#rounds-rows tr");
    await check(page, `sample-${screen}-${scheme}-open`);
    assert.deepEqual(wrong, []);
    await page.close();
  }
  stand.close();
});

test("what the picture says is on the page, and nothing of it is markup", { timeout: 60_000 }, async () => {
  const releases = [{ ...SAMPLE.releases[0], notes: "<img src=x onerror=alert(1)> & more" }, ...SAMPLE.releases.slice(1)];
  const stand = await standIn(LIVE, { ...SAMPLE, paused: true, releases });
  const { page, wrong } = await open(stand.url);
  const all = await page.$eval("main", (main) => main.textContent);
  for (const words of ["Round 37 · Reporting", "Paused by the operator", "137×", "bad-signature", "too-soon", "Rollout 3: release 4", "25 % of workers", "Stage 2, soaking", "undecided", "Handover is done", "<img src=x onerror=alert(1)> & more"]) {
    assert.ok(all.includes(words), words);
  }
  assert.equal((await page.$$("main img")).length, 0);
  const current = await page.$$eval("[aria-current=step]", (steps) => steps.map((step) => step.textContent.slice(0, 10)));
  assert.deepEqual(current, ["2Reporting", "●Stage 2, "]);
  assert.deepEqual(wrong, []);
  await page.close();
  stand.close();
});

test("every control is reached with the keyboard, and the focus is seen", { timeout: 60_000 }, async () => {
  const stand = await standIn(LIVE, SAMPLE);
  const { page } = await open(stand.url, PHONE);
  const controls = await page.evaluate(() => {
    const all = [...document.querySelectorAll("a[href], summary, [tabindex='0']")].filter((node) => !node.closest("noscript") && node.checkVisibility());
    return all.map((node, at) => (node.dataset.control = String(at)));
  });
  assert.ok(controls.length >= 6, `${controls.length} controls`);
  const reached = [];
  for (let at = 0; at < controls.length; at += 1) {
    await page.keyboard.press("Tab");
    const focus = await page.evaluate(() => {
      const node = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(node);
      return { control: node.dataset.control, words: node.textContent.trim().slice(0, 30), outline: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2, top: node.getBoundingClientRect().top };
    });
    assert.ok(focus.outline, `focus on ${focus.words} is not seen`);
    assert.ok(focus.top >= 0 && focus.top < PHONE.height, `${focus.words} has the focus out of sight`);
    reached.push(focus.control);
    if (at === 0) assert.equal(focus.words, "Skip to the run");
  }
  assert.deepEqual(reached, controls);
  await page.focus("#rounds-details summary");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#rounds-rows tr");
  stand.show({ ...SAMPLE, version: 34, history: [...SAMPLE.history, { ...SAMPLE.history[0], round: 37, version: 34 }] });
  await page.waitForFunction(() => document.querySelector("#rounds-rows th").textContent === "37");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Rounds as a table", "news takes nobody's place away");
  await page.close();
  stand.close();
});

test("a stream that is lost is said, and taken up again", { timeout: 60_000 }, async () => {
  const stand = await standIn(LIVE, SAMPLE);
  const { page } = await open(stand.url);
  stand.cut();
  await page.waitForSelector("#lost:not([hidden])");
  assert.match(await textOf(page, "lost"), /is lost; trying again. What you see is as of \d\d:\d\d:\d\d\./);
  await check(page, "lost");
  stand.mend();
  await page.waitForSelector("#lost[hidden]");
  assert.equal(await textOf(page, "live-state"), "Live");
  const [rollout, ...rest] = SAMPLE.rollouts;
  stand.show({ ...SAMPLE, rollouts: [{ ...rollout, stage: 2 }, ...rest] });
  await page.waitForFunction(() => document.getElementById("said").textContent.includes("Rollout 3 is soaking, stage 3 of 3"));
  await page.close();
  stand.close();
});

test("every phase has its words", { timeout: 60_000 }, async () => {
  const stand = await standIn(LIVE, SAMPLE);
  const { page, wrong } = await open(stand.url);
  const bare = { round: null, cohort: null, reports: null, waiting_for: null };
  const said = [
    [{ ...bare, name: "selecting", waiting_for: 30 }, "Selecting", "25 of 30 workers have checked in"],
    [{ ...bare, name: "aggregating", round: 37, reports: 10 }, "Round 37 · Aggregating", "10 updates become one step"],
    [{ name: "buffering", round: 9, cohort: 5, reports: 1, waiting_for: 4 }, "Round 9 · Buffering", "1 of 4 updates gathered, 5 workers at work"],
    [{ ...bare, name: "finished" }, "Finished", "All 60 versions are committed"],
  ];
  for (const [stage, headline, detail] of said) {
    stand.show({ ...SAMPLE, stage });
    await page.waitForFunction((words) => document.getElementById("now-headline").textContent === words, {}, headline);
    assert.equal(await textOf(page, "now-detail"), detail);
  }
  stand.show({ ...SAMPLE, history: [], rollouts: [], releases: [], counters: { accepted: 0, discarded: 0, rejected: {}, refused: {} }, bytes: { up: 0, down: 0, dense: 0 } });
  await page.waitForSelector("#reasons-none:not([hidden])");
  await check(page, "empty");
  assert.deepEqual(wrong, []);
  await page.close();
  stand.close();
});
