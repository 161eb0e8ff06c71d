// Elements. Whatever comes from requests is only ever set as text, never parsed.

const SVG = "http://www.w3.org/2000/svg";

// Characters that turn the direction of text around would let one name look like another.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
export const visible = (text) => String(text).replace(HIDDEN, "\ufffd");

function made(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") Object.assign(node.style, value);
    else if (name === "data") Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? "" : name === "href" ? value : visible(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : visible(child));
  }
  return node;
}

export const element = (name, attributes = {}, ...children) =>
  made(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) =>
  made(document.createElementNS(SVG, name), attributes, children);

/** The hash of a place within the page. */
export function place(segments, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value);
  const path = segments.map(encodeURIComponent).join("/");
  return `#/${path}${pairs.length ? `?${new URLSearchParams(pairs)}` : ""}`;
}

export const link = (segments, query, ...children) => element("a", { href: place(segments, query) }, ...children);

// ---- one tree becomes another, so that focus, scrolling and selection stay

const keyOf = (node) => node.dataset?.key;

/** Makes the children of `from` equal to those of `to`. */
export function morph(from, to) {
  const focused = document.activeElement;
  children(from, to);
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

function children(from, to) {
  const keyed = new Map();
  for (const child of from.childNodes) if (keyOf(child) !== undefined) keyed.set(keyOf(child), child);
  const kept = new Set();
  let at = from.firstChild;
  for (const next of [...to.childNodes]) {
    while (at && kept.has(at)) at = at.nextSibling;
    const key = keyOf(next);
    const match = key !== undefined ? keyed.get(key) : at && keyOf(at) === undefined ? at : null;
    if (match && match.nodeName === next.nodeName && !kept.has(match)) {
      if (match !== at) from.insertBefore(match, at);
      else at = at.nextSibling;
      one(match, next);
      kept.add(match);
    } else {
      kept.add(from.insertBefore(next, at));
    }
  }
  for (const child of [...from.childNodes]) if (!kept.has(child)) child.remove();
}

function one(from, to) {
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  for (const { name, value } of [...to.attributes]) {
    if (name !== "style" && from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  for (const { name } of [...from.attributes]) {
    const own = name === "style" || (name === "open" && from.nodeName === "DETAILS");
    if (!own && !to.hasAttribute(name)) from.removeAttribute(name);
  }
  if (from.style.cssText !== to.style.cssText) from.style.cssText = to.style.cssText;
  children(from, to);
}
