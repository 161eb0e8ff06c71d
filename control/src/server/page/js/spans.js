// Spans of OTLP JSON as a tree. Pure: no elements here. Spans may be missing, hang on each other in circles, or come
// from machines whose clocks differ: each is shown once, whatever the others say.

const KINDS = ["", "internal", "server", "client", "producer", "consumer"];

/** A value of OTLP as text. */
export function text(value) {
  if (value === undefined || value === null) return "";
  if (value.stringValue !== undefined) return value.stringValue;
  if (value.boolValue !== undefined) return String(value.boolValue);
  if (value.intValue !== undefined) return String(value.intValue);
  if (value.doubleValue !== undefined) return String(value.doubleValue);
  if (value.bytesValue !== undefined) return value.bytesValue;
  if (value.arrayValue !== undefined) return (value.arrayValue.values || []).map(text).join(", ");
  if (value.kvlistValue !== undefined) return (value.kvlistValue.values || []).map((pair) => `${pair.key}=${text(pair.value)}`).join(", ");
  return "";
}

const pairs = (attributes) => (attributes || []).map(({ key, value }) => [key, text(value)]);

/** Spans by start, with `depth` in their tree, times in microseconds since the first start, which is `start` (microseconds since 1970). */
export function tree(trace) {
  const all = [];
  for (const { resource, scopeSpans } of trace.resourceSpans || []) {
    const of = pairs(resource?.attributes);
    const get = (name) => of.find(([key]) => key === name)?.[1] || "";
    const agent = get("service.namespace") ? `${get("service.namespace")}/${get("service.name")}` : get("service.name");
    for (const scope of scopeSpans || []) for (const span of scope.spans || []) all.push({ span, agent, resource: of });
  }
  if (!all.length) return { spans: [], total: 0, start: 0 };
  // Nanoseconds since 1970 do not fit into a number.
  const nano = (value) => BigInt(value || 0);
  const first = all.map(({ span }) => nano(span.startTimeUnixNano)).reduce((a, b) => (a < b ? a : b));
  const since = (value) => Number(nano(value) - first) / 1000;
  const spans = all.map(({ span, agent, resource }) => {
    const attributes = pairs(span.attributes);
    const get = (name) => attributes.find(([key]) => key === name)?.[1];
    const start = since(span.startTimeUnixNano);
    return {
      id: span.spanId, parent: span.parentSpanId || null, name: span.name || "", kind: KINDS[Number(span.kind) || 0] || String(span.kind).replace("SPAN_KIND_", "").toLowerCase(),
      agent, resource, attributes, get, start, end: Math.max(start, since(span.endTimeUnixNano)),
      error: span.status?.code === 2 || span.status?.code === "STATUS_CODE_ERROR", message: span.status?.message || "",
      events: (span.events || []).map((event) => ({ at: since(event.timeUnixNano), name: event.name || "", attributes: pairs(event.attributes) })),
      links: span.links || [], children: [],
    };
  });
  spans.sort((a, b) => a.start - b.start || (a.id < b.id ? -1 : 1));
  const byId = new Map(spans.map((span) => [span.id, span]));
  const roots = [];
  for (const span of spans) {
    const parent = span.parent && byId.get(span.parent);
    if (parent && parent !== span) parent.children.push(span);
    else roots.push(span);
  }
  const ordered = [];
  const done = new Set();
  const walk = (root) => {
    const stack = [[root, 0]];
    while (stack.length) {
      const [span, depth] = stack.pop();
      if (done.has(span)) continue;
      done.add(span);
      ordered.push(Object.assign(span, { depth, self: own(span) }));
      for (const child of [...span.children].reverse()) stack.push([child, depth + 1]);
    }
  };
  roots.forEach(walk);
  // What is left hangs in circles.
  spans.forEach((span) => { if (!done.has(span)) walk(span); });
  return { spans: ordered, total: Math.max(1, ...spans.map((span) => span.end)), start: Number(first / 1000n) };
}

/** How long a span was at work itself: its time without that of its children. */
function own(span) {
  let [busy, until] = [0, span.start];
  for (const child of span.children) {
    const [from, to] = [Math.max(child.start, until), Math.min(child.end, span.end)];
    if (to > from) {
      busy += to - from;
      until = to;
    }
  }
  return span.end - span.start - busy;
}
