// The page: which session is chosen, what it watches, what is asked of it.

import { call, events, picture, setToken } from "/static/api.js";
import { watchFile, watchWebcam } from "/static/capture.js";
import { $, busy, clock, complain, element, toast } from "/static/dom.js";
import { drawMap, drawTimeline } from "/static/draw.js";
import { chosen, facts, label, refresh, render, state } from "/static/sessions.js";
import { SessionStream } from "/static/stream.js";
import { ask, breakAnswers, hearAnswer, showHints, showTalk } from "/static/talk.js";

let stream = null;      // of the chosen session
let run = null;         // a source in this browser, while it runs
let slots = [];         // the timeline
let probe = () => "";
let map = null, truth = null;
const maps = new Map(); // by session
const HELD_OUT = 2 ** 41; // homes from here on are in no model's training

// --- Sessions ------------------------------------------------------------------------------------

async function choose(id) {
  if (id === state.chosen && stream) return;
  stopHere();
  stream?.close();
  stream = null;
  state.chosen = id;
  history.replaceState(null, "", id ? `#${id}` : "#");
  slots = []; [map, truth] = maps.get(id) || [null, null];
  $("side").classList.remove("open");
  showTalk(id);
  render(choose);
  paint();
  if (!id) return;
  listen(new SessionStream(id));
  try {
    slots = (await call("GET", `/v1/sessions/${id}/memory`)).slots;
    if (chosen()?.walk) truth = await call("GET", `/v1/sessions/${id}/plan`);
    await refresh(choose);
    await showFrame();
  } catch (error) { if (error.status !== 404) complain(error); }
  paint();
}

function listen(made) {
  stream = made;
  const on = (type, use) => made.addEventListener(type, (event) => made === stream && use(event.detail));
  on("hello", () => { light(true); later(); });
  on("lost", ({ code }) => {
    light(false);
    breakAnswers();
    if (code === 1011) toast("The server failed; its log says why. Trying again.", true);
  });
  on("gone", ({ from, to }) => toast(`Frames ${from} to ${to} were lost: the server stopped before they were safe.`, true));
  on("slot", ({ note }) => { slots.push(note); later(); if (!run) showFrame().catch(() => {}); });
  on("ack", (message) => { if (message.error) toast(`Frame ${message.id} was left out: ${message.error}`, true); later(); });
  on("refused", (message) => { stopHere(); toast(message.error.message, true); });
  on("saved", later);
  on("source", ({ source, error }) => { if (error) toast(error, true); markSource(source); refresh(choose).catch(complain); });
  on("reconnected", ({ camera }) => toast(`Camera ${camera} is back.`));
  for (const type of ["start", "piece", "done", "error"]) on(type, hearAnswer);
}

async function create(name = "") {
  const made = await call("POST", "/v1/sessions", { name });
  await refresh(choose);
  await choose(made.id);
  return made;
}

// The chosen session, or a new one where a source needs one that has seen nothing.
async function ready(name, fresh = false) {
  if (!chosen() || (fresh && chosen().num_frames)) await create(name);
  return chosen();
}

let timer = null;
function later() {
  overlay();
  timer ??= setTimeout(async () => {
    timer = null;
    paint();
    try { await refresh(choose); } catch { light(false); }
  }, 400);
}

function overlay() {
  const last = slots.at(-1);
  const session = chosen();
  $("clock").textContent = clock(Math.max(last ? last.time : 0, session ? session.seconds_seen : 0));
  $("counts").textContent = stream && stream.seen >= 0 ? `frame ${stream.seen}` : "";
  $("safe").textContent = stream && stream.saved >= 0 ? `safe to ${stream.saved}` : "";
  $("invite").hidden = Boolean(run) || Boolean(stream && stream.seen >= 0);
}

function paint() {
  overlay();
  probe = drawTimeline($("timeline"), slots);
  const known = $("truth").checked ? truth : null;
  drawMap($("map"), map, known, slots.at(-1)?.time ?? 0);
  $("maplegend").hidden = !known;
  showCounts(known);
}

// What the answers counted, beside what is there where that is known.
function showCounts(known) {
  const counts = Object.entries(map?.asked ?? {}).filter(([kind, count]) => count || known?.counts[kind]);
  const right = known ? counts.filter(([kind, count]) => count === known.counts[kind]).length : 0;
  $("mapcounts").hidden = !counts.length;
  $("mapcounts").querySelector("summary").textContent = known ? `Counts: ${right} of ${counts.length} right` : "Counts";
  $("mapcounts").querySelector("ul").replaceChildren(...counts.map(([kind, count]) => {
    const there = known ? known.counts[kind] ?? 0 : null;
    return element("li", { class: there === count ? "right" : "" }, `${kind} ${count ?? 0}`,
      ...(there === null ? [] : [element("small", {}, ` of ${there}`)]));
  }));
}

const light = (ok) => { $("health").className = `dot ${ok ? "ok" : "bad"}`; };

async function showFrame() {
  const id = state.chosen;
  if (!id || run) return;
  const blob = await picture(`/v1/sessions/${id}/frame`);
  if (!blob) return;
  const image = await createImageBitmap(blob);
  if (id !== state.chosen || run) return;
  const canvas = $("picture");
  canvas.width = image.width; canvas.height = image.height;
  canvas.getContext("2d").drawImage(image, 0, 0);
}

// --- Sources -------------------------------------------------------------------------------------

async function watchHere(name, watch) {
  stopHere();
  const session = await ready(name);
  const target = stream;
  const start = session.num_frames ? session.seconds_seen + 1 / Number($("fps").value) : 0;
  const mine = run = { stopped: false };
  markSource(name);
  try {
    await watch({
      fps: Number($("fps").value), fast: $("fast").checked, canvas: $("picture"), run: mine,
      send: (jpeg, seconds) => target.send(jpeg, start + seconds),
    });
  } catch (error) { complain(error); }
  if (run === mine) { run = null; markSource(null); later(); }
}

function stopHere() {
  if (run) { run.stopped = true; run = null; markSource(null); }
}

function markSource(source) {
  $("stop").hidden = !source;
  $("stop").textContent = source ? `Stop ${source}` : "Stop";
  overlay();
}

async function stopAll() {
  stopHere();
  if (chosen()?.source) await call("DELETE", `/v1/sessions/${state.chosen}/source`);
}

async function watchThere(name, body, fresh) {
  const session = await ready(name, fresh);
  await call("POST", `/v1/sessions/${session.id}/source`, { fps: Number($("fps").value), ...body });
  if (body.walk !== undefined) truth = await call("GET", `/v1/sessions/${session.id}/plan`);
  paint();
}

$("file").onchange = () => {
  const [file] = $("file").files;
  $("file").value = "";
  if (file) watchHere(file.name.slice(0, 40), (how) => watchFile(file, how)).catch(complain);
};
$("webcam").onclick = () => watchHere("webcam", watchWebcam).catch(complain);
$("walk").onclick = () => busy($("walk"), () => {
  const home = Math.max(0, Math.floor(Number($("seed").value)));
  return watchThere(`home ${home}`, { walk: HELD_OUT + home, seconds: 60, pace: $("fast").checked ? 0 : 1 }, true);
});
$("cameras").onchange = () => {
  const camera = $("cameras").value;
  $("cameras").value = "";
  if (camera) watchThere(camera, { camera }, false).catch(complain);
};
$("stop").onclick = () => busy($("stop"), stopAll);

// --- Asking --------------------------------------------------------------------------------------

function put(question) {
  if (!stream) return toast("Open a session first.", true);
  ask(stream, question).catch(complain);
}

$("ask").onsubmit = (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question) return;
  $("question").value = "";
  put(question);
};

async function survey() {
  const id = state.chosen;
  const asked = [];
  $("mapasked").hidden = false;
  $("mapasked").querySelector("ol").replaceChildren();
  const categories = $("things").value.split(",").map((thing) => thing.trim()).filter(Boolean);
  for await (const event of events(`/v1/sessions/${id}/map`, categories.length ? { categories } : {})) {
    if (event.type !== "map") {
      asked.push(event);
      const short = event.question.split("\n")[0];
      $("mapasked").querySelector("ol").append(element("li", {}, `${short} — ${event.answer.trim() || "…"}`));
      $("mapnote").textContent = `${asked.length} questions asked…`;
      continue;
    }
    event.asked = Object.fromEntries(asked.filter((e) => e.type === "count").map((e) => [e.category, e.count]));
    maps.set(id, [event, event.truth || truth]);
    if (id !== state.chosen) return;
    [map, truth] = maps.get(id);
    const placed = event.places.length;
    $("mapnote").textContent = (placed ? `${placed} things placed by ${asked.length} answers, misfit ${event.misfit_m.toFixed(2)} m`
      : `${asked.length} answers name nothing that could be placed`) +
      (event.error_m !== undefined ? `, ${event.error_m.toFixed(2)} m from the truth on average.` : ".");
    paint();
  }
}

$("draw").onclick = () => busy($("draw"), survey);
$("truth").onchange = paint;

// --- Buttons, keys, start ------------------------------------------------------------------------

$("new").onclick = () => busy($("new"), () => create());
$("fork").onclick = () => busy($("fork"), async () => {
  const made = await call("POST", `/v1/sessions/${state.chosen}/fork`, { name: `${label(chosen())} fork`.slice(0, 80) });
  await refresh(choose);
  await choose(made.id);
  toast("A second session that has seen the same.");
});
$("keep").onclick = () => busy($("keep"), async () => {
  const session = chosen();
  await call("POST", `/v1/sessions/${session.id}/snapshots`, { name: `${label(session)} ${clock(session.seconds_seen)}`.slice(0, 80) });
  await refresh(choose);
  toast("Kept.");
});
$("close").onclick = () => busy($("close"), async () => {
  const session = chosen();
  if (!confirm(`Forget ${label(session)} and everything it saw?`)) return;
  await stopAll();
  await call("DELETE", `/v1/sessions/${session.id}`);
  await refresh(choose);
  await choose(state.sessions[0]?.id ?? null);
});
$("drawer").onclick = () => {
  const open = $("side").classList.toggle("open");
  $("drawer").setAttribute("aria-expanded", String(open));
};
$("help").onclick = () => $("keys").showModal();
$("timeline").onmousemove = (event) => { $("probe").textContent = probe(event.offsetX, event.offsetY); };
$("timeline").onmouseleave = () => { $("probe").textContent = ""; };
$("timeline").onclick = (event) => { $("probe").textContent = probe(event.offsetX, event.offsetY); }; // a finger does not hover

function theme(next) {
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
  if (state.info) paint();
}
const flip = () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
$("theme").onclick = flip;
theme(localStorage.getItem("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));

function step(by) {
  const at = state.sessions.findIndex((session) => session.id === state.chosen);
  const next = state.sessions[at + by];
  if (next) choose(next.id).catch(complain);
}
const KEYS = {
  "/": () => $("question").focus(), n: () => $("new").click(), f: () => $("fork").click(), s: () => $("keep").click(),
  m: () => $("draw").click(), d: flip, j: () => step(1), k: () => step(-1), "?": () => $("keys").showModal(),
  Escape: () => stopAll().catch(complain),
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox]), select, textarea") || document.querySelector("dialog[open]");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing) { if (event.key === "Escape") event.target.blur?.(); return; }
  if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); }
});
addEventListener("resize", paint);

$("login").querySelector("form").onsubmit = (event) => {
  event.preventDefault();
  setToken($("token").value.trim());
  start();
};

async function start() {
  try {
    await refresh(choose);
  } catch (error) {
    light(false);
    if (error.status !== 401) { complain(error); return; }
    $("loginerror").hidden = !$("token").value;
    if (!$("login").open) $("login").showModal();
    return;
  }
  if ($("login").open) $("login").close();
  light(true);
  for (const camera of state.info.cameras) $("cameras").append(element("option", { value: camera }, camera));
  $("cameras").hidden = !state.info.cameras.length;
  showHints(put);
  const wanted = location.hash.slice(1);
  const found = state.sessions.find((session) => session.id === wanted) || state.sessions[0];
  await choose(found ? found.id : null);
  markSource(chosen()?.source ?? null);
  facts();
}

start();
