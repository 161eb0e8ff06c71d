// Alerts: what the rules say now.

import { read } from "./api.js";
import { element } from "./dom.js";
import { ago, at, cell, empty, soft, table, word } from "./words.js";

const STATES = { firing: "bad", pending: "warn", inactive: "good" };

export const alerts = {
  id: "alerts", title: "Alerts", key: "!", every: 5000,
  read: () => read("/v1/alerts"),
  controls: () => element("div", { class: "controls" },
    element("input", { type: "search", placeholder: "Filter", "aria-label": "Filter alerts", data: { to: "find" } })),
  draw(seen, { query }) {
    return element("section", { "aria-label": "Alerts" }, element("pre", {}, JSON.stringify(seen)));
  },
};
