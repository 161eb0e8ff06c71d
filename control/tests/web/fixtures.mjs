// Answers of the API made by hand, for what a real mesh does not show in a test: bad luck, bad clocks, hostile names.

export const HOSTILE = "<img src=x onerror=alert(1)>\u202e\"'><script>alert(2)</script>";

const traffic = (rate, errors, p95) => ({
  calls: Math.round(rate * 60), errors: Math.round(rate * 60 * errors), rate, error_share: errors, mean_us: p95 / 2, p50_us: p95 / 2.2, p95_us: p95, p99_us: p95 * 1.4,
});
const none = { calls: 0, errors: 0, rate: 0, error_share: 0, mean_us: null, p50_us: null, p95_us: null, p99_us: null };

function graphOf(agents, calls) {
  const edges = calls.map(([from, to, rate, errors, p95, capability]) => ({ from, to, traffic: traffic(rate, errors, p95), capabilities: [{ capability: capability || null, traffic: traffic(rate, errors, p95) }] }));
  const sum = (some) => (some.length ? { ...some[0].traffic, rate: some.reduce((all, edge) => all + edge.traffic.rate, 0), error_share: Math.max(...some.map((edge) => edge.traffic.error_share)) } : none);
  const nodes = agents.map(([id, statuses, capabilities = []]) => ({
    id, registered: Object.keys(statuses).length > 0, statuses, capabilities, in_flight: 2,
    incoming: sum(edges.filter((edge) => edge.to === id)), outgoing: sum(edges.filter((edge) => edge.from === id)),
  }));
  return { control: "control-1", window_seconds: 60, sidecars: nodes.length, sidecars_here: nodes.length, nodes, edges };
}

/** A research desk of nine agents. */
export const GRAPH = graphOf([
  ["desk/planner", { ready: 2 }, ["plan"]], ["desk/researcher", { ready: 3 }, ["research"]], ["desk/writer", { ready: 1 }, ["write"]],
  ["desk/search", { ready: 1, degraded: 1 }, ["find", "find_images"]], ["desk/memory", { ready: 1 }, ["recall", "remember"]],
  ["desk/critic", { ready: 1 }, ["review"]], ["llm/gateway", { ready: 4 }, ["chat", "embed"]], ["api.openai.com", {}], ["desk/archivist", { draining: 1 }, ["archive"]],
], [
  ["desk/planner", "desk/researcher", 4.2, 0, 412_000, "research"], ["desk/planner", "desk/writer", 1.1, 0, 1_900_000, "write"],
  ["desk/planner", "llm/gateway", 3.4, 0.002, 880_000, "chat"], ["desk/researcher", "desk/search", 12.6, 0.081, 95_000, "find"],
  ["desk/researcher", "desk/memory", 8.3, 0, 6_000, "recall"], ["desk/researcher", "llm/gateway", 9.7, 0.013, 1_200_000, "chat"],
  ["desk/writer", "desk/critic", 1.0, 0, 700_000, "review"], ["desk/critic", "desk/writer", 0.3, 0, 1_500_000, "write"], ["desk/critic", "llm/gateway", 1.0, 0, 650_000, "chat"],
  ["llm/gateway", "api.openai.com", 14.1, 0.004, 1_100_000], ["desk/memory", "llm/gateway", 2.2, 0, 45_000, "embed"],
]);

export const HOSTILE_GRAPH = graphOf([[`shop/${HOSTILE}`, { ready: 1 }, [HOSTILE]], ["shop/a", { ready: 1 }]],
  [["shop/a", `shop/${HOSTILE}`, 3, 0.5, 20_000, HOSTILE], [`shop/${HOSTILE}`, HOSTILE, 1, 0, 1000], ["shop/a", "shop/a", 1, 0, 5000]]);

// ---- a trace

export const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const START = 1_790_000_000_000_000_000n;
const value = (own) => (typeof own === "number" ? { intValue: String(own) } : typeof own === "boolean" ? { boolValue: own } : { stringValue: own });
const attributes = (own) => Object.entries(own).map(([key, each]) => ({ key, value: value(each) }));
const time = (ms) => String(START + BigInt(Math.round(ms * 1e6)));
const hex = (number) => number.toString(16).padStart(16, "0");

function span(id, parent, kind, name, from, to, own = {}, more = {}) {
  return {
    traceId: TRACE, spanId: hex(id), parentSpanId: parent ? hex(parent) : "", name, kind, startTimeUnixNano: time(from), endTimeUnixNano: time(to),
    attributes: attributes(own), events: [], status: more.error ? { code: 2, message: more.error } : {}, ...more.rest,
  };
}

const of = (agent, spans) => ({
  resource: { attributes: attributes({ "service.name": agent.split("/")[1], "service.namespace": agent.split("/")[0], "service.version": "1.4.0" }) },
  scopeSpans: [{ scope: { name: "pilotfish" }, spans }],
});

/** A question to the planner: a try that failed and was done again, an agent that forwards no headers. */
export const OTLP = {
  resourceSpans: [
    of("desk/planner", [
      span(1, 0, 2, "POST /ask", 0, 2412, { "http.request.method": "POST", "url.path": "/ask", "http.response.status_code": 200, "pilotfish.request_id": "7f3c" }),
      span(2, 1, 3, "POST", 14, 1106, { "pilotfish.capability": "research", "pilotfish.agent": "desk/researcher", "http.response.status_code": 200 }),
      span(12, 1, 3, "POST", 1120, 2398, { "pilotfish.capability": "write", "pilotfish.agent": "desk/writer", "http.response.status_code": 200 }),
    ]),
    of("desk/researcher", [
      span(3, 2, 2, "POST /research", 16, 1104, { "http.response.status_code": 200 }),
      span(4, 3, 3, "GET", 30, 190, { "pilotfish.capability": "find", "http.response.status_code": 503, "error.type": "503" }, { error: "no answer of use" }),
      span(5, 3, 3, "GET", 215, 402, { "pilotfish.capability": "find", "http.response.status_code": 200, "http.request.resend_count": 1 },
        { rest: { events: [{ timeUnixNano: time(214), name: "pilotfish.retry", attributes: attributes({ "pilotfish.reason": "status 503", wait_ms: 25 }) }] } }),
      span(8, 3, 3, "GET", 34, 61, { "pilotfish.capability": "recall", "http.response.status_code": 200, "pilotfish.trace.inferred": true }),
      span(10, 3, 3, "POST", 420, 1098, { "pilotfish.capability": "chat", "http.response.status_code": 200, "gen_ai.request.model": "gpt-5", "gen_ai.usage.output_tokens": 512 }),
    ]),
    of("desk/search", [span(6, 4, 2, "GET /find", 33, 188, { "http.response.status_code": 503 }, { error: "overloaded" }), span(7, 5, 2, "GET /find", 218, 400, { "http.response.status_code": 200 })]),
    of("desk/memory", [span(9, 8, 2, "GET /recall", 36, 60, { "http.response.status_code": 200 })]),
    of("llm/gateway", [span(11, 10, 2, "POST /v1/chat/completions", 423, 1096, { "http.response.status_code": 200 }), span(15, 14, 2, "POST /v1/chat/completions", 1230, 2300, { "http.response.status_code": 200 })]),
    of("desk/writer", [
      span(13, 12, 2, "POST /write", 1123, 2396, { "http.response.status_code": 200 }),
      span(14, 13, 3, "POST", 1226, 2303, { "pilotfish.capability": "chat", "http.response.status_code": 200, "pilotfish.trace.inferred": true }),
    ]),
  ],
};

export const SUMMARIES = [
  { trace: TRACE, agent: "desk/planner", name: "POST /ask", start_ns: Date.now() * 1e6 - 4e9, duration_ns: 2_412_000_000, spans: 15, agents: 6, error: true, partial: false, workflow: "report-7" },
  { trace: "00f067aa0ba902b700f067aa0ba902b7", agent: "desk/researcher", name: "POST /research", start_ns: Date.now() * 1e6 - 9e10, duration_ns: 61_000_000, spans: 5, agents: 3, error: false, partial: true },
];

/** A trace in which everything that can be wrong is wrong: circles, orphans, clocks, names, no ends. */
export const BROKEN = {
  resourceSpans: [
    of(`shop/${HOSTILE}`, [
      span(1, 2, 2, HOSTILE, 0, 10, { [HOSTILE]: HOSTILE, "pilotfish.trace.partial": true }, { error: HOSTILE }),
      span(2, 1, 3, "circle", 5, 4), span(3, 3, 9, "own parent", 1, 2), span(4, 99, 2, "orphan", -5000, 20),
      span(5, 4, 3, "", 30000, 29000, {}, { rest: { events: [{ timeUnixNano: time(7), name: HOSTILE, attributes: attributes({ a: HOSTILE }) }] } }),
    ]),
    { scopeSpans: [{ spans: [span(6, 5, 1, "no resource", 1, 3)] }] }, { resource: {} },
  ],
};

// ---- alerts

const rule = (name, what, severity, condition, state, more = {}) => ({ name, type: what, severity, condition, default: true, disabled: false, state, ...more });
export const ALERTS = {
  control: "control-1", evaluated: Math.round(Date.now() / 1000) - 2,
  rules: [
    rule("pilotfish-system/error-rate", "error-rate", "critical", "more than 5 % of calls to an agent fail, of at least 10 in 2m, for 2m", "firing"),
    rule("pilotfish-system/latency", "latency", "warning", "the 95th percentile of calls to an agent is over 5s for 2m", "inactive"),
    rule("pilotfish-system/saturation", "saturation", "warning", "an agent has over 100 calls in flight for 2m", "inactive"),
    rule("pilotfish-system/agent-unavailable", "agent-unavailable", "critical", "no instance of an agent may be chosen for 30s", "pending"),
    rule("desk/chat-slow", "latency", "info", "the 99th percentile of chat is over 3s for 10m", "inactive", { default: false, disabled: true }),
  ],
  alerts: [
    { rule: "pilotfish-system/error-rate", type: "error-rate", severity: "critical", agent: "desk/search", state: "firing", since: Math.round(Date.now() / 1000) - 340, value: 0.081, threshold: 0.05,
      shown: "8.1 %", shown_threshold: "5 %", summary: "8.1 % of 756 calls to desk/search failed in 2m, over 5 %", labels: {}, annotations: {} },
    { rule: "pilotfish-system/agent-unavailable", type: "agent-unavailable", severity: "critical", agent: "desk/archivist", state: "pending", since: Math.round(Date.now() / 1000) - 12, value: 0, threshold: 1,
      shown: "0 instances", shown_threshold: "1", summary: "no instance of desk/archivist may be chosen", labels: {}, annotations: {} },
  ],
};

// ---- what was found about the trace

const ms = (count) => Math.round(count * 1e6);
const spent = (agent, name, capability, part, self, critical) => ({ agent, name, capability, part, spans: 1, self_ns: ms(self), longest_ns: ms(self), critical_ns: ms(critical), evidence: [] });
export const ANALYSIS = {
  trace: TRACE, start_ns: Number(START), total_ns: ms(2412), spans: 15, time: { agent_ns: ms(2290), mesh_ns: ms(122), outside_ns: 0, nobody_ns: 0 },
  critical_path: [[1, 0, 14], [2, 14, 16], [3, 16, 30], [4, 30, 33], [6, 33, 188], [4, 188, 190], [3, 190, 420], [10, 420, 423], [11, 423, 1096], [10, 1096, 1098], [3, 1098, 1104], [1, 1106, 1120], [12, 1120, 1123], [13, 1123, 1226],
    [14, 1226, 1230], [15, 1230, 2300], [14, 2300, 2303], [13, 2303, 2396], [1, 2398, 2412]].map(([id, from, to]) => ({ span: hex(id), agent: "", name: "", part: "agent", at_ns: ms(from), duration_ns: ms(to - from) })),
  bottlenecks: [spent("llm/gateway", "POST /v1/chat/completions", "chat", "agent", 1743, 1743), spent("desk/search", "GET /find", "find", "agent", 337, 155),
    spent("desk/researcher", "POST /research", "research", "agent", 250, 250), spent("desk/writer", "POST /write", "write", "agent", 196, 196), spent("desk/search", "GET", "find", "mesh", 10, 5)],
  root_cause: null,
  recommendations: [
    { id: "bottleneck", severity: "warning", finding: "72 % of the time is llm/gateway's own (chat): 1.74 s in 2 calls, one after the other.", advice: "A faster model for one of them, or shorter answers, would help most.", saving_ns: ms(673), evidence: [hex(11), hex(15)] },
    { id: "retries", severity: "info", finding: "desk/search answered 503 once; the second try came after 25 ms.", advice: "It has one instance that is ready: another one would take the calls.", saving_ns: ms(185), evidence: [hex(4), hex(5)] },
  ],
};

// ---- placement

const GIB = 2 ** 30;
const gpu = (id, given, used, more = {}) => ({ id, model: "NVIDIA A100-SXM4-80GB", pool: "desk/large", memory: [given * GIB, 80 * GIB], failed: null, busy_percent: used ? 71 : 0, used: used * GIB, slices: [], replicas: given ? ["desk/writer/x"] : [], ...more });
const machine = (name, status, zone, cpu, memory, gpus, replicas, more = {}) => ({ name, status, heard_ms: status === "lost" ? 48_000 : 400, locality: `eu-central/${zone}`, labels: { disk: "nvme" }, taints: [],
  cpu_milli: cpu, memory: memory.map((own) => own * GIB), gpus, replicas, most_replicas: 110, troubles: [], ...more });
const eight = (number, from) => Array.from({ length: 8 }, (_, at) => from(`GPU-${number}-${at}`, at));
const group = (name, wanted, placed, ready, strategy, reason = null) => ({ group: name, cluster: "desk/research", strategy, wanted, placed, ready, reason });
const replica = (id, of, node, status, more = {}) => ({ id, group: of, node, status, reason: null, gpus: [], usage: { cpu_milli: 1250, memory: 3.1 * GIB, gpu_memory: 31 * GIB, gpu_percent: 71 }, restarts: 0, since: Math.round(Date.now() / 1000) - 4000, ...more });

/** Four machines, one lost; agents in two regions, one of which asked for too much. */
export const PLACEMENT = {
  leader: "control-1", term: 12, executor: "process",
  nodes: [
    machine("cpu-1", "ready", "a", [6000, 16_000], [12, 64], [], 12),
    machine("gpu-1", "ready", "a", [28_000, 32_000], [96, 256], eight(1, (id) => gpu(id, 80, 61)), 9),
    machine("gpu-2", "ready", "b", [12_500, 32_000], [40, 256], eight(2, (id, at) => (at === 7 ? gpu(id, 0, 0, { failed: "fell off the bus" }) : gpu(id, at === 0 ? 40 : 80, at === 0 ? 12 : 66))), 8, { troubles: ["the data folder is full"], taints: ["gpu=only:NoSchedule"] }),
    machine("gpu-3", "lost", "b", [0, 16_000], [0, 128], Array.from({ length: 4 }, (_, at) => gpu(`GPU-3-${at}`, 0, 0, { model: "NVIDIA L4", memory: [0, 24 * GIB], slices: at ? [] : [{ id: "MIG-1", profile: "1g.6gb", memory: 6 * GIB }] })), 0),
  ],
  agents: [group("desk/searcher@eu-central", 12, 12, 12, "static"), group("desk/searcher@us-east", 20, 20, 19, "static"), group("desk/writer", 20, 13, 12, "static", "7 have no place: no free GPU"), group("desk/translator", 1, 0, 0, "just_in_time", "waiting: no command")],
  replicas: [
    replica("desk/writer/qmvkzh2a7b", "desk/writer", "gpu-2", "ready", { gpus: [{ gpu: "GPU-2-0", memory: 40 * GIB }] }),
    replica("desk/writer/xk3c9d2mfe", "desk/writer", "gpu-2", "crash-loop", { reason: "exit code 1: ModuleNotFoundError: No module named torch", restarts: 7, usage: null }),
    replica("desk/searcher/aa3c9d2mfe", "desk/searcher@us-east", "cpu-1", "starting", { usage: null }),
    replica("desk/translator/bb3c9d2mfe", "desk/translator", null, "waiting", { reason: "no command: write `pilotfish.dev/command`, or an AgentTemplate", usage: null, since: 0 }),
  ],
  notes: ["desk/research: 60 replicas, but the regions and agents add up to 53"],
};
export const EXPLAINED = {
  agent: "desk/writer", need: "2 cores, 4 GiB of memory, 1 GPU", groups: [PLACEMENT.agents[2]], obstacles: [[2, "all GPUs are taken"], [1, "it has no GPU"], [1, "it is lost"]],
  hint: "7 more GPUs of at least 40 GiB: 4 are on gpu-3, which is lost", replicas: PLACEMENT.replicas.slice(0, 2),
};
export const HOSTILE_PLACEMENT = {
  ...PLACEMENT, notes: [HOSTILE], agents: [group(`shop/${HOSTILE}`, 1, 0, 0, HOSTILE, HOSTILE)], replicas: [replica(`shop/${HOSTILE}/x`, `shop/${HOSTILE}`, HOSTILE, HOSTILE, { reason: HOSTILE })],
  nodes: [machine(HOSTILE, HOSTILE, HOSTILE, [0, 0], [0, 0], [gpu(HOSTILE, 0, 0, { failed: HOSTILE, model: HOSTILE })], 0, { troubles: [HOSTILE], labels: { [HOSTILE]: HOSTILE } })],
};

// ---- who may call whom

const DESK = ["desk/ledger", "desk/planner", "desk/researcher", "desk/searcher", "desk/writer", "llm/gateway"];
export const MATRIX = {
  callers: DESK, callees: DESK, default_deny: true, notes: ["each caller acts for itself, with its certificate and without a token"],
  rows: [["no", "no", "no", "no", "no", "no"], ["some", "no", "yes", "yes", "held", "ask"], ["no", "no", "no", "yes", "held", "some"], ["no", "no", "no", "no", "held", "no"], ["held", "held", "held", "held", "held", "held"], ["no", "no", "no", "no", "held", "no"]],
};
export const HELD = { actions: [{ agent: "desk/writer", hold: "quarantine", since: 1, until: Math.round(Date.now() / 1000) + 540, by: "anna", why: "it writes to everybody" }, { agent: "desk/searcher", hold: { restrict: ["search", "cite"] }, since: 1, by: "detector", why: "odd questions" }] };
export const REFUSALS = [{ chain: hex(1), seq: 7, time_ns: Date.now() * 1e6 - 4e9, agent: "desk/ledger", caller: "cluster.local/ns/desk/agent/researcher", action: "POST /accounts/7", policy: "desk/readers no rule", outcome: "denied", reason: "access-denied" }];
export const WHY = {
  from: "cluster.local/ns/desk/agent/researcher", to: "desk/ledger", allowed: false, reason: "access-denied", status: 403, detail: "no ALLOW rule lets cluster.local/ns/desk/agent/researcher do GET /", by: "desk/readers no rule", written: "readers.yaml:2:1", audit: false,
  permission: "accounts:read", resource: "accounts/7", roles: [{ role: "desk/policy role researcher", gives: false }],
  policies: [{ policy: "desk/readers", action: "ALLOW", dry_run: false, written: "readers.yaml:2:1", near: [1, ["principal: it wants cluster.local/ns/desk/sa/planner, and this is cluster.local/ns/desk/agent/researcher"]] }, { policy: "pilotfish-system/default-deny", action: "ALLOW", dry_run: false, written: "pilotfish serve --default-deny" }],
  advice: "add to an ALLOW policy for this agent the rule {from: [{source: {principals: [\"cluster.local/ns/desk/agent/researcher\"]}}]}", notes: [],
};
export const HOSTILE_MATRIX = { callers: [`shop/${HOSTILE}`], callees: [`shop/${HOSTILE}`], rows: [[HOSTILE]], default_deny: false, notes: [HOSTILE] };
