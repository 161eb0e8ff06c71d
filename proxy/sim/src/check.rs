//! What must hold after every run.

use crate::scenario::{Call, Scenario};
use crate::world::{End, Fate, World};

/// Tries of the sidecar behind which the agent is, to reach it.
const TRIES_TO_AGENT: usize = 3;

/// Looks at every call; gives what is wrong.
pub fn calls(world: &World) -> Vec<String> {
    let fates = world.calls.borrow();
    let none = Fate::default();
    world
        .scenario
        .calls()
        .flat_map(|call| one(&world.scenario, call, fates.get(&call.id).unwrap_or(&none)))
        .collect()
}

fn one(scenario: &Scenario, call: &Call, fate: &Fate) -> Vec<String> {
    let mut wrong = Vec::new();
    let id = call.id;
    let (arrived, executed) = (fate.arrived.len(), fate.executed.len());
    let tries = scenario.policies().map(crate::scenario::Policy::tries).max().unwrap_or(1) as usize;
    let most = if call.is_idempotent() { tries * TRIES_TO_AGENT } else { 1 };
    if arrived > most {
        let (method, at) = (crate::caller::describe(call), &fate.arrived);
        wrong.push(format!("call {id} ({method}) was sent {arrived} times to {at:?}, {most} are allowed"));
    }
    match &fate.ended {
        None => wrong.push(format!("call {id} has no end")),
        Some((_, End::Answered(200, _))) if executed == 0 => {
            wrong.push(format!("call {id} was answered and never executed"));
        }
        Some(_) => {}
    }
    wrong
}

/// Looks at what every sidecar still counts as in use; gives what is wrong. `drained`: everything is closed.
pub fn leaks(world: &World, drained: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, live) in world.sidecars.borrow().iter() {
        let mut leaked = |what: &str, n: u64| {
            if n != 0 {
                wrong.push(format!("sidecar {name} still counts {n} {what}"));
            }
        };
        for metrics in &live.shared.metrics {
            for direction in pilotfish_proxy::listen::Direction::ALL {
                let metrics = metrics.direction(direction);
                leaked("active requests", metrics.active_requests.get());
                if drained {
                    leaked("connections of callers", metrics.active_connections.get());
                }
            }
        }
        let snapshot = live.shared.snapshots.newest();
        for cluster in snapshot.plan.clusters() {
            for endpoint in cluster.endpoints() {
                leaked("calls in flight to an endpoint", u64::from(endpoint.stats.in_flight()));
                leaked("requests in a cluster's limit", u64::from(endpoint.stats.home().requests()));
                leaked("requests that wait for a connection", u64::from(endpoint.stats.home().pending()));
                if drained {
                    leaked(
                        "connections in a cluster's limit",
                        u64::from(endpoint.stats.home().connections()),
                    );
                }
            }
        }
    }
    wrong
}
