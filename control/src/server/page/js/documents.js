// Documents as they are stored, and the versions that they had.

import { read } from "./api.js";
import { element, link, place } from "./dom.js";
import { ago, at, cell, empty, soft, table, word } from "./words.js";

const ACTIONS = { created: "good", changed: "warn", removed: "bad", unchanged: "" };
const name = (key) => `${key.kind} ${key.namespace}/${key.name}`;

// Documents can be large: they are read when there are other ones.
let version = -1;
let kept = null;

async function all() {
  const { documents: newest } = await read("/v1/version");
  if (newest !== version) {
    const [stored, commits] = await Promise.all([read("/v1/resources"), read("/v1/history?limit=100")]);
    [kept, version] = [{ stored, commits }, newest];
  }
  return kept;
}

const filter = (label) => () => element("div", { class: "controls" },
  element("input", { type: "search", placeholder: "Filter", "aria-label": label, data: { to: "find" } }));

export const documents = {
  id: "documents", title: "Documents", key: "d", every: 2000,
  read: all,
  up: ({ segments, query }) => (segments.length ? place(["documents"], query) : null),
  controls: filter("Filter documents"),
  draw({ stored }, { segments, query }) {
    const find = (query.find || "").toLowerCase();
    const own = ({ key }) => [key.kind, key.namespace, key.name];
    const rows = stored.filter((each) => [...own(each), each.source].join(" ").toLowerCase().includes(find)).map((each) => {
      const open = own(each).every((part, index) => part === segments[index]);
      const line = element("tr", { class: open ? "has-note" : null, data: { key: name(each.key) } },
        cell(each.key.kind), cell(each.key.namespace, "soft"),
        cell(link(open ? ["documents"] : ["documents", ...own(each)], query, each.key.name), "wide"),
        cell(String(each.version), "number"), cell(each.source, "mono soft"));
      if (!open) return [line];
      return [line, element("tr", { class: "note", data: { key: `${name(each.key)} note` } }, element("td", { colspan: 5 }, element("pre", { class: "yaml" }, each.yaml)))];
    });
    return element("section", { "aria-label": "Documents" },
      table("Documents", [["Kind"], ["Namespace"], ["Name"], ["Changed in", "number"], ["Source"]], rows,
        find ? empty(["No document fits the filter."]) : empty(["No documents are stored."], ["pilotfish apply -f PATH"])));
  },
};

function changes(list) {
  const some = list.filter((change) => change.action !== "unchanged");
  return element("ul", { class: "changes" }, ...some.slice(0, 200).map((change) =>
    element("li", {}, word(change.action, ACTIONS[change.action]), ` ${name(change.key)}`)));
}

export const history_ = {
  id: "history", title: "History", key: "h", every: 2000,
  read: all,
  up: ({ segments, query }) => (segments.length ? place(["history"], query) : null),
  controls: filter("Filter versions"),
  draw({ commits }, { segments, query }) {
    const find = (query.find || "").toLowerCase();
    const rows = commits.filter((each) => [each.version, each.author, each.summary].join(" ").toLowerCase().includes(find)).map((each) => {
      const number = each.changes.filter((change) => change.action !== "unchanged").length;
      const open = segments[0] === String(each.version);
      const line = element("tr", { class: open ? "has-note" : null, data: { key: `version ${each.version}` } },
        cell(link(open ? ["history"] : ["history", String(each.version)], query, element("strong", {}, String(each.version))), "number"),
        cell(ago(each.time), "soft", at(each.time)), cell(each.author), cell(each.summary || soft("no summary"), "wide"),
        cell(String(number), "number"), cell(String(each.documents), "number"));
      if (!open) return [line];
      return [line, element("tr", { class: "note", data: { key: `version ${each.version} note` } }, element("td", { colspan: 6 }, changes(each.changes)))];
    });
    return element("section", { "aria-label": "History" },
      table("Versions", [["Version", "number"], ["When"], ["Author"], ["Summary"], ["Changes", "number"], ["Documents", "number"]], rows,
        find ? empty(["No version fits the filter."]) : empty(["No version has been applied yet."], ["pilotfish apply -f PATH"])));
  },
};
