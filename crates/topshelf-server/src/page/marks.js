// The text of a result, with the window that it was scored by and the tokens that answer the query's.

import { el } from "./elements.js";

const SNIPPET = 600; // letters of a passage before it is opened

/** Byte offsets of UTF-8, as the server counts, to those of a JavaScript string. */
function offsets(text) {
  const bytes = new TextEncoder().encode(text);
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return (byte) => decoder.decode(bytes.subarray(0, byte)).length;
}

/** Tokens of the query with what answers them; the model's markers are no words. */
export function words_of(entry) {
  const marker = (token) => /^(\[.+\]|<.+>)$/.test(token);
  const words = entry.matches.filter(({ query }) => !marker(query));
  return words.map((match, place) => ({ ...match, colour: place % 6 }));
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
export function text_of(entry, opened) {
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
