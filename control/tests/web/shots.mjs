// Pictures of the page with answers made by hand, to look at: node shots.mjs FOLDER
import { World } from "./world.mjs";
import * as fixtures from "./fixtures.mjs";
const folder = process.argv[2] || ".";
const world = new World();
try {
  await world.serve();
  const fake = async (page) => {
    const json = (body) => (route) => route.fulfill({ json: body });
    await page.route(/\/v1\/graph/, json(fixtures.GRAPH));
    await page.route(/\/v1\/traces(\?|$)/, json(fixtures.SUMMARIES));
    await page.route(/\/v1\/traces\/4bf/, json(fixtures.OTLP));
    if (fixtures.ANALYSIS) await page.route(/\/v1\/analysis/, json(fixtures.ANALYSIS));
    if (fixtures.ALERTS) await page.route(/\/v1\/alerts/, json(fixtures.ALERTS));
    await page.route(/\/v1\/placement$/, json(fixtures.PLACEMENT));
    await page.route(/\/v1\/placement\/explain/, json(fixtures.EXPLAINED));
    await page.route(/\/v1\/authz\/matrix/, json(fixtures.MATRIX));
    await page.route(/\/v1\/authz\/explain/, json(fixtures.WHY));
    await page.route(/\/v1\/actions/, json(fixtures.HELD));
    await page.route(/\/v1\/audit/, json(fixtures.REFUSALS));
  };
  for (const [name, options] of [["light", {}], ["dark", { colorScheme: "dark" }], ["narrow", { viewport: { width: 480, height: 800 } }]]) {
    const { page, faults, origin } = await world.open(options);
    await fake(page);
    for (const [part, hash] of [["graph", "#/graph"], ["agent", "#/graph/agent/desk%2Fresearcher"], ["traces", "#/traces"], ["trace", `#/traces/${fixtures.TRACE}`], ["span", `#/traces/${fixtures.TRACE}/0000000000000005`],
      ["alerts", "#/alerts"], ["live", "#/live"], ["sidecars", "#/sidecars"], ["placement", "#/placement"], ["explained", "#/placement/agent/desk%2Fwriter"], ["node", "#/placement/node/gpu-2"], ["agents", "#/agents"], ["documents", "#/documents"], ["access", "#/access"], ["why", "#/access/desk%2Fresearcher/desk%2Fledger"]]) {
      if (process.argv[3] && !process.argv[3].split(",").includes(part)) continue;
      await page.goto(`${origin}/${hash}`);
      await page.waitForTimeout(700);
      await page.screenshot({ path: `${folder}/${name}-${part}.png` });
    }
    if (faults.length) console.log(name, faults);
  }
} finally {
  await world.end();
}
