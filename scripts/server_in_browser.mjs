#!/usr/bin/env node
// The page of `topshelf serve` in a real browser, headless Chromium.
//
//     scripts/server_in_browser.mjs [--if-possible] [--install] [--binary FILE] [--keep FOLDER] [--only WORD]
//
// A small index is made and served with two rerankers. The page is used as by a person: it is typed into,
// clicked, walked through by keyboard, held like a phone; what it shows is compared with what the server
// answers to the same request. `--keep` leaves screenshots there, in light and in dark, wide and narrow.
//
// Needed: chromium, which is installed with apt-get where it is missing, by root; playwright-core, which is
// installed with npm into target/server-in-browser. Where that can't be done, says so and ends with status 2;
// with --if-possible, 0. A server that is not built is an error: `cargo build --release -p topshelf-cli`.
// `--install` installs both and does nothing else.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

import { FILES, HOSTILE, LONG } from "./server_in_browser/files.mjs";
import { Hand, post } from "./server_in_browser/hand.mjs";
import { ROOT, chromium, playwright, serve } from "./server_in_browser/needed.mjs";

const CROSS = "cross-encoder/ms-marco-MiniLM-L12-v2";
const LATE = "answerdotai/answerai-colbert-small-v1";
const QUERY = "how long does an adult flea live";

// ---------------------------------------------------------------- Cases

const CASES = {
  async "a query is typed, both orders are shown as the server has them"(world) {
    const hand = await Hand.at(world.browser, world.url);
    const { page } = hand;
    await page.locator("body").click({ position: { x: 2, y: 2 } });
    await page.keyboard.press("/");
    assert.equal(await page.evaluate(() => document.activeElement.id), "query");
    await page.keyboard.type(QUERY);
    await page.keyboard.press("Enter");
    await hand.rest();
    const answer = await hand.repeat("/v1/search");
    assert.deepEqual(await hand.ids(1), answer.hits.map(({ id }) => id));
    const place = (hit) => hit.signals.find(({ stage }) => stage === "fused").rank;
    const seen = await page.$$eval("#column-1 .hit .move", (moves) => moves.map((move) => move.textContent));
    const wanted = answer.hits.map((hit) => {
      const by = place(hit) - hit.rank;
      if (place(hit) > 10) return `new, was ${place(hit)}`;
      return by === 0 ? "same" : `${by > 0 ? "up" : "down"} ${Math.abs(by)}`;
    });
    assert.deepEqual(seen, wanted);
    assert.ok(seen.some((move) => move !== "same"), "nothing moved: this query shows nothing");
    const first = await hand.ids(0);
    assert.equal(first.length, 10);
    for (const hit of answer.hits) if (place(hit) <= 10) assert.equal(first[place(hit) - 1], hit.id);
    assert.match(await hand.text("#column-1 .hit"), /relevance [<>]?[01]\.\d\d/);
    const number = (value) => `${Number(value.toPrecision(3))}`;
    for (const signal of answer.hits[0].signals) {
      const said = `${signal.stage} ${number(signal.score)} #${signal.rank}`;
      assert.ok((await hand.text("#column-1 .hit .signals")).includes(said), said);
    }
    for (const part of [/bm25, \d+ found/, /dense, \d+ found/, /fused by rrf/]) {
      assert.match(await hand.text("#column-0 .ran"), part);
    }
    const ran = await hand.text("#column-1 .ran");
    const parts = [/MiniLM-L12-v2\s+[\d.]+ ms/, /in all\s+[\d.]+ ms/, /no gate/, /pairs scored/];
    for (const part of parts) assert.match(ran, part);
    assert.match(page.url(), /#query=how\+long/);
    await page.screenshot({ path: world.picture("wide-light"), fullPage: true });
    await hand.close();
  },

  async "scores from the cache are said to be"(world) {
    const hand = await Hand.at(world.browser, world.url, { hash: "#query=cats+and+dogs" });
    await hand.rest();
    await hand.page.click("#run");
    await hand.shows("#columns", /12 pairs scored, 12 of them from the cache/);
    await hand.close();
  },

  async "the gate's verdict is told, or why the server does not take the gate"(world) {
    const hand = await Hand.at(world.browser, world.url, { hash: "#query=bees" });
    await hand.rest();
    for (const [gate, verdict] of [
      ["margin:fused:2>=0", /gate: clear, so nothing was reranked; margin:fused:2 is [\d.]+, at least 0/],
      ["margin:fused:2>=0.9", /gate: ambiguous, so it was reranked; margin:fused:2 is [\d.]+, below 0.9/],
    ]) {
      const response = await post(`${world.url}/v1/search`, { query: "bees", gate });
      await hand.fill({ gate });
      await hand.page.press("#gate", "Enter");
      await hand.rest();
      if (response.ok) assert.match(await hand.text("#column-1"), verdict);
      else {
        const { message } = (await response.json()).error;
        console.log(`   the server says of ${gate}: ${message}`);
        assert.ok((await hand.text("#errors")).includes(message));
      }
    }
    await hand.close();
  },

  async "blend, threshold and deadline are told"(world) {
    const hand = await Hand.at(world.browser, world.url);
    const { page } = hand;
    await page.fill("#query", QUERY);
    await hand.fill({ blend: "0.5", deadline_ms: "60000" });
    await page.press("#blend", "Enter");
    await hand.rest();
    for (const part of [/blended with the first stage/, /deadline of 60000 ms: all was read/]) {
      assert.match(await hand.text("#column-1 .ran"), part);
    }
    assert.match(await hand.text("#column-1 .hit .score"), /, blend [\d.]+/);
    await hand.fill({ blend: "", deadline_ms: "", min_relevance: "0.5" });
    await page.press("#blend", "Enter");
    await hand.shows("#columns", /withheld/);
    const answer = await hand.repeat("/v1/search");
    const { below } = answer.report.second_stage.threshold;
    const withheld = new RegExp(`withheld: ${below} passages? below a relevance of 0.5`);
    assert.match(await hand.text("#column-1 .ran"), withheld);
    assert.equal((await hand.ids(1)).length, answer.hits.length);
    // A time in which nothing can be found.
    await hand.fill({ min_relevance: "", deadline_ms: "0.01" });
    await page.fill("#query", "terriers and mastiffs");
    await page.press("#query", "Enter");
    await hand.shows("#errors", /did not answer within/);
    await hand.close();
  },

  async "two rerankers are compared, and a reranker is switched"(world) {
    const hand = await Hand.at(world.browser, world.url, { width: 1400, dark: true });
    const { page } = hand;
    await page.fill("#query", QUERY);
    await page.selectOption("#versus", LATE);
    await page.click("#more summary");
    await page.check("#explain");
    await page.click("#run");
    await hand.rest();
    assert.equal(await page.locator(".column").count(), 3);
    const heads = await page.$$eval(".column h2", (all) => all.map((own) => own.innerText.trim()));
    assert.deepEqual(heads, ["First stage", `A ${CROSS}`, `B ${LATE}`]);
    const late = await hand.repeat("/v1/search");
    assert.deepEqual(await hand.ids(2), late.hits.map(({ id }) => id));
    const both = new Set(await hand.ids(1));
    const common = late.hits.filter(({ id }) => both.has(id)).length;
    assert.match(await hand.text("#summary"), new RegExp(`A and B share ${common} of the first 10 results`));
    assert.ok(await page.locator("#column-2 mark.token").count() > 0, "no token is marked");
    const top = (await hand.ids(1))[0];
    await page.locator("#column-1 .hit").first().focus();
    const linked = await page.$$eval(".hit.linked", (hits) => hits.map((hit) => hit.dataset.id));
    assert.ok(linked.length > 0 && linked.every((id) => id === top));
    await page.screenshot({ path: world.picture("compare-dark"), fullPage: true });
    await page.selectOption("#model", LATE);
    await page.selectOption("#versus", "none");
    await page.click("#run");
    await hand.shows("#column-2 h2", /Not reranked/);
    await hand.rest();
    assert.match(await hand.text("#column-1 h2"), new RegExp(LATE));
    assert.deepEqual(await hand.ids(2), await hand.ids(0));
    await hand.close();
  },

  async "the first stage is shown before the reranker is done, which can be stopped"(world) {
    const hand = await Hand.at(world.browser, world.url);
    const { page } = hand;
    const busy = () => page.waitForFunction(() =>
      document.querySelectorAll("#column-0 .hit").length > 0
      && /Reranking/.test(document.querySelector("#column-1").textContent)
      && document.querySelector("#form").hasAttribute("aria-busy"));
    await page.fill("#query", "which of the animals here has a house of its own");
    await page.press("#query", "Enter");
    await busy();
    await hand.rest();
    assert.equal(await page.locator("#column-1 .hit").count(), 10);
    await page.fill("#query", "who pays less than the others, and what for");
    await page.press("#query", "Enter");
    await busy();
    await page.keyboard.press("Escape");
    await hand.rest();
    assert.match(await hand.text("#status"), /stopped/);
    assert.equal(await page.locator("#column-0 .hit").count(), 10);
    assert.equal(await page.isVisible("#stop"), false);
    await hand.close();
  },

  async "a cascade is run"(world) {
    const hand = await Hand.at(world.browser, world.url);
    await hand.page.fill("#query", QUERY);
    await hand.page.selectOption("#model", LATE);
    await hand.fill({ keep: "3" });
    await hand.page.selectOption("#then", CROSS);
    await hand.page.click("#run");
    await hand.rest();
    const ran = await hand.text("#column-1 .ran");
    assert.match(ran, new RegExp(`${LATE}: \\d+ pairs scored`));
    assert.match(ran, new RegExp(`${CROSS}: 3 pairs scored`));
    assert.match(await hand.text("#column-1 .hit:nth-child(4)"), /not read by the reranker/);
    await hand.close();
  },

  async "results are walked through and opened by keyboard"(world) {
    const hand = await Hand.at(world.browser, world.url, { hash: `#query=${QUERY}` });
    const { page } = hand;
    await hand.rest();
    const now = () => page.evaluate(() => {
      const hit = document.activeElement;
      return [hit.dataset.column, [...hit.parentElement.children].indexOf(hit)].join(":");
    });
    await page.locator("h1").click();
    const steps = [["j", "1:0"], ["j", "1:1"], ["ArrowDown", "1:2"], ["k", "1:1"], ["ArrowUp", "1:0"]];
    for (const [key, place] of steps) {
      await page.keyboard.press(key);
      assert.equal(await now(), place, key);
    }
    const top = (await hand.ids(1))[0];
    await page.keyboard.press("Enter");
    assert.match(await hand.text("#column-1 .hit"), /stage\s+score\s+scale\s+place/);
    assert.ok((await hand.text("#column-1 .hit")).includes(top));
    assert.equal(await now(), "1:0");
    await page.keyboard.press("Enter");
    assert.equal(await page.locator("#column-1 table").count(), 0);
    await page.keyboard.press("h");
    assert.match(await now(), /^0:/);
    assert.equal(await page.evaluate(() => document.activeElement.dataset.id), top);
    await page.keyboard.press("/");
    await page.keyboard.press("ArrowDown");
    assert.match(await now(), /^0:0/);
    await page.locator("#column-1 .hit button").first().click();
    assert.equal(await page.locator("#column-1 table").count() > 0, true);
    // One stop of each order, so that Tab does not go through all results.
    for (const column of [0, 1]) assert.equal(await page.locator(`#column-${column} .hit[tabindex="0"]`).count(), 1);
    await hand.close();
  },

  async "HTML in a document stays text"(world) {
    const hash = `#query=${encodeURIComponent(`adult flea wrote ${HOSTILE}`)}`;
    const hand = await Hand.at(world.browser, world.url, { hash });
    await hand.rest();
    const hit = hand.page.locator("#column-1 .hit", { hasText: "This adult flea wrote" });
    await hit.locator("button").click();
    assert.ok((await hit.first().innerText()).includes(HOSTILE));
    assert.equal(await hand.page.locator("main img, main script").count(), 0);
    assert.equal(await hand.page.inputValue("#query"), `adult flea wrote ${HOSTILE}`);
    await hand.close();
  },

  async "documents are pasted and reranked, the winning span is marked to the letter"(world) {
    const hand = await Hand.at(world.browser, world.url);
    const { page } = hand;
    await page.click("text=Rerank documents");
    await page.click("#example");
    assert.match(await hand.text("#counted"), /^5 documents \(one a line\)/);
    await page.fill("#query", QUERY);
    await page.fill("#documents", [HOSTILE, "Bees live for six weeks.", LONG, "Carpets."].join("\n"));
    assert.match(await hand.text("#counted"), /^4 documents/);
    await page.press("#query", "Enter");
    await hand.rest();
    const answer = await hand.repeat("/topshelf/v1/rerank");
    assert.deepEqual(await hand.ids(1), answer.results.map(({ index }) => `${index}`));
    assert.equal(answer.results[0].index, 2);
    const span = answer.results[0].span;
    const window = Buffer.from(LONG.trim()).subarray(span.start, span.end).toString();
    assert.ok(window.includes("two to three months") && window.length < LONG.length, "the window is no window");
    assert.ok(window.startsWith(await page.$eval("#column-1 .hit mark.window", (own) => own.textContent)));
    await page.locator("#column-1 .hit button").first().click();
    assert.equal(await page.$eval("#column-1 .hit mark.window", (own) => own.textContent), window);
    assert.match(await hand.text("#column-1 .ran"), /in all\s+[\d.]+ ms/);
    assert.equal(await page.locator("main img").count(), 0);
    await page.screenshot({ path: world.picture("documents-light"), fullPage: true });
    await page.fill("#documents", '[{"title": "Fleas", "text": "Three months."}, "Bees"]');
    assert.match(await hand.text("#counted"), /^2 documents \(a JSON array\)/);
    await page.press("#documents", "Control+Enter");
    await page.waitForFunction(() => document.querySelectorAll("#column-1 .hit").length === 2);
    await page.reload();
    await hand.rest();
    assert.deepEqual(await hand.ids(0), ["0", "1"]);
    await hand.close();
  },

  async "what the server refuses is shown"(world) {
    const hand = await Hand.at(world.browser, world.url, { hash: "#query=fleas&model=no/such-model" });
    const { page } = hand;
    await hand.rest();
    const said = await hand.text("#errors");
    assert.ok(said.includes("404 unknown_model") && said.includes("no/such-model") && said.includes(CROSS), said);
    await page.selectOption("#model", "");
    await hand.fill({ gate: "luck:dense:3>=1" });
    await page.click("#run");
    await hand.shows("#errors", /gate/);
    await hand.fill({ gate: "", filter: "lang = " });
    await page.click("#run");
    await page.waitForFunction(() => !/gate/.test(document.querySelector("#errors").textContent));
    await hand.rest();
    assert.match(await hand.text("#errors"), /4\d\d/);
    await page.screenshot({ path: world.picture("error-light"), fullPage: true });
    await hand.fill({ filter: "" });
    await page.click("#run");
    await page.waitForFunction(() => document.querySelectorAll("#column-1 .hit").length > 0);
    assert.equal(await hand.text("#errors"), "");
    await hand.close();
  },

  async "a search is shared by its address, and Back goes back"(world) {
    const all = { query: QUERY, versus: LATE, top_n: 3, depth: 7, retriever: "bm25" };
    const hash = `#${new URLSearchParams(all)}`;
    const hand = await Hand.at(world.browser, world.url, { hash });
    const { page } = hand;
    await hand.rest();
    assert.equal(await page.inputValue("#query"), QUERY);
    const body = hand.asked.find((own) => own.method() === "POST").postDataJSON();
    assert.deepEqual([body.query, body.top_n, body.depth, body.retriever], [QUERY, 3, 7, "bm25"]);
    assert.equal((await hand.ids(1)).length, 3);
    assert.equal((await hand.ids(2)).length, 3);
    await page.fill("#query", "bees");
    await page.selectOption("#versus", "");
    await page.click("#run");
    await page.waitForFunction(() => document.querySelectorAll(".column").length === 2);
    await hand.rest();
    await page.goBack();
    await page.waitForFunction(() => document.querySelectorAll(".column").length === 3);
    await hand.rest();
    assert.equal(await page.inputValue("#query"), QUERY);
    await hand.close();
  },

  async "a server with keys is asked with one, which does not get into the address"(world) {
    const file = path.join(world.scratch, "keys.toml");
    const made = spawnSync(world.binary, ["keys", "new", "reader", "--file", file], { encoding: "utf8" });
    const key = made.stdout.trim();
    assert.ok(key, made.stderr);
    const server = await serve(world.binary, world.env, path.join(world.scratch, "keys.log"),
      "--rerank", "local", "--keys", file);
    try {
      const ready = () => document.querySelector("#errors").textContent;
      const hand = await Hand.at(world.browser, server.url, { ready });
      const { page } = hand;
      assert.match(await hand.text("#errors"), /401 no_key .*: a key is needed/);
      assert.equal(await page.evaluate(() => document.activeElement.id), "key");
      await page.fill("#query", "typed before");
      await page.locator("#key").focus();
      await page.keyboard.type("not this one");
      await page.keyboard.press("Tab");
      await hand.shows("#errors", /401 wrong_key/);
      await page.fill("#key", key);
      await page.press("#key", "Tab");
      await hand.shows("#served", /1 reranker/);
      assert.equal(await hand.text("#errors"), "");
      assert.equal(await page.inputValue("#query"), "typed before");
      await page.click("#example");
      await page.press("#query", "Enter");
      await hand.rest();
      assert.equal(await page.locator("#column-1 .hit").count(), 5);
      const last = hand.asked.findLast((own) => own.method() === "POST");
      assert.equal((await last.allHeaders()).authorization, `Bearer ${key}`);
      assert.ok(!page.url().includes(key));
      await page.reload();
      await hand.rest(); // the tab still has it
      assert.equal(await page.inputValue("#key"), key);
      await hand.close();
    } finally {
      await server.stop();
    }
  },

  async "on a phone there is one order at a time, and nothing is cut off"(world) {
    for (const dark of [false, true]) {
      const hand = await Hand.at(world.browser, world.url, { width: 390, height: 844, dark });
      const { page } = hand;
      await page.fill("#query", QUERY);
      await page.selectOption("#versus", LATE);
      await page.click("#run");
      await hand.rest();
      const seen = () => page.$$eval(".column", (all) => all.filter((own) => own.offsetWidth).map((own) => own.id));
      assert.deepEqual(await seen(), ["column-1"]);
      await page.screenshot({ path: world.picture(`phone-${dark ? "dark" : "light"}`) });
      await page.click("role=tab[name='Reranker B']");
      assert.deepEqual(await seen(), ["column-2"]);
      await page.keyboard.press("ArrowLeft");
      await page.keyboard.press("ArrowLeft");
      assert.deepEqual(await seen(), ["column-0"]);
      await page.locator("#column-0 .hit button").first().click();
      assert.ok(await hand.overflow() <= 0, "opened");
      await page.click("#more summary");
      assert.ok(await hand.overflow() <= 0, "settings");
      const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const light = background.match(/\d+/g).reduce((sum, own) => sum + Number(own), 0);
      assert.ok(dark ? light < 200 : light > 600, background);
      await page.screenshot({ path: world.picture(`phone-settings-${dark ? "dark" : "light"}`), fullPage: true });
      await page.click("text=Rerank documents");
      assert.ok(await hand.overflow() <= 0, "documents");
      await hand.close();
    }
  },

  async "the list of routes is shown"(world) {
    for (const width of [1280, 390]) {
      const context = await world.browser.newContext({ viewport: { width, height: 844 } });
      const page = await context.newPage();
      await page.goto(`${world.url}/docs`);
      await page.waitForSelector("details.route");
      for (const route of await page.$$("details.route")) await route.evaluate((own) => { own.open = true; });
      assert.match(await page.textContent("main"), /\/v1\/search/);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      await page.screenshot({ path: world.picture(`routes-${width}`) });
      await context.close();
      assert.ok(wide <= 0, `${wide} pixels too wide at ${width}`);
    }
  },

  async "without an index, documents are reranked; a server that is gone is told"(world) {
    const server = await serve(world.binary, world.env, path.join(world.scratch, "bare.log"), "--rerank", "local");
    try {
      const hand = await Hand.at(world.browser, server.url);
      const { page } = hand;
      assert.match(await hand.text("#served"), /no index/);
      assert.ok(await page.isDisabled("input[value=index]") && await page.isVisible("#documents"));
      await page.click("#example");
      await page.press("#query", "Enter");
      await hand.rest();
      const { results } = await hand.repeat("/topshelf/v1/rerank");
      assert.deepEqual(await hand.ids(1), results.map(({ index }) => `${index}`));
      await server.stop();
      await page.click("#run");
      await hand.shows("#errors", /No answer/);
      await hand.rest();
      assert.match(await hand.text("#status"), /failed/);
      await hand.close();
    } finally {
      await server.stop();
    }
  },
};

// ---------------------------------------------------------------- All of it

async function main() {
  const { values: options } = parseArgs({
    options: {
      "if-possible": { type: "boolean", default: false },
      install: { type: "boolean", default: false },
      binary: { type: "string", default: path.join(ROOT, "target", "release", "topshelf") },
      keep: { type: "string" },
      only: { type: "string", default: "" },
    },
  });
  const binary = path.resolve(options.binary);
  if (!options.install && !fs.existsSync(binary)) {
    console.error(`${binary} is not built: cargo build --release -p topshelf-cli`);
    return 1;
  }
  const executablePath = chromium();
  const library = executablePath && playwright();
  if (!library) {
    const missing = executablePath ? "playwright-core" : "chromium";
    console.error(`#### PAGE NOT OPENED: no ${missing}, and it can't be installed`);
    return options["if-possible"] ? 0 : 2;
  }
  if (options.install) return 0;
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "server-in-browser-"));
  const pictures = path.resolve(options.keep ?? path.join(scratch, "pictures"));
  fs.mkdirSync(pictures, { recursive: true });
  const home = path.join(scratch, "home");
  const env = { ...process.env, TOPSHELF_HOME: home };
  let [server, browser, failed, passed] = [null, null, 0, 0];
  try {
    for (const [name, text] of Object.entries(FILES)) {
      const file = path.join(scratch, "files", name);
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.writeFileSync(file, `${text}\n`);
    }
    const quiet = { cwd: scratch, stdio: ["ignore", "ignore", "inherit"] };
    execFileSync(binary, ["models", "pull", CROSS, "BAAI/bge-small-en-v1.5", LATE], quiet);
    // The models are everybody's, scores that are cached this run's own.
    const { store } = JSON.parse(execFileSync(binary, ["models", "list", "--json"]));
    fs.mkdirSync(home);
    fs.symlinkSync(store, path.join(home, "models"));
    execFileSync(binary, ["index", "add", "files", "--index", "animals"], { ...quiet, env, stdio: "ignore" });
    const served = ["--index", path.join(scratch, "animals"), "--rerank", "local", "--rerank", "colbert"];
    server = await serve(binary, env, path.join(scratch, "server.log"), ...served);
    browser = await library.chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
    const picture = (name) => path.join(pictures, `${name}.png`);
    const world = { browser, url: server.url, binary, env, scratch, picture };
    for (const [name, test] of Object.entries(CASES).filter(([name]) => name.includes(options.only))) {
      try {
        await test(world);
        passed += 1;
        console.log(`ok ${name}`);
      } catch (error) {
        failed += 1;
        console.log(`FAILED ${name}: ${error.stack}`);
      }
    }
  } finally {
    await browser?.close();
    await server?.stop();
    fs.rmSync(scratch, { recursive: true, force: true });
  }
  console.log(`${passed} passed, ${failed} failed`);
  return failed || !passed ? 1 : 0;
}

process.exitCode = await main();
