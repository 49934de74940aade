// The page at `/`: asks the server, and shows what it answers.
//
// A search is a list of *runs*, one for each reranker that is compared, over one first stage. Runs go
// one after the other, so that the milliseconds of one are not those of two at once. All that is
// shown becomes text nodes: documents may hold HTML, and stay text.

import { $, el, plural, time } from "./elements.js";
import { choose, go, render } from "./orders.js";
import { Refused, ask, of_document, rerank, search } from "./server.js";
import { adapt, address, count, documents, form, restore, settings } from "./settings.js";
import { NONE, shown } from "./shown.js";

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

let under_way = null; // the AbortController of the search that runs

// ---------------------------------------------------------------- Runs

async function run_all() {
  const all = settings();
  under_way?.abort();
  const own = (under_way = new AbortController());
  const asked = all.versus ? [all.model ?? "", all.versus.replace(/^=/, "")] : [all.model ?? ""];
  const runs = asked.map((model, place) => ({
    asked: model, label: asked.length > 1 ? "AB"[place] : "", state: "waiting",
  }));
  Object.assign(shown, {
    mode: all.mode, wanted: Number(all.top_n ?? 10), first: null, runs, documents: [], opened: new Set(), chosen: 1,
  });
  if (all.mode === "documents") {
    [shown.documents] = documents();
    shown.first = { entries: shown.documents.map(of_document), candidates: shown.documents.length };
  }
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

// ---------------------------------------------------------------- Keyboard

document.addEventListener("keydown", (event) => {
  const sends = event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.id === "documents";
  if (sends) form.requestSubmit();
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

/** Asks for models and indexes, then goes on; without a key that is needed, waits for it. */
async function start(go_on) {
  $("errors").replaceChildren();
  try {
    await load();
  } catch (error) {
    complain(error, "models and indexes");
    if (error.status === 401) return;
  }
  go_on();
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
  if ($("served").textContent) return;
  // Without the key nothing was known. A query that was typed meanwhile stays.
  const query = new URLSearchParams(location.hash.slice(1)).get("query") ?? undefined;
  start(settings().query === query ? follow : adapt);
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
restore();
start(follow);
