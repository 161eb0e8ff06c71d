// One trace: its spans over time with the critical path drawn, what was found about it, and one span's details.

import { element, link, place, svg } from "./dom.js";
import { tree } from "./spans.js";
import { agent, chip, count, empty, facts, latency, share, soft, word } from "./words.js";

const MOST_SPANS = 1000;
const ROW = 26;

const percent = (part) => `${(part * 100).toFixed(3)}%`;

/** Marks of a span: which try, what is not certain. */
function marks(span) {
  const resend = Number(span.get("http.request.resend_count") || 0);
  const status = span.get("http.response.status_code");
  return [
    resend > 0 ? word(`try ${resend + 1}`, "warn") : null,
    span.error ? word(span.get("pilotfish.reason") || span.get("error.type") || status || "error", "bad") : null,
    span.get("pilotfish.trace.inferred") === "true" ? word("inferred", "", "The agent forwarded no trace context: the sidecar found what this call belongs to") : null,
    span.get("pilotfish.trace.partial") === "true" ? word("partial", "", "Not sampled: made from what the sidecar remembered") : null,
  ].filter((mark) => mark);
}

/** The critical path of the analysis: pieces of time by span, in microseconds since the trace's first start. */
function criticals(analysis, start) {
  const pieces = new Map();
  // What the analysis knows of clocks may have moved the start.
  const moved = (analysis?.start_ns || 0) / 1000 - start;
  const shift = Math.abs(moved) < 1e9 ? Math.round(moved) : 0;
  for (const { span, at_ns: at, duration_ns: duration } of analysis?.critical_path || []) {
    if (!span) continue;
    if (!pieces.has(span)) pieces.set(span, []);
    pieces.get(span).push({ span, start: at / 1000 + shift, end: (at + duration) / 1000 + shift });
  }
  return pieces;
}

/** What a sidecar's span is about, beyond its name: where to, what for. */
function about(span) {
  const [to, capability, way] = ["pilotfish.agent", "pilotfish.capability", "url.path"].map((name) => span.get(name));
  if (span.kind === "client") {
    if (span.get("pilotfish.direction") === "inbound") return " → the agent itself";
    return to ? ` → ${to.slice(to.indexOf("/") + 1)}` : "";
  }
  return [capability, span.name.includes("/") ? null : way].filter((each) => each).map((each) => ` ${each}`).join("");
}

function row(span, total, pieces, id, route) {
  const critical = pieces.get(span.id);
  const chosen = route.segments[1] === span.id;
  const bar = (from, to, kind, text) => element("i", { class: kind, title: text,
    style: { left: percent(from / total), width: `max(2px, ${percent((to - from) / total)})` } });
  const said = `${span.agent} ${span.name}, ${latency(span.end - span.start)} from ${latency(span.start)}, self ${latency(span.self)}${critical ? ", on the critical path" : ""}${span.error ? ", error" : ""}`;
  const late = span.start / total > 0.75;
  return element("div", { class: `span ${span.error ? "failed" : ""} ${chosen ? "chosen" : ""} ${critical ? "critical" : ""}`, data: { key: span.id, row: "" }, role: "row" },
    element("div", { class: "left", role: "gridcell" },
      element("a", { href: place(["traces", id, ...(chosen ? [] : [span.id])], route.query), "aria-label": said, "aria-current": chosen,
        style: { paddingLeft: `${0.6 + Math.min(span.depth, 14) * 0.85}rem` } },
      element("bdi", { class: "who" }, span.agent.slice(span.agent.indexOf("/") + 1)), " ", element("bdi", {}, span.name), soft(element("bdi", {}, about(span)))),
      element("div", { class: "marks" }, ...marks(span))),
    element("div", { class: "time", role: "gridcell" },
      bar(span.start, span.end, `bar ${span.kind} ${span.get("pilotfish.trace.inferred") === "true" ? "inferred" : ""}`),
      ...(critical || []).map((piece) => bar(piece.start, piece.end, "path", "critical path")),
      ...span.events.slice(0, 50).map((event) => element("i", { class: "event", title: event.name, style: { left: percent(event.at / total) } })),
      element("span", { class: "took", style: late ? { right: percent(1 - span.start / total) } : { left: percent(Math.min(1, span.end / total)) } }, latency(span.end - span.start))));
}

/** The critical path as one line, from piece to piece. */
function path(spans, pieces, total) {
  const rows = new Map(spans.map((span, index) => [span.id, index]));
  const all = [...pieces.values()].flat().filter((piece) => rows.has(piece.span)).sort((a, b) => a.start - b.start);
  if (all.length < 2) return null;
  const points = all.flatMap((piece) => {
    const y = (rows.get(piece.span) + 0.5) * ROW;
    return [`${((piece.start / total) * 1000).toFixed(2)},${y}`, `${((piece.end / total) * 1000).toFixed(2)},${y}`];
  });
  return svg("svg", { class: "critical-path", viewBox: `0 0 1000 ${spans.length * ROW}`, preserveAspectRatio: "none", "aria-hidden": "true", style: { height: `${spans.length * ROW}px` }, data: { key: "path" } },
    svg("polyline", { points: points.join(" "), "vector-effect": "non-scaling-stroke" }));
}

function pairs(title, all) {
  if (!all.length) return null;
  return element("div", {}, element("h3", {}, title), element("dl", { class: "facts wide" },
    ...all.flatMap(([name, value]) => [element("dt", {}, name), element("dd", { class: "mono" }, value)])));
}

function details(span, id, route) {
  const close = link(["traces", id], route.query, "Close ", element("kbd", {}, "Esc"));
  if (!span) return element("aside", { "aria-label": "Span" }, close, element("p", {}, "This span is not known."));
  return element("aside", { "aria-label": `Span ${span.name}` }, close,
    element("h2", {}, element("bdi", {}, span.name)), element("p", {}, agent(span.agent), " ", word(span.kind || "span"), ...marks(span)),
    span.message ? element("pre", { class: "reasons" }, span.message) : null,
    facts(["Begins at", latency(span.start)], ["Takes", latency(span.end - span.start)], ["Self time", latency(span.self)], ["Span", element("span", { class: "mono" }, span.id)]),
    span.get("pilotfish.request_id") ? element("p", {}, soft("Why it went as it did: "), element("code", {}, `pilotfish why ${span.get("pilotfish.request_id")}`)) : null,
    span.events.length ? element("div", {}, element("h3", {}, "Events"), ...span.events.map((event) => element("div", { class: "happened" },
      element("p", {}, soft(latency(event.at)), " ", element("strong", {}, event.name)),
      event.attributes.length ? element("dl", { class: "facts wide" }, ...event.attributes.flatMap(([name, value]) => [element("dt", {}, name), element("dd", { class: "mono" }, value)])) : null))) : null,
    pairs("Attributes", span.attributes), pairs("Who made it", span.resource));
}

const SEVERITIES = { critical: "bad", warning: "warn", info: "" };
const TIMES = [["agent_ns", "agents' own work"], ["mesh_ns", "sidecars and network"], ["outside_ns", "hosts outside the mesh"], ["nobody_ns", "covered by no span"]];

function advice(own, id, route, names) {
  const evidence = own.evidence.filter((span) => names?.has(span)).slice(0, 5);
  return element("li", { data: { key: `${own.id} ${own.finding}` } }, word(own.severity, SEVERITIES[own.severity]), " ", own.finding, element("div", { class: "soft" }, own.advice),
    own.saving_ns ? element("strong", {}, `At most ${latency(own.saving_ns / 1000)} less.`) : null,
    id && evidence.length ? element("span", { class: "evidence" }, ...evidence.map((span) => link(["traces", id, span], route.query, names.get(span)))) : null);
}

function spent(own, of) {
  return element("li", { data: { key: `${own.agent} ${own.name} ${own.capability} ${own.part}` } },
    element("span", { class: "fill", style: { width: percent(Math.min(1, own.self_ns / of)) } }),
    agent(own.agent), own.capability ? chip(own.capability) : element("bdi", {}, own.name), own.part === "agent" ? null : soft(own.part),
    element("span", { class: "number" }, `${latency(own.self_ns / 1000)} · ${share(Math.min(1, own.self_ns / of))}`));
}

/** What the analysis of a trace or of a workflow found: what to do, and where the time went. */
export function found(analysis, id, route, names) {
  if (!analysis) return null;
  if (analysis.failed) return element("p", { class: "soft says" }, `No analysis: ${analysis.failed}`);
  const { recommendations = [], bottlenecks = [], time = {}, root_cause: cause } = analysis;
  const total = TIMES.reduce((sum, [name]) => sum + (time[name] || 0), 0) || 1;
  const some = TIMES.filter(([name]) => time[name] > 0);
  return element("div", { class: "found" },
    element("div", {}, element("h2", {}, "Recommendations"),
      cause ? element("p", {}, word("began here", "bad"), " ", id ? link(["traces", id, cause.span], route.query, agent(cause.agent), " ", cause.name) : agent(cause.agent), ": ", cause.why) : null,
      recommendations.length ? element("ul", { class: "advice" }, ...recommendations.slice(0, 12).map((own) => advice(own, id, route, names)))
        : element("p", { class: "soft" }, "Nothing to recommend.")),
    element("div", {}, element("h2", {}, "Where the time went"),
      some.length ? element("p", { class: "parts" }, ...some.map(([name, what]) => element("span", {}, element("strong", {}, share(time[name] / total)), soft(` ${what}`)))) : null,
      bottlenecks.length ? element("ol", { class: "shares" }, ...bottlenecks.slice(0, 6).map((own) => spent(own, analysis.total_ns || total))) : null));
}

export function waterfall(id, trace, analysis, route) {
  const { spans, total, start } = tree(trace);
  const back = link(["traces"], route.query, "← Traces");
  if (!spans.length) return element("section", {}, element("p", {}, back), empty(["Nothing is known of this trace.", "Its spans are no longer kept, or have not come in yet."]));
  const shown = spans.slice(0, MOST_SPANS);
  const pieces = criticals(analysis, start);
  const names = new Map(spans.map((span) => [span.id, `${span.agent.slice(span.agent.indexOf("/") + 1)} ${about(span).trim() || span.name}`]));
  const agents = new Set(spans.map((span) => span.agent));
  const errors = spans.filter((span) => span.error).length;
  const partial = spans.some((span) => span.get("pilotfish.trace.partial") === "true");
  const inferred = spans.filter((span) => span.get("pilotfish.trace.inferred") === "true").length;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => element("span", { style: { left: percent(part) } }, latency(total * part)));
  const chosen = route.segments[1] ? details(spans.find((span) => span.id === route.segments[1]), id, route) : null;
  return element("section", { "aria-label": `Trace ${id}` },
    element("p", { class: "crumbs" }, back, " ", element("span", { class: "mono soft" }, id)),
    element("h2", { class: "title" }, agent(spans[0].agent), " ", element("bdi", {}, spans[0].name)),
    element("p", { class: "says" }, word(latency(total), ""), " ", soft([count(spans.length, "span"), count(agents.size, "agent"), new Date(start / 1000).toLocaleString(),
      ...(shown.length < spans.length ? [`the first ${shown.length} spans are shown`] : [])].join(" · ")), " ",
    errors ? word(count(errors, "error"), "bad") : null, partial ? word("partial", "warn") : null, inferred ? word(`${inferred} inferred`, "") : null),
    partial ? element("p", { class: "soft says" }, "This trace was not sampled. A call in it failed or was slow, so sidecars sent what they remembered; what the agents did in between is not known.") : null,
    found(analysis, id, route, names),
    element("p", { class: "legend", "aria-hidden": "true" }, element("i", { class: "bar server" }), " served ", element("i", { class: "bar client" }), " called ",
      pieces.size ? element("span", {}, element("i", { class: "path" }), " critical path ") : null, element("i", { class: "event" }), " event"),
    element("div", { class: "beside" },
      element("div", { class: "most" }, element("div", { class: "waterfall", role: "grid", "aria-label": `Spans of trace ${id}`, "aria-rowcount": spans.length },
        element("div", { class: "ticks", "aria-hidden": "true", data: { key: "ticks" } }, ...ticks),
        ...shown.map((span) => row(span, total, pieces, id, route)), path(shown, pieces, total))), chosen));
}
