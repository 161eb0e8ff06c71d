// The live graph: who calls whom, how often, how well, as SVG or as a table.

import { at, read } from "./api.js";
import { element, link, place, svg, visible } from "./dom.js";
import { SIZE, curve, labels, layered } from "./layout.js";
import { STATUSES, agent, badness, cell, chip, count, empty, facts, quantile, rate, share, soft, table, word } from "./words.js";

const WINDOWS = ["1m", "5m", "15m", "1h"];
/** Calls that were seen in the last minutes keep their place, so that the graph does not jump when they pause. */
const KEPT = 5 * 60 * 1000;
const MOST_NODES = 120;
const MOST_EDGES = 500;

const remembered = new Map();
let drawn = null;

const keyOf = (edge) => `${edge.from}\n${edge.to}`;
const QUIET = { calls: 0, errors: 0, rate: 0, error_share: 0, mean_us: null, p50_us: null, p95_us: null, p99_us: null };

/** What is shown: calls of the window and those that paused, and the agents at their ends. */
function gathered(seen, query) {
  const now = Date.now();
  for (const edge of seen.edges) remembered.set(keyOf(edge), { now, edge });
  for (const [key, { now: then }] of remembered) if (now - then > KEPT) remembered.delete(key);
  const current = new Set(seen.edges.map(keyOf));
  const paused = [...remembered].filter(([key]) => !current.has(key))
    .map(([, { edge }]) => ({ ...edge, traffic: QUIET, capabilities: [] }));
  const known = new Map(seen.nodes.map((node) => [node.id, node]));
  let edges = [...seen.edges, ...paused];
  for (const edge of edges) {
    for (const id of [edge.from, edge.to]) {
      if (!known.has(id)) known.set(id, { id, registered: false, statuses: {}, capabilities: [], in_flight: 0, incoming: QUIET, outgoing: QUIET });
    }
  }
  const filter = (query.find || "").toLowerCase();
  if (filter) {
    const fits = (id) => id.toLowerCase().includes(filter) || known.get(id).capabilities.some((own) => own.toLowerCase().includes(filter));
    edges = edges.filter((edge) => fits(edge.from) || fits(edge.to));
    const ends = new Set(edges.flatMap((edge) => [edge.from, edge.to]));
    for (const id of known.keys()) if (!ends.has(id) && !fits(id)) known.delete(id);
  }
  const busy = (node) => node.incoming.calls + node.outgoing.calls;
  let nodes = [...known.values()];
  const left = Math.max(0, nodes.length - MOST_NODES);
  if (left) {
    nodes = nodes.sort((a, b) => busy(b) - busy(a)).slice(0, MOST_NODES);
    const some = new Set(nodes.map((node) => node.id));
    edges = edges.filter((edge) => some.has(edge.from) && some.has(edge.to));
  }
  const unseen = Math.max(0, edges.length - MOST_EDGES);
  if (unseen) edges = edges.sort((a, b) => b.traffic.calls - a.traffic.calls).slice(0, MOST_EDGES);
  nodes.sort((a, b) => (a.id < b.id ? -1 : 1));
  edges.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
  return { nodes, edges, left, unseen, known };
}

/** The layout changes only when agents or calls come or go. */
function laid({ nodes, edges }) {
  const joined = new Set(edges.flatMap((edge) => [edge.from, edge.to]));
  const ids = nodes.map((node) => node.id).filter((id) => joined.has(id));
  const idle = nodes.map((node) => node.id).filter((id) => !joined.has(id));
  const signature = JSON.stringify([ids, idle, edges.map(keyOf)]);
  if (drawn?.signature === signature) return drawn;
  const result = layered(ids, edges.map((edge) => [edge.from, edge.to]), drawn);
  if (!ids.length) result.height = 0;
  const columns = Math.max(3, Math.floor((result.width + 20) / (SIZE.width + 20)));
  const top = result.height ? result.height + 34 : 34;
  idle.forEach((id, index) => result.places.set(id, {
    x: 10 + (index % columns) * (SIZE.width + 20),
    y: top + SIZE.height / 2 + Math.floor(index / columns) * (SIZE.height + 16),
  }));
  if (idle.length) {
    result.idle = top;
    result.width = Math.max(result.width, 20 + Math.min(columns, idle.length) * (SIZE.width + 20));
    result.height = top + Math.ceil(idle.length / columns) * (SIZE.height + 16);
  }
  drawn = { ...result, signature };
  return drawn;
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const named = (id) => (id.includes("/") ? [id.slice(id.indexOf("/") + 1), id.slice(0, id.indexOf("/"))] : [id, ""]);

/** The status that has to be told of an agent, and how bad it is. */
function condition(node) {
  if (!node.registered) {
    if (node.id === "(others)") return ["many", ""];
    return node.id.includes("/") ? ["not registered", "warn"] : ["outside the mesh", ""];
  }
  const all = Object.values(node.statuses).reduce((sum, own) => sum + own, 0);
  const ready = node.statuses.ready || 0;
  if (ready === all) return [all === 1 ? "ready" : `${all} ready`, "good"];
  if (ready) return [`${ready} of ${all} ready`, "warn"];
  const [worst] = Object.keys(node.statuses);
  return [all === 1 ? worst : `${all} ${worst}`, worst === "degraded" || worst === "draining" ? "warn" : worst === "initializing" ? "" : "bad"];
}

function node_(node, spot, route) {
  const [name, space] = named(node.id);
  const [text, kind] = condition(node);
  const chosen = route.segments[0] === "agent" && route.segments[1] === node.id;
  const said = `${name}${space ? `, namespace ${space}` : ""}: ${text}; ${rate(node.incoming.rate)} in, ${rate(node.outgoing.rate)} out, ${share(node.incoming.error_share)} errors`;
  const errors = node.incoming.error_share >= 0.01;
  const lower = errors ? `▲ ${share(node.incoming.error_share)} errors` : `in ${rate(node.incoming.rate)}  out ${rate(node.outgoing.rate)}`;
  return svg("a", {
    href: chosen ? place(["graph"], route.query) : place(["graph", "agent", node.id], route.query), "aria-label": said,
    class: `node ${kind} ${node.registered ? "" : "foreign"} ${chosen ? "chosen" : ""}`, "aria-current": chosen,
    data: { key: `node ${node.id}`, node: node.id }, style: { transform: `translate(${spot.x}px, ${spot.y - SIZE.height / 2}px)` },
  },
  svg("title", {}, said),
  svg("rect", { class: "box", width: SIZE.width, height: SIZE.height, rx: 8 }),
  svg("rect", { class: "mark", x: 0.5, y: 9, width: 4, height: SIZE.height - 18, rx: 2 }),
  svg("text", { class: "name", x: 14, y: 20 }, short(visible(name), 20)),
  svg("text", { class: "small", x: 14, y: 35 }, short(`${space ? `${visible(space)} · ` : ""}${text}`, 26)),
  svg("text", { class: `small ${errors ? badness(node.incoming.error_share) : ""}`, x: 14, y: 49 }, lower));
}

function edge_(edge, layout, spot, route) {
  const { traffic } = edge;
  const kind = traffic.calls ? badness(traffic.error_share) : "quiet";
  const chosen = route.segments[0] === "call" && route.segments[1] === edge.from && route.segments[2] === edge.to;
  const said = traffic.calls
    ? `${edge.from} calls ${edge.to}: ${rate(traffic.rate)}, ${share(traffic.error_share)} errors, p95 ${quantile(traffic.p95_us)}`
    : `${edge.from} called ${edge.to}, no calls in this window`;
  const points = layout.ways.get(keyOf(edge));
  const from = layout.places.get(edge.from);
  const way = points ? curve(points)
    : `M${from.x + SIZE.width - 46} ${from.y - SIZE.height / 2}c0 -24 34 -24 34 0`;
  const texts = line(traffic);
  const wide = Math.max(...texts.map(([text]) => text.length)) * 6.2 + 8;
  return svg("a", {
    href: chosen ? place(["graph"], route.query) : place(["graph", "call", edge.from, edge.to], route.query), "aria-label": said,
    class: `edge ${kind} ${chosen ? "chosen" : ""}`, data: { key: `edge ${keyOf(edge)}`, edge: keyOf(edge) },
  },
  svg("title", {}, said),
  svg("path", { class: "reach", d: way }),
  svg("path", { class: "way", d: way, "marker-end": `url(#arrow-${kind})`, style: { strokeWidth: `${1.2 + Math.min(3.5, Math.log10(1 + traffic.rate * 6))}px` } }),
  spot ? svg("g", { style: { transform: `translate(${spot[0]}px, ${spot[1]}px)` }, class: "label" },
    svg("rect", { x: -wide / 2, y: -texts.length * 7 - 1, width: wide, height: texts.length * 14 + 2, rx: 4 }),
    ...texts.map(([text, bad], index) => svg("text", { class: bad, "text-anchor": "middle", y: (index - (texts.length - 1) / 2) * 14 + 4 }, text))) : null);
}

/** The lines of a label: errors have a sign and a number, not only a colour. */
function line(traffic) {
  if (!traffic.calls) return [["no calls", ""]];
  const all = [[rate(traffic.rate), ""], [`p95 ${quantile(traffic.p95_us)}`, ""]];
  if (traffic.errors) all.push([`▲ ${share(traffic.error_share)} errors`, badness(traffic.error_share)]);
  return all;
}

function picture(shown, route) {
  const layout = laid(shown);
  const wanted = shown.edges.filter((edge) => layout.ways.has(keyOf(edge))).map((edge) => {
    const texts = line(edge.traffic);
    const points = layout.ways.get(keyOf(edge));
    const start = points[0][0] < points.at(-1)[0] ? points.slice(0, 2) : points.slice(-2);
    return [keyOf(edge), start, Math.max(...texts.map(([text]) => text.length)) * 6.2 + 8, texts.length * 14 + 2];
  });
  const spots = labels(wanted);
  const arrow = (kind) => svg("marker", { id: `arrow-${kind}`, class: `arrow ${kind}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" },
    svg("path", { d: "M0 0L8 4L0 8z" }));
  return element("div", { class: "scroll graph" }, svg("svg", {
    style: { width: "100%", maxWidth: `${layout.width}px`, minWidth: `${Math.round(layout.width * 0.8)}px` }, viewBox: `0 0 ${layout.width} ${layout.height}`, role: "group",
    "aria-label": `${count(shown.nodes.length, "agent")}, ${count(shown.edges.length, "connection")}`,
  },
  svg("defs", { data: { key: "defs" } }, ...["good", "warn", "bad", "quiet"].map(arrow)),
  layout.idle ? svg("text", { class: "small", x: 10, y: layout.idle - 10, data: { key: "idle" } }, "No calls in this window") : null,
  ...shown.edges.map((edge) => edge_(edge, layout, spots.get(keyOf(edge)), route)),
  ...shown.nodes.map((node) => node_(node, layout.places.get(node.id), route))));
}

function calls(label, edges, route, other) {
  const rows = edges.map((edge) => [element("tr", { data: { key: keyOf(edge) } },
    ...(other === "both" ? [cell(link(["graph", "call", edge.from, edge.to], route.query, agent(edge.from))), cell(agent(edge.to))]
      : [cell(link(["graph", "call", edge.from, edge.to], route.query, agent(edge[other])))]),
    cell(rate(edge.traffic.rate), "number"), cell(failed(edge.traffic), "number"), cell(quantile(edge.traffic.p95_us), "number"))]);
  const heads = other === "both" ? [["Caller"], ["Callee"]] : [[other === "from" ? "Caller" : "Callee"]];
  return table(label, [...heads, ["Rate", "number"], ["Errors", "number"], ["p95", "number"]], rows, soft("none"));
}

const failed = (traffic) => (traffic.errors ? element("span", { class: `errors ${badness(traffic.error_share)}` }, `▲ ${share(traffic.error_share)}`) : "0 %");

const numbers = (traffic) => [["Rate", rate(traffic.rate)], ["Calls", traffic.calls.toLocaleString("en")], ["Errors", failed(traffic)],
  ["Mean", quantile(traffic.mean_us)], ["p50", quantile(traffic.p50_us)], ["p95", quantile(traffic.p95_us)], ["p99", quantile(traffic.p99_us)]];

function details(shown, route) {
  const [what, first, second] = route.segments;
  const close = link(["graph"], route.query, "Close ", element("kbd", {}, "Esc"));
  if (what === "agent") {
    const node = shown.known.get(first);
    if (!node) return element("aside", { "aria-label": "Details" }, close, element("p", {}, "This agent is not here any more."));
    const [text, kind] = condition(node);
    return element("aside", { "aria-label": `Details of ${first}` }, close, element("h2", {}, agent(first)),
      element("p", {}, word(text, kind), " ", soft(`${count(node.in_flight, "call")} in flight`)),
      Object.keys(node.statuses).length > 1 ? element("p", {}, ...Object.entries(node.statuses).map(([status, all]) => word(`${all} ${status}`, STATUSES[status]))) : null,
      node.capabilities.length ? element("p", {}, ...node.capabilities.map(chip)) : null,
      element("h3", {}, "Called by"), calls(`Callers of ${first}`, shown.edges.filter((edge) => edge.to === first), route, "from"),
      element("h3", {}, "Calls"), calls(`Calls of ${first}`, shown.edges.filter((edge) => edge.from === first), route, "to"),
      element("p", { class: "links" }, link(["traces"], { agent: first }, "Its traces"), link(["traces"], { agent: first, error: "1" }, "with errors"),
        node.registered ? link(["agents"], { find: first }, "In the catalogue") : null,
        link(["live"], { agent: first }, "Live calls")));
  }
  if (what === "call") {
    const edge = shown.edges.find((own) => own.from === first && own.to === second);
    if (!edge) return element("aside", { "aria-label": "Details" }, close, element("p", {}, "No such calls in this window."));
    const named_ = edge.capabilities.filter((own) => own.capability !== null);
    const rows = edge.capabilities.map((own) => [element("tr", {}, cell(own.capability === null ? soft("by host") : own.capability, "wide"),
      cell(rate(own.traffic.rate), "number"), cell(failed(own.traffic), "number"), cell(quantile(own.traffic.p95_us), "number"))]);
    return element("aside", { "aria-label": `Calls from ${first} to ${second}` }, close,
      element("h2", {}, link(["graph", "agent", first], route.query, agent(first)), " → ", link(["graph", "agent", second], route.query, agent(second))),
      facts(...numbers(edge.traffic)),
      named_.length ? element("div", {}, element("h3", {}, "By capability"), table("By capability", [["Capability"], ["Rate", "number"], ["Errors", "number"], ["p95", "number"]], rows, null)) : null,
      element("p", { class: "links" }, link(["traces"], { agent: first }, "Traces of the caller"), link(["traces"], { agent: first, error: "1" }, "with errors"),
        link(["live"], { agent: first }, "Live calls")));
  }
  return null;
}

function summary(seen, shown) {
  const away = seen.sidecars - seen.sidecars_here;
  const agents = shown.nodes.filter((node) => node.registered).length;
  const others = shown.nodes.length - agents;
  const says = [`${count(agents, "agent")}${others ? ` and ${count(others, "other")}` : ""}, ${count(shown.edges.length, "connection")}`,
    `the last ${Math.round(seen.window_seconds)} s`];
  if (shown.unseen) says.push(`${shown.unseen} more connections with fewer calls: use the filter`);
  if (shown.left) says.push(`${shown.left} more with fewer calls: use the filter`);
  if (away) says.push(`${count(away, "sidecar")} of ${seen.sidecars} not connected to this control plane: their calls are known to others`);
  return element("p", { class: "soft says" }, says.join(" · "));
}

export const graph = {
  id: "graph", title: "Graph", key: "g", every: 2500,
  read: (route) => read(at("/v1/graph", { window: WINDOWS.includes(route.query.window) ? route.query.window : "1m" })),
  up: (route) => (route.segments.length ? place(["graph"], route.query) : null),
  controls: () => element("div", { class: "controls" },
    element("input", { type: "search", placeholder: "Agent or capability", "aria-label": "Show agents and their neighbours", data: { to: "find" } }),
    element("label", {}, "Window ", element("select", { data: { to: "window" } }, ...WINDOWS.map((each) => element("option", { value: each }, each)))),
    element("label", {}, "As ", element("select", { data: { to: "as" } }, element("option", { value: "" }, "graph"), element("option", { value: "table" }, "table")))),
  draw(seen, route) {
    const shown = gathered(seen, route.query);
    if (!shown.nodes.length) {
      return route.query.find ? empty(["No agent fits the filter."])
        : empty(["No agent has joined the mesh yet.", "Make a token, and start a sidecar with it beside the agent:"],
          ["pilotfish token create --agent NAME --namespace NS", "pilotfish-proxy --control https://HOST:15012 --agent NAME --namespace NS --token-file FILE --app 127.0.0.1:PORT"]);
    }
    const hint = seen.edges.length ? null : element("p", { class: "soft says" }, "No calls in this window. Agents call through their sidecar: ",
      element("code", {}, "curl -H 'agent-capability: NAME' http://127.0.0.1:15001/"));
    const main = route.query.as === "table" ? calls("Calls between agents", shown.edges, route, "both") : picture(shown, route);
    return element("section", { "aria-label": "Service graph" }, summary(seen, shown), hint,
      element("div", { class: "beside" }, element("div", { class: "most" }, main), details(shown, route)));
  },
  keydown,
};

/** Arrows go along calls: right to the call, then to who is called; up and down to the next beside it. */
function keydown(event) {
  if (!event.key.startsWith("Arrow")) return false;
  const all = [...document.querySelectorAll("svg a.node, svg a.edge")];
  if (!all.length) return false;
  const own = document.activeElement;
  const nodes = all.filter((each) => each.dataset.node !== undefined);
  const edges = all.filter((each) => each.dataset.edge !== undefined);
  if (!all.includes(own)) {
    if (own?.closest("aside, table")) return false;
    (nodes[0] || all[0]).focus();
    return true;
  }
  const middle = (each) => {
    const box = (each.querySelector(".label") || each).getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const [ownX, ownY] = middle(own);
  const nearest = (some, far) => some.map((each) => [far(...middle(each)), each]).filter(([value]) => value !== null)
    .sort((a, b) => a[0] - b[0])[0]?.[1];
  const { node, edge } = own.dataset;
  const right = event.key === "ArrowRight";
  let next;
  if (right || event.key === "ArrowLeft") {
    if (node !== undefined) {
      const mine = edges.filter((each) => each.dataset.edge.split("\n")[right ? 0 : 1] === node);
      next = nearest(mine, (x, y) => Math.abs(y - ownY) + Math.abs(x - ownX) / 10);
    } else {
      const end = edge.split("\n")[right ? 1 : 0];
      next = nodes.find((each) => each.dataset.node === end);
    }
  } else {
    const down = event.key === "ArrowDown";
    const ahead = (x, y) => ((down ? y - ownY : ownY - y) > 1 ? Math.abs(y - ownY) + Math.abs(x - ownX) * 2 : null);
    next = nearest(node !== undefined ? nodes : edges, ahead);
  }
  next?.focus();
  return true;
}
