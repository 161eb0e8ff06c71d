//! The other control planes of the store: each signs that it lives; who does not is dead after a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::{Duration, Instant};

use super::Shared;

/// Where signs of life are: `control/<id>`.
pub(super) const PREFIX: &str = "control/";
/// How often a control plane signs.
pub(super) const SIGN_EVERY: Duration = Duration::from_secs(3);
/// How long a sign holds.
const SIGN_HOLDS: Duration = Duration::from_secs(10);

/// What is known of one.
#[derive(Debug, Clone, Copy)]
struct Peer {
    /// Its newest sign, or when it was first missed.
    seen: Instant,
    signed: bool,
}

impl Peer {
    fn dead_since(&self) -> Instant {
        if self.signed { self.seen + SIGN_HOLDS } else { self.seen }
    }
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<String, Peer>,
    /// Whether signs can be seen now. Nobody is dead because the store is away.
    watching: bool,
}

/// The other control planes.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<State>);

impl Peers {
    /// Signs can be seen again: these are there. Everybody starts afresh.
    pub(super) fn listed(&self, ids: impl Iterator<Item = String>) {
        let now = Instant::now();
        let mut state = self.lock();
        state.known.values_mut().for_each(|peer| *peer = Peer { seen: now, signed: false });
        state.known.extend(ids.map(|id| (id, Peer { seen: now, signed: true })));
        state.watching = true;
    }

    /// Signs cannot be seen.
    pub(super) fn blind(&self) {
        self.lock().watching = false;
    }

    /// One signed, or took its sign away.
    pub(super) fn sign(&self, id: &str, signed: bool) {
        self.lock().known.insert(id.to_owned(), Peer { seen: Instant::now(), signed });
    }

    /// Since when one is dead; nothing while it lives, or while that cannot be known.
    pub(super) fn dead_since(&self, id: &str) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.lock();
        if !state.watching {
            return None;
        }
        let peer = match state.known.get(id) {
            Some(peer) => *peer,
            None => *state.known.entry(id.to_owned()).or_insert(Peer { seen: now, signed: false }),
        };
        Some(peer.dead_since()).filter(|since| *since <= now)
    }

    /// Whether another control plane lives, or may live.
    pub(super) fn others(&self, shared: &Shared) -> bool {
        let now = Instant::now();
        self.lock()
            .known
            .iter()
            .any(|(id, peer)| **id != *shared.id && peer.signed && now < peer.dead_since())
    }

    /// Those that are dead for so long that nothing of theirs is of use any more; they are forgotten.
    pub(super) fn long_dead(&self, shared: &Shared, after: Duration) -> Vec<String> {
        let now = Instant::now();
        let mut state = self.lock();
        if !state.watching {
            return Vec::new();
        }
        let dead = |id: &str, peer: &Peer| *id != *shared.id && peer.dead_since() + after < now;
        let gone = state.known.iter().filter(|(id, peer)| dead(id, peer)).map(|(id, _)| id.clone()).collect();
        state.known.retain(|id, peer| !dead(id, peer));
        gone
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
