//! Who asked whom, through three sidecars: what the last one knows of it, and who can say it.

use std::time::{Duration, Instant};

use pilotfish_testkit::relay::{Manners, Relay};
use pilotfish_testkit::{Collector, H1, Origin, Sidecar, h1};

use crate::tls::setup::{Mesh, ask, mesh_service, metric};
use crate::why::account;

const PATIENCE: Duration = Duration::from_secs(15);

/// `a` and `e` call `b`, whose agent asks `c` for each call and passes no header on.
struct Line {
    mesh: Mesh,
    a: Sidecar,
    e: Sidecar,
    b: Sidecar,
    c: Sidecar,
    relay: Relay,
    agent: Origin,
}

impl Line {
    /// `policy` is `c`'s.
    async fn start(policy: &str) -> Line {
        Line::start_with(policy, &[]).await
    }

    /// The same, with flags of `c`.
    async fn start_with(policy: &str, flags: &[&str]) -> Line {
        let mesh = Mesh::new();
        let (relay, agent) = (Relay::start("c.test", Manners::Drops).await, Origin::plain().await);
        let (a, e) = (mesh.sidecar("a").start(), mesh.sidecar("e").start());
        let b = mesh.sidecar("b").app(relay.addr()).start();
        let c = mesh.sidecar("c").app(agent.addr()).args(flags).start();
        relay.asks_through(b.outbound);
        let services = mesh_service("b.test", "b", b.inbound) + &mesh_service("c.test", "c", c.inbound);
        for sidecar in [&a, &e, &b] {
            sidecar.rewrite("a.yaml", &services);
        }
        c.rewrite("a.yaml", &(services + policy));
        let start = Instant::now();
        for sidecar in [&a, &e, &b, &c] {
            while metric(sidecar, "pilotfish_snapshot_version").await < 2 {
                assert!(start.elapsed() < PATIENCE, "the documents were not taken: {:?}", sidecar.stderr());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Line { mesh, a, e, b, c, relay, agent }
    }
}

/// The status of a call.
async fn call(from: &Sidecar, host: &str, path: &str, headers: &[&str]) -> h1::Answer {
    let mut client = H1::connect(from.outbound).await.patience(PATIENCE);
    client.get(host, path, headers).await.unwrap()
}

fn policy(action: &str, conditions: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: chain }}\nspec:\n  action: {action}\n  \
         rules:\n  - when:\n{conditions}"
    )
}

fn id(agent: &str) -> String {
    format!("mesh.test/ns/default/agent/{agent}")
}

#[tokio::test]
async fn the_last_sidecar_knows_for_whom_a_call_is() {
    let conditions = format!(
        "    - {{ key: pilotfish.delegation.depth, values: [\"1\"] }}\n    \
         - {{ key: pilotfish.delegation.origin, values: [{a}] }}\n    \
         - {{ key: pilotfish.delegation.agents, values: [{a}] }}\n",
        a = id("a")
    );
    let line = Line::start(&policy("ALLOW", &conditions)).await;
    assert_eq!(call(&line.a, "b.test", "/", &[]).await.status(), 200);
    assert_eq!(call(&line.e, "b.test", "/", &[]).await.status(), 403, "another one began it");
    assert_eq!(call(&line.a, "c.test", "/", &[]).await.reason(), "access-denied", "nobody is between");
    assert_eq!(call(&line.b, "c.test", "/", &[]).await.reason(), "access-denied", "of its own accord");
    assert_eq!(call(&line.a, "b.test", "/", &[]).await.status(), 200, "again, from memory");
    for seen in line.agent.requests() {
        assert!(seen.header("x-pilotfish-delegation").is_none(), "the agent has nothing to do with it");
    }
}

#[tokio::test]
async fn nobody_but_sidecars_can_say_it() {
    let depth = "    - { key: pilotfish.delegation.depth, values: [\">=1\"] }\n";
    let line = Line::start(&policy("ALLOW", depth)).await;
    assert_eq!(call(&line.a, "b.test", "/", &[]).await.status(), 200);
    // An agent: its sidecar takes it away.
    let made_up = format!("x-pilotfish-delegation: {}", "eyJpIjoiYSJ9.AAAA~eyJpIjoiYiJ9.AAAA");
    assert_eq!(call(&line.b, "c.test", "/", &[&made_up]).await.reason(), "access-denied");
    // Something with an identity and no sidecar.
    let own = line.mesh.client(Some(&line.mesh.issue("b")));
    let raw = |header: &str| format!("GET / HTTP/1.1\r\nhost: c.test\r\n{header}connection: close\r\n\r\n");
    for (header, reason) in [
        (String::new(), "access-denied"),
        (format!("{made_up}\r\n"), "bad-delegation"),
        (format!("{made_up}\r\n{made_up}\r\n"), "bad-delegation"),
        (format!("X-Pilotfish-Delegation: {}\r\n", "A".repeat(50_000)), "bad-delegation"),
        ("x-pilotfish-delegation:\r\n".to_owned(), "bad-delegation"),
    ] {
        let answer = ask(line.c.inbound, own.clone(), &raw(&header)).await.unwrap();
        assert!(answer.contains(&format!("pilotfish-reason: {reason}")), "{:.80}: {answer}", header);
    }
}

#[tokio::test]
async fn of_several_calls_that_are_served_all_count() {
    let agents = format!("    - {{ key: pilotfish.delegation.agents, values: [{}] }}\n", id("e"));
    let line = Line::start(&policy("DENY", &agents)).await;
    assert_eq!(call(&line.a, "b.test", "/", &[]).await.status(), 200);
    assert_eq!(call(&line.e, "b.test", "/", &[]).await.status(), 403);
    let (slow, quick) = tokio::join!(call(&line.e, "b.test", "/held/", &[]), async {
        // The agent has the slow call, and asks for the quick one meanwhile: whose that is nobody knows.
        let start = Instant::now();
        while !line.relay.heads().iter().any(|head| head.contains("/held/")) {
            assert!(start.elapsed() < PATIENCE, "the slow call does not come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let quick = call(&line.a, "b.test", "/", &[]).await;
        line.relay.release(1);
        quick
    });
    assert_eq!((slow.status(), quick.status()), (403, 403));
    assert_eq!(call(&line.a, "b.test", "/", &[]).await.status(), 200);
}

#[tokio::test]
async fn what_comes_from_outside_of_the_mesh_is_taken_away() {
    let permissive = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: { name: open }\nspec:\n  mtls: { mode: PERMISSIVE }\n";
    let depth = "    - { key: pilotfish.delegation.depth, values: [\"0\"] }\n";
    let line = Line::start(&(policy("ALLOW", depth) + permissive)).await;
    // To many agents `_` in a header's name is a `-`.
    let forged = [
        "x-pilotfish-delegation: eyJpIjoiYSJ9.AAAA",
        "x_pilotfish_delegation: forged",
        "X-Pilotfish_Agent: forged",
        "agent_hops: forged",
        "x_forwarded_client_cert: forged",
        "x-forwarded-client_cert: forged",
    ];
    let answer = h1::get(line.c.inbound, "c.test", "/", &forged).await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    // A sidecar's own caller has no more to say.
    assert_eq!(call(&line.b, "c.test", "/", &forged).await.status(), 200);
    let seen = line.agent.requests();
    assert!(
        seen.len() == 2 && seen.iter().all(|seen| seen.header("x-pilotfish-delegation").is_none()),
        "{seen:?}"
    );
    let told = format!("{seen:?}");
    assert!(!told.contains("forged"), "{told}");
}

/// What a raw client with this agent's identity and no sidecar is answered.
async fn without_sidecar(line: &Line, agent: &str) -> String {
    let own = line.mesh.client(Some(&line.mesh.issue(agent)));
    ask(line.c.inbound, own, "GET / HTTP/1.1\r\nhost: c.test\r\nconnection: close\r\n\r\n").await.unwrap()
}

#[tokio::test]
async fn a_call_without_a_chain_is_refused_where_one_is_required() {
    let required = "---\napiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: { name: chains }\nspec:\n  \
                    authentication: { delegation_required: true }\n";
    let by_flag: &[&str] = &["--delegation", "require"];
    for (policy, flags) in [("", by_flag), (required, &[])] {
        let line = Line::start_with(policy, flags).await;
        let answer = without_sidecar(&line, "b").await;
        assert!(answer.contains("pilotfish-reason: delegation-required"), "{answer}");
        assert!(answer.contains("the sidecar of default/b does not say"), "{answer}");
        assert!(line.agent.requests().is_empty());
        // A tunnel is no way past the sidecar, which says it for what goes through, too.
        let mut tunnel = H1::connect(line.b.outbound).await.patience(PATIENCE);
        let opened = tunnel.ask("CONNECT c.test:80 HTTP/1.1\r\nhost: c.test:80\r\n\r\n").await.unwrap();
        assert_eq!(opened.status(), 200);
        assert_eq!(tunnel.get("c.test", "/", &[]).await.unwrap().status(), 200);
        // Sidecars say it, of their own agents and for others.
        assert_eq!(call(&line.b, "c.test", "/", &[]).await.status(), 200);
        assert_eq!(call(&line.a, "b.test", "/", &[]).await.status(), 200);
    }
    let line = Line::start("").await;
    assert!(without_sidecar(&line, "b").await.starts_with("HTTP/1.1 200"), "the default");
}

#[tokio::test]
async fn why_and_spans_say_who_acted_for_whom_and_whose_permission_was_missing() {
    let policy = "---\napiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: { name: roles }\nspec:\n  authorization:\n    model: \
                  rbac\n    roles:\n    - { name: b, permissions: ['*:*'], resources: ['*'] }\n    - { name: e, permissions: \
                  ['*:*'], resources: ['*'] }\n";
    let collector = Collector::start().await;
    let line = Line::start_with(policy, &["--otlp-endpoint", &collector.url()]).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01");
    // The agent drops the trace: its sidecar joins it.
    assert_eq!(call(&line.a, "b.test", "/", &[&parent]).await.status(), 403);
    let told = account(&line.c, "last=1").await;
    assert_eq!(told["delegation"]["origin"], id("a"), "{told:#}");
    assert_eq!(told["delegation"]["agents"], serde_json::json!([id("a")]), "{told:#}");
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains("default/a has no role") && detail.contains("acts for it"), "{detail}");
    let spans = collector.of_trace(trace, 1).await;
    let server =
        spans.iter().find(|span| span.server && span.attribute("pilotfish.caller") == "default/b").unwrap();
    let attribute = |name: &str| server.attribute(&format!("pilotfish.delegation.{name}")).to_owned();
    assert_eq!((attribute("origin"), attribute("depth")), (id("a"), "1".to_owned()), "{server:#?}");
    assert!(attribute("agents").contains(&id("a")), "{server:#?}");
}

#[tokio::test]
async fn a_brief_refusal_names_no_policy_and_the_log_does() {
    let agents = format!("    - {{ key: pilotfish.delegation.agents, values: [{}] }}\n", id("a"));
    let line = Line::start_with(&policy("DENY", &agents), &["--refusals", "brief"]).await;
    let own = line.mesh.client(Some(&line.mesh.issue("a")));
    let raw = "GET / HTTP/1.1\r\nhost: c.test\r\nx-pilotfish-delegation: x\r\nconnection: close\r\n\r\n";
    let answer = ask(line.c.inbound, own, raw).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let mut members: Vec<&String> = body.as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(members, ["reason", "status", "title", "trace"], "{body}");
    assert_eq!((&body["status"], &body["reason"]), (&403.into(), &"bad-delegation".into()));
    let told = account(&line.c, &format!("trace={}", body["trace"].as_str().unwrap())).await;
    assert!(told["detail"].as_str().unwrap().contains("cannot be read"), "{told:#}");
    // Nothing of the request could be read: there is no trace either.
    let own = line.mesh.client(Some(&line.mesh.issue("a")));
    let answer = ask(line.c.inbound, own, "GET / HTTP/1.1\r\nhost : c\r\n\r\n").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && !answer.contains("detail"), "{answer}");
}
