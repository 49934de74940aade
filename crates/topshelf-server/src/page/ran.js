// What ran, in words: times, the gate, the cache, what went wrong; and what two rerankers agree on.

import { $, bar, el, number, plural, time } from "./elements.js";
import { shown } from "./shown.js";

/** Milliseconds per stage; bars are to one measure in all columns. */
export function stages(rows, total) {
  if (!rows.length && total === undefined) return null;
  const totals = shown.runs.map((run) => run.report?.milliseconds ?? 0);
  const longest = Math.max(0.001, ...totals, ...rows.map(([, ms]) => ms));
  const line = ([name, ms], all) => [
    el("dt", { class: all }, name), el("dd", { class: "bar", "aria-hidden": "true" }, bar(ms / longest)),
    el("dd", { class: all }, time(ms)),
  ];
  return el("dl", { class: "stages" }, rows.map((row) => line(row, null)),
    total === undefined ? null : line(["in all", total], "all"));
}

export function list(notes) {
  if (!notes.length) return null;
  return el("ul", {}, notes.map(([text, warn]) => el("li", { class: warn ? "warn" : null }, text)));
}

/** Of a run, all that its report says, in words. What went wrong or was left out comes first. */
export function what_ran(run) {
  const { second, report } = run;
  if (!second) {
    const note = ["no second stage: this is the first stage's order"];
    return el("div", { class: "ran" }, stages([], report.milliseconds), list([note]));
  }
  const unit = shown.mode === "documents" ? "document" : "passage";
  const wrong = (run.warnings ?? []).map((text) => [text, true]);
  const notes = [];
  const tell_wrong = (text) => {
    if (!wrong.some(([known]) => known === text)) wrong.push([text, true]);
  };
  for (const { model, reason, milliseconds } of second.failures) {
    // The rerank route says this in its warnings, without the time.
    const at = wrong.findIndex(([text]) => text.startsWith(`${model} failed: `));
    const text = `${model} failed: ${reason} (waited ${time(milliseconds)})`;
    if (at < 0) wrong.push([text, true]);
    else wrong[at] = [text, true];
  }
  const in_words = shown.mode === "documents"; // its warnings say most of what went wrong
  if (second.skipped === "failed" && !in_words) tell_wrong("no reranker answered, so the order is the one before");
  if (second.skipped === "no_weight") notes.push(["nothing was reranked: the blend gives rerankers no weight"]);
  notes.push([verdict(second.gate)]);
  for (const ran of second.rerankers) {
    const whose = second.rerankers.length > 1 ? `${ran.model}: ` : "";
    const cached = ran.cached ? `${ran.cached} of them` : "none";
    notes.push([`${whose}${plural(ran.pairs, "pair")} scored, ${cached} from the cache`]);
    if (ran.spared) notes.push([`${whose}${plural(ran.spared, unit)} spared: they could not enter the top any more`]);
    if (ran.usage) notes.push([`${whose}${usage(ran.usage)}`]);
    if (in_words) continue;
    for (const { path, message } of ran.failed) tell_wrong(`${whose}${path} was not scored: ${message}`);
    if (ran.truncated) tell_wrong(`${whose}${plural(ran.truncated, unit)} not read to the end`);
    const unread = ran.query_truncated_tokens;
    if (unread) tell_wrong(`${whose}the last ${plural(unread, "token")} of the query were not read`);
    if (ran.unscored && !second.deadline) tell_wrong(`${whose}${plural(ran.unscored, unit)} not reached`);
  }
  if (second.deadline) {
    const { allowed, unscored } = second.deadline;
    const unread = `${plural(unscored, unit)} not read, they keep the first stage's order`;
    if (unscored && !in_words) tell_wrong(`deadline of ${time(allowed)}: ${unread}`);
    else notes.push([`deadline of ${time(allowed)}${unscored ? "" : ": all was read"}`]);
  }
  if (second.threshold) {
    const { min_relevance, below, unscored } = second.threshold;
    const unread = unscored ? `, and ${unscored} without a score` : "";
    notes.push([`withheld: ${plural(below, unit)} below a relevance of ${number(min_relevance)}${unread}`]);
  }
  if (second.blend) notes.push([`blended with the first stage: ${second.blend}`]);
  const rows = second.rerankers.map((ran) => [ran.model.split("/").at(-1), ran.milliseconds]);
  rows.push(...second.failures.map((own) => [`${own.model.split("/").at(-1)} (failed)`, own.milliseconds]));
  const engines = second.rerankers.map((ran) => [`${ran.model}, ${ran.fingerprint}, on ${ran.engine}`]);
  return el("div", { class: "ran" }, stages(rows, report.milliseconds), list([...wrong, ...notes]),
    el("details", {}, el("summary", {}, "Models and calibration"),
      list([...engines, [`scores to probabilities: ${second.calibration}`]])));
}

function verdict(gate) {
  if (!gate) return "no gate: every query is reranked";
  const { signal, value, threshold, clear } = gate;
  if (value === null) return `gate: ambiguous, so it was reranked; these candidates have no ${signal}`;
  const seen = `${signal} is ${number(value)}`;
  return clear
    ? `gate: clear, so nothing was reranked; ${seen}, at least ${number(threshold)}`
    : `gate: ambiguous, so it was reranked; ${seen}, below ${number(threshold)}`;
}

function usage({ calls, input_tokens, output_tokens, searches, repaired, cost }) {
  const words = [plural(calls, "call")];
  if (input_tokens) words.push(`${input_tokens} tokens read`);
  if (output_tokens) words.push(`${output_tokens} written`);
  if (searches) words.push(plural(searches, "search", "searches"));
  if (repaired) words.push(`${plural(repaired, "answer")} repaired`);
  if (cost !== null && cost !== undefined) words.push(`${cost.toFixed(6)} USD`);
  return words.join(", ");
}

/** What two rerankers agree on. */
export function compare() {
  const [a, b] = shown.runs;
  const both = a?.state === "done" && b?.state === "done";
  $("summary").hidden = !both;
  if (!both) return;
  const ids = (run) => run.entries.slice(0, shown.wanted).map(({ id }) => id);
  const [of_a, of_b] = [ids(a), ids(b)];
  const most = Math.max(of_a.length, of_b.length);
  const common = of_a.filter((id) => of_b.includes(id)).length;
  const places = of_a.filter((id, place) => of_b[place] === id).length;
  const top = most && of_a[0] === of_b[0] ? "the same on top" : "another on top";
  const cached = shown.runs.some((run) => run.second?.rerankers.some((ran) => ran.cached));
  const took = (run) => (run.second?.rerankers ?? []).reduce((sum, ran) => sum + ran.milliseconds, 0);
  const [slow, fast] = took(a) >= took(b) ? [a, b] : [b, a];
  let times = "";
  if (cached) times = " Times say nothing here: scores came from the cache.";
  else if (took(fast)) {
    const factor = number(took(slow) / took(fast));
    times = ` Reranking took ${factor} times as long with ${slow.label} as with ${fast.label}.`;
  }
  $("summary").textContent =
    `A and B share ${common} of the first ${most} results, ${places} at the same place, ${top}.${times}`;
}
