// Questions and answers of the chosen session; kept in this tab, so that a reload shows them again.

import { $, clock, element } from "/static/dom.js";

const HINTS = [
  "How many chair(s) are in this room?",
  "What is the size of this room (in square meters)?",
  "Measuring from the closest point of each object, what is the distance between the sofa and the table (in meters)?",
];
const MOST_KEPT = 40;
const running = new Map();
let count = 0;
let session = null;

const read = () => JSON.parse(sessionStorage.getItem(`talk ${session}`) || "[]");

function keep(entry) {
  const all = [entry, ...read()].slice(0, MOST_KEPT);
  sessionStorage.setItem(`talk ${session}`, JSON.stringify(all));
}

export function showTalk(id) {
  session = id;
  running.clear();
  $("answers").replaceChildren(...(id ? read().map((entry) => item(entry)) : []));
}

function item({ question, answer, note }) {
  return element("li", {}, element("div", { class: "q" }, question),
    element("div", { class: "a" }, answer), element("div", { class: "t" }, note));
}

const PATIENCE_MS = 15000;

// Sends a question over the session's stream, once that is open.
export async function ask(stream, question) {
  const ref = `q${++count}`;
  const shown = item({ question, answer: "", note: "thinking…" });
  shown.children[1].classList.add("running");
  $("answers").prepend(shown);
  running.set(ref, { shown, question, started: performance.now(), first: null });
  await stream.opened(PATIENCE_MS);
  if (running.has(ref) && !stream.say({ type: "ask", ref, question, max_new_tokens: 200 })) {
    fail(ref, "The connection is being opened again; ask once more in a moment.");
  }
}

function fail(ref, message) {
  const { shown } = running.get(ref);
  running.delete(ref);
  shown.children[1].classList.remove("running");
  shown.children[1].classList.add("failed");
  shown.children[1].textContent = message;
  shown.children[2].textContent = "";
}

// What the stream says about answers.
export function hearAnswer(message) {
  const answer = running.get(message.ref);
  if (!answer) return;
  const [, text, note] = answer.shown.children;
  if (message.type === "start") {
    note.textContent = `about everything to ${clock(message.seconds_seen)} (frame ${message.seen})`;
  } else if (message.type === "piece") {
    answer.first ??= performance.now() - answer.started;
    text.textContent += message.text;
  } else if (message.type === "error") {
    fail(message.ref, message.error.message);
  } else if (message.type === "done") {
    running.delete(message.ref);
    text.classList.remove("running");
    text.textContent = message.answer || "(nothing)";
    const whole = performance.now() - answer.started;
    note.textContent = `about everything to ${clock(message.seconds_seen)} (frame ${message.seen}) · ` +
      `first word ${((answer.first ?? whole) / 1000).toFixed(2)} s · whole ${(whole / 1000).toFixed(2)} s`;
    keep({ question: answer.question, answer: text.textContent, note: note.textContent });
  }
}

export function breakAnswers() {
  for (const ref of [...running.keys()]) fail(ref, "The connection was lost; ask again.");
}

export function showHints(use) {
  $("hints").replaceChildren(...HINTS.map((hint) => element("button", { type: "button", onclick: () => use(hint) }, hint)));
}
