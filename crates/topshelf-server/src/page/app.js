// The page at `/`: asks the server, and shows what it answers.
//
// A search is a list of *runs*, one for each reranker that is compared, over one first stage. Runs go
// one after the other, so that the milliseconds of one are not those of two at once. All that is
// shown becomes text nodes: documents may hold HTML, and stay text.

const $ = (id) => document.getElementById(id);
const form = $("form");
const NONE = "none";
const MOST_SHOWN = 200; // results of an order; more make a page slow that nobody reads to its end
const SNIPPET = 600; // letters of a passage before it is opened

const EXAMPLE = {
  query: "how long do fleas live",
  documents: [
    "Where do fleas live? Mostly in carpets, in kennels and in the fur of cats and dogs.",
    "Dogs live for ten to thirteen years, cats for longer.",
    "An adult that finds a host lives for two to three months, and for a few days without one.",
    "Flea circuses were popular in the nineteenth century.",
    "Most of a flea's life is spent as an egg, a larva or a pupa; the pupa alone can wait for months.",
  ],
};

/** What is shown. `first` is the first stage's order, `runs` are the rerankers'. */
let shown = { mode: "index", first: null, runs: [], opened: new Set() };
let under_way = null; // the AbortController of the search that runs

// ---------------------------------------------------------------- Elements

/** An element; attributes that are null are left out, children that are null too. Text stays text. */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== ""));
  return element;
}

function bar(part) {
  const filled = el("i");
  filled.style.width = `${100 * Math.min(1, Math.max(0, part))}%`;
  return filled;
}

const time = (ms) => `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
const number = (value) => (Number.isInteger(value) ? `${value}` : `${Number(value.toPrecision(3))}`);
const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
const scale_name = (scale) => (scale === "max_sim" ? "maxsim" : scale);

// ---------------------------------------------------------------- Settings

/** The form without what is empty. */
function settings() {
  const all = [...new FormData(form)].map(([name, value]) => [name, value.trim()]);
  return Object.fromEntries(all.filter(([, value]) => value !== ""));
}

/** The settings, in the address. */
function address(all) {
  const { mode, ...rest } = all;
  if (mode === "documents") rest.mode = mode;
  return `#${new URLSearchParams(rest)}`;
}

/** The address, in the form. */
function restore() {
  const all = new URLSearchParams(location.hash.slice(1));
  for (const control of form.elements) {
    if (!control.name) continue;
    const value = all.get(control.name) ?? "";
    if (control.type === "radio") control.checked = control.value === (value || "index");
    else if (control.type === "checkbox") control.checked = value !== "";
    else {
      // A name that is not served stays to be seen: the server's answer says what there is.
      const known = control.tagName !== "SELECT" || [...control.options].some((own) => own.value === value);
      if (!known) control.append(el("option", { value }, `${value} (not served here)`));
      control.value = value;
    }
  }
  adapt();
  // Where there is room, what is set is seen; elsewhere the heading says how much it is.
  $("more").open = innerWidth > 720 && folded() > 0;
}

/** How many of the settings that may be folded away are set. */
function folded() {
  const set = (own) => !own.disabled && (own.type === "checkbox" ? own.checked : own.value.trim());
  return [...form.querySelectorAll("#more input, #more select, .fold :is(input, select)")].filter(set).length;
}

/** Shows the fields of the mode; those of the other are neither seen nor sent. */
function adapt() {
  const mode = form.elements.mode.value;
  for (const field of document.querySelectorAll("[data-for]")) {
    field.hidden = field.dataset.for !== mode;
    for (const control of field.querySelectorAll("[name]")) control.disabled = field.hidden;
  }
  $("documents").required = mode === "documents";
  $("top_n").placeholder = mode === "documents" ? "all" : "10";
  $("run").textContent = mode === "documents" ? "Rerank" : "Search";
  const set = folded();
  $("more").querySelector("summary").textContent = set ? `More settings (${set} set)` : "More settings";
  for (const option of [...$("model").options, ...$("versus").options]) {
    option.disabled = mode === "documents" && option.value === NONE;
  }
}

/** The documents of a pasted text, and how they were told apart. */
function documents() {
  const text = $("documents").value;
  const given = (value) => (typeof value === "string" ? value : { title: value.title ?? "", text: value.text });
  const is_one = (value) => typeof value === "string" || typeof value?.text === "string";
  const json = (part) => {
    try { return JSON.parse(part); } catch { return null; }
  };
  const whole = json(text);
  if (Array.isArray(whole) && whole.every(is_one)) return [whole.map(given), "a JSON array"];
  const parts = (separator) => text.split(separator).map((part) => part.trim()).filter(Boolean);
  const lines = parts("\n");
  const records = lines.map(json);
  if (lines.length && records.every((one) => typeof one === "object" && is_one(one))) {
    return [records.map(given), "JSON lines"];
  }
  const paragraphs = parts(/\n[ \t]*\n/);
  return paragraphs.length > 1 ? [paragraphs, "an empty line between them"] : [lines, "one a line"];
}

function count() {
  const [all, how] = documents();
  $("counted").textContent = all.length ? `${plural(all.length, "document")} (${how})` : "No documents yet";
}

// ---------------------------------------------------------------- The server

/** What the server said of a request that it refused. */
class Refused extends Error {
  constructor(status, told, retry) {
    super(told?.message ?? "the server gave no reason");
    Object.assign(this, { status, kind: told?.type ?? "", field: told?.field, retry });
  }
}

async function ask(path, body, signal) {
  const key = $("key").value.trim();
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const options = { headers, signal };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  if (body) headers["content-type"] = "application/json";
  const response = await fetch(path, options);
  if (response.ok) return response;
  const text = await response.text();
  let told = null;
  try { told = JSON.parse(text).error; } catch { told = { message: text.slice(0, 300) }; }
  throw new Refused(response.status, told, response.headers.get("retry-after"));
}

/** The events of a stream, as `[name, data]`. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      let name = "message";
      const data = [];
      for (const line of block.split(/\r?\n/)) {
        const [, field, content] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (field === "event") name = content;
        if (field === "data") data.push(content);
      }
      if (data.length) yield [name, JSON.parse(data.join("\n"))];
    }
  }
}

/** The fields of both routes that say how candidates are reordered. */
function reranking(all, run) {
  const body = {};
  if (run.asked) body.model = run.asked;
  if (all.then && run.label !== "B") body.then = [{ model: all.then, keep: Number(all.keep ?? 20) }];
  for (const name of ["blend", "min_relevance", "deadline_ms", "top_n"]) {
    if (all[name]) body[name] = Number(all[name]);
  }
  if (all.gate) body.gate = all.gate;
  return body;
}

async function search(all, run, signal) {
  const body = { query: all.query, stream: true, ...reranking(all, run) };
  for (const name of ["index", "retriever", "fusion", "filter"]) if (all[name]) body[name] = all[name];
  if (all.depth) body.depth = Number(all.depth);
  if (all.explain) body.explain = true;
  const response = await ask("/v1/search", body, signal);
  for await (const [name, data] of events(response.body)) {
    if (name === "error") throw new Refused(response.status, data.error);
    if (name === "candidates" && !shown.first) {
      shown.first = { entries: data.hits.map(of_hit), candidates: data.candidates };
      render();
    }
    if (name !== "answer") continue;
    const { report, hits } = data;
    Object.assign(run, { entries: hits.map(of_hit), report, second: report.second_stage, warnings: [] });
    shown.first.report ??= report;
    return;
  }
  throw new Error("the server's answer broke off before its end");
}

async function rerank(all, run, signal) {
  const given = shown.documents;
  const response = await ask("/topshelf/v1/rerank",
    { query: all.query, documents: given, ...reranking(all, run) }, signal);
  const answer = await response.json();
  const entries = answer.results.map((result, place) => ({
    ...of_document(given[result.index], result.index),
    rank: place + 1, score: result.score, scale: answer.scale, relevance: result.relevance_score,
    reranked: result.score !== null, span: result.span,
  }));
  const { warnings, milliseconds, second_stage: second } = answer;
  Object.assign(run, { entries, second, warnings, report: { milliseconds } });
}

/** A hit of a search as it is shown; `from` is its place in the first stage. */
function of_hit(hit) {
  const later = hit.signals.findIndex(({ stage }) => stage.startsWith("rerank") || stage === "blend");
  const first = hit.signals.at(later < 0 ? -1 : later - 1);
  const trail = [...new Set([hit.title, ...hit.headings].map((part) => part.trim()).filter(Boolean))].join(" > ");
  return { ...hit, trail, from: first?.rank ?? hit.rank, relevance: hit.relevance_score, matches: hit.matches ?? [] };
}

function of_document(given, index) {
  const { title, text } = typeof given === "string" ? { title: "", text: given } : given;
  return {
    id: `${index}`, trail: title, document: `document ${index + 1}`, text, from: index + 1, rank: index + 1,
    signals: [], matches: [], metadata: {},
  };
}

// ---------------------------------------------------------------- Runs

async function run_all() {
  const all = settings();
  under_way?.abort();
  const own = (under_way = new AbortController());
  const asked = all.versus ? [all.model ?? "", all.versus.replace(/^=/, "")] : [all.model ?? ""];
  const runs = asked.map((model, place) => ({
    asked: model, label: asked.length > 1 ? "AB"[place] : "", state: "waiting",
  }));
  shown = { mode: all.mode, query: all.query, wanted: Number(all.top_n ?? 10), first: null, runs, opened: new Set() };
  if (all.mode === "documents") {
    [shown.documents] = documents();
    shown.first = { entries: shown.documents.map(of_document), candidates: shown.documents.length };
  }
  shown.chosen = 1;
  $("errors").replaceChildren();
  $("stop").hidden = false;
  form.setAttribute("aria-busy", "true");
  say("Asking the server");
  for (const run of runs) {
    run.state = "running";
    render();
    const start = performance.now();
    try {
      await (all.mode === "documents" ? rerank : search)(all, run, own.signal);
      run.state = "done";
    } catch (error) {
      if (own !== under_way) return; // another search took over
      run.state = own.signal.aborted ? "stopped" : "failed";
      if (run.state === "failed") complain(error, run.asked);
    }
    if (own !== under_way) return;
    run.took = performance.now() - start;
    render();
    if (own.signal.aborted) break;
  }
  for (const run of runs) if (run.state === "waiting") run.state = "stopped";
  under_way = null;
  $("stop").hidden = true;
  form.removeAttribute("aria-busy");
  render();
  conclude();
}

/** What came of it, in one sentence, for ears as for eyes. */
function conclude() {
  const words = shown.runs.map((run) => {
    const name = run.label ? `${run.label}: ` : "";
    if (run.state === "stopped") return `${name}stopped`;
    if (run.state === "failed") return `${name}failed, see below`;
    const from = shown.first.candidates;
    const of = shown.mode === "documents" ? plural(from, "document") : plural(from, "candidate");
    return `${name}${plural(run.entries.length, "result")} of ${of} in ${time(run.report.milliseconds)}`
      + `, ${time(run.took)} with the way here`;
  });
  say(words.join("; "));
}

function say(text) {
  $("status").textContent = text;
  $("status").classList.toggle("busy", Boolean(under_way));
}

function complain(error, about) {
  const refused = error instanceof Refused;
  const head = refused ? `${error.status} ${error.kind}`.trim() : "No answer";
  const parts = [about ? ` (${about})` : "", `: ${error.message}`];
  if (error.field && !error.message.includes(error.field)) parts.push(` Field: ${error.field}.`);
  if (error.retry) parts.push(` Try again in ${plural(Number(error.retry), "second")}.`);
  $("errors").append(el("p", { class: "error" }, el("strong", {}, head), parts.join("")));
  if (error.status === 401) {
    $("more").open = true;
    $("key").focus();
  }
}

// ---------------------------------------------------------------- Marks in a text

/** Byte offsets of UTF-8, as the server counts, to those of a JavaScript string. */
function offsets(text) {
  const bytes = new TextEncoder().encode(text);
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return (byte) => decoder.decode(bytes.subarray(0, byte)).length;
}

/** Tokens of the query with what answers them; the model's markers are no words. */
function words_of(entry) {
  const marker = (token) => /^(\[.+\]|<.+>)$/.test(token);
  return entry.matches.filter(({ query }) => !marker(query)).map((match, place) => ({ ...match, colour: place % 6 }));
}

/** What is marked in an entry's text, in letters: the winning window, and tokens. */
function marks(entry) {
  const found = words_of(entry).filter(({ span }) => span);
  if (!entry.span && !found.length) return [];
  const at = offsets(entry.text);
  const all = [];
  if (entry.span) all.push({ start: at(entry.span.start), end: at(entry.span.end), name: "window" });
  // A model reads title and headings before the text; its spans count from there.
  const above = entry.trail ? new TextEncoder().encode(`${entry.trail}\n`).length : 0;
  for (const { span, colour } of found) {
    if (span.start < above) continue;
    all.push({ start: at(span.start - above), end: at(span.end - above), name: `token t${colour}` });
  }
  return all;
}

/** The text of an entry with its marks; unless opened, its beginning or what is around the window. */
function text_of(entry, opened) {
  const all = marks(entry);
  const window = all.find(({ name }) => name === "window");
  let [start, end] = [0, entry.text.length];
  if (!opened) {
    if (window?.start > 80) start = entry.text.indexOf(" ", window.start - 60) + 1 || window.start;
    if (start > window?.start) start = window.start;
    end = Math.min(end, start + SNIPPET);
    if (/[\ud800-\udbff]/.test(entry.text[end - 1] ?? "")) end -= 1; // no half of a letter
  }
  const cuts = all.flatMap((mark) => [mark.start, mark.end]).filter((at) => at > start && at < end);
  const places = [...new Set([start, ...cuts, end])].sort((a, b) => a - b);
  const parts = places.slice(1).map((to, place) => {
    const from = places[place];
    const part = entry.text.slice(from, to);
    // Of two tokens of the query that mean the same token, the first has it.
    const covers = all.filter((mark) => mark.start <= from && mark.end >= to);
    const token = covers.find(({ name }) => name !== "window");
    const names = [covers.includes(window) && "window", token?.name].filter(Boolean).join(" ");
    return names ? el("mark", { class: names }, part) : part;
  });
  return el("p", { class: opened ? "text whole" : "text" },
    start > 0 ? "… " : "", parts, end < entry.text.length ? " …" : "");
}

// ---------------------------------------------------------------- Orders

function render() {
  const focused = document.activeElement?.closest?.(".hit")?.dataset;
  const key = focused && [focused.column, focused.id];
  const columns = [first_column(), ...shown.runs.map(run_column)].filter(Boolean);
  $("columns").replaceChildren(...columns);
  $("tabs").replaceChildren(...columns.map((column, place) => el("button", {
    type: "button", role: "tab", id: `tab-${place}`, "aria-controls": column.id,
    "aria-selected": `${place === shown.chosen}`, tabindex: place === shown.chosen ? 0 : -1,
    onclick: () => choose(place),
  }, place === 0 ? first_name() : shown.runs[place - 1].label ? `Reranker ${shown.runs[place - 1].label}` : "Reranked")));
  $("tabs").hidden = columns.length < 2;
  choose(Math.min(shown.chosen ?? 0, columns.length - 1));
  compare();
  if (key) hits_of(Number(key[0])).find((hit) => hit.dataset.id === key[1])?.focus({ preventScroll: true });
}

const first_name = () => (shown.mode === "documents" ? "As given" : "First stage");

/** The order that is seen where they do not fit beside each other. */
function choose(place) {
  shown.chosen = place;
  for (const [own, column] of [...$("columns").children].entries()) column.classList.toggle("chosen", own === place);
  for (const [own, tab] of [...$("tabs").children].entries()) {
    tab.setAttribute("aria-selected", `${own === place}`);
    tab.tabIndex = own === place ? 0 : -1;
  }
}

function column(place, title, ran, entries, line) {
  const seen = entries.slice(0, MOST_SHOWN);
  const rest = entries.length - seen.length;
  return el("section", { class: "column", id: `column-${place}`, "aria-label": title.textContent },
    title, ran,
    el("ol", { class: "hits" }, seen.map((entry, at) => hit(entry, place, line, at === 0 ? 0 : -1))),
    rest ? el("p", { class: "soft" }, `${rest} more are not shown; ask for fewer results to see less.`) : null);
}

function first_column() {
  const { first, runs } = shown;
  if (!runs.length) return null;
  const report = first?.report;
  const title = el("h2", {}, first_name());
  if (!first) return column(0, title, el("p", { class: "soft busy" }, "Searching"), [], () => []);
  const rows = (report?.retrievers ?? []).map((ran) => [`${ran.name}, ${ran.found} found`, ran.milliseconds]);
  const notes = [];
  if (shown.mode === "index") {
    const how = report?.fusion ? `, fused by ${report.fusion}` : "";
    notes.push([`${plural(first.candidates, "candidate")}${report ? how : ""}`]);
    if (first.candidates === 0) notes.push(["nothing was found: other words, another retriever, or no filter may help", true]);
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
  const skipped = run.state === "done" && !model;
  const name = model ?? (run.asked === NONE ? "no reranker" : run.asked || "the server's reranker");
  const title = el("h2", {}, run.label ? el("span", { class: "badge" }, run.label) : "",
    run.label ? " " : "", skipped || run.asked === NONE ? `Not reranked (${name})` : run.label ? name : `Reranked by ${name}`);
  if (run.state !== "done") {
    const words = { waiting: "Waits for A, so that neither slows the other", running: "Reranking", failed: "Failed", stopped: "Stopped" };
    const busy = run.state === "running" ? " busy" : "";
    return column(place + 1, title, el("p", { class: `soft${busy}` }, words[run.state]), [], () => []);
  }
  const line = (entry) => [move(entry), ...shown.runs.filter((own) => own !== run && own.state === "done").map((own) => {
    const there = own.entries.find((other) => other.id === entry.id)?.rank;
    return el("span", { class: "other" }, there ? `${own.label} ${there}` : `not in ${own.label}`);
  })];
  return column(place + 1, title, what_ran(run), run.entries, line);
}

/** Where a result stands beside its place in the first stage. */
function move(entry) {
  const by = entry.from - entry.rank;
  const seen = shown.first.entries.some(({ id }) => id === entry.id);
  if (!seen) return el("span", { class: "move new", title: "not among the first results of the first stage" }, `new, was ${entry.from}`);
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
  const button = el("button", { type: "button", class: "plain", "aria-expanded": `${opened}`, onclick: toggle, tabindex: -1 },
    opened ? "Less" : "More");
  const item = el("li", {
    class: "hit", tabindex, "data-column": place, "data-id": entry.id,
    onmouseenter: () => link(entry.id, place),
    onfocusin: () => {
      for (const own of hits_of(place)) own.tabIndex = own.dataset.id === entry.id ? 0 : -1;
      link(entry.id, place);
    },
  },
    el("div", { class: "line" }, el("span", { class: "rank" }, `${entry.rank}`), line(entry), place ? score(entry) : null),
    entry.trail ? el("h3", {}, entry.trail) : null,
    el("div", { class: "where" }, entry.document),
    text_of(entry, opened),
    el("div", { class: "signals" }, entry.signals.map(signal), button),
    opened ? details(entry) : null);
  item.toggle = toggle;
  return item;
}

const signal = (own) =>
  el("span", { title: `${scale_name(own.scale)}, place ${own.rank}` }, `${own.stage} ${number(own.score)} #${own.rank}`);

/** The probability where there is one, else the score and what it means. */
function score(entry) {
  const box = el("span", { class: "score" });
  if (entry.relevance !== null && entry.relevance !== undefined) {
    // Where the last signal is this very score, it is not said twice.
    const known = entry.signals.at(-1)?.score === entry.score;
    const tube = el("span", { class: "bar", "aria-hidden": "true" }, bar(entry.relevance));
    box.append(tube, "relevance ", el("b", {}, entry.relevance.toFixed(entry.relevance < 0.01 ? 4 : 2)),
      known || entry.score === null ? "" : `, ${scale_name(entry.scale)} ${number(entry.score)}`);
  } else if (entry.score === null) box.append("not scored");
  else box.append(`${scale_name(entry.scale)} `, el("b", {}, number(entry.score)));
  if (!entry.reranked && entry.score !== null && shown.runs.some((run) => run.second?.rerankers.length)) {
    box.append(", not read by the reranker");
  }
  return box;
}

/** All that is known of an entry. */
function details(entry) {
  const row = (head, ...cells) => el("tr", {}, el("th", { scope: "row" }, head), cells.map((cell) => el("td", {}, cell)));
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
  if (entry.start !== undefined) facts.unshift(row("passage", entry.id), row("bytes", `${entry.start} to ${entry.end} of the document`));
  if (entry.span) facts.push(row("read", `the score rests on bytes ${entry.span.start} to ${entry.span.end} of this text`));
  if (facts.length) parts.push(el("table", {}, facts));
  return el("div", {}, parts);
}

// ---------------------------------------------------------------- What ran

/** Milliseconds per stage; bars are to one measure in all columns. */
function stages(rows, total) {
  if (!rows.length && total === undefined) return null;
  const longest = Math.max(0.001, ...shown.runs.map((run) => run.report?.milliseconds ?? 0), ...rows.map(([, ms]) => ms));
  const line = ([name, ms], all) => [
    el("dt", { class: all }, name), el("dd", { class: "bar", "aria-hidden": "true" }, bar(ms / longest)),
    el("dd", { class: all }, time(ms)),
  ];
  return el("dl", { class: "stages" }, rows.map((row) => line(row, null)),
    total === undefined ? null : line(["in all", total], "all"));
}

function list(notes) {
  if (!notes.length) return null;
  return el("ul", {}, notes.map(([text, warn]) => el("li", { class: warn ? "warn" : null }, text)));
}

/** Of a run, all that its report says, in words. What went wrong or was left out comes first. */
function what_ran(run) {
  const { second, report } = run;
  if (!second) return el("div", { class: "ran" }, stages([], report.milliseconds), list([["no second stage: this is the first stage's order"]]));
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
  const skipped = {
    no_weight: "nothing was reranked: the blend gives rerankers no weight",
    failed: "nothing was reranked: no reranker answered, so the order is the one before",
  }[second.skipped];
  if (skipped) (second.skipped === "failed" ? wrong : notes).push([skipped, second.skipped === "failed"]);
  notes.push([verdict(second.gate)]);
  const in_words = shown.mode === "documents"; // its warnings say these already
  for (const ran of second.rerankers) {
    const whose = second.rerankers.length > 1 ? `${ran.model}: ` : "";
    notes.push([`${whose}${plural(ran.pairs, "pair")} scored, ${ran.cached ? `${ran.cached} of them from the cache` : "none from the cache"}`]);
    if (ran.spared) notes.push([`${whose}${plural(ran.spared, unit)} spared: they could not enter the top any more`]);
    if (ran.usage) notes.push([`${whose}${usage(ran.usage)}`]);
    if (in_words) continue;
    for (const { path, message } of ran.failed) tell_wrong(`${whose}${path} was not scored: ${message}`);
    if (ran.truncated) tell_wrong(`${whose}${plural(ran.truncated, unit)} not read to the end`);
    if (ran.query_truncated_tokens) tell_wrong(`${whose}the last ${plural(ran.query_truncated_tokens, "token")} of the query were not read`);
    if (ran.unscored && !second.deadline) tell_wrong(`${whose}${plural(ran.unscored, unit)} not reached`);
  }
  if (second.deadline) {
    const { allowed, unscored } = second.deadline;
    if (!unscored) notes.push([`deadline of ${time(allowed)}: all was read`]);
    else tell_wrong(`deadline of ${time(allowed)}: ${plural(unscored, unit)} not read, they keep the first stage's order`);
  }
  if (second.threshold) {
    const { min_relevance, below, unscored } = second.threshold;
    const unread = unscored ? `, and ${unscored} without a score` : "";
    notes.push([`withheld: ${plural(below, unit)} below a relevance of ${number(min_relevance)}${unread}`]);
  }
  if (second.blend) notes.push([`blended with the first stage: ${second.blend}`]);
  const rows = second.rerankers.map((ran) => [ran.model.split("/").at(-1), ran.milliseconds]);
  rows.push(...second.failures.map(({ model, milliseconds }) => [`${model.split("/").at(-1)} (failed)`, milliseconds]));
  const engines = second.rerankers.map((ran) => [`${ran.model}, ${ran.fingerprint}, on ${ran.engine}`]);
  return el("div", { class: "ran" }, stages(rows, report.milliseconds), list([...wrong, ...notes]),
    el("details", {}, el("summary", {}, "Models and calibration"),
      list([...engines, [`scores to probabilities: ${second.calibration}`]])));
}

function verdict(gate) {
  if (!gate) return "no gate: whatever the first stage says is reranked";
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
function compare() {
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
  const [slow, fast] = a.report.milliseconds >= b.report.milliseconds ? [a, b] : [b, a];
  const factor = slow.report.milliseconds / Math.max(0.001, fast.report.milliseconds);
  const cached = shown.runs.some((run) => run.second?.rerankers.some((ran) => ran.cached));
  $("summary").textContent = `A and B share ${common} of the first ${most} results, ${places} at the same place, ${top}. `
    + `${slow.label} took ${number(factor)} times as long as ${fast.label}`
    + `${cached ? ", with scores from the cache" : ""}.`;
}

// ---------------------------------------------------------------- Keyboard

const hits_of = (place) => [...($("columns").children[place]?.querySelectorAll(".hit") ?? [])];

/** Shows where a passage stands in the other orders. */
function link(id, place) {
  for (const own of document.querySelectorAll(".hit")) {
    own.classList.toggle("linked", own.dataset.id === id && Number(own.dataset.column) !== place);
  }
}

/** To the result so many down, or to the one in the order so many to the right. */
function go(down, right) {
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

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const { key, target } = event;
  const writes = target.matches("input:not([type=radio], [type=checkbox]), textarea, select");
  const acts = () => event.preventDefault();
  if (key === "Escape") {
    if (under_way) under_way.abort();
    else if (writes) target.blur();
    return;
  }
  if (target.id === "query" && key === "ArrowDown") return acts(), go(1, 0);
  if (writes || target.type === "radio") return;
  if (key === "/") return acts(), $("query").focus(), $("query").select();
  const [hit, tab] = [target.matches(".hit") ? target : null, target.matches("[role=tab]")];
  if (hit && (key === "Enter" || key === " ")) return acts(), hit.toggle();
  const step = {
    j: [1, 0], ArrowDown: [1, 0], k: [-1, 0], ArrowUp: [-1, 0],
    l: [0, 1], ArrowRight: [0, 1], h: [0, -1], ArrowLeft: [0, -1],
  }[key];
  // Before a result is chosen, arrows scroll as ever.
  if (!step || (key.startsWith("Arrow") && !hit && !tab)) return;
  acts();
  if (!tab || !step[1]) return go(...step);
  choose(Math.min($("tabs").children.length - 1, Math.max(0, shown.chosen + step[1])));
  $("tabs").children[shown.chosen].focus();
});

// ---------------------------------------------------------------- Start

/** Models and indexes of the server, in the selects. */
async function load() {
  const [models, { indexes }] =
    await Promise.all(["/v1/models", "/v1/index"].map(async (path) => (await ask(path)).json()));
  const rerankers = models.data.filter(({ role }) => role === "reranker");
  const fill = (id, ...first) => $(id).replaceChildren(
    ...first.map(([value, text]) => el("option", { value }, text)),
    ...rerankers.map(({ id, family, engine }) => el("option", { value: id, title: `${family}, on ${engine}` }, id)));
  const none = [NONE, "none: the first stage's order"];
  fill("model", ["", "the server's own"], none);
  // What is empty is not compared, so the server's own has another value here.
  fill("versus", ["", "nothing"], ["=", "the server's own"], none);
  fill("then", ["", "none"]);
  $("index").replaceChildren(...indexes.map(({ name, documents, passages }, place) =>
    el("option", { value: place ? name : "" }, `${name} (${documents} documents, ${passages} passages)`)));
  const [of_index, of_documents] = form.elements.mode;
  of_index.disabled = !indexes.length;
  if (!indexes.length) of_documents.checked = true;
  const searched = indexes.length ? plural(indexes.length, "index", "indexes") : "no index: documents can be reranked";
  $("served").textContent = `${plural(rerankers.length, "reranker")} and ${searched}`;
}

/** Does what the address says. */
function follow() {
  restore();
  if (form.elements.mode[0].disabled) form.elements.mode[1].checked = true;
  adapt();
  const { query, mode } = settings();
  if (query && (mode === "index" || documents()[0].length)) run_all();
  else $("query").focus();
}

async function start() {
  $("errors").replaceChildren();
  try {
    await load();
  } catch (error) {
    complain(error, "models and indexes");
    if (error.status === 401) return restore(); // the key comes first
  }
  follow();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const to = address(settings());
  if (to !== location.hash) history.pushState(null, "", to);
  run_all();
  if (document.body.classList.contains("narrow")) {
    document.activeElement.blur(); // the phone's keyboard is over the results
    $("status").scrollIntoView();
  }
});
form.addEventListener("change", adapt);
$("stop").addEventListener("click", () => under_way?.abort());
$("documents").addEventListener("input", () => {
  count();
  try {
    sessionStorage.setItem("topshelf-documents", $("documents").value);
  } catch {
    sessionStorage.removeItem("topshelf-documents"); // more than a browser keeps: gone when the page is
  }
});
$("example").addEventListener("click", () => {
  $("query").value = EXAMPLE.query;
  $("documents").value = EXAMPLE.documents.join("\n");
  $("documents").dispatchEvent(new Event("input"));
});
$("key").addEventListener("change", () => {
  sessionStorage.setItem("topshelf-key", $("key").value.trim());
  start();
});
addEventListener("popstate", follow);

// Orders stand beside each other where each has 21 rem.
const fit = () => {
  const columns = Math.max(2, $("columns").children.length);
  document.body.classList.toggle("narrow", innerWidth < columns * 336);
};
addEventListener("resize", fit);
new MutationObserver(fit).observe($("columns"), { childList: true });
fit();

$("key").value = sessionStorage.getItem("topshelf-key") ?? "";
$("documents").value = sessionStorage.getItem("topshelf-documents") ?? "";
count();
start();
