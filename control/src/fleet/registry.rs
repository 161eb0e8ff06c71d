//! Who is registered, and what about that is not yet rendered or not yet stored.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use pilotfish_config::wire::{Refused, Status};
use tokio::sync::{Notify, watch};

use super::registration::Registration;
use super::replicas::replica;

/// How soon a change has to reach sidecars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// After the debounce.
    Usual,
    /// Within half a second, whatever else changes meanwhile: an endpoint that must not be chosen any more.
    Soon,
    /// Now: trust was taken from somebody.
    Now,
}

/// Who is registered.
#[derive(Debug, Default)]
pub(super) struct Registry {
    known: RwLock<BTreeMap<Arc<str>, Arc<Registration>>>,
    /// `<namespace>/<agent>` of those whose certificates are not taken any more.
    revoked: RwLock<HashSet<String>>,
    /// The same of those that are quarantined.
    quarantined: RwLock<HashSet<String>>,
    unrendered: Mutex<Unrendered>,
    /// Something is to be rendered.
    pub(super) to_render: Notify,
    unstored: Mutex<BTreeSet<Arc<str>>>,
    /// Something is to be stored.
    pub(super) to_store: Notify,
    /// Counts up with each change that placement has to know.
    pub(super) replica_changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Unrendered {
    ids: HashSet<Arc<str>>,
    urgency: Option<Urgency>,
}

impl Registry {
    /// A registration.
    pub(super) fn get(&self, id: &str) -> Option<Arc<Registration>> {
        self.read().get(id).cloned()
    }

    /// Everybody, by id.
    pub(super) fn all(&self) -> Vec<Arc<Registration>> {
        self.read().values().cloned().collect()
    }

    /// Calls `each` for everybody.
    pub(super) fn each(&self, each: impl FnMut(&Arc<Registration>)) {
        self.read().values().for_each(each);
    }

    /// The instances of an agent.
    pub(super) fn instances(&self, agent: &str) -> Vec<Arc<Registration>> {
        instances(&self.read(), agent).cloned().collect()
    }

    /// Takes in a registration that its sidecar brings; gives those that it replaces: other instances of this agent
    /// at the same address, whose process must have ended.
    ///
    /// # Errors
    /// The agent has too many instances.
    pub(super) fn arrive(
        &self,
        registration: &Arc<Registration>,
        most: usize,
    ) -> Result<Vec<Arc<Registration>>, Refused> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let facts = &registration.facts;
        let agent = format!("{}/{}", facts.namespace, facts.agent);
        let others = instances(&known, &agent).filter(|other| other.id != registration.id);
        let (replaced, rest): (Vec<_>, Vec<_>) = others
            .cloned()
            .partition(|other| facts.address.is_some() && other.facts.address == facts.address);
        if rest.len() >= most {
            let reason = format!("the agent {agent} has {most} instances already, which is the most");
            return Err(Refused { reason, retry: true });
        }
        replaced.iter().for_each(|old| drop(known.remove(&old.id)));
        known.insert(registration.id.clone(), registration.clone());
        drop(known);
        replaced.iter().for_each(|old| self.changed(&old.id, Urgency::Soon));
        self.changed(&registration.id, Urgency::Usual);
        replaced.iter().chain([registration]).for_each(|one| self.tell_placement(one));
        Ok(replaced)
    }

    /// Puts a registration in, or in the place of another; what the store says needs no storing.
    pub(super) fn put(&self, registration: Arc<Registration>, store: bool) {
        let id = registration.id.clone();
        let is_replica = replica(&registration).is_some();
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), registration);
        if store {
            self.changed(&id, Urgency::Usual)
        } else {
            self.to_be_rendered(&id, Urgency::Usual)
        }
        if is_replica {
            self.wake_placement();
        }
    }

    /// Takes a registration out, unless another took its place; gives whether it was there.
    pub(super) fn remove(&self, registration: &Arc<Registration>) -> bool {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.get(&registration.id).is_some_and(|own| Arc::ptr_eq(own, registration)) {
            return false;
        }
        known.remove(&registration.id);
        drop(known);
        self.changed(&registration.id, Urgency::Soon);
        self.tell_placement(registration);
        true
    }

    /// Something about it changed that sidecars and the store have to know.
    pub(super) fn changed(&self, id: &Arc<str>, urgency: Urgency) {
        self.to_be_rendered(id, urgency);
        self.to_be_stored(id);
    }

    /// It came, went or is different, which placement has to know of replicas.
    pub(super) fn tell_placement(&self, registration: &Registration) {
        if replica(registration).is_some() {
            self.wake_placement();
        }
    }

    /// Placement has to look.
    pub(super) fn wake_placement(&self) {
        self.replica_changes.send_modify(|count| *count += 1);
    }

    /// Something about it changed that sidecars have to know.
    pub(super) fn to_be_rendered(&self, id: &Arc<str>, urgency: Urgency) {
        let mut unrendered = self.unrendered();
        unrendered.ids.insert(id.clone());
        unrendered.urgency = unrendered.urgency.max(Some(urgency));
        drop(unrendered);
        self.to_render.notify_one();
    }

    /// Something about it changed that the store has to know.
    pub(super) fn to_be_stored(&self, id: &Arc<str>) {
        self.unstored.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        self.to_store.notify_one();
    }

    /// What is to be rendered, which counts as rendered from now on.
    pub(super) fn take_unrendered(&self) -> HashSet<Arc<str>> {
        std::mem::take(&mut *self.unrendered()).ids
    }

    /// How urgent what is to be rendered is.
    pub(super) fn urgency(&self) -> Option<Urgency> {
        self.unrendered().urgency
    }

    /// The first `most` that are to be stored, which count as stored from now on.
    pub(super) fn take_unstored(&self, most: usize) -> Vec<Arc<str>> {
        let mut unstored = self.unstored.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(id) = unstored.pop_first() else { break };
            taken.push(id);
        }
        taken
    }

    /// How it is, revocation and quarantine included.
    pub(super) fn status(&self, registration: &Registration) -> Status {
        let status = registration.live().status;
        let out = self.is_revoked(registration) || has(&self.quarantined, registration);
        if out { Status::Quarantined } else { status }
    }

    /// Whether its certificate is not taken any more.
    pub(super) fn is_revoked(&self, registration: &Registration) -> bool {
        has(&self.revoked, registration)
    }

    /// Replaces who is revoked, as `<namespace>/<agent>`; what that changes is to be rendered.
    pub(super) fn revoke(&self, agents: HashSet<String>) {
        self.take_out(&self.revoked, agents);
    }

    /// Replaces who is quarantined, as `<namespace>/<agent>`; what that changes is to be rendered.
    pub(super) fn quarantine(&self, agents: HashSet<String>) {
        self.take_out(&self.quarantined, agents);
    }

    fn take_out(&self, out: &RwLock<HashSet<String>>, agents: HashSet<String>) {
        let mut out = out.write().unwrap_or_else(PoisonError::into_inner);
        let changed: Vec<String> = out.symmetric_difference(&agents).cloned().collect();
        *out = agents;
        drop(out);
        for agent in changed {
            for own in self.instances(&agent) {
                self.to_be_rendered(&own.id, Urgency::Now);
                self.tell_placement(&own);
            }
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Arc<str>, Arc<Registration>>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn unrendered(&self) -> MutexGuard<'_, Unrendered> {
        self.unrendered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a registration's agent is in a set of `<namespace>/<agent>`.
fn has(agents: &RwLock<HashSet<String>>, registration: &Registration) -> bool {
    let agents = agents.read().unwrap_or_else(PoisonError::into_inner);
    let facts = &registration.facts;
    !agents.is_empty() && agents.contains(&format!("{}/{}", facts.namespace, facts.agent))
}

fn instances<'k>(
    known: &'k BTreeMap<Arc<str>, Arc<Registration>>,
    agent: &str,
) -> impl Iterator<Item = &'k Arc<Registration>> {
    let prefix: Arc<str> = format!("{agent}/").into();
    let from = (Bound::Included(prefix.clone()), Bound::Unbounded);
    known
        .range(from)
        .take_while(move |(id, _)| id.starts_with(&*prefix))
        .map(|(_, registration)| registration)
}
