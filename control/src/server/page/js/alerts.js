// Alerts: what the rules say now, and the rules.

import { read } from "./api.js";
import { element, link } from "./dom.js";
import { agent, ago, at, cell, empty, soft, table, word } from "./words.js";

const STATES = { firing: "bad", pending: "warn", resolved: "good", inactive: "", disabled: "" };
const SEVERITIES = { critical: "bad", warning: "warn", info: "" };

function alert(own) {
  return [element("tr", { data: { key: `${own.rule} ${own.agent} ${own.state}` } },
    cell(word(own.state, STATES[own.state])), cell(word(own.severity, SEVERITIES[own.severity])),
    cell(link(["graph", "agent", own.agent], {}, agent(own.agent))), cell(own.summary, "wide"),
    cell(`${own.shown} (limit ${own.shown_threshold})`, "number"),
    cell(ago(own.since), "soft", at(own.since)), cell(own.rule, "soft"),
    cell(link(["traces"], { agent: own.agent, error: own.type === "error-rate" ? "1" : "" }, "traces")))];
}

function rule(own) {
  return [element("tr", { data: { key: `rule ${own.name}` } },
    cell(own.default ? element("span", {}, own.name, soft(" there by default")) : link(["documents", "AlertRule", ...own.name.split("/")], {}, own.name)),
    cell(word(own.disabled ? "disabled" : own.state, own.disabled ? "" : STATES[own.state])),
    cell(word(own.severity, SEVERITIES[own.severity])), cell(own.condition, "wide"))];
}

export const alerts = {
  id: "alerts", title: "Alerts", key: "!", every: 5000,
  read: () => read("/v1/alerts"),
  controls: () => element("div", { class: "controls" },
    element("input", { type: "search", placeholder: "Filter", "aria-label": "Filter alerts and rules", data: { to: "find" } })),
  draw(seen, { query }) {
    const filter = (query.find || "").toLowerCase();
    const fits = (...texts) => texts.join(" ").toLowerCase().includes(filter);
    const alerts_ = seen.alerts.filter((own) => fits(own.rule, own.agent, own.state, own.severity, own.summary));
    const rules = seen.rules.filter((own) => fits(own.name, own.type, own.condition, own.state, own.severity));
    const firing = seen.alerts.filter((own) => own.state === "firing").length;
    return element("section", { "aria-label": "Alerts" },
      element("p", { class: "says", role: "status" }, firing ? word(`${firing} firing`, "bad") : word("nothing fires", "good"), " ",
        soft(seen.evaluated ? `evaluated ${ago(seen.evaluated)} by ${seen.control}, from what it hears itself` : "not evaluated yet")),
      table("Alerts", [["State"], ["Severity"], ["Agent"], ["What"], ["Value", "number"], ["Since"], ["Rule"], [""]], alerts_.map(alert),
        empty([filter ? "No alert fits the filter." : "Nothing is pending, fires, or was resolved within 15 minutes."])),
      element("h2", { class: "below" }, "Rules"),
      table("Rules", [["Rule"], ["State"], ["Severity"], ["Condition"]], rules.map(rule),
        empty(["No rule fits. Rules are documents of the kind AlertRule:"], ["pilotfish apply -f examples/alert-rule.yaml"])));
  },
};
