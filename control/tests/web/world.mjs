// A control plane, agents and their sidecars as processes, and a browser: everything on free ports of this machine,
// in a temporary folder, ended when the tests end.

import { spawn, execFile } from "node:child_process";
import { createServer, request } from "node:http";
import { mkdtempSync, readFileSync, rmSync, existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const run = promisify(execFile);
const ROOT = new URL("../../..", import.meta.url).pathname;
const PROGRAMS = process.env.PILOTFISH_PROGRAMS || join(ROOT, "target/debug");
const PAGE = join(ROOT, "control/src/server/page");
const START = 60_000;

/** Waits until `what` gives something. */
export async function until(name, what, within = 30_000) {
  const end = Date.now() + within;
  let last;
  for (;;) {
    try {
      const found = await what();
      if (found) return found;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`it did not come to that: ${name}${last ? ` (${last.message})` : ""}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

export class World {
  #folder = mkdtempSync(join(tmpdir(), "pilotfish-web-"));
  #children = [];
  #servers = [];
  #browser = null;

  /** Starts a program and gives the fields of its ready line. */
  #start(name, program, args, ready, env = {}) {
    const child = spawn(join(PROGRAMS, program), args, { env: { ...process.env, ...env }, stdio: ["ignore", "ignore", "pipe"] });
    this.#children.push(child);
    return new Promise((done, fail) => {
      let text = "";
      const late = setTimeout(() => fail(new Error(`${name} did not get ready:\n${text}`)), START);
      child.stderr.setEncoding("utf8");
      child.stderr.on("data", (part) => {
        if (text.length < 100_000) text += part;
        const line = text.split("\n").slice(0, -1).find((each) => each.startsWith(ready));
        if (!line) return;
        clearTimeout(late);
        done(Object.fromEntries(line.split(" ").filter((word) => word.includes("=")).map((word) => [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)])));
      });
      child.on("exit", (code) => fail(new Error(`${name} ended with ${code}:\n${text}`)));
      child.on("error", fail);
    });
  }

  get data() {
    return join(this.#folder, "data");
  }

  async serve() {
    const free = ["--listen", "--local", "--status", "--otlp-grpc", "--otlp-http"].flatMap((flag) => [flag, "127.0.0.1:0"]);
    this.control = await this.#start("the control plane", "pilotfish", ["serve", "--data", this.data, ...free], "pilotfish: serving ");
    return this.control;
  }

  /** Runs `pilotfish` and gives what it prints. */
  async cli(...args) {
    const { stdout } = await run(join(PROGRAMS, "pilotfish"), [...args, "--data", this.data], { timeout: START });
    return stdout.trim();
  }

  /** Asks the API over the owner's socket. */
  ask(path) {
    return new Promise((done, fail) => {
      request({ socketPath: this.control.socket, path, timeout: 10_000 }, (answer) => {
        let text = "";
        answer.on("data", (part) => { text += part; });
        answer.on("end", () => {
          try {
            done({ status: answer.statusCode, body: JSON.parse(text) });
          } catch (error) {
            fail(error);
          }
        });
      }).on("error", fail).end();
    });
  }

  /** An agent with its sidecar; `answer(url, call)` gives status and text, `call` asks another by capability. */
  async agent(name, capabilities, answer) {
    const own = { name };
    const call = (capability, path, headers = {}) => ask(own.outbound, capability, path, headers);
    const server = createServer(async (asked, reply) => {
      try {
        const { status = 200, text = "done\n" } = (await answer(asked, call)) || {};
        reply.writeHead(status, { "content-type": "text/plain" }).end(text);
      } catch (error) {
        reply.writeHead(502).end(`${error.message}\n`);
      }
    });
    this.#servers.push(server);
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    const token = await this.cli("token", "create", "--agent", name, "--namespace", "shop");
    const free = ["--outbound", "--inbound", "--admin"].flatMap((flag) => [flag, "127.0.0.1:0"]);
    const started = await this.#start(`the sidecar of ${name}`, "pilotfish-proxy", ["--control", `https://${this.control.listen}`,
      "--state-dir", join(this.#folder, `state-${name}`), "--admin-socket", join(this.#folder, `${name}.sock`),
      "--agent", name, "--namespace", "shop", "--app", `127.0.0.1:${server.address().port}`, ...free,
      ...capabilities.flatMap((capability) => ["--capability", capability])], "pilotfish-proxy: listening ", { PILOTFISH_TOKEN: token, OTEL_TRACES_SAMPLER: "always_on" });
    own.outbound = started.outbound;
    own.call = call;
    return own;
  }

  /** A browser's window with a session; what goes wrong in it is gathered in `faults`. */
  async open(options = {}) {
    this.#browser ||= chromium.launch({
      executablePath: process.env.CHROMIUM || "/usr/bin/chromium", headless: true,
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    });
    const context = await (await this.#browser).newContext({ viewport: { width: 1280, height: 800 }, reducedMotion: "reduce", ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    const faults = [];
    const origin = `http://${this.control.local}`;
    page.on("console", (message) => { if (["error", "warning"].includes(message.type())) faults.push(`console: ${message.text()} ${message.location().url}`); });
    page.on("pageerror", (error) => faults.push(`error: ${error.stack}`));
    page.on("dialog", (dialog) => { faults.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on("request", (asked) => { if (!asked.url().startsWith(`${origin}/`)) faults.push(`request: ${asked.url()}`); });
    // While the page is being written: its files from the tree instead of those in the program.
    if (process.env.PAGE_FROM_TREE) {
      await page.route(/\/(page\.css|js\/[a-z]+\.js)$/, (route) => {
        const file = join(PAGE, new URL(route.request().url()).pathname);
        if (!existsSync(file)) return route.continue();
        return route.fulfill({ body: readFileSync(file), contentType: file.endsWith(".css") ? "text/css" : "text/javascript" });
      });
    }
    await page.goto(await this.cli("ui"));
    return { page, faults, origin, context };
  }

  async end() {
    await (await this.#browser)?.close();
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
    await Promise.all(this.#children.map((child) => new Promise((done) => {
      if (child.exitCode !== null || child.signalCode !== null) return done();
      child.once("exit", done);
      return child.kill("SIGKILL");
    })));
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A call through a sidecar. */
function ask(outbound, capability, path, headers) {
  const [host, port] = [outbound.slice(0, outbound.lastIndexOf(":")), outbound.slice(outbound.lastIndexOf(":") + 1)];
  return new Promise((done, fail) => {
    request({ host, port, path, headers: { host: "mesh", "agent-capability": capability, ...headers }, timeout: 20_000 }, (answer) => {
      let text = "";
      answer.on("data", (part) => { text += part; });
      answer.on("end", () => done({ status: answer.statusCode, text }));
    }).on("error", fail).end();
  });
}
