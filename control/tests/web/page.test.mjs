// The page in a real browser, beside a real control plane, real sidecars and small agents: `make test-web`.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import * as fixtures from "./fixtures.mjs";
import { World, until } from "./world.mjs";

const world = new World();
let planner;

before(async () => {
  await world.serve();
}, { timeout: 90_000 });

after(async () => {
  await world.end();
});

/** Runs in a window of its own; whatever a browser complains about fails the test. */
async function looking(options, what) {
  const own = await world.open(options);
  try {
    await what(own.page, own);
    assert.deepEqual(own.faults, []);
  } finally {
    await own.context.close();
  }
}

/** Gives an answer made by hand instead of the control plane's. */
const answer = (page, path, body) => page.route(path, (route) => (typeof body === "function" ? body(route) : route.fulfill({ json: body })));

const text = (page, what = "main") => page.locator(what).innerText();
const focused = (page) => page.evaluate(() => document.activeElement.getAttribute("aria-label") || document.activeElement.textContent);

describe("without agents", () => {
  test("a link opens a session once, and the key leaves the address", async () => {
    await looking({}, async (page, { origin, context }) => {
      await page.locator("nav a[aria-current=page]").waitFor();
      assert.ok(!page.url().includes("#") || page.url().includes("#/"), page.url());
      const link = await world.cli("ui");
      const second = await context.newPage();
      await second.goto(link);
      await second.goto(link);
      assert.match(await second.locator("body").innerText(), /needs a session[\s\S]*pilotfish ui/);
      await page.goto(`${origin}/#/sidecars`);
      await page.getByText("No sidecar has joined yet.").waitFor();
    });
  });

  test("each empty section says what to do next", async () => {
    await looking({}, async (page, { origin }) => {
      for (const [hash, what] of [["graph", /pilotfish token create[\s\S]*pilotfish-proxy --control/], ["agents", /pilotfish token create/],
        ["sidecars", /pilotfish token create/], ["placement", /pilotfish node --control[\s\S]*pilotfish apply -f/], ["traces", /No traces yet[\s\S]*--trace-sampling/], ["live", /pilotfish tap/],
        ["alerts", /agent-unavailable/], ["documents", /pilotfish apply -f/], ["history", /pilotfish apply -f/], ["access", /pilotfish authz matrix -f/]]) {
        await page.goto(`${origin}/#/${hash}`);
        await until(`${hash} is empty`, async () => what.test(await text(page)));
      }
    });
  });

  test("a session that has ended says how to get another", async () => {
    await looking({}, async (page, own) => {
      await page.getByText("No agent has joined").waitFor();
      await page.evaluate(() => localStorage.setItem("pilotfish-session", "another"));
      await page.getByText("The session has ended.").waitFor();
      assert.match(await text(page), /pilotfish ui --data DIR/);
      // What the browser says of the refusal is no fault.
      own.faults.length = 0;
    });
  });
});

describe("answers made by hand", () => {
  const faked = async (page) => {
    await answer(page, /\/v1\/graph/, fixtures.GRAPH);
    await answer(page, /\/v1\/traces(\?|$)/, fixtures.SUMMARIES);
    await answer(page, new RegExp(`/v1/traces/${fixtures.TRACE}`), fixtures.OTLP);
    await answer(page, /\/v1\/analysis/, fixtures.ANALYSIS);
    await answer(page, /\/v1\/alerts/, fixtures.ALERTS);
    await answer(page, /\/v1\/placement$/, fixtures.PLACEMENT);
    await answer(page, /\/v1\/placement\/explain/, fixtures.EXPLAINED);
    await answer(page, /\/v1\/authz\/matrix/, fixtures.MATRIX);
    await answer(page, /\/v1\/authz\/explain/, fixtures.WHY);
    await answer(page, /\/v1\/actions/, fixtures.HELD);
    await answer(page, /\/v1\/audit/, fixtures.REFUSALS);
  };

  test("the graph says who calls whom in text, not only in colour", async () => {
    await looking({}, async (page, { origin }) => {
      await faked(page);
      await page.goto(`${origin}/#/graph`);
      const bad = page.locator("svg a.edge.bad");
      await bad.waitFor();
      assert.equal(await bad.getAttribute("aria-label"), "desk/researcher calls desk/search: 13/s, 8.1 % errors, p95 95 ms");
      assert.match(await bad.locator(".label").textContent(), /13\/s.*p95 95 ms.*▲ 8\.1 % errors/);
      assert.equal(await page.locator("svg a.node").count(), 9);
      assert.match(await page.locator("svg").textContent(), /No calls in this window/);
      await page.locator("svg a.node", { hasText: "researcher" }).click();
      assert.match(await text(page, "aside"), /research[\s\S]*Called by[\s\S]*planner[\s\S]*Calls[\s\S]*search[\s\S]*8\.1 %/);
      await page.locator("aside").getByRole("link", { name: "Its traces" }).click();
      await page.locator("main tr a", { hasText: "POST /ask" }).waitFor();
      assert.equal(await page.getByLabel("Agent: name or namespace/name").inputValue(), "desk/researcher");
      await page.goto(`${origin}/#/graph?as=table`);
      await page.getByRole("table", { name: "Calls between agents" }).waitFor();
      assert.equal(await page.locator("main tbody tr").count(), 11);
    });
  });

  test("the graph stands still while its numbers change", async () => {
    await looking({}, async (page, { origin }) => {
      let round = 0;
      await answer(page, /\/v1\/graph/, (route) => {
        round += 1;
        const edges = fixtures.GRAPH.edges.filter((_, index) => index !== round % 5)
          .map((edge) => ({ ...edge, traffic: { ...edge.traffic, rate: edge.traffic.rate + round } }));
        return route.fulfill({ json: { ...fixtures.GRAPH, edges } });
      });
      await page.goto(`${origin}/#/graph`);
      const spots = () => page.evaluate(() => [...document.querySelectorAll("a.node")].map((node) => node.dataset.node + node.style.transform));
      await page.locator("svg a.node").first().waitFor();
      await until("two looks", () => round > 1);
      // By the second look each call was seen once.
      await until("all calls", async () => (await page.locator("a.edge").count()) === 11);
      const then = await spots();
      await page.locator("a.node", { hasText: "writer" }).focus();
      const label = await page.locator("a.edge .label").first().textContent();
      const now = round;
      await until("another look", () => round > now + 1);
      await until("other numbers", async () => (await page.locator("a.edge .label").first().textContent()) !== label);
      assert.deepEqual(await spots(), then);
      assert.match(await focused(page), /^writer/);
    });
  });

  test("a trace as a waterfall, with its critical path, tries, and what is not certain", async () => {
    await looking({}, async (page, { origin }) => {
      await faked(page);
      await page.goto(`${origin}/#/traces/${fixtures.TRACE}`);
      await page.locator(".waterfall").waitFor();
      assert.equal(await page.locator(".span").count(), 15);
      assert.ok(await page.locator(".span.critical").count() >= 5);
      assert.ok((await page.locator(".critical-path polyline").getAttribute("points")).split(" ").length >= 6);
      const all = await text(page);
      assert.match(all, /try 2/);
      assert.match(all, /2 inferred/);
      assert.match(all, /Recommendations/);
      const again = page.locator(".span", { hasText: "try 2" }).locator("a");
      assert.match(await again.getAttribute("aria-label"), /researcher GET, 187 ms from 215 ms, self 5\.0 ms/);
      await again.click();
      assert.match(await text(page, "aside"), /pilotfish\.retry[\s\S]*status 503[\s\S]*http\.request\.resend_count/);
      // Bars are where their times are.
      const [left, width] = await page.evaluate(() => {
        const box = document.querySelector(".time").getBoundingClientRect();
        const bar = [...document.querySelectorAll(".span")].at(-1).querySelector(".bar").getBoundingClientRect();
        return [(bar.x - box.x) / box.width, bar.width / box.width];
      });
      assert.ok(Math.abs(left - 1230 / 2412) < 0.01 && Math.abs(width - 1070 / 2412) < 0.01, `${left} ${width}`);
    });
  });

  test("a trace in which everything is wrong is shown all the same", async () => {
    await looking({}, async (page, { origin }) => {
      await answer(page, /\/v1\/traces\//, fixtures.BROKEN);
      await answer(page, /\/v1\/analysis/, (route) => route.fulfill({ status: 200, json: {} }));
      await page.goto(`${origin}/#/traces/${fixtures.TRACE}`);
      await page.locator(".waterfall").waitFor();
      assert.equal(await page.locator(".span").count(), 6);
      assert.match(await text(page), /orphan[\s\S]*<script>alert\(2\)<\/script>|<script>alert\(2\)<\/script>[\s\S]*orphan/);
      assert.equal(await page.locator("main img, main script").count(), 0);
    });
  });

  test("names of others are text, whatever they are", async () => {
    await looking({}, async (page, { origin }) => {
      await answer(page, /\/v1\/graph/, fixtures.HOSTILE_GRAPH);
      await answer(page, /\/v1\/agents/, { agents: [{ agent: fixtures.HOSTILE, namespace: "shop", instance: "0", address: fixtures.HOSTILE, locality: "", capabilities: [fixtures.HOSTILE],
        labels: { [fixtures.HOSTILE]: fixtures.HOSTILE }, status: "ready", latency_us: 1, success: 1, in_flight: 0, rank: 1 }], others: [] });
      await answer(page, /\/v1\/traces(\?|$)/, fixtures.SUMMARIES.map((own) => ({ ...own, name: fixtures.HOSTILE, agent: fixtures.HOSTILE, workflow: fixtures.HOSTILE })));
      await answer(page, /\/v1\/placement$/, fixtures.HOSTILE_PLACEMENT);
      await answer(page, /\/v1\/authz\/matrix/, fixtures.HOSTILE_MATRIX);
      await answer(page, /\/v1\/actions/, { actions: [{ agent: `shop/${fixtures.HOSTILE}`, hold: { restrict: [fixtures.HOSTILE] }, by: fixtures.HOSTILE, why: fixtures.HOSTILE }] });
      await answer(page, /\/v1\/audit/, [{ ...fixtures.REFUSALS[0], caller: fixtures.HOSTILE, action: fixtures.HOSTILE, policy: fixtures.HOSTILE }]);
      for (const hash of ["access", "placement", `placement/node/${encodeURIComponent(fixtures.HOSTILE)}`, "graph", `graph/agent/${encodeURIComponent(`shop/${fixtures.HOSTILE}`)}`, "graph?as=table", "agents", "traces"]) {
        await page.goto(`${origin}/#/${hash}`);
        await until(`${hash} shows it`, async () => (await page.locator("main").textContent()).includes("<img src=x"));
        assert.equal(await page.locator("main img, main script").count(), 0, hash);
        assert.ok(!(await page.locator("main").textContent()).includes("\u202e"), hash);
      }
    });
  });

  test("placement says in words what its bars show, and why some have no place", async () => {
    await looking({}, async (page, { origin }) => {
      await faked(page);
      await page.goto(`${origin}/#/placement`);
      await page.getByRole("table", { name: "Nodes" }).waitFor();
      const all = await text(page);
      assert.match(all, /3 of 4[\s\S]*15 of 20[\s\S]*1 failed[\s\S]*43 of 53/);
      assert.match(all, /writer desk[\s\S]*7 have no place: no free GPU/);
      const crashed = page.getByRole("table", { name: "Replicas that wait or fail" }).locator("tr", { hasText: "crash-loop" });
      assert.match(await crashed.innerText(), /No module named torch/);
      const row = page.getByRole("table", { name: "Nodes" }).locator("tr", { hasText: "gpu-2" });
      assert.match(await row.innerText(), /fell off the bus[\s\S]*12\.5 of 32[\s\S]*0 of 8 A100-SXM4-80GB free, 1 failed/);
      assert.equal(await row.locator(".card").count(), 8);
      assert.equal(await row.locator(".card.failed").getAttribute("aria-label"), "GPU-2-7, A100-SXM4-80GB, failed: fell off the bus");
      const [given, box] = await row.locator(".card").first().evaluate((card) => [card.querySelector(".given"), card].map((each) => each.getBoundingClientRect().width));
      assert.ok(Math.abs(given / box - 0.5) < 0.06, `${given} of ${box}`);
      // A click on an agent says why.
      await page.getByRole("table", { name: "Agents" }).getByRole("link", { name: "writer desk" }).click();
      await page.locator("aside", { hasText: "What would help" }).waitFor();
      assert.match(await text(page, "aside"), /13 of 20 replicas have a place, 12 ready[\s\S]*Each needs 2 cores, 4 GiB of memory, 1 GPU[\s\S]*7 replicas without a place[\s\S]*all GPUs are taken[\s\S]*7 more GPUs/);
      await page.locator("aside").getByRole("link", { name: "gpu-2" }).first().click();
      await page.locator("aside", { hasText: "Locality" }).waitFor();
      assert.match(await text(page, "aside"), /the data folder is full[\s\S]*12\.5 of 32 given out[\s\S]*GPU-2-0[\s\S]*writer desk/);
      await page.keyboard.press("Escape");
      await until("the details are closed", async () => (await page.locator("aside").count()) === 0);
      await page.getByLabel("Filter nodes, agents and replicas").fill("crash-loop");
      await until("the filter holds", async () => (await page.getByRole("table", { name: "Nodes" }).count()) === 0);
      assert.equal(await crashed.count(), 1);
    });
  });

  test("who does not lead says who does, and an agent that is gone is said to be", async () => {
    await looking({}, async (page, own) => {
      await answer(page, /\/v1\/placement$/, (route) => route.fulfill({ status: 421, json: { error: "another control plane leads: https://10.0.0.2:15012" } }));
      await page.goto(`${own.origin}/#/placement`);
      await page.getByText("another control plane leads: https://10.0.0.2:15012").waitFor();
      await page.unroute(/\/v1\/placement$/);
      await answer(page, /\/v1\/placement$/, fixtures.PLACEMENT);
      await answer(page, /\/v1\/placement\/explain/, (route) => route.fulfill({ status: 404, json: { error: "no AgentCluster has an agent `desk/gone`" } }));
      await page.goto(`${own.origin}/#/placement/agent/desk%2Fgone`);
      await page.locator("aside", { hasText: "no AgentCluster has an agent" }).waitFor();
      // What the browser says of the refusals is no fault.
      own.faults.length = 0;
    });
  });

  test("who may call whom is a grid of words, and each says why", async () => {
    await looking({}, async (page, { origin }) => {
      await faked(page);
      await page.goto(`${origin}/#/access`);
      const grid = page.getByRole("table", { name: "Who may call whom" });
      await grid.waitFor();
      assert.equal(await grid.locator("tbody td").count(), 36);
      assert.match(await text(page), /3 of 36/);
      assert.match(await text(page), /nobody may call[\s\S]*writer desk\s+quarantined[\s\S]*it writes to everybody[\s\S]*restricted to search, cite[\s\S]*POST \/accounts\/7/);
      await grid.getByRole("link", { name: "desk/researcher to desk/ledger: no" }).click();
      await page.locator("aside", { hasText: "To allow it" }).waitFor();
      assert.match(await text(page, "aside"), /403 access-denied[\s\S]*readers\.yaml:2:1[\s\S]*accounts:read on accounts\/7[\s\S]*rule 1 nearly: principal/);
      await page.keyboard.press("Escape");
      await until("the details are closed", async () => (await page.locator("aside").count()) === 0);
      await page.getByLabel("Filter agents").fill("researcher");
      await until("the filter holds", async () => (await grid.locator("tbody tr").count()) === 1);
      const asked = page.waitForRequest(/\/v1\/authz\/matrix\?method=POST/);
      await page.getByLabel("Method", { exact: true }).selectOption("POST");
      await asked;
      // A cell is explained for the calls that the grid is about.
      const told = page.waitForRequest(/\/v1\/authz\/explain\?.*tool=pay/);
      await page.goto(`${origin}/#/access/desk%2Fresearcher/desk%2Fledger?tool=pay`);
      await told;
      await page.locator("aside", { hasText: "the tool pay by POST /mcp" }).waitFor();
    });
  });

  for (const colorScheme of ["light", "dark"]) {
    test(`everything can be read in the ${colorScheme}`, async () => {
      await looking({ colorScheme }, async (page, { origin }) => {
        await faked(page);
        for (const hash of ["graph/agent/desk%2Fresearcher", "traces", `traces/${fixtures.TRACE}/0000000000000005`, "alerts", "agents", "sidecars", "placement/node/gpu-2", "placement/agent/desk%2Fwriter", "access/desk%2Fresearcher/desk%2Fledger"]) {
          await page.goto(`${origin}/#/${hash}`);
          await page.locator("main section").waitFor();
          assert.deepEqual(await page.evaluate(weak), [], hash);
        }
      });
    });
  }

  test("the switch beats the system, and is kept", async () => {
    await looking({ colorScheme: "light" }, async (page) => {
      const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const light = await paper();
      const button = page.locator("#theme");
      await button.click();
      await button.click();
      assert.equal(await button.innerText(), "Theme: dark");
      assert.notEqual(await paper(), light);
      await page.reload();
      await until("it is kept", async () => (await button.innerText()) === "Theme: dark");
      assert.notEqual(await paper(), light);
    });
  });

  test("a narrow window needs no scrolling to the side", async () => {
    await looking({ viewport: { width: 420, height: 800 } }, async (page, { origin }) => {
      await faked(page);
      for (const hash of ["graph", "graph/agent/desk%2Fresearcher", "traces", `traces/${fixtures.TRACE}`, "alerts", "agents", "sidecars", "placement", "placement/node/gpu-2", "access", "access/desk%2Fresearcher/desk%2Fledger", "live"]) {
        await page.goto(`${origin}/#/${hash}`);
        await page.locator("main section").waitFor();
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), hash);
        // Where one is can be seen, and the names of callers are no columns of letters.
        assert.ok(await page.evaluate(() => document.querySelector("nav a[aria-current]").getBoundingClientRect().right <= innerWidth), `${hash}: the name of its section`);
        assert.ok(await page.evaluate(() => [...document.querySelectorAll(".matrix th[scope=row]")].every((name) => name.clientWidth >= 100)), `${hash}: the names of callers`);
      }
    });
  });
});

/** Texts that stand out too little from what is behind them (WCAG: 4.5 to 1), as the page sees itself. */
function weak() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const numbers = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const color = numbers(getComputedStyle(each).backgroundColor);
      if (color[3] > 250) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !node.checkVisibility() || node.closest("script, .skip")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(numbers(node instanceof SVGElement ? style.fill : style.color)), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(`${walk.currentNode.data.trim()}: ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return found;
}

describe("a mesh", () => {
  before(async () => {
    planner = await world.agent("planner", ["plan"], async (asked, call) => {
      const found = await call("find", asked.url);
      await call("write", "/draft");
      return { status: found.status, text: found.text };
    });
    await Promise.all([
      world.agent("search", ["find"], (asked) => ({ status: asked.url.includes("broken") ? 500 : 200 })),
      world.agent("writer", ["write"], () => ({ text: "a draft\n" })),
    ]);
    await until("the sidecars know each other", async () => (await planner.call("find", "/ready")).status === 200);
    await until("the sidecars know each other", async () => (await planner.call("write", "/ready")).status === 200);
  }, { timeout: 120_000 });

  test("its agents, sidecars and calls are shown as they are", async () => {
    await looking({}, async (page, { origin }) => {
      await planner.call("find", "/first");
      await until("the graph has the calls", async () => {
        const { body } = await world.ask("/v1/graph?window=5m");
        return body.edges.some((edge) => edge.from === "shop/planner" && edge.to === "shop/search");
      });
      await page.goto(`${origin}/#/graph?window=5m`);
      await page.locator("svg a.edge[aria-label^='shop/planner calls shop/search']").waitFor();
      assert.equal(await page.locator("svg a.node.good").count(), 3);
      await page.keyboard.press("a");
      await page.locator("main tr", { hasText: "writer" }).waitFor();
      assert.match(await text(page), /planner shop[\s\S]*ready/);
      await page.getByLabel("Capability, as the header agent-capability").fill("find");
      await page.keyboard.press("Enter");
      await until("who can is first", async () => /^1\tsearch/.test((await page.locator("main tbody tr").first().innerText()).replaceAll("\n", "\t").replace(/\t+/g, "\t")));
      await page.keyboard.press("Escape");
      await page.keyboard.press("s");
      await page.getByText("3 of 3").waitFor();
    });
  });

  test("live calls come in, stop for a while, and go on", async () => {
    await looking({}, async (page) => {
      await page.keyboard.press("l");
      await page.getByText("3 sidecars looked at").waitFor();
      await planner.call("find", "/live-one");
      await page.locator("main tr", { hasText: "/live-one" }).first().waitFor();
      await page.keyboard.press("p");
      await page.locator("button[aria-pressed=true]", { hasText: "Go on" }).waitFor();
      await planner.call("find", "/live-two");
      await page.getByText("since the pause").waitFor();
      assert.equal(await page.locator("main tr", { hasText: "/live-two" }).count(), 0);
      await page.keyboard.press("p");
      await page.locator("main tr", { hasText: "/live-two" }).first().waitFor();
      await page.getByLabel("Status, such as 503 or 5xx").fill("5xx");
      await page.keyboard.press("Enter");
      await page.getByText("3 sidecars looked at").waitFor();
      await planner.call("find", "/broken<img src=x onerror=alert(1)>".replaceAll(" ", "%20"));
      const row = page.locator("main tr", { hasText: "/broken" }).first();
      await row.waitFor();
      assert.match(await row.innerText(), /500/);
      await planner.call("find", "/fine");
      assert.equal(await page.locator("main img").count(), 0);
      assert.equal(await page.locator("main tr", { hasText: "/fine" }).count(), 0);
    });
  });

  test("by keys alone: from a call that failed to the span that says why", async () => {
    await looking({}, async (page) => {
      await planner.call("plan", "/broken-report");
      const failed = await until("the trace is stored", async () => {
        const { body } = await world.ask("/v1/traces?error=true&limit=50");
        return Array.isArray(body) && body.find((trace) => trace.agents >= 2);
      });
      assert.ok(failed);
      await page.locator("svg a.node").first().waitFor();
      await page.keyboard.press("ArrowRight");
      assert.notEqual(await focused(page), "");
      await page.keyboard.press("Enter");
      await page.locator("aside").waitFor();
      await page.keyboard.press("Escape");
      await until("the details are closed", async () => (await page.locator("aside").count()) === 0);
      await page.keyboard.press("?");
      await page.locator("dialog[open]").waitFor();
      await page.keyboard.press("Escape");
      await page.keyboard.press("t");
      await page.locator("main tbody tr a").first().waitFor();
      await page.keyboard.press("/");
      assert.match(await focused(page), /^Agent/);
      await page.keyboard.type("planner");
      await page.keyboard.press("Enter");
      await page.keyboard.press("Escape");
      await until("the search is in the address", () => page.url().includes("agent=planner"));
      assert.equal(await page.getByLabel("Agent: name or namespace/name").inputValue(), "planner");
      await page.locator("main tbody tr", { hasText: "error" }).first().waitFor();
      const row = await page.locator("main tbody tr").evaluateAll((all) => all.findIndex((each) => each.innerText.includes("error")));
      for (let at = 0; at <= row; at += 1) await page.keyboard.press("ArrowDown");
      await page.keyboard.press("Enter");
      await page.locator(".waterfall .span").first().waitFor();
      assert.ok(await page.locator(".span.failed").count() > 0);
      await page.locator(".span.critical").first().waitFor();
      assert.match(await text(page, ".found"), /agents' own work/);
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("Enter");
      await page.locator("aside").waitFor();
      assert.match(await text(page, "aside"), /http\.request\.method/);
      await page.keyboard.press("Escape");
      await page.keyboard.press("Escape");
      await page.locator("main tbody tr").first().waitFor();
      for (const [key, title] of [["1", "Graph"], ["2", "Agents"], ["3", "Sidecars"], ["4", "Placement"], ["5", "Traces"], ["6", "Live"], ["n", "Placement"], ["!", "Alerts"], ["d", "Documents"], ["h", "History"]]) {
        await page.keyboard.press(key);
        await until(title, async () => (await page.title()).startsWith(title));
      }
    });
  });

  test("a control plane that is away is said to be", async () => {
    await looking({}, async (page, own) => {
      await page.locator("svg a.node").first().waitFor();
      await page.route(/\/v1\//, (route) => route.abort());
      await page.getByText("The control plane does not answer.").waitFor();
      assert.equal(await page.locator("svg a.node").count(), 3, "what was known stays");
      await page.unroute(/\/v1\//);
      await until("it is back", async () => !(await page.locator("#trouble").isVisible()));
      own.faults.length = 0;
    });
  });
});
