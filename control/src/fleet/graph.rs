//! The graph as people see it: registered agents, and the calls between them that sidecars report to this control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::edges::{EdgeTraffic, OTHERS, Traffic, covered};
use super::{Fleet, Shared};
use crate::api::types::{CapabilityTraffic, Graph, GraphEdge, GraphNode, GraphTraffic};

/// What is known of one agent.
#[derive(Debug, Default)]
struct Node {
    instances: usize,
    statuses: BTreeMap<String, usize>,
    capabilities: BTreeSet<String>,
    in_flight: u64,
    incoming: Traffic,
    outgoing: Traffic,
}

/// What is known of calls from one agent to another.
#[derive(Debug, Default)]
struct Between {
    all: Traffic,
    capabilities: Vec<CapabilityTraffic>,
}

impl Fleet {
    /// Agents and the calls between them in the last `window`, at most an hour.
    pub fn graph(&self, window: Duration) -> Graph {
        let (shared, now) = (&self.shared, self.shared.now());
        let seconds = covered(window, now).as_secs_f64().max(1.0);
        let (mut nodes, here) = registered(shared);
        let sidecars = nodes.values().map(|node| node.instances).sum();
        let mut between: BTreeMap<(String, String), Between> = BTreeMap::new();
        for edge in shared.edges.window(window, now).into_iter().filter(|edge| edge.traffic.calls > 0) {
            let EdgeTraffic { from, to, capability, traffic, .. } = edge;
            let to = if to.is_empty() { OTHERS } else { &*to };
            nodes.entry(from.to_string()).or_default().outgoing.add(&traffic);
            nodes.entry(to.to_owned()).or_default().incoming.add(&traffic);
            let own = between.entry((from.to_string(), to.to_owned())).or_default();
            own.all.add(&traffic);
            own.capabilities.push(CapabilityTraffic {
                capability: capability.map(|capability| capability.to_string()),
                traffic: shown(&traffic, seconds),
            });
        }
        Graph {
            control: shared.settings.id.clone(),
            window_seconds: seconds,
            sidecars,
            sidecars_here: here,
            nodes: nodes.into_iter().map(|(id, node)| node.shown(id, seconds)).collect(),
            edges: between.into_iter().map(|(ends, between)| between.shown(ends, seconds)).collect(),
        }
    }
}

/// Agents by name, and how many sidecars are connected here.
fn registered(shared: &Shared) -> (BTreeMap<String, Node>, usize) {
    let (view, mut here) = (shared.view(), 0);
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    let open: BTreeSet<u64> = shared.streams().keys().copied().collect();
    for own in shared.registry.all() {
        let id = own.facts.agent();
        let further = view.given.get(&id).map_or(&[][..], Vec::as_slice);
        let node = nodes.entry(id).or_default();
        node.instances += 1;
        *node.statuses.entry(shared.registry.status(&own).word().to_owned()).or_default() += 1;
        node.capabilities.extend(own.capabilities(further));
        node.in_flight += u64::from(own.live().in_flight);
        here += usize::from(open.contains(&own.stream));
    }
    (nodes, here)
}

impl Node {
    fn shown(self, id: String, seconds: f64) -> GraphNode {
        GraphNode {
            id,
            registered: self.instances > 0,
            statuses: self.statuses,
            capabilities: self.capabilities.into_iter().collect(),
            in_flight: self.in_flight,
            incoming: shown(&self.incoming, seconds),
            outgoing: shown(&self.outgoing, seconds),
        }
    }
}

impl Between {
    fn shown(self, (from, to): (String, String), seconds: f64) -> GraphEdge {
        GraphEdge { from, to, traffic: shown(&self.all, seconds), capabilities: self.capabilities }
    }
}

fn shown(traffic: &Traffic, seconds: f64) -> GraphTraffic {
    GraphTraffic {
        calls: traffic.calls,
        errors: traffic.errors,
        rate: traffic.calls as f64 / seconds,
        error_share: traffic.error_rate().unwrap_or(0.0),
        mean_us: traffic.sum_us.checked_div(traffic.calls),
        p50_us: traffic.quantile(0.5),
        p95_us: traffic.quantile(0.95),
        p99_us: traffic.quantile(0.99),
    }
}
