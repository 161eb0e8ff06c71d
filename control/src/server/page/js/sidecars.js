// Sidecars, and which version of the documents each serves.

import { read } from "./api.js";
import { element, link, place } from "./dom.js";
import { STATUSES, ago, at, cell, empty, soft, table, tile, until, word } from "./words.js";

function tiles({ status, trust }) {
  const connected = status.sidecars.filter((own) => own.connected);
  const serving = connected.filter((own) => own.serving >= own.rendered).length;
  const refusing = status.sidecars.filter((own) => own.refused).length;
  const away = status.sidecars.length - connected.length;
  const left = trust.issuer.expires - Date.now() / 1000;
  return element("div", { class: "tiles" },
    tile("Sidecars connected", String(connected.length), away ? `${away} away, or at another control plane` : "none away", away ? "warn" : ""),
    tile(`Serving version ${status.documents}`, `${serving} of ${connected.length}`, "of those connected", serving < connected.length ? "warn" : ""),
    tile("Refusing a version", String(refusing), refusing ? "reasons below" : "none refused", refusing ? "bad" : ""),
    tile("Issuer ends", until(trust.issuer.expires), new Date(trust.issuer.expires * 1000).toLocaleDateString(), left < 14 * 86400 ? "bad" : ""));
}

function row(own, { documents }) {
  const step = (version) => cell(String(version), `number ${own.connected && version < own.rendered ? "behind" : ""}`);
  const status = own.connected ? word(own.status, STATUSES[own.status]) : word("away", "bad", "its stream is not open here");
  const cells = [
    cell(element("span", {}, link(["graph", "agent", `${own.namespace}/${own.agent}`], {}, element("bdi", { class: "strong" }, own.agent)), soft(element("bdi", {}, ` ${own.namespace}`)))),
    cell(element("span", {}, status, own.detail ? element("div", { class: "why" }, own.detail) : null), "reason"),
    step(own.rendered), step(own.distributed), step(own.accepted), step(own.serving),
    cell(ago(own.last_contact), "soft", at(own.last_contact)),
    own.certificate_expires ? cell(until(own.certificate_expires), "soft", at(own.certificate_expires)) : cell(""),
    cell(own.address || "calls only", "mono soft"), cell(own.instance.slice(0, 8), "mono soft", own.instance), cell(own.build, "soft"),
  ];
  const key = `${own.namespace}/${own.agent}/${own.instance}`;
  const line = element("tr", { class: own.refused ? "has-note" : null, data: { key } }, ...cells);
  if (!own.refused) return [line];
  const reasons = `refused version ${own.refused.version} (the newest is ${documents}):\n${own.refused.reasons.join("\n")}`;
  return [line, element("tr", { class: "note", data: { key: `${key} note` } },
    element("td", { colspan: cells.length }, element("pre", { class: "reasons" }, reasons)))];
}

export const sidecars = {
  id: "sidecars", title: "Sidecars", key: "s", every: 2000,
  async read() {
    const [status, trust] = await Promise.all([read("/v1/status"), read("/v1/trust")]);
    return { status, trust };
  },
  up: ({ segments }) => (segments.length ? place(["sidecars"]) : null),
  controls: () => element("div", { class: "controls" },
    element("input", { type: "search", placeholder: "Filter", "aria-label": "Filter sidecars", data: { to: "find" } })),
  draw(seen, { query }) {
    const filter = (query.find || "").toLowerCase();
    const fits = (own) => [`${own.namespace}/${own.agent}`, own.instance, own.status, own.build, own.refused ? "refused" : ""]
      .join(" ").toLowerCase().includes(filter);
    const rows = seen.status.sidecars.filter(fits).map((own) => row(own, seen.status));
    const none = filter ? empty(["No sidecar fits the filter."])
      : empty(["No sidecar has joined yet.", "Make a token, and start a sidecar with it:"], ["pilotfish token create --agent NAME --namespace NS"]);
    return element("section", { "aria-label": "Sidecars" }, tiles(seen),
      table("Sidecars", [["Agent"], ["Status"], ["Rendered", "number"], ["Distributed", "number"], ["Accepted", "number"],
        ["Serving", "number"], ["Last contact"], ["Certificate ends"], ["Address"], ["Instance"], ["Build"]], rows, none));
  },
};
