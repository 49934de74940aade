// Elements of the page, and numbers as it writes them.

export const $ = (id) => document.getElementById(id);

/** An element; attributes that are null are left out, children that are null too. Text stays text. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== ""));
  return element;
}

export function bar(part) {
  const filled = el("i");
  filled.style.width = `${100 * Math.min(1, Math.max(0, part))}%`;
  return filled;
}

export const time = (ms) => `${ms < 10 && !Number.isInteger(ms) ? ms.toFixed(1) : ms.toFixed(0)} ms`;
export const number = (value) => (Number.isInteger(value) ? `${value}` : `${Number(value.toPrecision(3))}`);
export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
/** A probability, with more figures where it is near its ends. */
export function probability(value) {
  if (value < 0.0001) return "<0.0001";
  if (value > 0.9999) return ">0.9999";
  return value.toFixed(value < 0.01 || value > 0.99 ? 4 : 2);
}
export const scale_name = (scale) => (scale === "max_sim" ? "maxsim" : scale);
