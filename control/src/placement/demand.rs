//! Documents to what is wanted: groups of replicas, pools, and what keeps an agent from being started.

use std::collections::{BTreeMap, HashSet};

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use pilotfish_config::model::{
    self, Agent, AgentCluster, AgentTemplate, Deployment, Disruption, GpuPool, Model, Node, Resources,
    Runtime,
};

use super::world::{Card, Group, Machine, MachineState, Need, Pool};

/// What documents ask for.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    /// Groups, with the numbers that documents say: all of them for a deployment on demand too.
    pub groups: Vec<Wanted>,
    /// Pools, by namespace and name: a card belongs to the first that selects it.
    pub pools: Vec<Pool>,
    /// Machines that documents declare (for `placement plan`; a declared machine's labels, taints and `unschedulable` are added to
    /// those of the node of that name that reports).
    pub machines: Vec<Machine>,
    /// What should be looked at: `production/customer-service-global: 10000 replicas, but the regions add up to 8005`.
    pub notes: Vec<String>,
}

/// A group, and when its replicas run.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its replicas.
    pub group: Group,
    /// When they run.
    pub deployment: Deployment,
    /// Calls that each takes at a time; 0: no limit.
    pub capacity: u32,
    /// Why it cannot be started on process nodes (`no command`, `image needs the Kubernetes executor`). It is placed and reserved all
    /// the same.
    pub waiting: Option<String>,
    /// What the AgentCluster's levels switch off, by the words of `responsibilities`.
    pub without: Vec<String>,
}

/// Duties that a replica is started with: to switch one on or off starts it anew.
const STARTED_WITH: [&str; 4] =
    ["resource_optimization", "task_coordination", "failure_recovery", "performance_optimization"];

/// Reads what a model asks for. `scale` gives the number that `pilotfish scale` set, of an agent (`namespace/agent`) or of an agent in a
/// region (`namespace/agent@region`). A number for an agent that runs in several regions is shared out by what documents say.
pub fn demand(model: &Model, scale: &dyn Fn(&str) -> Option<u32>) -> Demand {
    let mut demand = Demand { machines: model.nodes.iter().map(machine).collect(), ..Demand::default() };
    let named = Named { templates: model.templates_by_name(), pools: model.pools_by_name() };
    let mut seen: HashSet<String> = HashSet::new();
    for cluster in &model.agent_clusters {
        let home = format!("{}/{}", cluster.meta.namespace(), cluster.meta.name());
        let mut placed: u64 = 0;
        let by_agent = cluster.by_agent();
        for agent in &cluster.agents {
            let template = named.templates.get(cluster.meta.namespace(), &agent.name);
            let counts = counts(agent, template, by_agent.get(agent.name.as_str()));
            let id = format!("{}/{}", cluster.meta.namespace(), agent.name);
            if !counts.is_empty() && !seen.insert(id.clone()) {
                demand.notes.push(format!("{home}: another AgentCluster says already how many of {id} run"));
                continue;
            }
            placed += counts.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
            let counts = scaled(&id, counts, scale);
            demand.groups.extend(groups(cluster, agent, &id, counts, template, &named));
        }
        if let Some(replicas) =
            cluster.replicas.filter(|replicas| placed > 0 && u64::from(*replicas) != placed)
        {
            let from = if cluster.regions.is_empty() { "agents" } else { "regions" };
            demand.notes.push(format!("{home}: {replicas} replicas, but the {from} add up to {placed}"));
        }
    }
    demand.pools = model.gpu_pools.iter().map(pool).collect();
    demand.pools.sort_by(|a, b| a.name.cmp(&b.name));
    demand
}

/// What is found by its name.
struct Named<'m> {
    templates: model::Named<'m, AgentTemplate>,
    pools: model::Named<'m, GpuPool>,
}

/// The groups of an agent: one for each region that names it, or one for everywhere. None when nothing of it is placed.
fn groups(
    cluster: &AgentCluster,
    agent: &Agent,
    id: &str,
    counts: Vec<(Option<String>, u32)>,
    template: Option<&AgentTemplate>,
    named: &Named<'_>,
) -> Vec<Wanted> {
    let namespace = cluster.meta.namespace();
    let runtime =
        template.map_or_else(|| agent.runtime.clone(), |template| agent.runtime.or(&template.runtime));
    let resources =
        template.map_or_else(|| agent.resources.clone(), |one| agent.resources.or(&one.resources));
    let mut need = need(&resources);
    if !cluster.duties.resource_allocation {
        // Cards are given out all the same: two replicas on one would both fail.
        (need.cpu_milli, need.memory) = (0, 0);
    }
    let rules = &agent.rules;
    // Who may use a pool is decided all the same: what is off must not give anybody a right.
    let (priority, disruption) = match cluster.duties.policy_enforcement {
        true => (rules.priority, rules.disruption),
        false => (0, Disruption::Percent(100)),
    };
    let without: Vec<String> = cluster.duties.off().into_iter().map(str::to_owned).collect();
    let pool = rules.pool.as_ref().map(|name| match named.pools.get(namespace, name) {
        Some(pool) => format!("{}/{}", pool.meta.namespace(), pool.meta.name()),
        None if name.contains('/') => name.clone(),
        None => format!("{namespace}/{name}"),
    });
    let generation = generation(agent, &runtime, &need, pool.as_deref(), &without);
    let waiting = waiting(&agent.name, &runtime);
    let group = |(region, wanted): (Option<String>, u32)| Wanted {
        group: Group {
            id: region.as_ref().map_or_else(|| id.to_owned(), |region| format!("{id}@{region}")).into(),
            namespace: namespace.to_owned(),
            agent: agent.name.clone(),
            cluster: format!("{namespace}/{}", cluster.meta.name()),
            region,
            wanted,
            need: need.clone(),
            priority,
            pool: pool.clone(),
            node_selector: rules.node_selector.clone(),
            tolerations: rules.tolerations.clone(),
            affinity: rules.affinity.clone(),
            anti_affinity: rules.anti_affinity.clone(),
            gang: rules.gang && rules.deployment == Deployment::Static,
            disruption,
            runtime: runtime.clone(),
            labels: agent.labels.clone(),
            generation: generation.clone(),
        },
        deployment: rules.deployment,
        capacity: rules.capacity.unwrap_or_default(),
        waiting: waiting.clone(),
        without: without.clone(),
    };
    counts.into_iter().map(group).collect()
}

/// How many replicas documents want where. Nothing, when they only say what an agent is able to do: neither a number nor
/// anything to start.
fn counts(
    agent: &Agent,
    template: Option<&AgentTemplate>,
    in_regions: Option<&Vec<(&str, u32)>>,
) -> Vec<(Option<String>, u32)> {
    let startable = |runtime: &Runtime| !runtime.command.is_empty() || runtime.image.is_some();
    match (in_regions, agent.replicas) {
        (Some(regions), _) => {
            regions.iter().map(|(region, count)| (Some((*region).to_owned()), *count)).collect()
        }
        (None, Some(count)) => vec![(None, count)],
        (None, None) if startable(&agent.runtime) || template.is_some_and(|one| startable(&one.runtime)) => {
            vec![(None, 1)]
        }
        (None, None) => Vec::new(),
    }
}

/// With the numbers that were set by hand.
fn scaled(
    id: &str,
    mut counts: Vec<(Option<String>, u32)>,
    scale: &dyn Fn(&str) -> Option<u32>,
) -> Vec<(Option<String>, u32)> {
    let mut left = scale(id).map(u64::from);
    let mut open: Vec<&mut u32> = Vec::new();
    for (region, count) in &mut counts {
        match region.as_ref().and_then(|region| scale(&format!("{id}@{region}"))) {
            Some(set) => {
                *count = set;
                left = left.map(|left| left.saturating_sub(set.into()));
            }
            None => open.push(count),
        }
    }
    if let Some(all) = left {
        share_out(all, &mut open);
    }
    counts
}

/// Shares a number out in proportion, the largest remainders first; evenly when there is nothing to go by.
fn share_out(all: u64, counts: &mut [&mut u32]) {
    let even = counts.iter().all(|count| **count == 0);
    let weights: Vec<u128> = counts.iter().map(|count| if even { 1 } else { u128::from(**count) }).collect();
    let sum = weights.iter().sum::<u128>().max(1);
    let part = |weight: u128| (u128::from(all) * weight / sum, u128::from(all) * weight % sum);
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|place| (std::cmp::Reverse(part(weights[*place]).1), *place));
    let given: u128 = weights.iter().map(|weight| part(*weight).0).sum();
    let more = usize::try_from(u128::from(all).saturating_sub(given)).unwrap_or_default();
    for (rank, place) in order.into_iter().enumerate() {
        let share = part(weights[place]).0 + u128::from(rank < more);
        *counts[place] = u32::try_from(share).unwrap_or(u32::MAX);
    }
}

fn need(resources: &Resources) -> Need {
    Need {
        cpu_milli: resources.cpu_milli.unwrap_or_default(),
        memory: resources.memory.unwrap_or_default(),
        gpus: resources.gpu.unwrap_or_default(),
        gpu_memory: resources.gpu_memory.unwrap_or_default(),
        gpu_slice: resources.gpu_slice.clone(),
    }
}

/// Why no process node can start it.
fn waiting(agent: &str, runtime: &Runtime) -> Option<String> {
    if !runtime.command.is_empty() {
        return None;
    }
    let give = format!("`command`, `pilotfish.dev/command` or an AgentTemplate named {agent}");
    Some(match &runtime.image {
        None => format!("no command: give it one by {give}"),
        Some(_) => {
            format!("`image` needs the Kubernetes executor: on nodes that start processes it needs {give}")
        }
    })
}

/// Digest of what a running replica would have to be started anew for.
fn generation(
    agent: &Agent,
    runtime: &Runtime,
    need: &Need,
    pool: Option<&str>,
    without: &[String],
) -> String {
    let mut digest = Digest(Context::new(&SHA256));
    digest.list(&runtime.command);
    digest.text(runtime.image.as_deref());
    digest.map(&runtime.env);
    digest.text(runtime.working_dir.as_deref());
    digest.text(runtime.probe.as_deref());
    for time in [runtime.start_timeout, runtime.stop_timeout] {
        digest.text(time.map(|time| time.as_millis().to_string()).as_deref());
    }
    let Need { cpu_milli, memory, gpus, gpu_memory, gpu_slice } = need;
    for number in [*cpu_milli, *memory, u64::from(*gpus), *gpu_memory] {
        digest.number(number);
    }
    digest.text(gpu_slice.as_deref());
    // A replica on the wrong cards or machines has to go elsewhere.
    digest.text(pool);
    digest.map(&agent.rules.node_selector);
    digest.map(&agent.labels);
    digest.number(agent.rules.capacity.unwrap_or_default().into());
    let started: Vec<&String> = without.iter().filter(|word| STARTED_WITH.contains(&word.as_str())).collect();
    digest.list(&started);
    digest.end()
}

/// Everything goes in with its length, so that no two different things look the same.
struct Digest(Context);

impl Digest {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    fn bytes(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn text(&mut self, text: Option<&str>) {
        self.number(text.is_some().into());
        self.bytes(text.unwrap_or_default());
    }

    fn list(&mut self, texts: &[impl AsRef<str>]) {
        self.number(texts.len() as u64);
        texts.iter().for_each(|text| self.bytes(text.as_ref()));
    }

    fn map(&mut self, map: &BTreeMap<String, String>) {
        self.number(map.len() as u64);
        for (key, value) in map {
            self.bytes(key);
            self.bytes(value);
        }
    }

    /// Sixteen hexadecimal digits; two different ones of one agent are the same once in 2^64.
    fn end(self) -> String {
        let digest = self.0.finish();
        HEXLOWER.encode(&digest.as_ref()[..8])
    }
}

fn pool(pool: &GpuPool) -> Pool {
    Pool {
        name: format!("{}/{}", pool.meta.namespace(), pool.meta.name()),
        models: pool.models.clone(),
        min_memory: pool.min_memory.unwrap_or_default(),
        node_labels: pool.node_labels.clone(),
        regions: pool.regions.clone(),
        sharing: pool.sharing,
        reserved_percent: pool.reserved_percent,
        reserve_priority: pool.reserve_priority,
        allowed: pool.allowed.clone(),
    }
}

fn machine(node: &Node) -> Machine {
    Machine {
        name: node.meta.name().to_owned(),
        region: node.region.clone().unwrap_or_default(),
        zone: node.zone.clone().unwrap_or_default(),
        labels: node.meta.labels.clone(),
        taints: node.taints.clone(),
        cpu_milli: node.cpu_milli,
        memory: node.memory,
        gpus: node
            .gpus
            .iter()
            .map(|gpu| Card {
                id: gpu.id.clone(),
                model: gpu.model.clone(),
                memory: gpu.memory,
                healthy: gpu.health.is_ok(),
                slices: gpu
                    .slices
                    .iter()
                    .map(|slice| (slice.id.clone(), slice.profile.clone(), slice.memory))
                    .collect(),
            })
            .collect(),
        most_replicas: node.most_replicas,
        state: if node.unschedulable { MachineState::Cordoned } else { MachineState::Open },
    }
}

#[cfg(test)]
mod tests;
