//! From what is known to what is decided and back: the world that placement sees, moves that are finished or given up, what a decision
//! changes. No sockets and no store; time comes in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pilotfish_config::model::{Deployment, Taint, TaintEffect, Toleration};
use pilotfish_config::wire::node::ReplicaPhase;
use tokio::time::{Duration, Instant};

use super::board::{Board, Life};
use super::executor::{Assignment, Desired};
use super::inventory::machine;
use super::on_demand::{self, Running};
use super::records::Assigned;
use crate::placement::demand::Wanted;
use crate::placement::place::{Outcome, Start, StopReason};
use crate::placement::world::{Held, Machine, Traffic, World};

/// How long a move's new replica has been ready before the old one goes. Every sidecar takes the old one away no earlier than it hears
/// of the new one, because updates come in order; this is for calls that choose just then.
const SETTLED: Duration = Duration::from_millis(250);
/// A replica has this much longer than its start timeout to register.
const LATE: Duration = Duration::from_secs(10);
/// How long an agent may take to start when nobody says.
const START: Duration = Duration::from_secs(60);
/// A replica that was told to stop and that its node does not know is gone after this long.
const UNKNOWN: Duration = Duration::from_secs(10);
/// For so long after taking the lead a replica without a registration counts as ready: its sidecar is about to connect.
const UNKNOWN_READY: Duration = Duration::from_secs(12);
/// Replicas that try another node at the same time.
const MOST_ESCAPING: usize = 16;

/// The taint of a node that could not start a replica of the group that is its value.
const AVOIDED: &str = "pilotfish.dev/could-not-start";

fn avoids(group: &str) -> Taint {
    Taint { key: AVOIDED.to_owned(), value: group.to_owned(), effect: TaintEffect::NoSchedule }
}

impl Board {
    /// Finishes moves, gives up those that come to nothing, looks at what nodes cannot start. Gives when to look again.
    pub fn settle(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        self.moves(now, &mut next);
        self.failures(now);
        self.unknown(now, &mut next);
        self.replan |= self.stuck.expire(now);
        soonest(&mut next, self.stuck.next(now));
        next
    }

    fn moves(&mut self, now: Instant, next: &mut Option<Instant>) {
        let moving: Vec<(String, Assigned)> = self
            .assigned()
            .filter(|(_, _, assigned)| assigned.replaces.is_some())
            .map(|(node, _, assigned)| (node.to_owned(), assigned.clone()))
            .collect();
        if moving.is_empty() {
            return;
        }
        let places = self.places();
        for (node, new) in moving {
            let Some(old) = new.replaces.clone() else { continue };
            let Some(from) = places.get(&old) else {
                self.moved(&node, &new.replica);
                continue;
            };
            match self.arrived(&node, &new, now) {
                Arrival::Ready => {
                    self.stop(from, &old);
                    self.moved(&node, &new.replica);
                }
                Arrival::Until(at) => soonest(next, Some(at)),
                Arrival::Never(why) => {
                    self.stop(&node, &new.replica);
                    self.since.remove(&new.replica);
                    self.stuck.move_failed(
                        &old,
                        format!("its successor on {node} did not come up: {why}"),
                        now,
                    );
                }
            }
            self.replan = true;
        }
    }

    /// A new replica stands on its own now.
    fn moved(&mut self, node: &str, replica: &Arc<str>) {
        self.since.remove(replica);
        let Some(node_entry) = self.nodes.get_mut(node) else { return };
        for assigned in node_entry.record.assignments.iter_mut().filter(|a| a.replica == *replica) {
            assigned.replaces = None;
        }
        self.dirty.insert(node.to_owned());
    }

    /// How far a move's new replica is.
    fn arrived(&mut self, node: &str, new: &Assigned, now: Instant) -> Arrival {
        let wanted = self.wanted.get(&new.group);
        if wanted.is_some_and(|wanted| wanted.waiting.is_some()) {
            return Arrival::Ready;
        }
        let timeout = wanted.and_then(|wanted| wanted.group.runtime.start_timeout).unwrap_or(START);
        let ordered = *self.since.entry(new.replica.clone()).or_insert(now);
        let ready = self.sidecars.get(&*new.replica).and_then(|sidecar| sidecar.ready_since);
        let state = self.nodes.get(node).and_then(|node| node.states.get(&*new.replica));
        let over = ordered + timeout + LATE;
        match (ready, state) {
            (Some(since), _) if now >= since + SETTLED => Arrival::Ready,
            (Some(since), _) => Arrival::Until(since + SETTLED),
            (None, Some(state)) if matches!(state.phase, ReplicaPhase::Failed | ReplicaPhase::CrashLoop) => {
                Arrival::Never(state.reason.clone().unwrap_or_else(|| state.phase.word().to_owned()))
            }
            _ if now >= over => Arrival::Never(format!("it was not ready within {} s", timeout.as_secs())),
            _ => Arrival::Until(over),
        }
    }

    /// Replicas that their node cannot start look for another, a few at a time.
    fn failures(&mut self, now: Instant) {
        self.escaping.clear();
        let mut failed: Vec<(Arc<str>, Arc<str>, String)> = Vec::new();
        for (name, node) in self.nodes.iter().filter(|(_, node)| node.life == Life::Here) {
            if !node.states.values().any(|state| state.phase == ReplicaPhase::Failed) {
                continue;
            }
            let cannot = |assigned: &&Assigned| {
                let state = node.states.get(&*assigned.replica);
                assigned.replaces.is_none() && state.is_some_and(|state| state.phase == ReplicaPhase::Failed)
            };
            let these = node.record.assignments.iter().filter(cannot);
            failed.extend(these.map(|a| (a.replica.clone(), a.group.clone(), name.clone())));
        }
        for (replica, group, node) in failed {
            if self.escaping.len() < MOST_ESCAPING && self.stuck.failed(&replica, &group, now) {
                self.stuck.avoid(&group, &node, now);
                self.escaping.insert(replica);
                self.replan = true;
            }
        }
    }

    /// What was told to stop and that a connected node does not know is gone.
    fn unknown(&mut self, now: Instant, next: &mut Option<Instant>) {
        for (name, node) in self.nodes.iter_mut().filter(|(_, node)| node.session.is_some()) {
            if node.record.stopping.is_empty() {
                continue;
            }
            let gone: Vec<Arc<str>> = node
                .record
                .stopping
                .iter()
                .filter(|stopping| !node.states.contains_key(&*stopping.replica))
                .filter(|stopping| {
                    let since = *self.since.entry(stopping.replica.clone()).or_insert(now);
                    soonest(next, Some(since + UNKNOWN).filter(|at| *at > now));
                    now >= since + UNKNOWN
                })
                .map(|stopping| stopping.replica.clone())
                .collect();
            for replica in gone {
                self.since.remove(&replica);
                node.ended(&replica);
                self.dirty.insert(name.clone());
                self.replan = true;
            }
        }
    }

    /// The node of every replica.
    pub fn places(&self) -> HashMap<Arc<str>, String> {
        self.assigned().map(|(node, _, assigned)| (assigned.replica.clone(), node.to_owned())).collect()
    }

    /// How many replicas groups on demand should have now; those that are too many stop, the least needed first. `waiting` are calls
    /// that wait, by `namespace/agent`. Where the executor places by itself, what is registered is what there is.
    pub fn follow_demand(&mut self, waiting: &[(String, u32)], places: bool, now: Instant) {
        let groups: Vec<Arc<Wanted>> =
            self.wanted.values().filter(|wanted| wanted.deployment != Deployment::Static).cloned().collect();
        if groups.is_empty() {
            self.on_demand.clear();
            return;
        }
        let mut by_group: HashMap<Arc<str>, Vec<(Arc<str>, String)>> = HashMap::new();
        for (node, _, assigned) in self.assigned().filter(|(.., assigned)| assigned.replaces.is_none()) {
            by_group
                .entry(assigned.group.clone())
                .or_default()
                .push((assigned.replica.clone(), node.to_owned()));
        }
        let mut left: HashMap<&str, u32> = waiting.iter().map(|(agent, n)| (agent.as_str(), *n)).collect();
        for wanted in groups {
            let group = &wanted.group;
            let agent = format!("{}/{}", group.namespace, group.agent);
            // Those who wait are served by the first of an agent's groups.
            let waiting = left.remove(agent.as_str()).unwrap_or(0);
            let mut there = by_group.remove(&group.id).unwrap_or_default();
            if !places {
                let own = self.sidecars.values().filter(|sidecar| sidecar.presence.agent == agent);
                there = own.map(|own| (own.presence.replica.as_str().into(), String::new())).collect();
            }
            let running: Vec<Running> = there.iter().map(|(replica, _)| self.running(replica, now)).collect();
            let most = wanted.group.wanted;
            let now_wanted = on_demand::wanted(&wanted.deployment, most, &running, waiting, wanted.capacity);
            if self.on_demand.insert(group.id.clone(), now_wanted) != Some(now_wanted) {
                self.replan = true;
            }
            let surplus = there.len().saturating_sub(now_wanted as usize);
            for at in on_demand::stop_first(&running).into_iter().take(surplus) {
                if let Some((replica, node)) = there.get(at) {
                    self.stop(node, replica);
                    self.replan = true;
                }
            }
        }
        self.on_demand.retain(|group, _| self.wanted.contains_key(group));
    }

    fn running(&mut self, replica: &Arc<str>, now: Instant) -> Running {
        match self.sidecars.get(&**replica).filter(|sidecar| sidecar.ready_since.is_some()) {
            Some(sidecar) => {
                self.since.remove(replica);
                let presence = &sidecar.presence;
                let idle = presence.idle_ms.map(Duration::from_millis);
                Running { ready: true, in_flight: presence.in_flight, idle }
            }
            None => {
                let since = *self.since.entry(replica.clone()).or_insert(now);
                Running { ready: false, in_flight: 0, idle: Some(now.saturating_duration_since(since)) }
            }
        }
    }

    /// As many as there should be now.
    pub fn count(&self, wanted: &Wanted) -> u32 {
        match wanted.deployment {
            Deployment::Static => wanted.group.wanted,
            _ => self.on_demand.get(&wanted.group.id).copied().unwrap_or(0),
        }
    }

    /// What placement looks at.
    pub fn world(&self, traffic: Vec<Traffic>, now: Instant) -> World {
        let declared: HashMap<&str, &Machine> =
            self.demand.machines.iter().map(|machine| (machine.name.as_str(), machine)).collect();
        let nodes = self.nodes.iter().map(|(name, node)| {
            let (silent, lost) = (node.life == Life::Silent, node.life == Life::Lost);
            let (inventory, record) = (&node.record.inventory, &node.record);
            let declared = declared.get(name.as_str()).copied();
            let mut machine =
                machine(name, inventory, &record.assignments, declared, record.mark, silent, lost);
            machine.taints.extend(
                self.stuck.avoided().filter(|(_, node)| node == name).map(|(group, _)| avoids(group)),
            );
            machine
        });
        // Nodes that could not start a replica are closed to its group, and to no other.
        let avoided: HashSet<&Arc<str>> = self.stuck.avoided().map(|(group, _)| group).collect();
        let leaving: HashSet<&Arc<str>> =
            self.assigned().filter_map(|(_, _, assigned)| assigned.replaces.as_ref()).collect();
        let fresh = now < self.led_since + UNKNOWN_READY;
        let mut held = Vec::new();
        for (name, node) in &self.nodes {
            let here = node.record.assignments.iter().filter(|a| !self.escaping.contains(&a.replica));
            held.extend(here.map(|assigned| Held {
                ready: self.is_ready(assigned, fresh),
                leaving: leaving.contains(&assigned.replica),
                ..self.held(name, assigned)
            }));
            let stopping = node.record.stopping.iter().filter(|_| node.life != Life::Lost);
            held.extend(stopping.map(|assigned| Held { stopping: true, ..self.held(name, assigned) }));
        }
        let groups = self.demand.groups.iter().map(|wanted| {
            let mut group = wanted.group.clone();
            group.wanted = self.count(wanted);
            let others = avoided.iter().filter(|other| ***other != group.id);
            group.tolerations.extend(others.map(|other| Toleration {
                key: Some(AVOIDED.to_owned()),
                value: Some(other.to_string()),
                effect: None,
            }));
            if wanted.without.iter().any(|duty| duty == "agent_placement") {
                let there =
                    held.iter().filter(|held| held.group == group.id && !held.stopping && !held.leaving);
                group.wanted = group.wanted.min(u32::try_from(there.count()).unwrap_or(u32::MAX));
            }
            group
        });
        World {
            nodes: nodes.collect(),
            pools: self.demand.pools.clone(),
            groups: groups.collect(),
            held: held.clone(),
            traffic,
        }
    }

    fn is_ready(&self, assigned: &Assigned, fresh: bool) -> bool {
        let idle = self.wanted.get(&assigned.group).is_some_and(|wanted| wanted.waiting.is_some());
        match self.sidecars.get(&*assigned.replica) {
            Some(sidecar) => sidecar.ready_since.is_some(),
            None => idle || (fresh && !self.begun.contains(&assigned.replica)),
        }
    }

    fn held(&self, node: &str, assigned: &Assigned) -> Held {
        Held {
            replica: assigned.replica.clone(),
            group: assigned.group.clone(),
            generation: assigned.generation.clone(),
            node: node.to_owned(),
            gpus: assigned.gpus.clone(),
            need: assigned.need.clone(),
            ready: false,
            leaving: false,
            stopping: false,
        }
    }

    /// Makes a decision so, in memory; `wall` is the time in seconds since 1970. Gives what was done, one sentence each.
    pub fn apply(&mut self, outcome: Outcome, now: Instant, wall: u64) -> Vec<String> {
        let mut done = Vec::new();
        let places =
            if outcome.stops.is_empty() && outcome.moves.is_empty() { HashMap::new() } else { self.places() };
        for stop in outcome.stops {
            let Some(node) = places.get(&stop.replica) else { continue };
            if self.stop(node, &stop.replica).is_some() {
                done.push(format!("{} ends on {node}: {}", stop.replica, why(&stop.why)));
            }
        }
        for to in outcome.starts {
            if let Some(replica) = self.begin(&to, None, wall) {
                self.escaped(&to);
                done.push(format!("{replica} starts on {}", to.node));
            }
        }
        self.stays = outcome.stays.into_iter().map(|stay| (stay.replica, stay.because)).collect();
        for step in outcome.moves {
            let Some(from) = places.get(&step.replica) else { continue };
            if let Some(why) = self.stuck.held_back(&step.replica, now) {
                self.stays.insert(step.replica, why.to_owned());
                continue;
            }
            if let Some(replica) = self.begin(&step.to, Some(step.replica.clone()), wall) {
                done.push(format!(
                    "{replica} starts on {} in the place of {} on {from}: {}",
                    step.to.node,
                    step.replica,
                    why_moved(step.why)
                ));
            }
        }
        for replica in std::mem::take(&mut self.escaping) {
            self.stuck.nowhere_else(&replica, now);
        }
        self.unplaced = outcome.unplaced;
        done
    }

    /// A start of a group is in the place of one of its replicas that its node cannot start.
    fn escaped(&mut self, to: &Start) {
        let found = self
            .assigned()
            .find(|(_, _, assigned)| assigned.group == to.group && self.escaping.contains(&assigned.replica))
            .map(|(node, _, assigned)| (node.to_owned(), assigned.replica.clone()));
        if let Some((node, replica)) = found {
            self.escaping.remove(&replica);
            self.stop(&node, &replica);
        }
    }

    fn begin(&mut self, to: &Start, replaces: Option<Arc<str>>, wall: u64) -> Option<Arc<str>> {
        let group = &self.wanted.get(&to.group)?.group;
        let replica: Arc<str> = format!("{}/{}/{}", group.namespace, group.agent, random()).into();
        let assigned = Assigned {
            replica: replica.clone(),
            group: group.id.clone(),
            generation: group.generation.clone(),
            need: group.need.clone(),
            gpus: to.gpus.clone(),
            since: wall,
            replaces,
        };
        self.start(&to.node, assigned).then_some(replica)
    }

    /// What executors are told.
    pub fn desired(&self) -> Vec<Desired> {
        let mut by_group: HashMap<&Arc<str>, Vec<Assignment>> = HashMap::new();
        for (node, _, assigned) in self.assigned() {
            by_group.entry(&assigned.group).or_default().push(Assignment {
                replica: assigned.replica.clone(),
                node: node.to_owned(),
                generation: assigned.generation.clone(),
                gpus: assigned.gpus.clone(),
            });
        }
        let groups = self.demand.groups.iter().filter_map(|wanted| self.wanted.get(&wanted.group.id));
        groups
            .map(|wanted| Desired {
                wanted: wanted.clone(),
                replicas: self.count(wanted),
                assignments: by_group.remove(&wanted.group.id).unwrap_or_default(),
            })
            .collect()
    }
}

/// How far a move's new replica is.
enum Arrival {
    Ready,
    Until(Instant),
    Never(String),
}

fn soonest(next: &mut Option<Instant>, at: Option<Instant>) {
    *next = match (*next, at) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
}

/// Ten letters and digits that were not used before.
fn random() -> String {
    let one = |_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[fastrand::usize(..36)]);
    (0..10).map(one).collect()
}

fn why(reason: &StopReason) -> String {
    match reason {
        StopReason::Surplus => "fewer are wanted".into(),
        StopReason::NotWanted => "its agent is not wanted any more".into(),
        StopReason::NodeLost => "its node is lost".into(),
        StopReason::Evicted { by } => format!("{by} has a higher priority and needs the place"),
        StopReason::MakesRoom { why } => {
            format!("{}, and there is no room for its successor beside it", why_moved(*why))
        }
    }
}

/// Why a replica moves, for people.
pub fn why_moved(reason: crate::placement::place::MoveReason) -> &'static str {
    use crate::placement::place::MoveReason;
    match reason {
        MoveReason::Drained => "its node is drained",
        MoveReason::GpuFailed => "its GPU failed",
        MoveReason::Changed => "what it is started with changed",
        MoveReason::Rebalanced => "whole GPUs become free",
    }
}

#[cfg(test)]
mod tests;
