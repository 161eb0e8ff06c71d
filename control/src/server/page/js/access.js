// Who may call whom: every agent with every agent, who is held, and the newest refusals. A cell's place says why.

import { at, read } from "./api.js";
import { element, link, place } from "./dom.js";
import { agent, ago, at as moment, cell, count, empty, facts, soft, table, tile, until, word } from "./words.js";

const CELLS = {
  yes: ["good", "yes", "may call, whatever it asks for"],
  no: ["", "no", "every call is refused"],
  some: ["warn", "some", "it hangs on path, method, tool, header, token or address"],
  ask: ["warn", "ask", "an external authorizer is asked"],
  held: ["bad", "held", "one of the two is quarantined"],
};
// More are told of in words: `pilotfish authz matrix` has all of them.
const MOST = 40;
// With more columns than these, their names stand upright.
const FEW = 8;

const asked = (query) => ({ method: query.method, path: query.path, tool: query.tool });
const short = (id) => id.slice(id.indexOf("/") + 1);
/** What is asked about, as a person says it: without any of it a cell is explained for `GET /`. */
const call = ({ method, path, tool }) => (tool ? `the tool ${tool} by ${method || "POST"} ${path || "/mcp"}` : `${method || "GET"} ${path || "/"}`);
/** What is missing is shown as missing: an older control plane, or a store that is away. */
const perhaps = (promise) => promise.catch((error) => {
  if (!error.status) throw error;
  return null;
});

function grid({ callers, callees, rows }, { query, segments }) {
  const shown = callers.map((name, index) => [name, rows[index]]).slice(0, MOST);
  const columns = callees.map((name, index) => [name, index]).slice(0, MOST);
  // The namespace only where two have the same name otherwise.
  const same = (name) => columns.filter(([other]) => short(other) === short(name)).length > 1;
  const head = element("tr", {}, element("th", { scope: "col" }, "Caller"),
    ...columns.map(([name]) => element("th", { scope: "col", title: name }, element("bdi", {}, same(name) ? name : short(name)))));
  const body = shown.map(([caller, row]) => element("tr", { data: { key: `caller ${caller}` } }, element("th", { scope: "row" }, agent(caller)),
    ...columns.map(([callee, index]) => {
      const [kind, text, why] = CELLS[row[index]] || ["", row[index], ""];
      const here = segments[0] === caller && segments[1] === callee;
      const label = `${caller} to ${callee}: ${text}, ${why}`;
      return element("td", { class: here ? "chosen" : "" },
        element("a", { href: place(["access", caller, callee], query), "aria-label": label, title: label, class: `word ${kind}`.trim(), "aria-current": here ? "true" : null }, text));
    })));
  return element("div", { class: "scroll" }, element("table", { "aria-label": "Who may call whom", class: columns.length > FEW ? "matrix many" : "matrix" }, element("thead", {}, head), element("tbody", {}, ...body)));
}

function hold(own) {
  const restrict = own.hold.restrict;
  return [element("tr", { data: { key: `held ${own.agent}` } }, cell(agent(own.agent)),
    cell(restrict ? element("span", {}, word("restricted", "warn"), ` to ${restrict.join(", ")}`) : word("quarantined", "bad"), "wide"),
    cell(own.why || "", "reason"), cell(own.by || "", "soft"), cell(own.until ? until(own.until) : "until released", "soft"))];
}

function refusal(row) {
  const own = row.record || row;
  const seconds = own.time_ns / 1e9;
  return [element("tr", { data: { key: `refusal ${own.agent} ${own.seq}` } }, cell(ago(seconds), "soft", moment(seconds)), cell(own.caller || "", "wide"), cell(agent(own.agent || "")),
    cell(`${own.action || ""}${own.direction === "outbound" && own.host ? ` to ${own.host}` : ""}`, "wide"), cell(word(own.reason || own.outcome || "", "bad")), cell(own.policy || "", "wide"))];
}

function policy(own) {
  const says = own.broken ? `cannot be enforced: ${own.broken}` : own.rule ? `rule ${own.rule} matches` : own.near ? `rule ${own.near[0]} nearly: ${own.near[1].join("; ")}` : "it has no rules";
  return [element("tr", {}, cell(element("span", {}, element("bdi", { class: "strong" }, own.policy), soft(` ${own.action}${own.dry_run ? ", dry run" : ""}`), element("div", { class: "why" }, says)), "wide"))];
}

/** `desk/readers no rule` is what the log says; a person reads a sentence. */
const by = (decided) => (decided.endsWith(" no rule") ? `no rule of ${decided.slice(0, -" no rule".length)} matches` : decided);

/** Why the one may call the other, or may not: as `pilotfish authz explain` says it. */
function details(seen, { query, segments: [caller, callee] }) {
  if (!caller || !callee) return null;
  const close = link(["access"], query, "Close ", element("kbd", {}, "Esc"));
  const found = seen.explained;
  if (!found) return element("aside", { "aria-label": "Why" }, close, element("p", {}, seen.why || "This agent is not here any more."));
  return element("aside", { "aria-label": `Why ${caller} may call ${callee} or not` }, close,
    element("h2", {}, agent(caller), " to ", agent(callee)),
    element("p", {}, found.allowed ? word("allowed", "good") : word(`${found.status} ${found.reason}`, "bad"), soft(` ${call(query)}`)),
    found.detail ? element("p", {}, found.detail) : null,
    facts(found.by ? ["By", by(found.by)] : ["By", found.policies?.length ? "no ALLOW policy is for it" : "no policy is for it"], found.written && ["Written", found.written],
      found.permission && ["Needs", `${found.permission} on ${found.resource || "?"}`], found.class && ["Class", `${found.class}; the caller may see ${found.clearance || "nothing"}`],
      found.asks && ["Asks", found.asks.provider], found.dry_run && ["Dry run", found.dry_run],
      found.roles?.length && ["Roles", found.roles.map((own) => `${own.role}${own.gives ? " (gives it)" : ""}`).join(", ")]),
    found.policies?.length ? element("div", {}, element("h3", {}, "Policies"), table(`Policies of ${callee}`, [["Policy"]], found.policies.map(policy), null)) : null,
    found.advice ? element("p", { class: "hint" }, element("strong", {}, "To allow it: "), found.advice) : null,
    ...(found.notes || []).map((note) => element("p", { class: "why" }, note)));
}

function tiles({ matrix, held, refused }) {
  const all = matrix.rows.flat();
  const may = all.filter((own) => own === "yes").length;
  return element("div", { class: "tiles" },
    tile("Pairs that may call", `${may} of ${all.length}`, `${all.filter((own) => own === "some" || own === "ask").length} more on conditions`),
    tile("Where no policy allows", matrix.default_deny ? "nobody may call" : "every agent may call", matrix.default_deny ? "default deny" : "pilotfish serve --default-deny turns it round", matrix.default_deny ? "" : "warn"),
    tile("Held", String(held.length), held.length ? "quarantined or restricted" : "nobody", held.length ? "bad" : ""),
    tile("Refusals", refused ? String(refused.length) : "not known", "the newest ones"));
}

const NONE = () => empty(["There are no agents yet, so nobody may call anybody.", "Say who may by an AuthorizationPolicy, and see what it does before it is there:"],
  ["pilotfish authz matrix -f policy.yaml", "pilotfish apply -f policy.yaml"]);

export const access = {
  id: "access", title: "Access", key: "w", every: 5000,
  async read({ segments: [from, to], query }) {
    const why = from && to ? read(at("/v1/authz/explain", { from, to, ...asked(query) })).then((own) => ({ explained: own }), (error) => {
      if (!error.status) throw error;
      return { why: error.message };
    }) : {};
    const [matrix, held, refused, more] = await Promise.all([read(at("/v1/authz/matrix", asked(query))), perhaps(read("/v1/actions")), perhaps(read(at("/v1/audit", { denied: "true", limit: 20 }))), why]);
    return { matrix, held: held?.actions || [], refused: Array.isArray(refused) ? refused : refused?.records || null, ...more };
  },
  fresh: ({ segments }) => segments.length === 2,
  up: ({ segments, query }) => (segments.length ? place(["access"], query) : null),
  controls: () => element("div", { class: "controls" },
    element("input", { type: "search", placeholder: "Filter agents", "aria-label": "Filter agents", data: { to: "find" } }),
    element("label", {}, "Method ", element("select", { "aria-label": "Method", data: { to: "method" } }, ...["", "GET", "POST", "PUT", "PATCH", "DELETE"].map((own) => element("option", { value: own }, own || "any")))),
    element("input", { type: "text", class: "narrow", placeholder: "Path, /v1/…", "aria-label": "Path", data: { to: "path", wait: "" } }),
    element("input", { type: "text", class: "narrow", placeholder: "MCP tool", "aria-label": "MCP tool", data: { to: "tool", wait: "" } })),
  draw(seen, route) {
    const { matrix, held, refused } = seen;
    const filter = (route.query.find || "").toLowerCase();
    const fits = (name) => name.toLowerCase().includes(filter);
    if (!matrix.callers.length) return element("section", { "aria-label": "Access" }, NONE());
    const cut = Math.max(matrix.callers.length, matrix.callees.length) > MOST;
    const main = element("div", { class: "most" },
      element("h2", {}, "Who may call whom"),
      element("p", { class: "legend" }, ...Object.values(CELLS).map(([kind, text, why]) => element("span", {}, word(text, kind), ` ${why}`))),
      grid(filter ? filtered(matrix, fits) : matrix, route),
      cut ? element("p", { class: "why" }, `The first ${MOST} of each are shown; the filter finds others, and \`pilotfish authz matrix\` shows all.`) : null,
      ...(matrix.notes || []).map((note) => element("p", { class: "why" }, note)),
      held.length ? element("div", { data: { key: "held" } }, element("h2", { class: "below" }, "Quarantined and restricted"),
        table("Quarantined and restricted", [["Agent"], ["Held"], ["Why"], ["By"], ["Ends"]], held.map(hold), null)) : null,
      element("h2", { class: "below", data: { key: "refusals" } }, "Newest refusals"),
      table("Newest refusals", [["When"], ["Caller"], ["Called"], ["Asked for"], ["Why"], ["Policy"]], (refused || []).map(refusal),
        empty([refused ? "Nothing was refused." : "The audit log cannot be read here."])));
    return element("section", { "aria-label": "Access" }, tiles(seen), element("div", { class: "beside" }, main, details(seen, route)),
      element("p", { class: "soft" }, count(matrix.callers.length, "agent")));
  },
};

/** Callers that fit, with all that they call; when none does, those who are called and fit, with all who call them. */
function filtered({ callers, callees, rows }, fits) {
  const own = callers.map((name, index) => [name, rows[index]]).filter(([name]) => fits(name));
  if (own.length) return { callers: own.map(([name]) => name), callees, rows: own.map(([, row]) => row) };
  const places = callees.map((name, index) => [name, index]).filter(([name]) => fits(name)).map(([, index]) => index);
  return { callers, callees: places.map((index) => callees[index]), rows: rows.map((row) => places.map((index) => row[index])) };
}
