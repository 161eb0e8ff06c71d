//! Who asked whom, through three sidecars: what the last one knows of it, and who can say it.

use std::time::{Duration, Instant};

use pilotfish_testkit::relay::{Manners, Relay};
use pilotfish_testkit::{H1, Origin, Sidecar, h1};

use crate::tls::setup::{Mesh, ask, mesh_service, metric};

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
        let mesh = Mesh::new();
        let (relay, agent) = (Relay::start("c.test", Manners::Drops).await, Origin::plain().await);
        let (a, e) = (mesh.sidecar("a").start(), mesh.sidecar("e").start());
        let b = mesh.sidecar("b").app(relay.addr()).start();
        let c = mesh.sidecar("c").app(agent.addr()).start();
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
