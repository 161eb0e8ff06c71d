//! What the leader knows: nodes with what was decided for them and what they report, what documents want, which sidecars registered.
//!
//! Streams write what nodes say into it. Only the leader's loop changes what is decided: in memory first, then in the store, and
//! only then does a node hear of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use pilotfish_config::wire::Refused;
use pilotfish_config::wire::node::{Inventory, NodeHello, ReplicaPhase, ReplicaState, ToNode};
use tokio::time::{Duration, Instant};

use super::NODE_LEASE;
use super::inventory::{bounded, lasting, sane, vanished};
use super::records::{Assigned, Loaded, NodeRecord};
use super::session::Session;
use super::stuck::Stuck;
use crate::fleet::ReplicaPresence;
use crate::placement::demand::{Demand, Wanted};
use crate::placement::place::Unplaced;

/// Troubles of one node that are remembered, besides its own.
const MOST_TROUBLES: usize = 8;
/// A node that is lost, without a mark, is forgotten after this long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// Reports of replicas that are not this leader's, for one node.
const MOST_STATES: usize = 20_000;

/// What the leader knows.
#[derive(Debug)]
pub struct Board {
    /// The leader's term.
    pub term: u64,
    /// By name.
    pub nodes: BTreeMap<String, Node>,
    /// Numbers that people set, by `namespace/agent` or `namespace/agent@region`.
    pub scales: BTreeMap<String, u32>,
    /// Nodes whose record the store does not have as it is here.
    pub dirty: BTreeSet<String>,
    /// What documents want.
    pub demand: Arc<Demand>,
    /// The version of those documents; nothing before they were read.
    pub documents: Option<u64>,
    /// [`Demand::groups`] by id.
    pub wanted: HashMap<Arc<str>, Arc<Wanted>>,
    /// How many replicas of a group on demand run now.
    pub on_demand: HashMap<Arc<str>, u32>,
    /// Registered replicas, by id.
    pub sidecars: HashMap<String, Sidecar>,
    /// What has no place.
    pub unplaced: Vec<Unplaced>,
    /// What should move and does not, and why.
    pub stays: HashMap<Arc<str>, String>,
    /// What was tried in vain.
    pub stuck: Stuck,
    /// Replicas that their node cannot start, for which another one is looked for now.
    pub escaping: HashSet<Arc<str>>,
    /// Since when something of a replica is waited for.
    pub since: HashMap<Arc<str>, Instant>,
    /// Replicas that were ordered in this term.
    pub begun: HashSet<Arc<str>>,
    /// When this control plane took the lead.
    pub led_since: Instant,
    /// Nobody was silent before: this process did not listen.
    excused: Instant,
    /// Something changed that placement looks at.
    pub replan: bool,
}

/// A registered replica.
#[derive(Debug, Clone)]
pub struct Sidecar {
    /// As the fleet says.
    pub presence: ReplicaPresence,
    /// Since when it may be called, without a break.
    pub ready_since: Option<Instant>,
}

/// A node.
#[derive(Debug, Default)]
pub struct Node {
    /// What the store has of it, or is about to have.
    pub record: NodeRecord,
    /// What it has, as it said last.
    pub inventory: Inventory,
    /// What cannot be of what it said.
    wrong: Vec<String>,
    /// What else is wrong with it.
    troubles: Vec<String>,
    /// Its stream.
    pub session: Option<Arc<Session>>,
    /// The last stream ended by a word of its system: its process ended, the machine did not.
    pub closed: bool,
    /// The last sign of life before the stream that is there.
    heard: Option<Instant>,
    /// How it is.
    pub life: Life,
    /// Its replicas as it reports them, by id.
    pub states: HashMap<String, ReplicaState>,
    /// Replicas that were in a set that it was told.
    pub told: HashSet<Arc<str>>,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Life {
    /// Its lease holds.
    #[default]
    Here,
    /// Its lease is over; nothing new comes.
    Silent,
    /// So is the grace time.
    Lost,
    /// It was lost for so long that nobody expects it back; it is not on the board any more.
    Forgotten,
}

/// What a look over the leases found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turned {
    /// The node.
    pub node: String,
    /// How it is now.
    pub life: Life,
    /// Its machine does not answer: what is there cannot be called.
    pub cut: bool,
}

impl Node {
    /// Its last sign of life.
    pub fn heard(&self) -> Option<Instant> {
        self.session.as_ref().map(|session| session.heard()).or(self.heard)
    }

    /// Tells it its whole set.
    pub fn tell(&mut self, frame: Bytes, replicas: impl Iterator<Item = Arc<str>>) {
        if let Some(session) = &self.session {
            self.told.extend(replicas);
            session.set(frame);
        }
    }

    /// The group of a replica that it has to have.
    pub fn group_of(&self, replica: &str) -> Option<Arc<str>> {
        let assigned = self.record.assignments.iter().find(|assigned| *assigned.replica == *replica)?;
        Some(assigned.group.clone())
    }

    /// What is wrong with it, for people.
    pub fn all_troubles(&self) -> Vec<String> {
        // One that was told to stop holds its card until it has ended.
        let held = self.record.assignments.iter().chain(&self.record.stopping);
        let vanished = vanished(&self.inventory, held)
            .map(|id| format!("GPU {id}, which agents hold, is not there any more"));
        let own = self.inventory.troubles.iter().chain(&self.wrong).chain(&self.troubles);
        own.cloned().chain(vanished).collect()
    }

    /// Takes a replica out of what it should have.
    fn stop(&mut self, replica: &str) -> Option<Assigned> {
        let at = self.record.assignments.iter().position(|assigned| *assigned.replica == *replica)?;
        let stopped = self.record.assignments.remove(at);
        // One that no node ever heard of is gone with this.
        if self.told.contains(replica) || self.states.contains_key(replica) || self.session.is_none() {
            self.record.stopping.push(stopped.clone());
        }
        Some(stopped)
    }

    /// A replica that was told to stop is gone; gives whether it was there.
    pub fn ended(&mut self, replica: &str) -> bool {
        let before = self.record.stopping.len();
        self.record.stopping.retain(|stopping| *stopping.replica != *replica);
        before != self.record.stopping.len()
    }

    fn take_inventory(&mut self, said: Inventory) -> (bool, bool) {
        let (inventory, wrong) = sane(said);
        let kept = lasting(&inventory);
        let changed = kept != self.record.inventory;
        let first = self.inventory != inventory;
        if changed {
            self.record.inventory = kept;
        }
        (self.inventory, self.wrong) = (inventory, wrong);
        (changed, first)
    }
}

impl Board {
    /// What was loaded; every node has a full lease and grace time from now on.
    pub fn new(term: u64, loaded: Loaded) -> Board {
        let now = Instant::now();
        let nodes = loaded.nodes.into_iter().map(|(name, record)| {
            let inventory = record.inventory.clone();
            (name, Node { record, inventory, closed: true, heard: Some(now), ..Node::default() })
        });
        Board {
            term,
            nodes: nodes.collect(),
            scales: loaded.scales,
            dirty: BTreeSet::new(),
            demand: Arc::default(),
            documents: None,
            wanted: HashMap::new(),
            on_demand: HashMap::new(),
            sidecars: HashMap::new(),
            unplaced: Vec::new(),
            stays: HashMap::new(),
            stuck: Stuck::default(),
            escaping: HashSet::new(),
            since: HashMap::new(),
            begun: HashSet::new(),
            led_since: now,
            excused: now,
            replan: true,
        }
    }

    /// Whether a session is its node's.
    pub fn is_of(&self, session: &Arc<Session>) -> bool {
        self.nodes
            .get(&session.node)
            .and_then(|node| node.session.as_ref())
            .is_some_and(|own| own.number == session.number)
    }

    /// A node said hello.
    ///
    /// # Errors
    /// Another process of that name is connected and alive.
    pub fn arrive(&mut self, session: &Arc<Session>, hello: NodeHello) -> Result<(), Refused> {
        let node = self.nodes.entry(session.node.clone()).or_insert_with(|| {
            self.dirty.insert(session.node.clone());
            Node::default()
        });
        if let Some(old) = &node.session {
            if old.instance != session.instance && old.heard().elapsed() < NODE_LEASE {
                let reason = format!("another process is connected as the node {} and lives", session.node);
                push(&mut node.troubles, "another process tries to connect with its identity".into());
                return Err(Refused { reason, retry: true });
            }
            let reason = "a newer stream of this node was opened".to_owned();
            old.end(ToNode::Refused(Refused { reason, retry: old.instance == session.instance }));
        }
        if node.take_inventory(hello.inventory).0 {
            self.dirty.insert(session.node.clone());
        }
        node.session = Some(session.clone());
        (node.life, node.closed) = (Life::Here, false);
        let states = hello.replicas.into_iter().filter_map(bounded);
        let here = states.filter(|state| state.phase != ReplicaPhase::Gone);
        node.states = here.map(|state| (state.id.clone(), state)).collect();
        let states = &node.states;
        node.record.stopping.retain(|stopping| states.contains_key(&*stopping.replica));
        node.told.retain(|replica| node.states.contains_key(&**replica));
        self.replan = true;
        Ok(())
    }

    /// A stream ended.
    pub fn left(&mut self, session: &Arc<Session>) -> bool {
        if let Some(node) = self.nodes.get_mut(&session.node) {
            (node.session, node.closed, node.heard) = (None, true, Some(session.heard()));
        }
        false
    }

    /// What a node has is different.
    pub fn inventory(&mut self, name: &str, said: Inventory) -> bool {
        let Some(node) = self.nodes.get_mut(name) else { return false };
        let (changed, _) = node.take_inventory(said);
        if changed {
            self.dirty.insert(name.to_owned());
            self.replan = true;
        }
        changed
    }

    /// How replicas of a node are; gives whether more than their usage is different.
    pub fn states(&mut self, name: &str, states: Vec<ReplicaState>) -> bool {
        let Some(node) = self.nodes.get_mut(name) else { return false };
        let mut changed = false;
        for state in states.into_iter().filter_map(bounded) {
            if state.phase == ReplicaPhase::Gone {
                changed |= node.states.remove(&state.id).is_some();
                if node.ended(&state.id) {
                    (changed, self.replan) = (true, true);
                    self.dirty.insert(name.to_owned());
                }
                node.told.remove(state.id.as_str());
                continue;
            }
            let before = node.states.get(&state.id);
            changed |=
                before.is_none_or(|before| (before.phase, &before.reason) != (state.phase, &state.reason));
            if before.is_some() || node.states.len() < MOST_STATES {
                node.states.insert(state.id.clone(), state);
            }
        }
        changed
    }

    /// Something is wrong with a node.
    pub fn trouble(&mut self, name: &str, what: String) {
        if let Some(node) = self.nodes.get_mut(name) {
            push(&mut node.troubles, what);
        }
    }

    /// Namespace and agent of a replica that is a node's now.
    pub fn agent_of(&self, name: &str, replica: &str) -> Option<(String, String)> {
        let node = self.nodes.get(name)?;
        let assigned = node.record.assignments.iter().find(|assigned| *assigned.replica == *replica)?;
        let mut parts = assigned.replica.split('/');
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    }

    /// This process was stopped until now, or had no time: what nodes said meanwhile is not read yet.
    pub fn excuse(&mut self, now: Instant) {
        self.excused = now;
    }

    /// Looks over all leases, and forgets nodes that are lost for long: it is said of those too.
    pub fn look(&mut self, now: Instant, grace: Duration) -> Vec<Turned> {
        let mut turned = Vec::new();
        let mut forgotten = Vec::new();
        for (name, node) in &mut self.nodes {
            let Some(heard) = node.heard() else { continue };
            let silent = now.saturating_duration_since(heard.max(self.excused));
            let life = match silent {
                silent if silent <= NODE_LEASE => Life::Here,
                silent if silent <= NODE_LEASE + grace => Life::Silent,
                _ => Life::Lost,
            };
            if life != node.life {
                node.life = life;
                turned.push(Turned { node: name.clone(), life, cut: !node.closed });
            }
            let idle = node.record.assignments.is_empty() && node.record.mark == super::Mark::Open;
            // What was to stop on it is forgotten with it: a machine that comes back says what is there.
            if idle && node.session.is_none() && silent > FORGOTTEN_AFTER {
                forgotten.push(name.clone());
            }
        }
        for node in forgotten {
            self.nodes.remove(&node);
            self.dirty.insert(node.clone());
            turned.push(Turned { node, life: Life::Forgotten, cut: false });
        }
        self.replan |= !turned.is_empty();
        turned
    }

    /// Which sidecars are registered; gives whether any came, went or changed its status.
    pub fn observe(&mut self, replicas: Vec<ReplicaPresence>, now: Instant) -> bool {
        let mut before = std::mem::take(&mut self.sidecars);
        let mut changed = before.len() != replicas.len();
        for presence in replicas {
            let old = before.remove(&presence.replica);
            let ready = presence.status.is_routable();
            changed |= old.as_ref().is_none_or(|old| old.presence.status != presence.status);
            let ready_since = ready.then(|| old.and_then(|old| old.ready_since).unwrap_or(now));
            self.sidecars.insert(presence.replica.clone(), Sidecar { presence, ready_since });
        }
        self.replan |= changed;
        changed
    }

    /// Takes in what documents want.
    pub fn want(&mut self, version: u64, demand: Demand) {
        self.wanted =
            demand.groups.iter().map(|wanted| (wanted.group.id.clone(), Arc::new(wanted.clone()))).collect();
        (self.demand, self.documents, self.replan) = (Arc::new(demand), Some(version), true);
    }

    /// Takes a replica away from a node; it stops there.
    pub fn stop(&mut self, name: &str, replica: &str) -> Option<Assigned> {
        let node = self.nodes.get_mut(name)?;
        let stopped = node.stop(replica);
        if stopped.is_some() {
            self.dirty.insert(name.to_owned());
            self.stuck.forget(replica);
            self.since.remove(replica);
            self.begun.remove(replica);
        }
        stopped
    }

    /// Gives a replica to a node.
    pub fn start(&mut self, name: &str, assigned: Assigned) -> bool {
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.life != Life::Lost) else {
            return false;
        };
        self.begun.insert(assigned.replica.clone());
        node.record.assignments.push(assigned);
        self.dirty.insert(name.to_owned());
        true
    }

    /// Every replica that has a place, with its node.
    pub fn assigned(&self) -> impl Iterator<Item = (&str, &Node, &Assigned)> {
        self.nodes.iter().flat_map(|(name, node)| {
            node.record.assignments.iter().map(move |assigned| (name.as_str(), node, assigned))
        })
    }
}

/// Remembers a trouble, once; of too many the oldest is forgotten.
fn push(troubles: &mut Vec<String>, what: String) {
    troubles.retain(|known| *known != what);
    if troubles.len() >= MOST_TROUBLES {
        troubles.remove(0);
    }
    troubles.push(what);
}
