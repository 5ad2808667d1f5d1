// The lists of sessions and snapshots, and the facts of the one that is chosen.

import { call } from "/static/api.js";
import { $, bytes, clock, complain, element, toast } from "/static/dom.js";

export const state = { sessions: [], snapshots: [], info: null, chosen: null };

export const chosen = () => state.sessions.find((session) => session.id === state.chosen);
export const label = (session) => session.name || `session ${session.id.slice(0, 6)}`;

export async function refresh(choose) {
  [state.sessions, state.snapshots, state.info] = await Promise.all([
    call("GET", "/v1/sessions"), call("GET", "/v1/snapshots"), call("GET", "/v1/info"),
  ]);
  render(choose);
}

export function render(choose) {
  const { info } = state;
  $("model").textContent = `${info.model} · ${info.device}`;
  $("untrained").hidden = info.is_trained;
  $("budget").textContent = `${bytes(info.promised_bytes)} of ${bytes(info.budget_bytes)} promised`;
  $("sessions").replaceChildren(...state.sessions.map((session) => card(session, choose)));
  if (!state.sessions.length) $("sessions").append(empty("None yet. Choose a source, or press n."));
  $("snapshots").replaceChildren(...state.snapshots.map((snapshot) => kept(snapshot, choose)));
  if (!state.snapshots.length) $("snapshots").append(empty("Moments you keep appear here."));
  facts();
}

const empty = (text) => element("li", { class: "empty" }, text);

function card(session, choose) {
  const open = () => choose(session.id);
  return element("li", {
    tabindex: 0, role: "button", "aria-current": session.id === state.chosen ? "true" : "false",
    "data-id": session.id, onclick: open, onkeydown: (event) => event.key === "Enter" && open(),
  },
  element("span", { class: `dot ${session.state === "open" ? "ok" : "asleep"}`, title: session.state }),
  element("b", {}, label(session)),
  element("small", {}, `${session.num_frames} frames · ${clock(session.seconds_seen)}`));
}

function kept(snapshot, choose) {
  const restore = async (event) => {
    event.stopPropagation();
    try {
      const made = await call("POST", `/v1/snapshots/${snapshot.id}/restore`, { name: `${snapshot.name} again` });
      await refresh(choose);
      choose(made.id);
      toast(`Goes on from ${clock(snapshot.seconds_seen)}`);
    } catch (error) { complain(error); }
  };
  const forget = async (event) => {
    event.stopPropagation();
    try { await call("DELETE", `/v1/snapshots/${snapshot.id}`); await refresh(choose); } catch (error) { complain(error); }
  };
  return element("li", { "data-snapshot": snapshot.id },
    element("span", {}, "◆"),
    element("b", {}, snapshot.name || "moment"),
    element("button", { class: "small icon", title: "Forget", "aria-label": "Forget snapshot", onclick: forget }, "×"),
    element("small", { class: "row" }, `${snapshot.num_frames} frames`,
      element("span", { class: "grow" }),
      element("button", { class: "small", onclick: restore }, "Restore")));
}

export function facts() {
  const session = chosen();
  $("title").textContent = session ? label(session) : "No session";
  for (const id of ["fork", "keep", "close", "draw"]) $(id).disabled = !session;
  if (!session) return $("facts").replaceChildren();
  const rows = [
    ["seen", `${session.num_frames} frames, ${clock(session.seconds_seen)}`],
    ["safe on disk", session.saved < 0 ? "nothing yet" : `to frame ${session.saved} of ${session.seen}`],
  ];
  const { stats } = session;
  if (stats) {
    rows.push(["memory, constant", bytes(stats.ttt_bytes)], ["anchors", bytes(stats.anchor_bytes)]);
    rows.push(["promised", `${bytes(session.promised_bytes)}, ${session.max_frames} frames`]);
    const spent = stats.seconds.vision + stats.seconds.decoder + stats.seconds.preprocess;
    if (stats.num_slots) rows.push(["model, per frame", `${(1000 * spent / Math.max(1, session.num_frames)).toFixed(1)} ms`]);
  }
  if (session.refused || session.skipped) rows.push(["left out", `${session.refused} refused, ${session.skipped} lost`]);
  $("facts").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  if (session.warning) $("facts").append(element("dd", { class: "warning" }, session.warning));
}
