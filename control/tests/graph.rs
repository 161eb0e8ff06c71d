//! Who calls whom, from outside: sidecars report by their streams, people ask.

use pilotfish_config::wire::{EDGE_BOUNDS, Edge, Heartbeat, Hello, Status, ToControl};
use pilotfish_control::api::types::{Graph, GraphNode};

use crate::support::sidecar::{hello, joined};
use crate::support::{Http, Serve, Stream};

fn edge(to: &str, capability: Option<&str>, calls: u32, errors: u32) -> Edge {
    let mut buckets = vec![0; EDGE_BOUNDS.len() + 1];
    buckets[1] = calls;
    let sum_us = u64::from(calls) * 8000;
    Edge { to: to.into(), capability: capability.map(Into::into), calls, errors, sum_us, buckets }
}

async fn says(stream: &mut Stream, edges: Vec<Edge>) {
    let (status, in_flight) = (Status::Ready, 3);
    let (detail, certificate_expires) = (None, None);
    let (reports, limits) = (Vec::new(), Vec::new());
    let beat = Heartbeat {
        status,
        detail,
        in_flight,
        reports,
        certificate_expires,
        limits,
        edges,
        idle_ms: None,
        usage: None,
    };
    stream.say(&ToControl::Heartbeat(beat)).await;
}

/// Asks until what was reported has arrived.
async fn graph(serve: &Serve, fits: impl Fn(&Graph) -> bool) -> Graph {
    let mut http = Http::socket(serve).await;
    for _ in 0..500 {
        let graph: Graph = http.get("/v1/graph?window=1m").await.ok();
        if fits(&graph) {
            return graph;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it did not come to that: {:?}", http.get("/v1/graph").await.text());
}

fn node<'a>(graph: &'a Graph, id: &str) -> &'a GraphNode {
    graph.nodes.iter().find(|node| node.id == id).unwrap_or_else(|| panic!("no {id} in {graph:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_sidecars_make_the_graph() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "shop", "planner").await;
    let able = Hello { capabilities: vec!["plan".into()], ..hello("shop", "planner") };
    let mut planner = Stream::welcomed(&serve, &own, able).await;
    let own = joined(&serve, "shop", "search").await;
    let mut search = Stream::welcomed(&serve, &own, hello("shop", "search")).await;
    let edges = vec![
        edge("shop/search", Some("find"), 90, 0),
        edge("shop/search", None, 10, 10),
        edge("api.example", None, 5, 0),
    ];
    says(&mut planner, edges).await;
    says(&mut search, vec![edge("shop/search", None, 1, 0)]).await;
    let graph = graph(&serve, |graph| graph.edges.len() == 3).await;
    assert_eq!((graph.sidecars, graph.sidecars_here), (2, 2));
    assert!(!graph.control.is_empty() && graph.window_seconds >= 1.0);
    let planner = node(&graph, "shop/planner");
    assert!(planner.registered && planner.in_flight == 3);
    assert_eq!(planner.capabilities, ["plan"]);
    assert_eq!((planner.statuses["ready"], planner.outgoing.calls, planner.incoming.calls), (1, 105, 0));
    assert_eq!(node(&graph, "shop/search").incoming.calls, 101);
    assert!(!node(&graph, "api.example").registered);
    let found =
        graph.edges.iter().find(|edge| edge.from == "shop/planner" && edge.to == "shop/search").unwrap();
    assert_eq!((found.traffic.calls, found.traffic.errors, found.traffic.error_share), (100, 10, 0.1));
    assert_eq!((found.traffic.mean_us, found.traffic.p95_us), (Some(8000), Some(9750)));
    let by: Vec<_> =
        found.capabilities.iter().map(|own| (own.capability.as_deref(), own.traffic.calls)).collect();
    assert_eq!(by, [(None, 10), (Some("find"), 90)]);
}

/// Whatever a sidecar writes, it is its own agent that calls; and what it writes has an end.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_sidecar_speaks_for_itself_only() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "shop", "rogue").await;
    let mut rogue = Stream::welcomed(&serve, &own, hello("shop", "rogue")).await;
    let mut odd = edge("<img src=x onerror=alert(1)>\n\u{202e}", Some("x"), 1, u32::MAX);
    (odd.sum_us, odd.buckets) = (u64::MAX, vec![u32::MAX; 1000]);
    let many = (0..1000).map(|n| edge(&format!("host-{n}.example"), None, 1, 0));
    says(&mut rogue, std::iter::once(odd).chain(many).collect()).await;
    says(&mut rogue, vec![edge("", None, u32::MAX, 0), edge("", None, u32::MAX, 0)]).await;
    let graph = graph(&serve, |graph| graph.edges.iter().any(|edge| edge.traffic.calls > 100_000)).await;
    assert!(graph.edges.len() <= 257 && graph.edges.iter().all(|edge| edge.from == "shop/rogue"));
    assert!(graph.edges.iter().all(|edge| edge.to.len() <= 256 && !edge.to.contains('\n')));
    assert!(graph.edges.iter().all(|edge| edge.traffic.error_share <= 1.0));
    assert!(graph.edges.iter().any(|edge| edge.to == "(others)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_cannot_be_is_refused() {
    let serve = Serve::start(&[]);
    let mut http = Http::socket(&serve).await;
    for (window, says) in
        [("1", "60s"), ("1s", "10s to 1h"), ("2h", "10s to 1h"), ("-5s", "negative"), ("%00", "60s")]
    {
        let said = http.get(&format!("/v1/graph?window={window}")).await.refused(400);
        assert!(said.contains(says), "{window}: {said}");
    }
    http.get("/v1/graph?windows=60s").await.refused(400);
    let empty: Graph = http.get("/v1/graph").await.ok();
    assert!(empty.nodes.is_empty() && empty.edges.is_empty());
}
