// The page: which section is shown, keys, and looking again. Sections are in files of their own.

import { Ended, read } from "./api.js";
import { element, morph, place } from "./dom.js";
import { access } from "./access.js";
import { agents } from "./agents.js";
import { alerts } from "./alerts.js";
import { documents, history_ } from "./documents.js";
import { empty } from "./words.js";
import { graph } from "./graph.js";
import { live } from "./live.js";
import { placement } from "./placement.js";
import { sidecars } from "./sidecars.js";
import { traces } from "./traces.js";

// What a section has: `id`, `title`, `key`; `every` milliseconds it looks again (0: never); `read(route)` gives what
// `draw(seen, route)` makes an element of. If it wants: `controls()`, whose fields are kept in the route's query (by
// `data-to`; `controlsOfList`: only for the list), `up(route)`, `keydown(event)`, `says()`, `press(action)` for its buttons (`data-do`), `leave()`.
const VIEWS = [graph, agents, sidecars, placement, traces, live, alerts, documents, history_, access];

const byId = (id) => document.getElementById(id);
let shown = null;
let route = null;
let seen = null;
let turn = 0;
let timer = 0;
let typing = 0;

/** `#/view/segment/...?name=value` */
function parsed() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  let segments = [];
  try {
    segments = path.split("/").filter((part) => part).map(decodeURIComponent);
  } catch {
    // A broken escape: the first section.
  }
  return { view: segments[0] || "graph", segments: segments.slice(1), query: Object.fromEntries(new URLSearchParams(query)) };
}

function enter() {
  const next = parsed();
  const view = VIEWS.find((each) => each.id === next.view) || graph;
  const other = view !== shown;
  if (other && shown?.leave) shown.leave();
  route = next;
  if (other) {
    shown = view;
    seen = null;
    document.title = `${view.title} · Pilotfish`;
    byId("content").replaceChildren(element("p", { class: "soft loading" }, "Looking …"));
    for (const each of byId("views").children) {
      if (each.dataset.view === view.id) {
        each.setAttribute("aria-current", "page");
        // A narrow window shows a part of the views: the one that is seen has to be in it.
        each.scrollIntoView({ block: "nearest", inline: "nearest" });
      } else each.removeAttribute("aria-current");
    }
    byId("controls").replaceChildren(...(view.controls ? [view.controls()] : []));
    scrollTo(0, 0);
  } else if (seen && !view.fresh?.(route)) {
    draw();
  }
  byId("controls").hidden = Boolean(view.controlsOfList && route.segments.length);
  for (const field of byId("controls").querySelectorAll("[data-to]")) fill(field, route.query[field.dataset.to] || "");
  look();
}

function fill(field, value) {
  if (field === document.activeElement) return;
  if (field.type === "checkbox") field.checked = value === "1";
  else if (field.value !== value) field.value = value || (field.matches("select") ? field.options[0].value : "");
}

/** A field of the controls changed: the route is where that is kept. */
function changed(event) {
  const { to, wait } = event.target.dataset;
  // What the control plane has to understand is sent when it is complete: on Enter, or when the field is left.
  if (!to || (event.type === "input" && wait !== undefined)) return;
  const old = route.query[to] || "";
  const value = event.target.type === "checkbox" ? (event.target.checked ? "1" : "") : event.target.value.trim();
  if (value === old) return;
  history.replaceState(null, "", place([route.view, ...route.segments], { ...route.query, [to]: value }));
  clearTimeout(typing);
  typing = setTimeout(enter, event.type === "input" && event.target.matches("[type=search], [type=text]") ? 200 : 0);
}

async function look() {
  clearTimeout(timer);
  const mine = ++turn;
  const [view, where] = [shown, route];
  try {
    const found = await view.read(where);
    if (mine !== turn) return;
    seen = found;
    tell("good", view.says ? view.says() : `live, ${new Date().toLocaleTimeString()}`);
    trouble(null);
    // A selection that somebody is making is left alone until the next look.
    if (getSelection().isCollapsed) draw();
  } catch (error) {
    if (mine !== turn || error.name === "AbortError") return;
    if (error instanceof Ended) return ended(error);
    tell("bad", "no news");
    trouble(error.message);
    if (!seen) byId("content").replaceChildren();
  }
  if (view.every) timer = setTimeout(look, document.hidden ? view.every * 5 : view.every);
}

function draw() {
  const next = element("main", {}, shown.draw(seen, route));
  morph(byId("content"), next);
}

function ended(error) {
  tell("bad", "session ended");
  trouble(null);
  if (shown.leave) shown.leave();
  byId("controls").replaceChildren();
  byId("content").replaceChildren(empty(
    [error.message, "On the machine of the control plane run this, and open the link that it prints:"],
    ["pilotfish ui --data DIR"]));
}

function tell(kind, text) {
  byId("live").className = kind;
  byId("live").textContent = text;
}

function trouble(text) {
  byId("trouble").hidden = text === null;
  byId("trouble").textContent = text || "";
}

// ---- keys

function rows(step) {
  const all = [...document.querySelectorAll("main tr a[href], main [data-row] a[href]")].filter((each) => each.offsetParent !== null);
  const firsts = all.filter((each, index) => each.closest("tr, [data-row]") !== all[index - 1]?.closest("tr, [data-row]"));
  if (!firsts.length) return false;
  const own = document.activeElement?.closest("tr, [data-row]");
  const now = firsts.findIndex((each) => own && each.closest("tr, [data-row]") === own);
  const next = now < 0 ? (step > 0 ? 0 : firsts.length - 1) : Math.min(firsts.length - 1, Math.max(0, now + step));
  firsts[next].focus();
  return true;
}

function escape() {
  if (document.activeElement?.matches("input, select")) return document.activeElement.blur();
  // Where the address is now: `route` follows it a moment later, and two may be pressed at once.
  const up = shown.up?.(parsed());
  if (up !== undefined && up !== null) location.hash = up;
  return undefined;
}

function keydown(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || byId("keys").open) return;
  const writing = event.target.matches("input:not([type=checkbox]), textarea, select");
  if (event.key === "Escape") {
    // A browser would empty the field.
    event.preventDefault();
    return escape();
  }
  if (writing) return undefined;
  if (shown.keydown?.(event)) return event.preventDefault();
  const number = /^[1-9]$/.test(event.key) ? VIEWS[Number(event.key) - 1] : undefined;
  const view = number || VIEWS.find((each) => each.key === event.key);
  if (view) {
    event.preventDefault();
    location.hash = place([view.id]);
    byId("content").focus({ preventScroll: true });
  } else if (event.key === "/") {
    const field = document.querySelector("#controls input");
    if (field) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  } else if (event.key === "?") {
    event.preventDefault();
    byId("keys").showModal();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && rows(event.key === "ArrowDown" ? 1 : -1)) {
    event.preventDefault();
  }
  return undefined;
}

// ---- the start

// There are nine digits.
function keysOf(view, index) {
  return index < 9 ? [view.key, index + 1] : [view.key];
}
byId("views").append(...VIEWS.map((view, index) => element("a",
  { href: place([view.id]), data: { view: view.id }, "aria-keyshortcuts": keysOf(view, index).join(" ") },
  view.title, element("kbd", { "aria-hidden": "true" }, view.key))));
const KEYS = [...VIEWS.map((view, index) => [keysOf(view, index).join(" or "), view.title]), ["/", "to the first field"],
  ["↑ ↓", "from row to row"], ["← → ↑ ↓", "in the graph: along calls, from agent to agent"], ["p", "live calls: pause, and go on"], ["Enter", "open"],
  ["Esc", "back"], ["?", "these keys"]];
byId("keys-list").append(...KEYS.flatMap(([key, what]) =>
  [element("dt", {}, element("kbd", {}, key)), element("dd", {}, what)]));
byId("help").addEventListener("click", () => byId("keys").showModal());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("content").focus();
});
document.addEventListener("keydown", keydown);
byId("controls").addEventListener("input", changed);
byId("controls").addEventListener("change", changed);
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button || !shown.press) return;
  shown.press(button.dataset.do);
  look();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && shown?.every) look(); });
addEventListener("hashchange", enter);
read("/v1/version").then(({ trust_domain: domain, control, build }) => {
  byId("where").textContent = `${domain} · ${control} · ${build}`;
}, () => {});
enter();
