// What of the page needs no browser: where agents of the graph stand, and how spans become a tree.

import assert from "node:assert/strict";
import { test } from "node:test";
import { SIZE, curve, labels, layered } from "../../src/server/page/js/layout.js";
import { tree } from "../../src/server/page/js/spans.js";
import { BROKEN, OTLP } from "./fixtures.mjs";

/** Numbers below 2^32 that are the same for the same seed (mulberry32). */
function random(seed) {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

function graphOf(seed) {
  const below = random(seed);
  const ids = Array.from({ length: 1 + below(40) }, (_, at) => `shop/a${at}`);
  const edges = new Map();
  for (let at = below(80); at > 0; at -= 1) {
    const pair = [ids[below(ids.length)], ids[below(ids.length)]];
    edges.set(pair.join("\n"), pair);
  }
  return { ids, edges: [...edges.values()] };
}

test("agents never cover each other, whatever calls whom, and calls have an end at each", () => {
  for (let seed = 0; seed < 300; seed += 1) {
    const { ids, edges } = graphOf(seed);
    const layout = layered(ids, edges);
    const spots = [...layout.places.values()];
    assert.equal(spots.length, ids.length);
    for (const [at, a] of spots.entries()) {
      assert.ok(Number.isFinite(a.x) && a.y >= SIZE.height / 2 && a.y <= layout.height - SIZE.height / 2 + 1, `seed ${seed}: ${JSON.stringify(a)}`);
      assert.ok(a.x >= 0 && a.x + SIZE.width <= layout.width, `seed ${seed}`);
      for (const b of spots.slice(at + 1)) assert.ok(Math.abs(a.x - b.x) >= SIZE.width || Math.abs(a.y - b.y) >= SIZE.height, `seed ${seed}`);
    }
    for (const [from, to] of edges.filter(([a, b]) => a !== b)) {
      const points = layout.ways.get(`${from}\n${to}`);
      const touches = ([x, y], id) => {
        const spot = layout.places.get(id);
        return (x === spot.x || x === spot.x + SIZE.width) && Math.abs(y - spot.y) < SIZE.height / 2;
      };
      assert.ok(touches(points[0], from) && touches(points.at(-1), to), `seed ${seed}: ${from} to ${to}`);
      assert.match(curve(points), /^M[-\d. CL]+$/);
    }
  }
});

test("callers stand left of whom they call, but where calls go in a circle", () => {
  const layout = layered(["a", "b", "c", "d"], [["a", "b"], ["b", "c"], ["a", "c"], ["c", "d"], ["d", "b"]]);
  const x = (id) => layout.places.get(id).x;
  assert.ok(x("a") < x("b") && x("b") < x("c") && x("c") < x("d"));
  assert.ok(layout.ways.get("d\nb")[0][0] > layout.ways.get("d\nb").at(-1)[0]);
});

test("one call more leaves the order within columns as it was", () => {
  const ids = ["a", "b", "c", "d", "e"];
  const calls = [["a", "b"], ["a", "c"], ["a", "d"]];
  const before = layered(ids, calls);
  const after = layered(ids, [...calls, ["d", "e"]], before);
  const order = (layout) => ["b", "c", "d"].sort((a, b) => layout.places.get(a).y - layout.places.get(b).y);
  assert.deepEqual(order(after), order(before));
});

test("labels cover no other while there is room", () => {
  const way = (y) => [[0, 0], [100, y]];
  const found = labels([["a", way(80), 60, 30], ["b", way(-80), 60, 30], ["c", way(10), 60, 30]]);
  const spots = [...found.values()];
  for (const [at, a] of spots.entries()) for (const b of spots.slice(at + 1)) assert.ok(Math.abs(a[0] - b[0]) >= 59 || Math.abs(a[1] - b[1]) >= 29, JSON.stringify(spots));
});

test("every span is shown once, below its parent", () => {
  const { spans, total } = tree(OTLP);
  assert.equal(spans.length, 15);
  assert.equal(total, 2_412_000);
  const retry = spans.find((span) => span.id.endsWith("05"));
  assert.deepEqual([retry.depth, retry.start, retry.self, retry.agent], [3, 215_000, 5000, "desk/researcher"]);
  assert.equal(tree(BROKEN).spans.length, 6);
  assert.deepEqual(tree({}), { spans: [], total: 0, start: 0 });
});

test("traces of every shape become a tree", () => {
  for (let seed = 0; seed < 300; seed += 1) {
    const below = random(seed);
    const many = 1 + below(60);
    const spans = Array.from({ length: many }, (_, at) => ({
      spanId: String(at), parentSpanId: below(4) ? String(below(many + 3)) : "", name: "x", kind: below(7),
      startTimeUnixNano: String(1_790_000_000_000_000_000n + BigInt(below(1e6))), endTimeUnixNano: below(9) ? String(1_790_000_000_000_000_000n + BigInt(below(1e6))) : undefined,
    }));
    const found = tree({ resourceSpans: [{ scopeSpans: [{ spans }] }] });
    assert.equal(new Set(found.spans.map((span) => span.id)).size, many, `seed ${seed}`);
    for (const [at, span] of found.spans.entries()) {
      assert.ok(span.start >= 0 && span.end >= span.start && span.end <= found.total && span.self >= 0 && span.self <= span.end - span.start, `seed ${seed}`);
      if (span.depth > 0) assert.equal(found.spans.slice(0, at).findLast((other) => other.depth < span.depth).depth, span.depth - 1, `seed ${seed}`);
    }
  }
});
