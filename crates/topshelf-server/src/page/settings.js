// What is asked for: the form, the address that holds it, documents that are pasted.

import { $, el, plural } from "./elements.js";
import { NONE } from "./shown.js";

export const form = $("form");

/** The form without what is empty. */
export function settings() {
  const all = [...new FormData(form)].map(([name, value]) => [name, value.trim()]);
  return Object.fromEntries(all.filter(([, value]) => value !== ""));
}

/** The settings, in the address. */
export function address(all) {
  const { mode, ...rest } = all;
  if (mode === "documents") rest.mode = mode;
  return `#${new URLSearchParams(rest)}`;
}

/** The address, in the form. */
export function restore() {
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
export function adapt() {
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
export function documents() {
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

export function count() {
  const [all, how] = documents();
  $("counted").textContent = all.length ? `${plural(all.length, "document")} (${how})` : "No documents yet";
}
