// The catalogue: agents with what they can do, their ranks, and why one is none of those who can.

import { at, read } from "./api.js";
import { element, link } from "./dom.js";
import { STATUSES, cell, chip, empty, latency, soft, table, word } from "./words.js";

function success(share) {
  if (share === null || share === undefined) return soft("not measured");
  const kind = share >= 0.99 ? "" : share >= 0.9 ? "warn" : "bad";
  return element("span", {}, `${(share * 100).toFixed(share < 0.9995 ? 1 : 0)} %`,
    element("span", { class: `bar ${kind}` }, element("i", { style: { width: `${Math.round(share * 100)}%` } })));
}

function row(own) {
  const id = `${own.namespace}/${own.agent}`;
  const labels = Object.entries(own.labels).map(([key, value]) => `${key}=${value}`).join(" ");
  const why = [own.why_not, own.health].filter((each) => each).join("; ");
  return [element("tr", { data: { key: `${id}/${own.instance}` } },
    cell(own.rank === null || own.rank === undefined ? soft("–") : String(own.rank), "number"),
    cell(element("span", {}, link(["graph", "agent", id], {}, element("bdi", { class: "strong" }, own.agent)), soft(element("bdi", {}, ` ${own.namespace}`)))),
    cell(element("span", {}, word(own.status, STATUSES[own.status]), why ? element("div", { class: "why" }, why) : null), "reason"),
    cell(own.capabilities.length ? element("span", {}, ...own.capabilities.map(chip)) : soft("none"), "wide"),
    cell(latency(own.latency_us), `number ${own.latency_us === null ? "soft" : ""}`), cell(success(own.success), "number"),
    cell(String(own.in_flight), "number"), cell(labels, "wide soft"), cell(own.locality, "soft"), cell(own.address, "mono soft"))];
}

export const agents = {
  id: "agents", title: "Agents", key: "a", every: 2000,
  read: ({ query }) => read(at("/v1/agents", { capability: query.capability, constraint: query.constraint })),
  controls: () => element("div", { class: "controls" },
    element("input", { type: "search", placeholder: "Filter", "aria-label": "Filter agents", data: { to: "find" } }),
    element("input", { type: "search", placeholder: "Who can: capability", "aria-label": "Capability, as the header agent-capability", data: { to: "capability", wait: "" } }),
    element("input", { type: "search", placeholder: "and: latency<200ms", "aria-label": "Constraint, as the header agent-constraint", data: { to: "constraint", wait: "" } })),
  draw(seen, { query }) {
    const filter = (query.find || "").toLowerCase();
    const fits = (own) => [`${own.namespace}/${own.agent}`, own.capabilities.join(" "), own.status, own.locality,
      ...Object.entries(own.labels).map((pair) => pair.join("="))].join(" ").toLowerCase().includes(filter);
    const rows = [...seen.agents, ...seen.others].filter(fits).map(row);
    const none = filter || query.capability ? empty(["No agent fits."])
      : empty(["No agent is registered.", "An agent registers through its sidecar, which joins with a token:"],
        ["pilotfish token create --agent NAME --namespace NS"]);
    return element("section", { "aria-label": "Catalogue" },
      table("Agents, the best first", [["Rank", "number"], ["Agent"], ["Status"], ["Capabilities"], ["Latency", "number"], ["Success", "number"],
        ["In flight", "number"], ["Labels"], ["Locality"], ["Address"]], rows, none));
  },
};
