//! Overload: calls at once to the agent, who waits and who is refused, memory, and connections of one caller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_testkit::origin::{Step, ok};
use pilotfish_testkit::{Agent, H1, Origin, Sidecar, h1};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::{service_with, sidecar};

/// A Sidecar document for the agent beside, with these annotations (`name: value`) and this spec.
fn limits(annotations: &[&str], spec: &str) -> String {
    let lines: String = annotations.iter().map(|line| format!("    pilotfish.dev/{line}\n")).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata:\n  name: limits\n  annotations:\n{lines}spec: {spec}\n---\n"
    )
}

const OPEN: &str = "{ outboundTrafficPolicy: { mode: ALLOW_ANY } }";

/// An agent that answers a request when the test lets it, and what it has begun: the targets in their order.
pub struct Gated {
    pub origin: Origin,
    gate: Arc<Semaphore>,
}

impl Gated {
    pub async fn start() -> Gated {
        let gate = Arc::new(Semaphore::new(0));
        let held = gate.clone();
        let origin = Origin::start(move |_, _| {
            let mut steps = vec![Step::Gate(held.clone())];
            steps.extend(ok("done"));
            steps
        });
        Gated { origin: origin.await, gate }
    }

    /// Lets so many calls be answered.
    pub fn release(&self, calls: usize) {
        self.gate.add_permits(calls);
    }

    pub fn begun(&self) -> Vec<String> {
        self.origin.requests().iter().map(|message| message.target().to_owned()).collect()
    }

    /// Waits until so many calls have begun.
    pub async fn has_begun(&self, calls: usize) {
        eventually("calls that have begun", || (self.begun().len() >= calls).then_some(())).await;
    }
}

/// Looks again until there is something; fails the test when that takes too long.
async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within 20 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A metric of the sidecar; 0 when it is not told.
async fn metric(sidecar: &Sidecar, name: &str) -> f64 {
    let page = h1::get(sidecar.admin, "admin", "/metrics", &[]).await.unwrap().text();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

async fn metric_is(sidecar: &Sidecar, name: &str, wanted: f64) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let value = metric(sidecar, name).await;
        if value == wanted {
            return;
        }
        assert!(Instant::now() < until, "{name} is {value} and not {wanted}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks on a connection of its own; gives target, status and reason.
fn ask(
    calls: &mut JoinSet<(String, u16, String, Option<String>)>,
    sidecar: &Sidecar,
    target: &str,
    priority: &'static str,
) {
    let (addr, target) = (sidecar.inbound, target.to_owned());
    calls.spawn(async move {
        let header = format!("agent-priority: {priority}");
        let mut client = H1::connect(addr).await.patience(Duration::from_secs(40));
        let answer = client.get("agent.test", &target, &[&header]).await.unwrap();
        (target, answer.status(), answer.reason(), answer.header("retry-after"))
    });
}

async fn at_most_two(workers: usize, agents_calls: usize) {
    let agent = Agent::start("slow").await;
    let yaml = limits(&["max-concurrency: \"2\"", "queue: size=100,wait=30s"], OPEN);
    let sidecar = sidecar().yaml("a.yaml", yaml).app(agent.addr()).workers(workers).start();
    let mut calls = JoinSet::new();
    for n in 0..agents_calls {
        ask(&mut calls, &sidecar, &format!("/delay/100?{n}"), "default");
    }
    let answers = calls.join_all().await;
    assert!(answers.iter().all(|answer| answer.1 == 200), "{answers:?}");
    assert_eq!(agent.most_at_once(), 2, "{workers} workers");
    metric_is(&sidecar, "pilotfish_inbound_in_service", 0.0).await;
    assert_eq!(metric(&sidecar, "pilotfish_inbound_concurrency_limit").await, 2.0);
}

#[tokio::test]
async fn never_more_than_the_limit_at_once_and_the_others_wait() {
    at_most_two(1, 10).await;
}

#[tokio::test]
async fn the_limit_is_the_processs_and_not_each_workers() {
    at_most_two(4, 40).await;
}

#[tokio::test]
async fn important_calls_go_first_and_a_full_queue_refuses_the_least_important() {
    let agent = Gated::start().await;
    let yaml = limits(&["max-concurrency: \"1\"", "queue: size=3,wait=60s"], OPEN);
    let sidecar = sidecar().yaml("a.yaml", yaml).app(agent.origin.addr()).start();
    let mut calls = JoinSet::new();
    let order = [("/first", "default"), ("/d1", "default"), ("/d2", "default"), ("/c1", "critical")];
    for (n, (target, priority)) in order.into_iter().enumerate() {
        ask(&mut calls, &sidecar, target, priority);
        if n == 0 {
            agent.has_begun(1).await;
        } else {
            metric_is(&sidecar, "pilotfish_inbound_waiting", n as f64).await;
        }
    }
    // The queue is full: a sheddable call finds nobody less important, a critical one takes the place of the oldest.
    ask(&mut calls, &sidecar, "/s1", "sheddable");
    let refused = (503, "overloaded".to_owned(), Some("1".to_owned()));
    let (target, status, reason, retry) = calls.join_next().await.unwrap().unwrap();
    assert_eq!((target.as_str(), (status, reason, retry)), ("/s1", refused.clone()));
    ask(&mut calls, &sidecar, "/c2", "critical");
    let (target, status, reason, retry) = calls.join_next().await.unwrap().unwrap();
    assert_eq!((target.as_str(), (status, reason, retry)), ("/d1", refused));
    for begun in 1..=4 {
        agent.has_begun(begun).await;
        agent.release(1);
    }
    assert!(calls.join_all().await.iter().all(|answer| answer.1 == 200));
    assert_eq!(agent.begun(), ["/first", "/c1", "/c2", "/d2"]);
    metric_is(&sidecar, "pilotfish_inbound_waited_total", 3.0).await;
    assert!(metric(&sidecar, "pilotfish_inbound_wait_seconds_total").await > 0.0);
    let refused = |priority: &str| format!("pilotfish_inbound_shed_total{{priority=\"{priority}\"}}");
    metric_is(&sidecar, &refused("sheddable"), 1.0).await;
    metric_is(&sidecar, &refused("default"), 1.0).await;
    assert_eq!(metric(&sidecar, &refused("critical")).await, 0.0);
    metric_is(&sidecar, "pilotfish_refusals_total{reason=\"overloaded\"}", 2.0).await;
}

#[tokio::test]
async fn the_least_important_waits_least_long() {
    let agent = Gated::start().await;
    let yaml = limits(&["max-concurrency: \"1\"", "queue: size=10,wait=3s"], OPEN);
    let sidecar = sidecar().yaml("a.yaml", yaml).app(agent.origin.addr()).start();
    let mut calls = JoinSet::new();
    ask(&mut calls, &sidecar, "/first", "critical");
    agent.has_begun(1).await;
    for (target, priority) in
        [("/critical", "critical"), ("/default", "default"), ("/sheddable", "sheddable")]
    {
        ask(&mut calls, &sidecar, target, priority);
    }
    for expected in ["/sheddable", "/default"] {
        let (target, status, reason, _) = calls.join_next().await.unwrap().unwrap();
        assert_eq!((target.as_str(), status, reason.as_str()), (expected, 503, "overloaded"));
    }
    agent.release(2);
    assert!(calls.join_all().await.iter().all(|answer| answer.1 == 200), "the critical one is still there");
}

#[tokio::test]
async fn who_goes_away_frees_his_place_in_the_line_and_at_the_agent() {
    let agent = Gated::start().await;
    let yaml = limits(&["max-concurrency: \"1\"", "queue: size=1,wait=60s"], OPEN);
    let sidecar = sidecar().yaml("a.yaml", yaml).app(agent.origin.addr()).start();
    let begin = async |target: &str| {
        let mut client = H1::connect(sidecar.inbound).await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: agent.test\r\n\r\n")).await;
        client
    };
    let served = begin("/served").await;
    agent.has_begun(1).await;
    let waits = begin("/waits").await;
    metric_is(&sidecar, "pilotfish_inbound_waiting", 1.0).await;
    drop(waits);
    metric_is(&sidecar, "pilotfish_inbound_waiting", 0.0).await;
    let mut next = begin("/next").await;
    metric_is(&sidecar, "pilotfish_inbound_waiting", 1.0).await;
    drop(served);
    agent.has_begun(2).await;
    agent.release(2);
    assert_eq!(next.answer("GET").await.unwrap().status(), 200);
    assert_eq!(agent.begun(), ["/served", "/next"]);
    metric_is(&sidecar, "pilotfish_inbound_in_service", 0.0).await;
}

#[tokio::test]
async fn without_a_queue_the_surplus_is_refused_at_once() {
    let agent = Gated::start().await;
    let yaml = limits(&["max-concurrency: \"2\"", "queue: size=0"], OPEN);
    let sidecar = sidecar().yaml("a.yaml", yaml).app(agent.origin.addr()).start();
    let mut calls = JoinSet::new();
    for n in 0..2 {
        ask(&mut calls, &sidecar, &format!("/{n}"), "default");
    }
    agent.has_begun(2).await;
    let answer = h1::get(sidecar.inbound, "agent.test", "/more", &[]).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (503, "overloaded"));
    agent.release(2);
    assert!(calls.join_all().await.iter().all(|answer| answer.1 == 200));
}

#[tokio::test]
async fn a_limit_that_is_taken_away_lets_everybody_in_and_one_that_is_added_counts_at_once() {
    let agent = Gated::start().await;
    let limited = limits(&["max-concurrency: \"1\"", "queue: size=10,wait=60s"], OPEN);
    let sidecar = sidecar().yaml("a.yaml", limited.clone()).app(agent.origin.addr()).start();
    let mut calls = JoinSet::new();
    for n in 0..3 {
        ask(&mut calls, &sidecar, &format!("/{n}"), "default");
    }
    metric_is(&sidecar, "pilotfish_inbound_waiting", 2.0).await;
    sidecar.rewrite("a.yaml", &limited.replace("\"1\"", "\"3\""));
    agent.has_begun(3).await;
    agent.release(3);
    assert!(calls.join_all().await.iter().all(|answer| answer.1 == 200));
}

#[tokio::test]
async fn the_inbound_connection_pool_is_enforced() {
    let agent = Gated::start().await;
    let spec =
        "{ inboundConnectionPool: { tcp: { maxConnections: 2 }, http: { http1MaxPendingRequests: 3 } } }";
    let sidecar = sidecar().yaml("a.yaml", limits(&[], spec)).app(agent.origin.addr()).workers(2).start();
    let mut calls = JoinSet::new();
    for n in 0..20 {
        ask(&mut calls, &sidecar, &format!("/{n}"), "default");
    }
    // Two are at the agent and three wait: all others are told, while nothing moves.
    for _ in 0..15 {
        let (_, status, reason, _) = calls.join_next().await.unwrap().unwrap();
        assert_eq!((status, reason.as_str()), (503, "connection-pool-overflow"));
    }
    agent.has_begun(2).await;
    assert_eq!(agent.begun().len(), 2);
    agent.release(5);
    assert!(calls.join_all().await.iter().all(|answer| answer.1 == 200));
    // The place of a connection that one worker gives up is another's, whose connection is a new one.
    assert!(agent.origin.connections().len() <= 5);
}

#[tokio::test]
async fn adaptive_concurrency_follows_an_agent_that_serves_few_at_once() {
    // Three at a time, 20 ms each; the others wait inside of it.
    let slots = Arc::new(Semaphore::new(3));
    let held = slots.clone();
    let origin = Origin::start(move |_, _| {
        let back = held.clone();
        let mut steps = vec![Step::Gate(held.clone()), Step::Pause(Duration::from_millis(20))];
        steps.extend(ok("done"));
        // The script has no end of its own: whoever came before is done 20 ms after it began.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            back.add_permits(1);
        });
        steps
    })
    .await;
    let yaml = limits(&["adaptive-concurrency: max=64", "queue: size=100,wait=60s"], OPEN);
    let sidecar = sidecar().yaml("a.yaml", yaml).app(origin.addr()).start();
    let addr = sidecar.inbound;
    let mut clients = JoinSet::new();
    for _ in 0..40 {
        clients.spawn(async move {
            let mut client = H1::connect(addr).await.patience(Duration::from_secs(300));
            for _ in 0..20 {
                // Of calls that are not critical some are dropped when a line stands for a second, as it does on a busy machine.
                let answer = client.get("agent.test", "/", &["agent-priority: critical"]).await.unwrap();
                assert_eq!(answer.status(), 200, "{} {}", answer.reason(), answer.text());
            }
        });
    }
    clients.join_all().await;
    let limit = metric(&sidecar, "pilotfish_inbound_concurrency_limit").await;
    assert!((2.0..=64.0).contains(&limit), "{limit}");
    metric_is(&sidecar, "pilotfish_inbound_in_service", 0.0).await;
}

#[tokio::test]
async fn above_the_memory_limit_new_work_is_refused_and_the_process_goes_on() {
    let agent = Agent::start("any").await;
    let sidecar = sidecar().app(agent.addr()).args(&["--memory-limit", "1MiB"]).start();
    metric_is(&sidecar, "pilotfish_memory_pressure", 2.0).await;
    for addr in [sidecar.inbound, sidecar.outbound] {
        let answer = h1::get(addr, "agent.test", "/", &["agent-priority: critical"]).await.unwrap();
        let told = (answer.status(), answer.reason());
        assert!(
            told == (503, "memory-pressure".into()) || addr == sidecar.outbound && told.0 == 404,
            "{told:?}"
        );
    }
    let ready = h1::get(sidecar.admin, "admin", "/ready", &[]).await.unwrap();
    assert_eq!(ready.status(), 200);
    assert_eq!(agent.requests(), 0);
    assert_eq!(metric(&sidecar, "pilotfish_memory_limit_bytes").await, f64::from(1 << 20));
}

#[tokio::test]
async fn with_enough_memory_nothing_is_refused() {
    let agent = Agent::start("any").await;
    let sidecar = sidecar().app(agent.addr()).args(&["--memory-limit", "64GiB"]).start();
    let answer = h1::get(sidecar.inbound, "agent.test", "/", &["agent-priority: sheddable"]).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(metric(&sidecar, "pilotfish_memory_pressure").await, 0.0);
}

#[tokio::test]
async fn a_caller_with_too_many_connections_is_told_and_one_that_closes_may_come_again() {
    let agent = Agent::start("any").await;
    let sidecar = sidecar().app(agent.addr()).workers(2).args(&["--max-connections-per-caller", "3"]).start();
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = H1::connect(sidecar.inbound).await;
        assert_eq!(client.get("agent.test", "/", &[]).await.unwrap().status(), 200);
        held.push(client);
    }
    let answer = h1::get(sidecar.inbound, "agent.test", "/", &[]).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (503, "too-many-connections"));
    metric_is(&sidecar, "pilotfish_connections_refused_total", 1.0).await;
    // Those who have one go on, and the agent's own calls are not limited.
    assert_eq!(held[0].get("agent.test", "/", &[]).await.unwrap().status(), 200);
    let mut own = Vec::new();
    for _ in 0..5 {
        let mut client = H1::connect(sidecar.outbound).await;
        assert_ne!(client.get("agent.test", "/", &[]).await.unwrap().reason(), "too-many-connections");
        own.push(client);
    }
    drop(held);
    let until = Instant::now() + Duration::from_secs(20);
    while h1::get(sidecar.inbound, "agent.test", "/", &[]).await.unwrap().status() != 200 {
        assert!(Instant::now() < until, "places are not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Two gated endpoints of one host, each with at most `most` calls at once.
async fn two_endpoints(most: usize, queue: &str, workers: usize) -> (Sidecar, [Gated; 2]) {
    let agents = [Gated::start().await, Gated::start().await];
    let ports: Vec<(u16, &str)> = agents.iter().map(|agent| (agent.origin.port(), "")).collect();
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: s\n  annotations:\n    \
         pilotfish.dev/max-concurrency: \"{most}\"\n    pilotfish.dev/queue: {queue}\nspec: {{ host: s.test }}\n---\n"
    );
    let yaml = service_with("s.test", "HTTP", &ports) + &rule;
    (sidecar().yaml("a.yaml", yaml).workers(workers).start(), agents)
}

#[tokio::test]
async fn an_endpoint_at_its_limit_is_not_chosen_and_calls_wait_when_all_are() {
    let (sidecar, agents) = two_endpoints(1, "size=10,wait=60s", 2).await;
    let addr = sidecar.outbound;
    let mut calls = JoinSet::new();
    for n in 0..6 {
        calls.spawn(async move {
            let mut client = H1::connect(addr).await.patience(Duration::from_secs(40));
            client.get("s.test", &format!("/{n}"), &[]).await.unwrap().status()
        });
    }
    // One each, at once.
    for agent in &agents {
        agent.has_begun(1).await;
    }
    for done in 1..=3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(agents.iter().map(|agent| agent.begun().len()).sum::<usize>() <= 2 * done);
        agents.iter().for_each(|agent| agent.release(1));
        if done < 3 {
            eventually("calls that waited have begun", || {
                (agents.iter().map(|agent| agent.begun().len()).sum::<usize>() >= 2 * (done + 1))
                    .then_some(())
            })
            .await;
        }
    }
    agents.iter().for_each(|agent| agent.release(6));
    assert!(calls.join_all().await.iter().all(|status| *status == 200));
}

#[tokio::test]
async fn when_all_endpoints_are_full_and_nobody_may_wait_calls_are_refused() {
    let (sidecar, agents) = two_endpoints(1, "size=0", 1).await;
    let addr = sidecar.outbound;
    let mut calls = JoinSet::new();
    for n in 0..2 {
        calls.spawn(async move { h1::get(addr, "s.test", &format!("/{n}"), &[]).await.unwrap().status() });
    }
    for agent in &agents {
        agent.has_begun(1).await;
    }
    let answer = h1::get(addr, "s.test", "/more", &[]).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (503, "overloaded"));
    assert_eq!(answer.header("retry-after").as_deref(), Some("1"));
    agents.iter().for_each(|agent| agent.release(1));
    assert!(calls.join_all().await.iter().all(|status| *status == 200));
}
