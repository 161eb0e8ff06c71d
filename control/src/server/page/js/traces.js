// Traces: a search, and one of them as a waterfall.

import { at, read } from "./api.js";
import { element, link, place } from "./dom.js";
import { agent, ago, at as when, cell, count, empty, latency, soft, table, word } from "./words.js";
import { found, waterfall } from "./waterfall.js";

const SINCE = [["1h", "hour"], ["15m", "15 minutes"], ["6h", "6 hours"], ["24h", "day"], ["all", "all that is kept"]];
let kept = { id: null };

async function one(id) {
  // Spans of a trace still come in for some seconds, not for long.
  if (kept.id === id && kept.looks > 5) return kept;
  const [trace, analysis] = await Promise.all([
    read(`/v1/traces/${encodeURIComponent(id)}`),
    // Without it the waterfall still says much.
    read(at("/v1/analysis", { trace: id })).catch((error) => ({ failed: error.message })),
  ]);
  kept = { id, trace, analysis, looks: kept.id === id ? kept.looks + 1 : 0 };
  return kept;
}

function list(seen, route) {
  const rows = seen.all.map((own) => [element("tr", { data: { key: own.trace } },
    cell(ago(own.start_ns / 1e9), "soft", when(own.start_ns / 1e9)),
    cell(agent(own.agent)),
    cell(link(["traces", own.trace], route.query, own.name || own.trace.slice(0, 8)), "wide"),
    cell(latency(own.duration_ns / 1000), "number"),
    cell(String(own.spans), "number"), cell(String(own.agents), "number"),
    cell(element("span", {}, own.error ? word("error", "bad") : null, own.partial ? word("partial", "warn", "Not sampled: gathered because a call failed or was slow") : null)),
    cell(own.workflow ? link(["traces"], { ...route.query, workflow: own.workflow }, own.workflow) : "", "wide"),
    cell(own.trace.slice(0, 8), "mono soft", own.trace))]);
  const filtered = ["agent", "min", "error", "workflow"].some((name) => route.query[name]);
  const none = filtered ? empty(["No trace fits. Take a filter away, or look further back."])
    : empty(["No traces yet.", "Sidecars with --control send their spans here; a part of all calls is sampled, errors and slow calls always are.",
      "Make a call through a sidecar, or sample everything:"], ["pilotfish-proxy … --trace-sampling 100%"]);
  return element("section", { "aria-label": "Traces" }, found(seen.workflow, null, route),
    table("Traces, the newest first", [["When"], ["Agent"], ["Call"], ["Duration", "number"], ["Spans", "number"], ["Agents", "number"], [""], ["Workflow"], ["Trace"]], rows, none));
}

export const traces = {
  id: "traces", title: "Traces", key: "t", every: 3000, controlsOfList: true,
  async read({ segments, query }) {
    if (segments.length) return one(segments[0]);
    const since = query.since || "1h";
    const workflow = query.workflow ? read(at("/v1/analysis", { workflow: query.workflow })).catch((error) => ({ failed: error.message })) : null;
    const all = await read(at("/v1/traces", { agent: query.agent, "min-duration": query.min, error: query.error === "1" ? "true" : "",
      workflow: query.workflow, since: since === "all" ? "" : since, limit: 100 }));
    return { all, workflow: await workflow };
  },
  // A trace is not drawn from what a list gave, nor the other way round.
  fresh: ({ segments }) => (segments.length ? kept.id !== segments[0] : true),
  up: ({ segments, query }) => (segments.length > 1 ? place(["traces", segments[0]], query) : segments.length ? place(["traces"], query) : null),
  controls: () => element("div", { class: "controls" },
    element("input", { type: "search", placeholder: "Agent", "aria-label": "Agent: name or namespace/name", data: { to: "agent", wait: "" } }),
    element("input", { type: "search", class: "narrow", placeholder: "At least, 200ms", "aria-label": "Least duration, such as 200ms", data: { to: "min", wait: "" } }),
    element("input", { type: "search", placeholder: "Workflow", "aria-label": "Workflow id", data: { to: "workflow", wait: "" } }),
    element("label", {}, "Last ", element("select", { data: { to: "since" } },
      ...SINCE.map(([value, text]) => element("option", { value }, text)))),
    element("label", {}, element("input", { type: "checkbox", data: { to: "error" } }), " errors only")),
  draw(seen, route) {
    if (seen.all) return list(seen, route);
    return waterfall(seen.id, seen.trace, seen.analysis, route);
  },
};
