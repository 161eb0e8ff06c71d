//! What people are shown: nodes, replicas, groups, and why something is not where it should be.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use pilotfish_config::model::Deployment;
use pilotfish_config::wire::node::ReplicaPhase;
use tokio::time::Instant;

use super::Mark;
use super::board::{Board, Life, Node};
use super::executor::{Executor, Observed};
use super::records::Assigned;
use super::view::{AgentPlacement, Explanation, GpuRow, NodeRow, PlacementView, ReplicaRow};
use crate::placement::demand::Wanted;
use crate::placement::place::Unplaced;

/// What is counted, for a scraper.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// This control plane leads.
    pub leads: bool,
    /// Nodes by status.
    pub nodes: BTreeMap<&'static str, u64>,
    /// Replicas by status.
    pub replicas: BTreeMap<String, u64>,
    /// Replicas that have no place.
    pub unplaced: u64,
    /// Decisions of placement.
    pub decisions: u64,
    /// How long they took together, seconds.
    pub deciding_seconds: f64,
    /// How long the last one took, seconds.
    pub last_seconds: f64,
}

/// Reasons that stand in one row.
const MOST_REASONS: usize = 2;

impl Board {
    /// Everything. `observed` is what an executor says that places by itself.
    pub fn view(&self, leader: &str, executor: &dyn Executor, observed: &[Observed]) -> PlacementView {
        let now = Instant::now();
        let mut replicas = self.replica_rows(|_| true);
        replicas.extend(observed.iter().map(|one| ReplicaRow {
            id: one.replica.clone(),
            group: one.group.as_deref().unwrap_or_default().to_owned(),
            node: one.node.clone(),
            // Its own probe says so: such an executor has no other word for it.
            status: if one.phase == ReplicaPhase::Running { "ready" } else { one.phase.word() }.to_owned(),
            reason: one.reason.clone(),
            ..ReplicaRow::default()
        }));
        replicas.sort_by(|a, b| (&a.group, &a.id).cmp(&(&b.group, &b.id)));
        PlacementView {
            leader: leader.to_owned(),
            term: self.term,
            executor: executor.name().to_owned(),
            nodes: self.nodes.iter().map(|(name, node)| self.node_row(name, node, now)).collect(),
            replicas,
            agents: self.groups(|_| true, executor, observed),
            notes: self.demand.notes.iter().cloned().chain(executor.notes()).collect(),
        }
    }

    /// Why an agent's replicas are where they are. `agent` is `namespace/name`, a group, or a replica's id.
    pub fn explain(
        &self,
        agent: &str,
        executor: &dyn Executor,
        observed: &[Observed],
    ) -> Option<Explanation> {
        let of = |wanted: &Wanted| {
            let group = &wanted.group;
            let name = format!("{}/{}", group.namespace, group.agent);
            *group.id == *agent
                || name == agent
                || agent.strip_prefix(&name).is_some_and(|rest| rest.starts_with('/'))
        };
        let groups: Vec<&Arc<Wanted>> = self.wanted.values().filter(|wanted| of(wanted)).collect();
        let first = groups.first()?;
        let ids: HashSet<&Arc<str>> = groups.iter().map(|wanted| &wanted.group.id).collect();
        let mut obstacles: BTreeMap<&str, u32> = BTreeMap::new();
        let unplaced: Vec<&Unplaced> = self.unplaced.iter().filter(|one| ids.contains(&one.group)).collect();
        for obstacle in unplaced.iter().flat_map(|one| &one.reasons) {
            *obstacles.entry(&obstacle.why).or_default() += obstacle.nodes;
        }
        let mut obstacles: Vec<(u32, String)> =
            obstacles.into_iter().map(|(why, nodes)| (nodes, why.to_owned())).collect();
        obstacles.sort_by(|a, b| b.cmp(a));
        let mut replicas = self.replica_rows(|assigned| ids.contains(&assigned.group));
        if agent.matches('/').count() > 1 {
            replicas.retain(|row| row.id == agent);
        }
        Some(Explanation {
            agent: agent.to_owned(),
            need: first.group.need.to_string(),
            groups: self.groups(|wanted| ids.contains(&wanted.group.id), executor, observed),
            obstacles,
            hint: unplaced.iter().find_map(|one| one.hint.clone()),
            replicas,
        })
    }

    /// Why nothing of an agent (`namespace/name`) comes, for those who wait for it; nothing when it may come.
    pub fn why_not_started(&self, agent: &str) -> Option<String> {
        let of =
            |wanted: &&Arc<Wanted>| format!("{}/{}", wanted.group.namespace, wanted.group.agent) == agent;
        let groups: Vec<&Arc<Wanted>> = self.wanted.values().filter(of).collect();
        let mut why = None;
        for wanted in &groups {
            if let Some(waiting) = &wanted.waiting {
                why = Some(waiting.clone());
                continue;
            }
            let mut held = self.assigned().filter(|(_, _, a)| a.group == wanted.group.id).peekable();
            if held.peek().is_none() {
                let unplaced = self.unplaced.iter().find(|one| one.group == wanted.group.id)?;
                why = Some(reason(unplaced));
                continue;
            }
            let mut last = None;
            for (_, node, assigned) in held {
                let state = node.states.get(&*assigned.replica)?;
                if !matches!(state.phase, ReplicaPhase::Failed | ReplicaPhase::CrashLoop) {
                    return None;
                }
                last = Some(state.reason.clone().unwrap_or_else(|| state.phase.word().to_owned()));
            }
            why = last;
        }
        why
    }

    /// Nodes and replicas by status.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for word in ["ready", "silent", "lost", "cordoned", "draining"] {
            counts.nodes.insert(word, 0);
        }
        for node in self.nodes.values() {
            *counts.nodes.entry(node.status()).or_default() += 1;
        }
        for row in self.replica_rows(|_| true) {
            *counts.replicas.entry(row.status).or_default() += 1;
        }
        counts.unplaced = self.unplaced.iter().map(|one| u64::from(one.count)).sum();
        counts
    }

    fn replica_rows(&self, which: impl Fn(&Assigned) -> bool) -> Vec<ReplicaRow> {
        let leaving: HashSet<&Arc<str>> =
            self.assigned().filter_map(|(_, _, assigned)| assigned.replaces.as_ref()).collect();
        let mut rows = Vec::new();
        for (name, node) in &self.nodes {
            for assigned in node.record.assignments.iter().filter(|assigned| which(assigned)) {
                rows.push(self.replica_row(name, node, assigned, leaving.contains(&assigned.replica)));
            }
            for assigned in node.record.stopping.iter().filter(|assigned| which(assigned)) {
                let status = if node.life == Life::Lost { "lost" } else { "stopping" };
                rows.push(ReplicaRow {
                    status: status.into(),
                    ..self.replica_row(name, node, assigned, false)
                });
            }
        }
        rows
    }

    fn replica_row(&self, name: &str, node: &Node, assigned: &Assigned, leaving: bool) -> ReplicaRow {
        let state = node.states.get(&*assigned.replica);
        let sidecar = self.sidecars.get(&*assigned.replica);
        let waiting = self.wanted.get(&assigned.group).and_then(|wanted| wanted.waiting.as_ref());
        let said = state.and_then(|state| state.reason.clone());
        let detail = || sidecar.and_then(|sidecar| sidecar.presence.detail.clone());
        let ready = sidecar.is_some_and(|sidecar| sidecar.ready_since.is_some());
        let stays = self.stays.get(&assigned.replica);
        let (status, reason) = match (waiting, node.life, state.map(|state| state.phase)) {
            (Some(waiting), ..) => ("waiting", Some(waiting.clone())),
            (_, Life::Lost, _) => ("lost", Some(format!("the node {name} is lost"))),
            (_, Life::Silent, _) => ("lost", Some(format!("the node {name} is silent"))),
            (_, _, Some(ReplicaPhase::CrashLoop)) => ("crash-loop", said),
            (_, _, Some(ReplicaPhase::Failed)) => ("failed", said),
            _ if leaving => ("leaving", stays.cloned()),
            _ if ready => ("ready", stays.cloned()),
            (_, _, Some(ReplicaPhase::Running)) => ("running", detail().or(said)),
            (_, _, Some(ReplicaPhase::Stopping)) => ("stopping", said),
            (_, _, Some(ReplicaPhase::Starting)) => ("starting", said),
            _ => ("starting", None),
        };
        ReplicaRow {
            id: assigned.replica.to_string(),
            group: assigned.group.to_string(),
            node: Some(name.to_owned()),
            status: status.to_owned(),
            reason,
            gpus: assigned.gpus.clone(),
            usage: state.and_then(|state| state.usage).or(sidecar.and_then(|sidecar| sidecar.presence.usage)),
            restarts: state.map_or(0, |state| state.restarts),
            since: assigned.since,
        }
    }

    fn groups(
        &self,
        which: impl Fn(&Wanted) -> bool,
        executor: &dyn Executor,
        observed: &[Observed],
    ) -> Vec<AgentPlacement> {
        let (mut placed, mut ready): (HashMap<&str, u32>, HashMap<&str, u32>) =
            (HashMap::new(), HashMap::new());
        let mut failing: HashMap<&str, String> = HashMap::new();
        for (_, node, assigned) in self.assigned().filter(|(.., assigned)| assigned.replaces.is_none()) {
            *placed.entry(&assigned.group).or_default() += 1;
            let sidecar = self.sidecars.get(&*assigned.replica);
            let serves =
                node.life == Life::Here && sidecar.is_some_and(|sidecar| sidecar.ready_since.is_some());
            let state = node.states.get(&*assigned.replica);
            let fails = |phase| matches!(phase, ReplicaPhase::CrashLoop | ReplicaPhase::Failed);
            if let Some(state) = state.filter(|state| fails(state.phase))
                && let Some(why) = &state.reason
            {
                failing.entry(&assigned.group).or_insert_with(|| format!("{}: {why}", state.phase.word()));
            }
            *ready.entry(&assigned.group).or_default() += u32::from(serves);
        }
        for one in observed {
            let Some(group) = one.group.as_deref() else { continue };
            let there = one.node.is_some() && one.phase != ReplicaPhase::Gone;
            *placed.entry(group).or_default() += u32::from(there);
            *ready.entry(group).or_default() += u32::from(one.phase == ReplicaPhase::Running);
        }
        let row = |wanted: &Arc<Wanted>| {
            let group = &wanted.group;
            let unplaced = self.unplaced.iter().find(|one| one.group == group.id);
            AgentPlacement {
                group: group.id.to_string(),
                cluster: group.cluster.clone(),
                strategy: strategy(&wanted.deployment).to_owned(),
                wanted: self.count(wanted),
                placed: placed.get(&*group.id).copied().unwrap_or(0),
                ready: ready.get(&*group.id).copied().unwrap_or(0),
                reason: (unplaced.map(reason).or_else(|| executor.waiting(wanted)))
                    .or_else(|| failing.get(&*group.id).cloned()),
            }
        };
        let mut rows: Vec<AgentPlacement> = self.wanted.values().filter(|w| which(w)).map(row).collect();
        rows.sort_by(|a, b| a.group.cmp(&b.group));
        rows
    }

    fn node_row(&self, name: &str, node: &Node, now: Instant) -> NodeRow {
        let record = &node.record;
        let held: Vec<&Assigned> = record.assignments.iter().chain(&record.stopping).collect();
        let heard = node.heard().map(|heard| now.saturating_duration_since(heard));
        NodeRow {
            name: name.to_owned(),
            status: node.status().to_owned(),
            heard_ms: heard.map(|heard| u64::try_from(heard.as_millis()).unwrap_or(u64::MAX)),
            locality: node.inventory.locality.clone(),
            labels: node.inventory.labels.clone(),
            cpu_milli: (held.iter().map(|held| held.need.cpu_milli).sum(), node.inventory.cpu_milli),
            memory: (held.iter().map(|held| held.need.memory).sum(), node.inventory.memory),
            gpus: self.gpu_rows(node, &held),
            replicas: u32::try_from(record.assignments.len()).unwrap_or(u32::MAX),
            most_replicas: node.inventory.most_replicas,
            taints: node.inventory.taints.clone(),
            troubles: node.all_troubles(),
        }
    }

    fn gpu_rows(&self, node: &Node, held: &[&Assigned]) -> Vec<GpuRow> {
        let row = |card: &pilotfish_config::wire::node::GpuState| {
            let shares = held.iter().flat_map(|held| held.gpus.iter().map(move |share| (held, share)));
            let here: Vec<_> = shares.filter(|(_, share)| share.gpu == card.id).collect();
            GpuRow {
                id: card.id.clone(),
                model: card.model.clone(),
                pool: super::orders::pool_of(card, &node.inventory, &self.demand.pools)
                    .map(|pool| pool.name.clone()),
                memory: (here.iter().map(|(_, share)| share.memory).sum(), card.memory),
                failed: card.failed.clone(),
                busy_percent: card.busy_percent,
                used: card.used,
                slices: card.slices.clone(),
                replicas: here.iter().map(|(held, _)| held.replica.to_string()).collect(),
            }
        };
        node.inventory.gpus.iter().map(row).collect()
    }
}

impl Node {
    /// The word in tables and JSON.
    fn status(&self) -> &'static str {
        match (self.life, self.record.mark) {
            (Life::Lost | Life::Forgotten, _) => "lost",
            (Life::Silent, _) => "silent",
            (Life::Here, Mark::Draining) => "draining",
            (Life::Here, Mark::Cordoned) => "cordoned",
            (Life::Here, Mark::Open) => "ready",
        }
    }
}

fn strategy(deployment: &Deployment) -> &'static str {
    match deployment {
        Deployment::Static => "static",
        Deployment::PreWarmed { .. } => "pre_warmed",
        Deployment::JustInTime(_) => "just_in_time",
    }
}

/// Why some of a group have no place, in one line.
fn reason(unplaced: &Unplaced) -> String {
    let reasons: Vec<String> = unplaced
        .reasons
        .iter()
        .take(MOST_REASONS)
        .map(|obstacle| match obstacle.nodes {
            0 => obstacle.why.clone(),
            nodes => format!("{nodes} node{}: {}", if nodes == 1 { "" } else { "s" }, obstacle.why),
        })
        .collect();
    match reasons.is_empty() {
        true => unplaced.hint.clone().unwrap_or_else(|| "no node has a place".into()),
        false => reasons.join("; "),
    }
}
