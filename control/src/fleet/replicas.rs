//! Registrations as placement sees them: which replicas are there, how busy they are, and whose node is silent.
//!
//! A replica is a registration whose label says which one it is. Which nodes are silent is said by the control plane that leads
//! placement; the others of the store learn it there, so that all render the same endpoints.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pilotfish_config::wire::Status;
use pilotfish_config::wire::node::Usage;
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, sleep};

use super::busy::Word;
use super::registration::Registration;
use super::registry::Urgency;
use super::{Fleet, Shared};
use crate::store::Batch;

/// The label that says which replica a sidecar is beside: `<namespace>/<agent>/<10 letters and digits>`.
pub const REPLICA: &str = "pilotfish.dev/replica";
/// The label that says on which node a sidecar is.
pub const NODE: &str = "pilotfish.dev/node";
/// Where silent nodes are: `placement/silent/<node>`.
pub(super) const SILENT: &str = "placement/silent/";
/// At most this many in a batch; the store takes 100 operations.
const MOST: usize = 64;
/// Replicas of other control planes, at most.
const MOST_ELSEWHERE: usize = 100_000;
/// How long a store that failed is left alone.
const REST: Duration = Duration::from_secs(1);

/// A replica that is registered.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaPresence {
    /// `<namespace>/<agent>/<replica>`.
    pub replica: String,
    /// `<namespace>/<agent>`.
    pub agent: String,
    /// How its sidecar says that it is; quarantined when its certificates are revoked.
    pub status: Status,
    /// Why, for people.
    pub detail: Option<String>,
    /// Calls in flight to it.
    pub in_flight: u32,
    /// Milliseconds that it has had no call; 0 while it has one. `None`: nobody told.
    pub idle_ms: Option<u64>,
    /// What it uses, as last told.
    pub usage: Option<Usage>,
    /// Milliseconds since its last sign of life.
    pub heard_ms: u64,
}

/// What the fleet keeps for placement.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    silence: Mutex<Silence>,
    /// What other control planes say of those at them, by replica.
    elsewhere: Mutex<HashMap<String, Word>>,
    /// Silence is to be written into the store.
    to_store: Notify,
}

/// Which nodes are silent.
#[derive(Debug, Default)]
struct Silence {
    nodes: BTreeSet<String>,
    /// What the store does not know yet.
    unsaid: BTreeMap<String, bool>,
}

impl Fleet {
    /// Every replica that is registered, by id, wherever its sidecar is connected. One whose label does not fit its own agent is none.
    pub fn replicas(&self) -> Vec<ReplicaPresence> {
        let (registry, now) = (&self.shared.registry, self.shared.now());
        let elsewhere = self.shared.replicas.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut found = Vec::new();
        registry.each(|registration| {
            let Some(replica) = replica(registration) else { return };
            let status = registry.status(registration);
            let live = registration.live();
            found.push(ReplicaPresence {
                replica: replica.to_owned(),
                agent: registration.facts.agent(),
                status,
                detail: live.detail.clone(),
                in_flight: live.in_flight,
                idle_ms: live.idle_at(now).or_else(|| elsewhere.get(replica).map(|word| word.idle(now))),
                usage: live.usage,
                heard_ms: now.saturating_sub(registration.heard()),
            });
        });
        found.sort_by(|a, b| a.replica.cmp(&b.replica));
        found
    }

    /// Counts up when a replica's registration comes, goes or changes its status, and when the demand for agents changes. How busy
    /// replicas are changes without it.
    pub fn replica_changes(&self) -> watch::Receiver<u64> {
        self.shared.registry.replica_changes.subscribe()
    }

    /// Says that a node is silent: its registrations are no endpoints any more, in any sidecar, until it is said that it is not, or
    /// their leases run out. Only whoever leads placement says so, and takes it back when the node is heard or forgotten.
    pub fn silence(&self, node: &str, silent: bool) {
        let replicas = &self.shared.replicas;
        let mut silence = replicas.silence();
        if !silence.set(node, silent) {
            return;
        }
        silence.unsaid.insert(node.to_owned(), silent);
        drop(silence);
        self.shared.show_again(node);
        replicas.to_store.notify_one();
    }
}

/// Which replica a registration is.
pub(super) fn replica(registration: &Registration) -> Option<&str> {
    let facts = &registration.facts;
    let replica = facts.labels.get(REPLICA)?;
    let rest = replica.strip_prefix(facts.namespace.as_str())?.strip_prefix('/')?;
    let rest = rest.strip_prefix(facts.agent.as_str())?.strip_prefix('/')?;
    (!rest.is_empty() && !rest.contains('/')).then_some(replica)
}

impl Replicas {
    /// Whether a registration is on a silent node.
    pub(super) fn is_silent(&self, registration: &Registration) -> bool {
        let Some(node) = registration.facts.labels.get(NODE) else { return false };
        self.silence().nodes.contains(node)
    }

    /// What another control plane says of a replica; `None`: nothing any more.
    pub(super) fn elsewhere(&self, replica: &str, word: Option<Word>) {
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        match word {
            Some(word) if elsewhere.len() < MOST_ELSEWHERE || elsewhere.contains_key(replica) => {
                elsewhere.insert(replica.to_owned(), word);
            }
            Some(_) => {}
            None => drop(elsewhere.remove(replica)),
        }
    }

    fn silence(&self) -> MutexGuard<'_, Silence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Silence {
    /// Gives whether that is new.
    fn set(&mut self, node: &str, silent: bool) -> bool {
        if silent { self.nodes.insert(node.to_owned()) } else { self.nodes.remove(node) }
    }
}

impl Shared {
    /// The store says so; what this control plane said and did not write yet is newer.
    pub(super) fn heard_silence(&self, node: &str, silent: bool) {
        let mut silence = self.replicas.silence();
        if !silence.unsaid.contains_key(node) && silence.set(node, silent) {
            drop(silence);
            self.show_again(node);
        }
    }

    /// These are all that the store says.
    pub(super) fn listed_silence(&self, nodes: &HashSet<&str>) {
        let silence = self.replicas.silence();
        let gone: Vec<String> =
            silence.nodes.iter().filter(|node| !nodes.contains(node.as_str())).cloned().collect();
        drop(silence);
        gone.iter().for_each(|node| self.heard_silence(node, false));
        nodes.iter().for_each(|node| self.heard_silence(node, true));
    }

    /// What is on a node may be chosen again, or no more.
    fn show_again(&self, node: &str) {
        let mut there: Vec<Arc<str>> = Vec::new();
        self.registry.each(|registration| {
            if registration.facts.labels.get(NODE).is_some_and(|own| own == node) {
                there.push(registration.id.clone());
            }
        });
        there.iter().for_each(|id| self.registry.to_be_rendered(id, Urgency::Now));
    }
}

/// Writes which nodes are silent, until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let replicas = &shared.replicas;
    loop {
        let said: Vec<(String, bool)> = replicas
            .silence()
            .unsaid
            .iter()
            .take(MOST)
            .map(|(node, silent)| (node.clone(), *silent))
            .collect();
        if said.is_empty() {
            replicas.to_store.notified().await;
            continue;
        }
        let mut batch = Batch::default();
        for (node, silent) in &said {
            let key = format!("{SILENT}{node}");
            if *silent { batch.put.push((key, Default::default())) } else { batch.delete.push(key) }
        }
        if shared.store.batch(batch).await.is_err() {
            // The others go on with what they have; registrations have leases of their own.
            sleep(REST).await;
            continue;
        }
        let mut silence = replicas.silence();
        for (node, silent) in said {
            if silence.unsaid.get(&node) == Some(&silent) {
                silence.unsaid.remove(&node);
            }
        }
    }
}
