// Small helpers: elements, times, sizes, messages.

export const $ = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

export function bytes(count) {
  for (const [unit, size] of [["GB", 2 ** 30], ["MB", 2 ** 20], ["kB", 2 ** 10]]) {
    if (count >= size) return `${(count / size).toFixed(count >= 10 * size ? 0 : 1)} ${unit}`;
  }
  return `${count} B`;
}

export function toast(text, bad = false) {
  const made = element("div", { class: bad ? "bad" : "" }, text);
  $("toasts").append(made);
  setTimeout(() => made.remove(), bad ? 9000 : 5000);
}

export const complain = (error) => toast(error.message || String(error), true);

// Runs work for a button: off while it runs, and what goes wrong is said.
export async function busy(button, work) {
  button.disabled = true;
  try { return await work(); } catch (error) { complain(error); } finally { button.disabled = false; }
}
