// Where agents of the graph stand: in layers from callers to callees, with few crossings, and where they stood before
// as far as that goes. Pure: no elements here.

export const SIZE = { width: 164, height: 58, across: 108, down: 42 };
/** Between the columns when there are few. */
const ROOMY = 168;

/** Places of `ids` and the ways of `edges` ([from, to] pairs) between them; `before` is an earlier result. */
export function layered(ids, edges, before) {
  const order = new Map(ids.map((id, index) => [id, index]));
  const links = edges.filter(([from, to]) => from !== to && order.has(from) && order.has(to));
  const back = backward(ids, links);
  const forward = links.map(([from, to]) => (back.has(`${from}\n${to}`) ? [to, from] : [from, to]));
  const depth = depths(ids, forward);
  // Calls over several layers go through a bend in each layer between.
  const layers = [];
  const put = (node, at) => (layers[at] ||= []).push(node);
  const near = new Map();
  const join = (a, b) => {
    (near.get(a) || near.set(a, []).get(a)).push(b);
    (near.get(b) || near.set(b, []).get(b)).push(a);
  };
  const nodes = new Map(ids.map((id) => [id, { id, was: before?.places.get(id)?.y }]));
  for (const id of ids) put(nodes.get(id), depth.get(id));
  const bends = new Map();
  links.forEach(([from, to], index) => {
    const [first, last] = forward[index];
    let previous = nodes.get(first);
    const own = [];
    for (let at = depth.get(first) + 1; at < depth.get(last); at += 1) {
      const bend = { bend: true, was: before?.bends.get(`${from}\n${to}`)?.[own.length]?.y };
      own.push(bend);
      put(bend, at);
      join(previous, bend);
      previous = bend;
    }
    join(previous, nodes.get(last));
    bends.set(`${from}\n${to}`, own);
  });
  for (const layer of layers) layer.sort((a, b) => (a.was ?? Infinity) - (b.was ?? Infinity) || 0);
  settle(layers, near);
  return placed({ ids, links, layers, nodes, bends, back });
}

/** Calls that close a circle; they are drawn from right to left. */
function backward(ids, links) {
  const out = new Map(ids.map((id) => [id, []]));
  const incoming = new Map(ids.map((id) => [id, 0]));
  for (const [from, to] of links) {
    out.get(from).push(to);
    incoming.set(to, incoming.get(to) + 1);
  }
  const state = new Map();
  const found = new Set();
  const starts = [...ids].sort((a, b) => incoming.get(a) - incoming.get(b));
  for (const start of starts) {
    if (state.has(start)) continue;
    const stack = [[start, 0]];
    state.set(start, "open");
    while (stack.length) {
      const top = stack.at(-1);
      const next = out.get(top[0])[top[1]];
      top[1] += 1;
      if (next === undefined) {
        state.set(top[0], "done");
        stack.pop();
      } else if (state.get(next) === "open") {
        found.add(`${top[0]}\n${next}`);
      } else if (!state.has(next)) {
        state.set(next, "open");
        stack.push([next, 0]);
      }
    }
  }
  return found;
}

function depths(ids, forward) {
  const out = new Map(ids.map((id) => [id, []]));
  const waiting = new Map(ids.map((id) => [id, 0]));
  for (const [from, to] of forward) {
    out.get(from).push(to);
    waiting.set(to, waiting.get(to) + 1);
  }
  const depth = new Map(ids.map((id) => [id, 0]));
  const free = ids.filter((id) => waiting.get(id) === 0);
  while (free.length) {
    const from = free.shift();
    for (const to of out.get(from)) {
      depth.set(to, Math.max(depth.get(to), depth.get(from) + 1));
      waiting.set(to, waiting.get(to) - 1);
      if (waiting.get(to) === 0) free.push(to);
    }
  }
  return depth;
}

/** Orders each layer by its neighbours, then moves everything towards them. */
function settle(layers, near) {
  const apart = (node) => (node.bend ? SIZE.height * 0.75 : SIZE.height) + SIZE.down;
  const stack = (layer) => {
    let y = 0;
    for (const node of layer) {
      node.y = y + apart(node) / 2;
      y += apart(node);
    }
    for (const node of layer) node.y -= y / 2;
  };
  const mean = (node) => {
    const all = near.get(node) || [];
    return all.length ? all.reduce((sum, other) => sum + other.y, 0) / all.length : node.y;
  };
  layers.forEach(stack);
  for (let round = 0; round < 8; round += 1) {
    const sweep = round % 2 ? [...layers].reverse() : layers;
    for (const layer of sweep) {
      const wanted = new Map(layer.map((node) => [node, mean(node)]));
      layer.sort((a, b) => wanted.get(a) - wanted.get(b));
      stack(layer);
    }
  }
  for (let round = 0; round < 8; round += 1) {
    const sweep = round % 2 ? [...layers].reverse() : layers;
    for (const layer of sweep) {
      const wanted = layer.map(mean);
      let y = -Infinity;
      layer.forEach((node, index) => {
        const least = index ? y + (apart(layer[index - 1]) + apart(node)) / 2 : -Infinity;
        node.y = Math.max(wanted[index], least);
        y = node.y;
      });
      const off = layer.reduce((sum, node, index) => sum + wanted[index] - node.y, 0) / (layer.length || 1);
      for (const node of layer) node.y += off;
    }
  }
}

function placed({ ids, links, layers, nodes, bends, back }) {
  const all = layers.flat();
  const top = Math.min(0, ...all.map((node) => node.y)) - SIZE.height / 2 - 14;
  const bottom = Math.max(0, ...all.map((node) => node.y)) + SIZE.height / 2 + 14;
  const across = layers.length > 4 ? SIZE.across : ROOMY;
  layers.forEach((layer, at) => {
    for (const node of layer) Object.assign(node, { x: 10 + at * (SIZE.width + across), y: Math.round(node.y - top) });
  });
  const ways = new Map();
  const keys = new Set(links.map(([from, to]) => `${from}\n${to}`));
  for (const [from, to] of links) {
    const key = `${from}\n${to}`;
    const turned = back.has(key);
    const [a, b] = turned ? [nodes.get(to), nodes.get(from)] : [nodes.get(from), nodes.get(to)];
    const shift = turned ? 12 : keys.has(`${to}\n${from}`) ? -8 : 0;
    const points = [[a.x + SIZE.width, a.y + shift]];
    for (const bend of bends.get(key)) points.push([bend.x, bend.y], [bend.x + SIZE.width, bend.y]);
    points.push([b.x, b.y + shift]);
    ways.set(key, turned ? points.reverse() : points);
  }
  return {
    places: new Map(ids.map((id) => [id, { x: nodes.get(id).x, y: nodes.get(id).y }])),
    bends: new Map([...bends].map(([key, own]) => [key, own.map(({ x, y }) => ({ x, y }))])),
    ways,
    width: 20 + layers.length * SIZE.width + Math.max(0, layers.length - 1) * across,
    height: Math.max(SIZE.height, bottom - top),
  };
}

/** The path of a way: curves between layers, straight through them. */
export function curve(points) {
  let text = `M${points[0][0]} ${points[0][1]}`;
  for (let at = 1; at < points.length; at += 1) {
    const [x0, y0] = points[at - 1];
    const [x1, y1] = points[at];
    const middle = (x0 + x1) / 2;
    text += at % 2 ? `C${middle} ${y0} ${middle} ${y1} ${x1} ${y1}` : `L${x1} ${y1}`;
  }
  return text;
}

/** A point of the first curve of a way, or of the last for one that goes back. */
export function along(points, part) {
  const [[x0, y0], [x1, y1]] = points;
  const rest = 1 - part;
  const middle = (x0 + x1) / 2;
  const [a, b, c, d] = [rest ** 3, 3 * rest * rest * part, 3 * rest * part * part, part ** 3];
  return [a * x0 + (b + c) * middle + d * x1, (a + b) * y0 + (c + d) * y1];
}

/** A place for each label ([key, points, width, height]) where it covers no other, if there is one. */
export function labels(wanted) {
  const taken = [];
  const free = (box) => taken.every((other) =>
    box.x + box.width < other.x || other.x + other.width < box.x || box.y + box.height < other.y || other.y + other.height < box.y);
  const found = new Map();
  for (const [key, points, width, height] of wanted) {
    let first = null;
    for (const part of [0.5, 0.4, 0.6, 0.32, 0.68]) {
      const [x, y] = along(points, part);
      const box = { x: x - width / 2, y: y - height / 2, width, height };
      first ||= box;
      if (free(box)) {
        first = box;
        break;
      }
    }
    taken.push(first);
    found.set(key, [first.x + width / 2, first.y + height / 2]);
  }
  return found;
}
