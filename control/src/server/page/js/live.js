// Live calls, as sidecars see them end. It costs them something only while somebody looks, so it ends with this section.

import { Ended, at, lines } from "./api.js";
import { element } from "./dom.js";
import { agent, bytes, cell, count, empty, latency, soft, table, word } from "./words.js";

const KEPT = 500;

let open = null;
let calls = [];
let paused = false;
let waiting = [];
let note = null;
let number = 0;
let failure = null;

function close() {
  open?.abort.abort();
  open = null;
}

function start(query) {
  const wanted = JSON.stringify([query.agent, query.capability, query.status, query.match].map((each) => each || ""));
  if (open?.wanted === wanted) return;
  close();
  [calls, waiting, note, failure] = [[], [], null, null];
  const abort = new AbortController();
  const own = { wanted, abort };
  open = own;
  const path = at("/v1/tap", { agent: query.agent, capability: query.capability, status: query.status, match: query.match });
  const ended = (error) => {
    if (open !== own) return;
    failure = error || new Error("The control plane ended the stream; it is opened again.");
    // What it does not understand it will not understand later either.
    if (failure.status >= 400 && failure.status < 429) return;
    // Opened again by the next look, but not before some time.
    setTimeout(() => { if (open === own) open = null; }, 3000);
  };
  lines(path, abort.signal, (line) => {
    failure = null;
    if (line.note) note = line.note;
    else take(line);
  }).then(() => ended(null), ended);
}

function take(call) {
  number += 1;
  const kept = paused ? waiting : calls;
  kept.unshift({ ...call, number });
  if (kept.length > KEPT) kept.length = KEPT;
}

function row(call) {
  const kind = call.status >= 500 || call.status === 0 ? "bad" : call.status >= 400 ? "warn" : "good";
  const inbound = call.direction === "inbound";
  const [from, to] = inbound ? [call.peer, call.agent] : [call.agent, call.peer];
  return [element("tr", { data: { key: `call ${call.number}` } },
    cell(new Date(call.time_ns / 1e6).toLocaleTimeString(), "soft"),
    cell(element("span", {}, agent(from || "?"), soft(" → "), agent(to || "?"))),
    cell(inbound ? "callee" : "caller", "soft", "whose sidecar tells of it"),
    cell(element("span", {}, word(call.status ? String(call.status) : "left", kind), call.reason ? element("div", { class: "why" }, call.reason) : null)),
    cell(element("span", {}, element("strong", {}, call.method), " ", element("bdi", { class: "mono" }, `${call.host}${call.path}`)), "wide"),
    cell(call.capability || "", "soft"), cell(call.protocol || "", "soft"),
    cell(latency(call.duration_us), "number"), cell(call.tries > 1 ? word(`${call.tries} tries`, "warn") : "", "number"),
    cell(`${bytes(call.request_bytes)} / ${bytes(call.response_bytes)}`, "number soft"),
    cell(call.trace && !/^0*$/.test(call.trace) ? element("a", { href: `#/traces/${encodeURIComponent(call.trace)}` }, call.trace.slice(0, 8)) : "", "mono"))];
}

function said({ calls: shown, waiting: since, note: told }) {
  const all = [count(shown.length, "call")];
  if (since) all.push(`${since} since the pause`);
  if (told) all.push(`${count(told.sidecars, "sidecar")} looked at`);
  if (told?.limited) all.push(`${told.limited} more came too fast to be shown`);
  if (told?.lost) all.push(`${told.lost} more than this page could take`);
  return all;
}

export const live = {
  id: "live", title: "Live", key: "l", every: 500,
  async read({ query }) {
    start(query);
    if (failure instanceof Ended) throw failure;
    if (failure) throw failure;
    return { calls, waiting: waiting.length, note, paused };
  },
  says: () => (paused ? "paused" : "live, as calls end"),
  leave() {
    close();
    paused = false;
  },
  press(action) {
    if (action === "clear") [calls, waiting] = [[], []];
    if (action !== "pause") return;
    paused = !paused;
    if (!paused) {
      calls = [...waiting, ...calls].slice(0, KEPT);
      waiting = [];
    }
  },
  keydown(event) {
    if (event.key !== "p") return false;
    document.querySelector("button[data-do=pause]")?.click();
    return true;
  },
  controls: () => element("div", { class: "controls" },
    element("input", { type: "search", placeholder: "Agent", "aria-label": "Agent: namespace/name", data: { to: "agent", wait: "" } }),
    element("input", { type: "search", placeholder: "Capability", "aria-label": "Capability", data: { to: "capability", wait: "" } }),
    element("input", { type: "search", class: "narrow", placeholder: "Status: 503, 5xx", "aria-label": "Status, such as 503 or 5xx", data: { to: "status", wait: "" } }),
    element("input", { type: "search", placeholder: "Expression", "aria-label": "Expression that has to hold", data: { to: "match", wait: "" } })),
  draw(seen) {
    const bar = element("p", { class: "says bar-of-buttons" },
      element("button", { type: "button", data: { do: "pause" }, "aria-pressed": String(seen.paused) }, seen.paused ? "Go on " : "Pause ", element("kbd", {}, "p")),
      element("button", { type: "button", data: { do: "clear" } }, "Clear"),
      soft(said(seen).join(" · ")));
    return element("section", { "aria-label": "Live calls" }, bar,
      table("Live calls, the newest first", [["Time"], ["Who"], ["Told by"], ["Status"], ["Call"], ["Capability"], ["Protocol"], ["Took", "number"], [""], ["Bytes up / down", "number"], ["Trace"]],
        seen.calls.map(row), empty([seen.note && !seen.note.sidecars ? "No sidecar that fits is connected here." : "Waiting for calls: each is shown when it ends.", "Make one through a sidecar, or look at the same in a terminal:"], ["pilotfish tap"])));
  },
};
