// Placement: machines with their cards, agents with what runs of them, and why the rest does not.

import { at, read } from "./api.js";
import { element, link, place } from "./dom.js";
import { agent, ago, at as moment, cell, cores, count, empty, facts, size, soft, table, tile, word } from "./words.js";

const NODES = { ready: "good", silent: "warn", cordoned: "warn", draining: "warn", lost: "bad" };
const REPLICAS = { ready: "good", running: "", starting: "", leaving: "", stopping: "", waiting: "warn", "crash-loop": "bad", failed: "bad", lost: "bad" };

/** `namespace/agent@region` */
const agentOf = (group) => group.split("@")[0];
const regionOf = (group) => group.split("@")[1] || "";
const ails = (own) => Boolean(own.reason) || ["waiting", "crash-loop", "failed", "lost"].includes(own.status);
const taken = (gpu) => gpu.memory[0] > 0 || gpu.replicas.length > 0;
const model = (gpu) => gpu.model.replace(/^NVIDIA /, "");
const percent = (part, all) => (all > 0 ? Math.min(100, Math.round((part / all) * 100)) : 0);

/** A bar: given out, of all. What it says is in words too. */
function bar([given, all], text) {
  return element("span", { class: "gauge" }, element("i", { style: { width: `${percent(given, all)}%` } }), element("b", {}, text));
}

function card(gpu) {
  const says = gpu.failed ? `failed: ${gpu.failed}` : taken(gpu) ? `${size(gpu.memory[0])} of ${size(gpu.memory[1])} given out, ${size(gpu.used)} in use, busy ${gpu.busy_percent} %` : "free";
  const label = `${gpu.id}, ${model(gpu)}, ${says}`;
  return element("span", { class: `card ${gpu.failed ? "failed" : ""}`, role: "img", "aria-label": label, title: label },
    element("i", { class: "given", style: { width: `${percent(gpu.memory[0], gpu.memory[1])}%` } }),
    element("i", { class: "used", style: { width: `${percent(gpu.used, gpu.memory[1])}%` } }), gpu.failed ? element("b", {}, "×") : null);
}

/** Free cards of all, by model. */
function cards(gpus) {
  const models = new Map();
  for (const gpu of gpus) {
    const own = models.get(model(gpu)) || { free: 0, all: 0, failed: 0 };
    own.all += 1;
    own.failed += gpu.failed ? 1 : 0;
    own.free += !gpu.failed && !taken(gpu) ? 1 : 0;
    models.set(model(gpu), own);
  }
  return [...models].map(([name, own]) => `${own.free} of ${own.all} ${name} free${own.failed ? `, ${own.failed} failed` : ""}`).join("; ");
}

const heard = (own) => (own.heard_ms === null || own.heard_ms === undefined ? "" : own.heard_ms < 2000 ? "now" : `${Math.round(own.heard_ms / 1000)} s ago`);

function node(own, { query }) {
  const wrong = [...own.troubles, ...own.gpus.filter((gpu) => gpu.failed).map((gpu) => `${gpu.id} failed: ${gpu.failed}`)];
  return [element("tr", { data: { key: `node ${own.name}` } },
    cell(element("span", {}, link(["placement", "node", own.name], query, element("bdi", { class: "strong" }, own.name)), soft(` ${own.locality || ""}`))),
    cell(element("span", {}, word(own.status, NODES[own.status]), ...wrong.map((why) => element("div", { class: "why" }, why))), "reason"),
    cell(bar(own.cpu_milli, `${cores(own.cpu_milli[0])} of ${cores(own.cpu_milli[1])}`)),
    cell(bar(own.memory, `${size(own.memory[0])} of ${size(own.memory[1])}`)),
    cell(own.gpus.length ? element("span", {}, element("span", { class: "cards" }, ...own.gpus.map(card)), element("div", { class: "why" }, cards(own.gpus))) : soft("none"), "wide"),
    cell(String(own.replicas), "number"), cell(heard(own), "soft"))];
}

function group(own, { query }) {
  const short = (number) => cell(String(number), `number ${number < own.wanted ? "behind" : ""}`);
  return [element("tr", { data: { key: `group ${own.group}` } },
    cell(link(["placement", "agent", agentOf(own.group)], query, agent(agentOf(own.group)))), cell(regionOf(own.group) || soft("any")),
    cell(own.strategy.replaceAll("_", " "), "soft"), cell(String(own.wanted), "number"), short(own.placed), short(own.ready),
    cell(own.reason || "", "reason"), cell(own.cluster, "soft"))];
}

function replica(own, { query }) {
  return [element("tr", { data: { key: `replica ${own.id}` } },
    cell(link(["placement", "agent", agentOf(own.group)], query, element("bdi", {}, own.id)), "wide"), cell(word(own.status, REPLICAS[own.status])),
    cell(own.node ? link(["placement", "node", own.node], query, element("bdi", {}, own.node)) : soft("none")),
    cell(own.reason || "", "reason"), cell(String(own.restarts), "number"),
    cell(own.since ? ago(own.since) : "", "soft", own.since ? moment(own.since) : undefined))];
}

const use = (own) => (own.usage ? `${cores(own.usage.cpu_milli)} cores, ${size(own.usage.memory)}${own.usage.gpu_memory ? `, GPU ${size(own.usage.gpu_memory)} at ${own.usage.gpu_percent} %` : ""}` : "not measured");

/** Replicas in the panel, where there is little room. */
function listed(label, some, title) {
  const rows = some.map((own) => [element("tr", { data: { key: own.id } },
    cell(element("span", {}, title(own), element("div", { class: "why" }, own.reason || use(own))), "wide"), cell(word(own.status, REPLICAS[own.status])))]);
  return table(label, [["Replica"], ["Status"]], rows, soft("none"));
}

/** Why an agent is where it is: as `pilotfish placement explain` says it. */
function explained(found, route) {
  const sum = (of) => found.groups.reduce((all, own) => all + own[of], 0);
  const missing = sum("wanted") - sum("placed");
  const obstacles = found.obstacles.map(([nodes, why]) => [element("tr", {}, cell(String(nodes), "number"), cell(why, "wide"))]);
  return [element("h2", {}, agent(found.agent)),
    element("p", {}, `${sum("placed")} of ${sum("wanted")} replicas have a place, ${sum("ready")} ready.`),
    found.need ? element("p", {}, `Each needs ${found.need}.`) : null,
    ...found.groups.filter((own) => own.reason).map((own) => element("p", { class: "why" }, regionOf(own.group) ? `${regionOf(own.group)}: ` : "", own.reason)),
    missing > 0 ? element("div", {}, element("h3", {}, `${count(missing, "replica")} without a place`),
      table("Why nodes are not fit", [["Nodes", "number"], ["Why not"]], obstacles, soft("No node has joined."))) : null,
    found.hint ? element("p", { class: "hint" }, element("strong", {}, "What would help: "), found.hint) : null,
    element("h3", {}, "Replicas"),
    listed(`Replicas of ${found.agent}`, found.replicas, (own) => element("span", {}, element("bdi", { class: "mono" }, own.id.split("/").at(-1)),
      own.node ? element("span", {}, " on ", link(["placement", "node", own.node], route.query, element("bdi", {}, own.node))) : null)),
    element("p", { class: "links" }, link(["graph", "agent", found.agent], {}, "In the graph"), link(["traces"], { agent: found.agent }, "Its traces"))];
}

function machine(own, seen, route) {
  const here = seen.view.replicas.filter((each) => each.node === own.name);
  const labels = Object.entries(own.labels).map(([key, value]) => `${key}=${value}`).join(" ");
  const gpus = own.gpus.map((gpu) => [element("tr", {}, cell(element("span", {}, element("bdi", { class: "mono" }, gpu.id),
    element("div", { class: "why" }, [model(gpu), gpu.pool, gpu.slices.length ? count(gpu.slices.length, "slice") : ""].filter((each) => each).join(" · "))), "wide"), cell(card(gpu)),
  cell(gpu.failed ? word("failed", "bad") : `${size(gpu.memory[0])} of ${size(gpu.memory[1])}`, "number"))]);
  return [element("h2", {}, element("bdi", {}, own.name)), element("p", {}, word(own.status, NODES[own.status]), " ", soft(heard(own) ? `heard ${heard(own)}` : "")),
    ...own.troubles.map((why) => element("pre", { class: "reasons" }, why)),
    facts(["Locality", own.locality || "none"], ["Cores", `${cores(own.cpu_milli[0])} of ${cores(own.cpu_milli[1])} given out`], ["Memory", `${size(own.memory[0])} of ${size(own.memory[1])} given out`],
      ["Replicas", own.most_replicas ? `${own.replicas} of at most ${own.most_replicas}` : String(own.replicas)], labels && ["Labels", labels], own.taints.length && ["Taints", own.taints.join(" ")]),
    gpus.length ? element("div", {}, element("h3", {}, "GPUs"), table(`GPUs of ${own.name}`, [["GPU"], [""], ["Given out", "number"]], gpus, null)) : null,
    element("h3", {}, "Replicas"), listed(`Replicas on ${own.name}`, here, (each) => link(["placement", "agent", agentOf(each.group)], route.query, agent(agentOf(each.group))))];
}

function details(seen, route) {
  const [what, name] = route.segments;
  if (!what) return null;
  const close = link(["placement"], route.query, "Close ", element("kbd", {}, "Esc"));
  const own = what === "node" && seen.view.nodes.find((each) => each.name === name);
  const says = own ? machine(own, seen, route)
    : what === "agent" && seen.explained ? explained(seen.explained, route)
      : [element("p", {}, what === "agent" ? seen.why || "This agent is not here any more." : "This node is not here any more.")];
  return element("aside", { "aria-label": `Details of ${name}` }, close, ...says);
}

function tiles({ nodes, agents }, ill) {
  const gpus = nodes.flatMap((own) => own.gpus);
  const [fit, broken] = [nodes.filter((own) => own.status === "ready").length, gpus.filter((gpu) => gpu.failed).length];
  const sum = (of) => agents.reduce((all, own) => all + own[of], 0);
  const waiting = sum("wanted") - sum("placed");
  return element("div", { class: "tiles" },
    tile("Nodes ready", `${fit} of ${nodes.length}`, fit < nodes.length ? "others below" : "all", fit < nodes.length ? "warn" : ""),
    tile("GPUs used", `${gpus.filter(taken).length} of ${gpus.length}`, broken ? `${broken} failed` : "none failed", broken ? "bad" : ""),
    tile("Replicas ready", `${sum("ready")} of ${sum("wanted")}`, `${sum("placed")} have a place`, sum("ready") < sum("wanted") ? "warn" : ""),
    tile("Without a place", String(waiting), ill ? `${count(ill, "replica")} to look at` : "nothing waits or crashes", waiting ? "bad" : ill ? "warn" : ""));
}

const NONE = () => empty(["Nothing is placed here yet.", "Make a token for a machine, start a node there, and apply an AgentCluster:"],
  ["pilotfish token create --node NAME", "pilotfish node --control https://HOST:15012 --name NAME --token-file FILE", "pilotfish apply -f agents.yaml"]);

export const placement = {
  id: "placement", title: "Placement", key: "n", every: 3000,
  async read({ segments: [what, name] }) {
    const asked = what === "agent" ? read(at("/v1/placement/explain", { agent: name })).then((own) => ({ explained: own }), (error) => {
      // Of an agent that is gone the rest is shown all the same.
      if (!error.status) throw error;
      return { why: error.message };
    }) : {};
    const [view, more] = await Promise.all([read("/v1/placement"), asked]);
    return { view, ...more };
  },
  fresh: ({ segments: [what] }) => what === "agent",
  up: ({ segments, query }) => (segments.length ? place(["placement"], query) : null),
  controls: () => element("div", { class: "controls" },
    element("input", { type: "search", placeholder: "Filter", "aria-label": "Filter nodes, agents and replicas", data: { to: "find" } })),
  draw(seen, route) {
    const filter = (route.query.find || "").toLowerCase();
    const fits = (...texts) => texts.join(" ").toLowerCase().includes(filter);
    const { view } = seen;
    if (!view.nodes.length && !view.agents.length) return element("section", { "aria-label": "Placement" }, NONE());
    const nodes = view.nodes.filter((own) => fits(own.name, own.status, own.locality, ...own.gpus.map((gpu) => `${gpu.model} ${gpu.pool || ""} ${gpu.failed ? "failed" : ""}`)));
    const agents = view.agents.filter((own) => fits(own.group, own.cluster, own.strategy, own.reason || ""));
    const every = view.replicas.filter(ails);
    const ill = every.filter((own) => fits(own.id, own.status, own.node || "", own.reason || ""));
    const none = (what) => empty([filter ? `No ${what} fits the filter.` : `There is no ${what}.`]);
    const main = element("div", { class: "most" },
      table("Agents", [["Agent"], ["Region"], ["Strategy"], ["Wanted", "number"], ["Placed", "number"], ["Ready", "number"], ["Why not"], ["Cluster"]],
        agents.map((own) => group(own, route)), none("agent")),
      ill.length ? element("div", { data: { key: "ill" } }, element("h2", { class: "below" }, "Replicas that wait or fail"),
        table("Replicas that wait or fail", [["Replica"], ["Status"], ["Node"], ["Why"], ["Restarts", "number"], ["Since"]], ill.map((own) => replica(own, route)), null)) : null,
      element("h2", { class: "below", data: { key: "nodes" } }, "Nodes"),
      element("p", { class: "legend" }, element("i", { class: "given" }), "given out", element("i", { class: "used" }), "of that in use", element("i", { class: "broken" }), "failed"),
      table("Nodes", [["Node"], ["Status"], ["Cores given out"], ["Memory given out"], ["GPUs"], ["Replicas", "number"], ["Heard"]], nodes.map((own) => node(own, route)), none("node")));
    return element("section", { "aria-label": "Placement" }, tiles(view, every.length),
      ...view.notes.map((note) => element("p", { class: "says" }, word("note", "warn"), ` ${note}`)),
      element("div", { class: "beside" }, main, details(seen, route)));
  },
};
