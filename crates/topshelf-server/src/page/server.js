// The server: requests, the events of its answers, and its hits in the form that is shown.

import { $ } from "./elements.js";
import { render } from "./orders.js";
import { shown } from "./shown.js";

/** What the server said of a request that it refused. */
export class Refused extends Error {
  constructor(status, told, retry) {
    super(told?.message ?? "the server gave no reason");
    Object.assign(this, { status, kind: told?.type ?? "", field: told?.field, retry });
  }
}

export async function ask(path, body, signal) {
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

export async function search(all, run, signal) {
  const body = { query: all.query, stream: true, ...reranking(all, run) };
  for (const name of ["index", "retriever", "fusion", "filter"]) if (all[name]) body[name] = all[name];
  if (all.depth) body.depth = Number(all.depth);
  if (all.explain) body.explain = true;
  const response = await ask("/v1/search", body, signal);
  for await (const [name, data] of events(response.body)) {
    if (name === "error") throw new Refused("", data.error);
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

export async function rerank(all, run, signal) {
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
  const { relevance_score: relevance, matches = [] } = hit;
  return { ...hit, trail, from: first?.rank ?? hit.rank, relevance, matches };
}

export function of_document(given, index) {
  const { title, text } = typeof given === "string" ? { title: "", text: given } : given;
  return {
    id: `${index}`, trail: title, document: `document ${index + 1}`, text, from: index + 1, rank: index + 1,
    signals: [], matches: [], metadata: {},
  };
}
