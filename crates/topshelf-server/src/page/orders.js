// Orders beside each other: a column for the first stage and for each run, with results and their moves.

import { $, bar, el, number, plural, probability, scale_name, time } from "./elements.js";
import { text_of, words_of } from "./marks.js";
import { compare, list, stages, what_ran } from "./ran.js";
import { NONE, shown } from "./shown.js";

const MOST_SHOWN = 200; // results of an order; more make a page slow that nobody reads to its end

export function render() {
  const focused = document.activeElement?.closest?.(".hit")?.dataset;
  const key = focused && [focused.column, focused.id];
  const columns = [first_column(), ...shown.runs.map(run_column)].filter(Boolean);
  $("columns").replaceChildren(...columns);
  $("tabs").replaceChildren(...columns.map((column, place) => el("button", {
    type: "button", role: "tab", id: `tab-${place}`, "aria-controls": column.id,
    onclick: () => choose(place),
  }, place ? tab_name(shown.runs[place - 1]) : first_name())));
  $("tabs").hidden = columns.length < 2;
  choose(Math.min(shown.chosen ?? 0, columns.length - 1));
  compare();
  if (key) hits_of(Number(key[0])).find((hit) => hit.dataset.id === key[1])?.focus({ preventScroll: true });
}

const first_name = () => (shown.mode === "documents" ? "As given" : "First stage");
const tab_name = (run) => (run.label ? `Reranker ${run.label}` : "Reranked");

/** The order that is seen where they do not fit beside each other. */
export function choose(place) {
  shown.chosen = place;
  [...$("columns").children].forEach((column, own) => column.classList.toggle("chosen", own === place));
  [...$("tabs").children].forEach((tab, own) => {
    tab.setAttribute("aria-selected", `${own === place}`);
    tab.tabIndex = own === place ? 0 : -1;
  });
}

/** An order: its heading, what ran for it, its results. */
function column(place, title, ran, entries = [], line = null) {
  const seen = entries.slice(0, MOST_SHOWN);
  const rest = entries.length - seen.length;
  return el("section", { class: "column", id: `column-${place}`, "aria-label": title.textContent },
    title, ran,
    el("ol", { class: "hits" }, seen.map((entry, at) => hit(entry, place, line, at === 0 ? 0 : -1))),
    rest ? el("p", { class: "soft" }, `${rest} more are not shown; ask for fewer results to see less.`) : null);
}

const wait = (words, busy) => el("p", { class: busy ? "soft busy" : "soft" }, words);

// Why a retriever has no part in the candidates.
function missing({ name, outcome, reason, milliseconds }) {
  if (outcome === "too_late") return `${name} did not answer within ${time(milliseconds)}`;
  return outcome === "failed" ? `${name} failed: ${reason}` : `${name} has nothing to look up (${reason})`;
}

function first_column() {
  const { first, runs } = shown;
  if (!runs.length) return null;
  const report = first?.report;
  const title = el("h2", {}, first_name());
  if (!first) {
    const searching = runs.some((run) => run.state === "running");
    return column(0, title, wait(searching ? "Searching" : "Nothing came", searching));
  }
  const retrievers = report?.retrievers ?? [];
  const rows = retrievers.map((ran) => [`${ran.name}, ${ran.found} found`, ran.milliseconds]);
  const notes = retrievers.filter((ran) => ran.outcome !== "found").map((ran) => [missing(ran), true]);
  if (shown.mode === "index") {
    const how = report?.fusion ? `, fused by ${report.fusion}` : "";
    notes.push([`${plural(first.candidates, "candidate")}${report ? how : ""}`]);
    const help = "nothing was found: other words, another retriever or no filter may help";
    if (first.candidates === 0) notes.push([help, true]);
  } else notes.push([`${plural(first.candidates, "document")}, in the order given`]);
  if (report?.profile) notes.push([`the profile ${report.profile} took part`]);
  const line = (entry) => runs.filter((run) => run.state === "done").map((run) => {
    const there = run.entries.find((own) => own.id === entry.id)?.rank;
    const name = run.label ? `${run.label} ` : "";
    return there
      ? el("span", { class: "move" }, `→ ${name}${there}`)
      : el("span", { class: "move out" }, `→ ${name}not in the ${run.entries.length} results`);
  });
  return column(0, title, el("div", { class: "ran" }, stages(rows), list(notes)), first.entries, line);
}

function run_column(run, place) {
  const model = run.second?.rerankers.at(-1)?.model;
  const skipped = run.state === "done" && !run.second?.rerankers.some((ran) => ran.pairs);
  const name = model ?? (run.asked === NONE ? "no reranker" : run.asked || "the server's reranker");
  const title = el("h2", {}, run.label ? [el("span", { class: "badge" }, run.label), " "] : "");
  if (skipped || run.asked === NONE) title.append(`Not reranked (${name})`);
  else title.append(run.label ? name : `Reranked by ${name}`);
  if (run.state !== "done") {
    const words = {
      waiting: "Waits for A, so that neither slows the other", running: "Reranking",
      failed: "Failed", stopped: "Stopped",
    };
    return column(place + 1, title, wait(words[run.state], run.state === "running"));
  }
  const others = shown.runs.filter((own) => own !== run && own.state === "done");
  const line = (entry) => [move(entry), ...others.map((own) => {
    const there = own.entries.find((other) => other.id === entry.id)?.rank;
    return el("span", { class: "other" }, there ? `${own.label} ${there}` : `not in ${own.label}`);
  })];
  return column(place + 1, title, what_ran(run), run.entries, line);
}

/** Where a result stands beside its place in the first stage. */
function move(entry) {
  const by = entry.from - entry.rank;
  const seen = shown.first.entries.some(({ id }) => id === entry.id);
  const title = "not among the first results of the first stage";
  if (!seen) return el("span", { class: "move new", title }, `new, was ${entry.from}`);
  if (by === 0) return el("span", { class: "move same" }, "same");
  return el("span", { class: `move ${by > 0 ? "up" : "down"}` }, `${by > 0 ? "up" : "down"} ${Math.abs(by)}`);
}

/** One result. `line` makes what stands behind its place; one result of an order can be tabbed to. */
function hit(entry, place, line, tabindex) {
  const key = `${place} ${entry.id}`;
  const opened = shown.opened.has(key);
  const toggle = () => {
    if (!shown.opened.delete(key)) shown.opened.add(key);
    const fresh = hit(entry, place, line, 0);
    item.replaceWith(fresh);
    fresh.focus({ preventScroll: true });
  };
  const button = el("button", {
    type: "button", class: "plain", "aria-expanded": `${opened}`, tabindex: -1, onclick: toggle,
  }, opened ? "Less" : "More");
  const item = el("li", {
    class: "hit", tabindex, "data-column": place, "data-id": entry.id,
    onmouseenter: () => link(entry.id, place),
    onfocusin: () => {
      for (const own of hits_of(place)) own.tabIndex = own.dataset.id === entry.id ? 0 : -1;
      link(entry.id, place);
    },
  },
    el("div", { class: "line" },
      el("span", { class: "rank" }, `${entry.rank}`), line(entry), place ? score(entry, shown.runs[place - 1]) : null),
    entry.trail ? el("h3", {}, entry.trail) : null,
    el("div", { class: "where" }, entry.document),
    text_of(entry, opened),
    el("div", { class: "signals" }, entry.signals.map(signal), button),
    opened ? details(entry) : null);
  item.toggle = toggle;
  return item;
}

function signal({ stage, scale, score, rank }) {
  return el("span", { title: `${scale_name(scale)}, place ${rank}` }, `${stage} ${number(score)} #${rank}`);
}

/** The probability where there is one, else the score and what it is. */
function score(entry, run) {
  const box = el("span", { class: "score" });
  // Whoever spoke last gave the place: a reranker on its scale, or another stage by its name.
  const last = entry.signals.at(-1);
  const of_stage = last && last.stage !== "rerank";
  const [name, value] = of_stage ? [last.stage, last.score] : [scale_name(entry.scale), entry.score];
  if (entry.score === null) box.append("not scored");
  else if (entry.relevance === null) box.append(`${name} `, el("b", {}, number(value)));
  else {
    box.append(el("span", { class: "bar", "aria-hidden": "true" }, bar(entry.relevance)), "relevance ",
      el("b", {}, probability(entry.relevance)), last?.stage === "rerank" ? "" : `, ${name} ${number(value)}`);
  }
  if (!entry.reranked && entry.score !== null && run.second?.rerankers.length) {
    box.append(", not read by the reranker");
  }
  return box;
}

/** All that is known of an entry. */
function details(entry) {
  const row = (head, ...cells) =>
    el("tr", {}, el("th", { scope: "row" }, head), cells.map((cell) => el("td", {}, cell)));
  const parts = [];
  if (entry.signals.length) {
    const heads = ["stage", "score", "scale", "place"].map((head) => el("th", { scope: "col" }, head));
    parts.push(el("table", {}, el("tr", {}, heads),
      entry.signals.map((own) => row(own.stage, `${own.score}`, scale_name(own.scale), `${own.rank}`))));
  }
  const words = words_of(entry);
  if (words.length) {
    parts.push(el("p", {}, words.map((word) => el("span", { class: `pair t${word.colour}` },
      `${word.query} → ${word.passage} ${word.similarity.toFixed(2)}`))));
  }
  const facts = Object.entries(entry.metadata).map(([name, value]) =>
    row(name, typeof value === "string" ? value : JSON.stringify(value)));
  const bytes = ({ start, end }) => `bytes ${start} to ${end}`;
  if (entry.start !== undefined) facts.unshift(row("passage", `${entry.id}, ${bytes(entry)} of the document`));
  if (entry.span) facts.push(row("read", `the score rests on ${bytes(entry.span)} of this text`));
  if (facts.length) parts.push(el("table", {}, facts));
  return el("div", {}, parts);
}

const hits_of = (place) => [...($("columns").children[place]?.querySelectorAll(".hit") ?? [])];

/** Shows where a passage stands in the other orders. */
function link(id, place) {
  for (const own of document.querySelectorAll(".hit")) {
    own.classList.toggle("linked", own.dataset.id === id && Number(own.dataset.column) !== place);
  }
}

/** To the result so many down, or to the one in the order so many to the right. */
export function go(down, right) {
  const columns = $("columns").children.length;
  if (!columns) return;
  const now = document.activeElement.closest?.(".hit");
  const place = now ? Number(now.dataset.column) : shown.chosen;
  const to = Math.min(columns - 1, Math.max(0, place + right));
  const all = hits_of(to);
  const at = now ? hits_of(place).indexOf(now) : -1;
  // Sideways, the same passage if it is there, else the same height.
  const same = right && now ? all.findIndex((own) => own.dataset.id === now.dataset.id) : -1;
  const next = same >= 0 ? same : Math.min(all.length - 1, Math.max(0, at + down));
  choose(to);
  all[next]?.focus();
  all[next]?.scrollIntoView({ block: "nearest" });
}
