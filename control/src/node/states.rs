//! How each replica is, for reports: whoever reports asks for what changed since it last did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pilotfish_config::wire::node::{ReplicaPhase, ReplicaState};
use tokio::sync::watch;

/// All of them.
#[derive(Debug)]
pub(super) struct States {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Counts up with each change.
    count: u64,
    /// With the count of its last change.
    states: BTreeMap<String, (u64, ReplicaState)>,
    /// Replicas that need an identity.
    needing: BTreeSet<String>,
}

impl States {
    /// None yet.
    pub(super) fn new() -> States {
        States { inner: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Notes how a replica is.
    pub(super) fn set(&self, state: &ReplicaState) {
        let mut inner = self.lock();
        if inner.states.get(&state.id).is_some_and(|(_, before)| before == state) {
            return;
        }
        inner.count += 1;
        let count = inner.count;
        inner.states.insert(state.id.clone(), (count, state.clone()));
        self.changed.send_replace(count);
    }

    /// Forgets one that is gone.
    pub(super) fn forget(&self, id: &str) {
        let mut inner = self.lock();
        if inner.states.get(id).is_some_and(|(_, state)| state.phase == ReplicaPhase::Gone) {
            inner.states.remove(id);
        }
    }

    /// What changed after `count`, and the count that it is up to.
    pub(super) fn since(&self, count: u64) -> (Vec<ReplicaState>, u64) {
        let inner = self.lock();
        let changed = inner.states.values().filter(|(at, _)| *at > count).map(|(_, state)| state.clone());
        (changed.collect(), inner.count)
    }

    /// Everything that is there, and the count that it is up to.
    pub(super) fn all(&self) -> (Vec<ReplicaState>, u64) {
        let (mut states, count) = self.since(0);
        states.retain(|state| state.phase != ReplicaPhase::Gone);
        (states, count)
    }

    /// A replica needs an identity, or not any more.
    pub(super) fn needs(&self, id: &str, needs: bool) {
        let mut inner = self.lock();
        let changed = if needs { inner.needing.insert(id.to_owned()) } else { inner.needing.remove(id) };
        if changed && needs {
            inner.count += 1;
            self.changed.send_replace(inner.count);
        }
    }

    /// Those that need one.
    pub(super) fn needing(&self) -> Vec<String> {
        self.lock().needing.iter().cloned().collect()
    }

    /// Rings with each change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told_again() {
        let states = States::new();
        let state = |id: &str, phase| ReplicaState {
            id: id.into(),
            generation: String::new(),
            phase,
            reason: None,
            restarts: 0,
            sidecar_restarts: 0,
            pid: None,
            since_ms: 0,
            usage: None,
        };
        states.set(&state("a", ReplicaPhase::Starting));
        states.set(&state("b", ReplicaPhase::Running));
        let (all, count) = states.all();
        assert_eq!((all.len(), count), (2, 2));
        states.set(&state("b", ReplicaPhase::Running));
        assert_eq!(states.since(count), (vec![], 2));
        states.set(&state("a", ReplicaPhase::Gone));
        assert_eq!(states.since(count).0.len(), 1);
        assert_eq!(states.all().0.len(), 1);
        states.forget("b");
        states.forget("a");
        assert_eq!(states.since(0).0.len(), 1);
        states.needs("b", true);
        assert_eq!(states.needing(), ["b"]);
        states.needs("b", false);
        assert!(states.needing().is_empty());
    }
}
