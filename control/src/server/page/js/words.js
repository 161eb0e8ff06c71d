// Words, numbers and tables that several sections use.

import { element } from "./dom.js";

const MOST_ROWS = 500;

export function span(seconds) {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export function ago(seconds) {
  const past = Math.max(0, Math.round(Date.now() / 1000 - seconds));
  return past < 2 ? "now" : `${span(past)} ago`;
}

export function until(seconds) {
  const left = Math.round(seconds - Date.now() / 1000);
  return left <= 0 ? "expired" : `in ${span(left)}`;
}

export const at = (seconds) => new Date(seconds * 1000).toLocaleString();

/** Microseconds. */
export function latency(us) {
  if (us === null || us === undefined) return "not measured";
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 1e4 ? 1 : 0)} ms`;
  return us < 6e7 ? `${(us / 1e6).toFixed(us < 1e7 ? 2 : 1)} s` : `${(us / 6e7).toFixed(1)} min`;
}

/** A quantile of the graph, which knows nothing above 10 s. */
export const quantile = (us) => (us === null || us === undefined ? "–" : us >= 1e7 ? "over 10 s" : latency(us));

export function rate(perSecond) {
  if (perSecond === 0) return "0/s";
  if (perSecond < 0.095) return `${(perSecond * 60).toFixed(1)}/min`;
  return `${perSecond < 10 ? perSecond.toFixed(1) : Math.round(perSecond).toLocaleString("en")}/s`;
}

export function share(part) {
  if (part === 0 || part === 1) return `${part * 100} %`;
  return part < 0.001 ? "< 0.1 %" : `${Math.min(99.9, part * 100).toFixed(1)} %`;
}

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  return count < 1e6 ? `${(count / 1e3).toFixed(1)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

/** Bytes in binary units, rounded down, as the command line writes them. */
export function size(bytes_) {
  let [unit, name] = [1, "B"];
  for (const next of ["KiB", "MiB", "GiB", "TiB"]) {
    if (bytes_ / unit < 1024) break;
    [unit, name] = [unit * 1024, next];
  }
  const tenths = Math.floor((bytes_ / unit) * 10);
  return `${tenths >= 1000 || tenths % 10 === 0 ? Math.floor(tenths / 10) : (tenths / 10).toFixed(1)} ${name}`;
}

/** Thousandths of a core. */
export const cores = (milli) => String(milli / 1000);

export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/** How bad a share of errors is. */
export const badness = (errors) => (errors >= 0.05 ? "bad" : errors >= 0.01 ? "warn" : "good");

export const STATUSES = { ready: "good", degraded: "warn", initializing: "", draining: "warn", quarantined: "bad" };
export const word = (text, kind, title) => element("span", { class: `word ${kind || ""}`.trim(), title }, text);
export const chip = (text) => element("span", { class: "chip" }, text);
export const soft = (...children) => element("span", { class: "soft" }, ...children);

/** `namespace/name` as people read it. */
export function agent(id) {
  const cut = id.indexOf("/");
  if (cut < 0) return element("bdi", {}, id);
  return element("span", {}, element("bdi", { class: "strong" }, id.slice(cut + 1)), soft(element("bdi", {}, ` ${id.slice(0, cut)}`)));
}

/** A number with what it is. */
export function tile(title, value, note, kind) {
  return element("dl", { class: `tile ${kind || ""}` }, element("dt", {}, title),
    element("dd", {}, value, note ? element("small", {}, note) : null));
}

/** Nothing here: why, and what to do about it. */
export function empty(lines, commands = []) {
  return element("div", { class: "empty" }, ...lines.map((line) => element("p", {}, line)),
    ...commands.map((command) => element("pre", {}, command)));
}

export const cell = (content, kind, title) => element("td", { class: kind, title }, content);

/** Rows are lists of elements, since some have a second line. */
export function table(label, heads, rows, none) {
  if (rows.length === 0) return none;
  const head = element("tr", {}, ...heads.map(([text, kind]) => element("th", { class: kind, scope: "col" }, text)));
  const shown = rows.slice(0, MOST_ROWS).flat();
  if (rows.length > MOST_ROWS) {
    const text = `${rows.length - MOST_ROWS} more; use the filter`;
    shown.push(element("tr", {}, element("td", { class: "soft", colspan: heads.length }, text)));
  }
  return element("div", { class: "scroll" }, element("table", { "aria-label": label },
    element("thead", {}, head), element("tbody", {}, ...shown)));
}

/** Pairs of a word and what it is. */
export const facts = (...pairs) => element("dl", { class: "facts" },
  ...pairs.filter((pair) => pair).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
