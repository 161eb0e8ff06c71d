// The page of the control plane: reads the API every two seconds and shows it. Text is only ever set as text.
"use strict";

const EVERY = 2000;
const MOST_ROWS = 500;
const VIEWS = ["sidecars", "agents", "documents", "history"];
const PLACE = "pilotfish-session";

// The link's redirect leaves the session's key in the fragment, which no server sees.
if (location.hash.length > 20) {
  localStorage.setItem(PLACE, location.hash.slice(1));
  history.replaceState(null, "", "/");
}

const seen = { version: null, trust: null, status: null, agents: null, documents: null, history: null };
const open = new Set();
let view = VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "sidecars";
let shownDocuments = -1;
let textFilter = "";

const byId = (id) => document.getElementById(id);

function element(name, options = {}, ...children) {
  const made = document.createElement(name);
  if (options.class) made.className = options.class;
  if (options.title) made.title = options.title;
  if (options.span) made.colSpan = options.span;
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

async function read(path) {
  const headers = { "x-pilotfish-session": localStorage.getItem(PLACE) || "" };
  const answer = await fetch(path, { headers, cache: "no-store", credentials: "same-origin" });
  if (answer.status === 401) throw new Error("the session has ended: run `pilotfish ui` and open its link");
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error || `status ${answer.status}`);
  return body;
}

async function look() {
  try {
    [seen.version, seen.status, seen.agents, seen.trust] = await Promise.all(
      ["/v1/version", "/v1/status", "/v1/agents", "/v1/trust"].map(read));
    // Documents can be large: they are read when there are other ones.
    if (seen.version.documents !== shownDocuments) {
      [seen.documents, seen.history] = await Promise.all(["/v1/resources", "/v1/history?limit=100"].map(read));
      shownDocuments = seen.version.documents;
    }
    tell("good", `live, ${new Date().toLocaleTimeString()}`);
    show();
  } catch (error) {
    tell("bad", error instanceof TypeError ? "the control plane does not answer" : error.message);
  }
  setTimeout(look, document.hidden ? EVERY * 5 : EVERY);
}

function tell(kind, text) {
  const live = byId("live");
  live.className = kind;
  live.textContent = text;
}

// ---- words and numbers

function ago(seconds) {
  const past = Math.max(0, Math.round(Date.now() / 1000 - seconds));
  return past < 2 ? "now" : `${span(past)} ago`;
}

function span(seconds) {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

function until(seconds) {
  const left = Math.round(seconds - Date.now() / 1000);
  return left <= 0 ? "expired" : `in ${span(left)}`;
}

const at = (seconds) => new Date(seconds * 1000).toLocaleString();

function latency(us) {
  if (us === null || us === undefined) return "not measured";
  return us < 1000 ? `${us} µs` : us < 1e6 ? `${(us / 1000).toFixed(us < 1e4 ? 1 : 0)} ms` : `${(us / 1e6).toFixed(2)} s`;
}

const KINDS = { ready: "good", degraded: "warn", initializing: "", draining: "warn", quarantined: "bad" };
const ACTIONS = { created: "good", changed: "warn", removed: "bad", unchanged: "" };
const word = (text, kind, title) => element("span", { class: `word ${kind || ""}`, title }, text);
const name = (key) => `${key.kind} ${key.namespace}/${key.name}`;

// ---- tables

function table(heads, rows, empty) {
  if (rows.length === 0) return element("div", { class: "empty" }, ...empty.map((line) => element("p", {}, line)));
  const head = element("tr", {}, ...heads.map(([text, kind]) => element("th", { class: kind }, text)));
  const shown = rows.slice(0, MOST_ROWS).flat();
  if (rows.length > MOST_ROWS) {
    const text = `${rows.length - MOST_ROWS} more; use the filter`;
    shown.push(element("tr", {}, element("td", { class: "soft", span: heads.length }, text)));
  }
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...shown));
}

const cell = (content, kind, title) => element("td", { class: kind, title }, content);

function fold(id, summary, content) {
  const made = element("details", {}, element("summary", {}, summary));
  const fill = () => { if (made.open && made.children.length === 1) made.append(content()); };
  made.open = open.has(id);
  fill();
  made.addEventListener("toggle", () => {
    if (made.open) open.add(id); else open.delete(id);
    fill();
  });
  return made;
}

const fits = (...texts) => textFilter === "" || texts.join(" ").toLowerCase().includes(textFilter);
const nothing = (...hint) => (textFilter === "" ? hint : ["Nothing fits the filter."]);

function sidecars() {
  const { sidecars: all, documents } = seen.status;
  const rows = all.filter((s) => fits(s.namespace, s.agent, s.instance, s.status, s.build)).map((s) => {
    const step = (version) => cell(String(version), `number ${s.connected && version < documents ? "behind" : ""}`);
    const connected = s.connected ? word(s.status, KINDS[s.status], s.detail) : word("away", "bad", "its stream is not open");
    const notes = [];
    if (s.refused) notes.push(`refused version ${s.refused.version}: ${s.refused.reasons.join("\n")}`);
    const cells = [
      cell(element("span", {}, element("strong", {}, s.agent), element("span", { class: "soft" }, ` ${s.namespace}`))),
      cell(connected), step(s.rendered), step(s.distributed), step(s.accepted), step(s.serving),
      cell(ago(s.last_contact), "soft", at(s.last_contact)),
      s.certificate_expires ? cell(until(s.certificate_expires), "soft", at(s.certificate_expires)) : cell("", ""),
      cell(s.address || "calls only", "mono soft"),
      cell(s.instance.slice(0, 8), "mono soft", s.instance),
      cell(s.build, "soft"),
    ];
    const row = element("tr", { class: notes.length ? "has-note" : "" }, ...cells);
    if (!notes.length) return [row];
    const reasons = element("pre", { class: "reasons" }, notes.join("\n"));
    return [row, element("tr", { class: "note" }, element("td", { span: cells.length }, reasons))];
  });
  return table([["Agent"], ["Status"], ["Rendered", "number"], ["Distributed", "number"], ["Accepted", "number"],
    ["Serving", "number"], ["Last contact"], ["Certificate ends"], ["Address"], ["Instance"], ["Build"]], rows,
  nothing("No sidecar has joined yet.", "pilotfish token create --agent NAME --namespace NS"));
}

function agents() {
  const rows = seen.agents.agents.filter((a) => fits(a.namespace, a.agent, a.capabilities.join(" "), a.status,
    a.locality, ...Object.entries(a.labels).map((pair) => pair.join("=")))).map((a) => {
    const chips = element("span", {}, ...a.capabilities.map((c) => element("span", { class: "chip" }, c)));
    const labels = Object.entries(a.labels).map(([key, value]) => `${key}=${value}`).join(" ");
    return [element("tr", {},
      cell(element("span", {}, element("strong", {}, a.agent), element("span", { class: "soft" }, ` ${a.namespace}`))),
      cell(word(a.status, KINDS[a.status])), cell(a.capabilities.length ? chips : "none", "wide"),
      cell(latency(a.latency_us), `number ${a.latency_us === null ? "soft" : ""}`), cell(success(a.success), "number"),
      cell(String(a.in_flight), "number"), cell(a.locality, "soft"), cell(labels, "wide soft"),
      cell(a.address, "mono soft"))];
  });
  return table([["Agent"], ["Status"], ["Capabilities"], ["Latency", "number"], ["Success", "number"],
    ["In flight", "number"], ["Locality"], ["Labels"], ["Address"]], rows,
  nothing("No agent is registered.", "An agent registers through its sidecar."));
}

function success(share) {
  if (share === null || share === undefined) return element("span", { class: "soft" }, "not measured");
  const kind = share >= 0.99 ? "" : share >= 0.9 ? "warn" : "bad";
  const filled = element("i");
  filled.style.width = `${Math.round(share * 100)}%`;
  return element("span", {}, `${(share * 100).toFixed(share < 0.9995 ? 1 : 0)} %`, element("span", { class: `bar ${kind}` }, filled));
}

function documents() {
  const rows = seen.documents.filter((d) => fits(d.key.kind, d.key.namespace, d.key.name, d.source)).map((d) =>
    [element("tr", {}, cell(d.key.kind), cell(d.key.namespace, "soft"),
      cell(fold(`document ${name(d.key)}`, d.key.name, () => element("pre", {}, d.yaml)), "wide"),
      cell(String(d.version), "number"), cell(d.source, "mono soft"))]);
  return table([["Kind"], ["Namespace"], ["Name"], ["Changed in", "number"], ["Source"]], rows,
    nothing("No documents are stored.", "pilotfish apply -f PATH"));
}

function changes(list) {
  const some = list.filter((change) => change.action !== "unchanged");
  return element("ul", { class: "changes" }, ...some.slice(0, 200).map((change) =>
    element("li", {}, word(change.action, ACTIONS[change.action]), ` ${name(change.key)}`)));
}

function history_() {
  const rows = seen.history.filter((c) => fits(c.version, c.author, c.summary)).map((c) => {
    const count = c.changes.filter((change) => change.action !== "unchanged").length;
    const text = c.summary || "no summary";
    const summary = count ? fold(`version ${c.version}`, text, () => changes(c.changes)) : text;
    return [element("tr", {}, cell(element("strong", {}, String(c.version)), "number"), cell(ago(c.time), "soft", at(c.time)),
      cell(c.author), cell(summary, "wide"), cell(String(count), "number"), cell(String(c.documents), "number"))];
  });
  return table([["Version", "number"], ["When"], ["Author"], ["Summary"], ["Changes", "number"], ["Documents", "number"]], rows,
    nothing("No version has been applied yet.", "pilotfish apply -f PATH"));
}

// ---- the whole

function tile(title, value, note, kind) {
  const number = element("dd", {}, value, note ? element("small", {}, note) : null);
  return element("dl", { class: `tile ${kind || ""}` }, element("dt", {}, title), number);
}

function tiles() {
  const { sidecars: all, documents } = seen.status;
  const connected = all.filter((s) => s.connected);
  const serving = connected.filter((s) => s.serving >= documents).length;
  const refusing = all.filter((s) => s.refused).length;
  const ready = seen.agents.agents.filter((a) => a.status === "ready").length;
  const issuer = seen.trust.issuer;
  const left = issuer.expires - Date.now() / 1000;
  const away = all.length - connected.length;
  byId("tiles").replaceChildren(
    tile("Sidecars connected", String(connected.length), away ? `${away} away` : "none away", away ? "warn" : ""),
    tile(`Serving version ${documents}`, `${serving} of ${connected.length}`, "of those connected", serving < connected.length ? "warn" : ""),
    tile("Refusing a version", String(refusing), refusing ? "reasons below" : "none refused", refusing ? "bad" : ""),
    tile("Agents ready", `${ready} of ${seen.agents.agents.length}`, "in the catalogue"),
    tile("Issuer ends", until(issuer.expires), new Date(issuer.expires * 1000).toLocaleDateString(), left < 14 * 86400 ? "bad" : ""),
  );
}

const PANELS = { sidecars, agents, documents, history: history_ };

function show() {
  if (!seen.status || !seen.documents) return;
  const { trust_domain: domain, control, build } = seen.version;
  byId("where").textContent = `${domain} · ${control} · ${build}`;
  tiles();
  const counts = { sidecars: seen.status.sidecars.length, agents: seen.agents.agents.length,
    documents: seen.documents.length, history: seen.history.length };
  for (const each of VIEWS) {
    const tab = byId(`tab-${each}`);
    tab.setAttribute("aria-selected", String(each === view));
    tab.replaceChildren(tab.firstChild, element("span", {}, String(counts[each])));
    byId(each).hidden = each !== view;
  }
  // A selection that somebody is making is left alone until the next look.
  if (String(getSelection())) return;
  byId(view).replaceChildren(PANELS[view]());
}

for (const each of VIEWS) {
  byId(`tab-${each}`).addEventListener("click", () => {
    view = each;
    history.replaceState(null, "", `#${each}`);
    show();
  });
}
byId("filter").addEventListener("input", (event) => {
  textFilter = event.target.value.trim().toLowerCase();
  show();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) show(); });
look();
