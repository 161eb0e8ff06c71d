//! What a node is told of a replica: how it is started, what it may use, and the labels by which it is found.

use std::collections::BTreeMap;

use pilotfish_config::wire::node::{GpuState, Inventory, ReplicaOrder};
use tokio::time::Duration;

use super::executor::Assignment;
use super::inventory::region_and_zone;
use crate::placement::demand::Wanted;
use crate::placement::world::Pool;

/// How long an agent may take to become ready, and to end after SIGTERM, when nobody says.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(10);

/// The order for a replica on a node with this inventory.
pub fn order(
    wanted: &Wanted,
    assignment: &Assignment,
    inventory: &Inventory,
    pools: &[Pool],
) -> ReplicaOrder {
    let (group, runtime) = (&wanted.group, &wanted.group.runtime);
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    ReplicaOrder {
        id: assignment.replica.to_string(),
        agent: group.agent.clone(),
        namespace: group.namespace.clone(),
        generation: assignment.generation.clone(),
        command: runtime.command.clone(),
        env: runtime.env.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        working_dir: runtime.working_dir.clone(),
        probe: runtime.probe.clone(),
        start_timeout_ms: milliseconds(runtime.start_timeout.unwrap_or(START)),
        stop_timeout_ms: milliseconds(runtime.stop_timeout.unwrap_or(STOP)),
        cpu_milli: group.need.cpu_milli,
        memory: group.need.memory,
        gpus: assignment.gpus.clone(),
        labels: labels(wanted, assignment, inventory, pools),
        capabilities: Vec::new(),
        capacity: wanted.capacity,
        without: wanted.without.clone(),
    }
}

/// The agent's own labels, and those of its place.
fn labels(
    wanted: &Wanted,
    assignment: &Assignment,
    inventory: &Inventory,
    pools: &[Pool],
) -> BTreeMap<String, String> {
    let group = &wanted.group;
    let mut labels: BTreeMap<String, String> = group.labels.clone();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            labels.insert(key.to_owned(), value.to_owned());
        }
    };
    let (region, zone) = region_and_zone(inventory);
    add(crate::fleet::REPLICA, &assignment.replica);
    add(crate::fleet::NODE, &assignment.node);
    add("pilotfish.dev/cluster", &group.cluster);
    add("resource-type", if assignment.gpus.is_empty() { "cpu" } else { "gpu" });
    add("region", region);
    add("zone", zone);
    let first = assignment.gpus.first();
    if let Some(card) = first.and_then(|share| inventory.gpus.iter().find(|card| card.id == share.gpu)) {
        add("gpu-model", &card.model.replace(' ', "-"));
        if let Some(pool) = pool_of(card, inventory, pools) {
            add("gpu-pool", pool.name.rsplit('/').next().unwrap_or_default());
        }
    }
    labels
}

/// The pool that a card is of: the first that selects it.
pub fn pool_of<'p>(card: &GpuState, inventory: &Inventory, pools: &'p [Pool]) -> Option<&'p Pool> {
    let (model, (region, _)) = (card.model.to_lowercase(), region_and_zone(inventory));
    pools.iter().find(|pool| {
        (pool.models.is_empty() || pool.models.iter().any(|word| model.contains(&word.to_lowercase())))
            && card.memory >= pool.min_memory
            && (pool.regions.is_empty() || pool.regions.iter().any(|own| own == region))
            && pool.node_labels.iter().all(|(key, value)| inventory.labels.get(key) == Some(value))
    })
}
