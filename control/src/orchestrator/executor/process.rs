//! Processes on nodes: each connected node is told its whole set whenever that is different from what it was told last.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use pilotfish_config::wire::node::{ReplicaOrder, ReplicaSet, ToNode};

use super::{Assignment, Desired, Doing, Executor, Observed};
use crate::orchestrator::board::{Board, Node};
use crate::orchestrator::orders::order;
use crate::orchestrator::session::framed;
use crate::placement::demand::Wanted;
use crate::placement::world::Pool;

/// The leader's board, while this control plane leads.
pub type Lead = Arc<Mutex<Option<Board>>>;

/// Tells nodes.
#[derive(Debug)]
pub struct Processes {
    lead: Lead,
    /// The term, and what nodes were told in it.
    told: Mutex<(u64, HashMap<String, Told>)>,
}

/// What a node was told last.
#[derive(Debug, Default)]
struct Told {
    session: u64,
    /// Of what the set is made of: as long as it is the same the set is not made again.
    fingerprint: u64,
    sequence: u64,
    orders: Vec<ReplicaOrder>,
}

/// A replica and how it is started.
type Part<'d> = (&'d Arc<Wanted>, &'d Assignment);

impl Processes {
    /// One for this board.
    pub fn new(lead: Lead) -> Processes {
        Processes { lead, told: Mutex::default() }
    }

    fn tell(&self, term: u64, desired: &[Desired]) {
        let mut sets: HashMap<&str, Vec<Part<'_>>> = HashMap::new();
        // An agent that nobody knows how to start has its place, and nothing to run there.
        for group in desired.iter().filter(|group| group.wanted.waiting.is_none()) {
            for assignment in &group.assignments {
                sets.entry(&assignment.node).or_default().push((&group.wanted, assignment));
            }
        }
        let mut lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(board) = lead.as_mut().filter(|board| board.term == term) else { return };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0 != term {
            *told = (term, HashMap::new());
        }
        told.1.retain(|name, _| board.nodes.contains_key(name));
        let demand = board.demand.clone();
        for (name, node) in &mut board.nodes {
            let parts = sets.remove(name.as_str()).unwrap_or_default();
            let told = told.1.entry(name.clone()).or_default();
            if let Some(frame) = told.next(term, node, &parts, &demand.pools) {
                node.tell(frame, parts.iter().map(|(_, assignment)| assignment.replica.clone()));
            }
        }
    }
}

impl Told {
    /// The frame that a node has to be told, if it is connected and was not told so already.
    fn next(&mut self, term: u64, node: &Node, parts: &[Part<'_>], pools: &[Pool]) -> Option<Bytes> {
        let session = node.session.as_ref()?.number;
        let fingerprint = fingerprint(parts);
        let known = self.session == session;
        if known && self.fingerprint == fingerprint {
            return None;
        }
        let of = |(wanted, assignment): &Part<'_>| order(wanted, assignment, &node.inventory, pools);
        let orders: Vec<ReplicaOrder> = parts.iter().map(of).collect();
        self.fingerprint = fingerprint;
        if known && self.orders == orders {
            return None;
        }
        (self.session, self.sequence) = (session, self.sequence + 1);
        self.orders.clone_from(&orders);
        framed(&ToNode::Set(Box::new(ReplicaSet { term, sequence: self.sequence, replicas: orders })))
    }
}

/// Documents that change give every group a new place in memory.
fn fingerprint(parts: &[Part<'_>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (wanted, assignment) in parts {
        std::ptr::hash(Arc::as_ptr(wanted), &mut hasher);
        (&assignment.replica, &assignment.generation).hash(&mut hasher);
    }
    hasher.finish()
}

impl Executor for Processes {
    fn name(&self) -> &'static str {
        "process"
    }

    fn places(&self) -> bool {
        true
    }

    fn reconcile<'a>(&'a self, term: u64, desired: &'a [Desired]) -> Doing<'a, ()> {
        self.tell(term, desired);
        Box::pin(std::future::ready(Ok(())))
    }

    fn observe(&self) -> Doing<'_, Vec<Observed>> {
        let lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        let mut observed = Vec::new();
        for (name, node) in lead.iter().flat_map(|board| &board.nodes) {
            observed.extend(node.states.values().map(|state| Observed {
                replica: state.id.clone(),
                group: node.group_of(&state.id),
                node: Some(name.clone()),
                phase: state.phase,
                reason: state.reason.clone(),
            }));
        }
        Box::pin(std::future::ready(Ok(observed)))
    }
}
