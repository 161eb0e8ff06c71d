//! What the calling sidecar may do with a call that has a key: once an endpoint may have begun it, it is repeated only there,
//! and only while that endpoint's window is the same (its epoch), because only that window knows whether it was done.
//!
//! This holds for the tries of one call, and for calls with the same key that the agent itself sends again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::DedupSettings;
use super::window::Id;
use crate::clock::Micros;

/// Parts of the table with a lock each.
const SHARDS: usize = 16;

/// Where the next try of a keyed call may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// To any endpoint: none can have begun it.
    Anywhere,
    /// Only to this endpoint, with this epoch; over what the retry policy says of previous hosts.
    Only(SocketAddr, Arc<str>),
    /// Nowhere: it may have been done, and nobody can say whether it was. The caller gets `outcome-unknown`.
    Nowhere,
}

/// How a try ended, as far as it matters whether the call may have been begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// The endpoint provably did not begin: no connection, a refused stream, a refusal by its sidecar before anything was done.
    NotStarted,
    /// It may have begun, or it has answered.
    MayHaveStarted,
    /// Its sidecar has another window than the one that the try was for; nothing was begun by this try.
    OtherEpoch,
}

/// Where calls with keys went, by scope and key. One for the process.
#[derive(Debug)]
pub struct Pins {
    shards: Box<[Mutex<Shard>]>,
    keys: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    entries: BTreeMap<Id, Entry>,
    /// Entries that no call uses, by when they may be forgotten.
    ends: BTreeSet<(Micros, Id)>,
    /// Entries that no call uses since a time that nobody told: remembered from the next look on.
    left: Vec<(Id, Duration)>,
}

#[derive(Debug, Default)]
struct Entry {
    place: Option<(SocketAddr, Arc<str>)>,
    /// Whether the endpoint there may have begun it.
    may: bool,
    /// Whether nobody can tell any more.
    lost: bool,
    /// Calls that use the entry, and how many of them have a try under way.
    users: usize,
    trying: usize,
}

impl Default for Pins {
    fn default() -> Self {
        Pins { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), keys: AtomicUsize::new(0) }
    }
}

impl Pins {
    /// What is known of a key; `None`: the table is full, and no key may be forgotten yet.
    pub fn take(self: &Arc<Self>, id: Id, settings: DedupSettings, now: Micros) -> Option<Pin> {
        if !self.enter(id, settings, now) {
            for shard in &self.shards {
                self.forget(&mut lock(shard), now);
            }
            if !self.enter(id, settings, now) {
                return None;
            }
        }
        Some(Pin { pins: Arc::clone(self), id, remember: settings.window, trying: false })
    }

    /// Keys that are remembered.
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    fn enter(&self, id: Id, settings: DedupSettings, now: Micros) -> bool {
        let mut shard = self.shard(&id);
        self.forget(&mut shard, now);
        if let Some(entry) = shard.entries.get_mut(&id) {
            entry.users += 1;
            // It is timed anew when this call has ended.
            shard.ends.retain(|(_, ending)| *ending != id);
            shard.left.retain(|(left, _)| *left != id);
            return true;
        }
        let room = |keys: usize| (keys < settings.keys).then_some(keys + 1);
        if self.keys.fetch_update(Relaxed, Relaxed, room).is_err() {
            return false;
        }
        shard.entries.insert(id, Entry { users: 1, ..Entry::default() });
        true
    }

    fn shard(&self, id: &Id) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(id[0]) % SHARDS])
    }

    fn forget(&self, shard: &mut Shard, now: Micros) {
        for (id, remember) in std::mem::take(&mut shard.left) {
            shard.ends.insert((now.after(remember), id));
        }
        while let Some((end, id)) = shard.ends.first().copied()
            && end <= now
        {
            shard.ends.pop_first();
            if shard.entries.remove(&id).is_some() {
                self.keys.fetch_sub(1, Relaxed);
            }
        }
    }
}

/// What a panicking thread left is whole: each change is one insertion, removal or assignment.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One keyed call's access to what is known of its key.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    id: Id,
    remember: Duration,
    trying: bool,
}

impl Pin {
    /// Where the next try may go.
    pub fn next(&self) -> Where {
        self.with(|entry| match &entry.place {
            _ if entry.lost => Where::Nowhere,
            Some((endpoint, epoch)) => Where::Only(*endpoint, Arc::clone(epoch)),
            None => Where::Anywhere,
        })
    }

    /// Whether an endpoint may have begun the call, which only its window can tell. Who gives up then says `outcome-unknown`.
    pub fn is_bound(&self) -> bool {
        self.with(|entry| entry.may || entry.lost)
    }

    /// Begins a try. False: a call with the same key was sent elsewhere meanwhile; ask [`Pin::next`] again.
    pub fn choose(&mut self, endpoint: SocketAddr, epoch: &Arc<str>) -> bool {
        let chosen = self.with(|entry| {
            let place = entry.place.get_or_insert_with(|| (endpoint, Arc::clone(epoch)));
            let fits = !entry.lost && place.0 == endpoint && place.1 == *epoch;
            entry.trying += usize::from(fits);
            fits
        });
        self.trying |= chosen;
        chosen
    }

    /// Ends the try.
    pub fn tried(&mut self, how: Tried) {
        if std::mem::take(&mut self.trying) {
            self.with(|entry| entry.tried(how));
        }
    }

    /// The endpoint that the call is bound to is not there any more.
    pub fn gone(&mut self) {
        self.with(|entry| {
            if entry.may || entry.trying > 0 {
                entry.lost = true;
            } else {
                entry.place = None;
            }
        });
    }

    fn with<T>(&self, look: impl FnOnce(&mut Entry) -> T) -> T {
        let mut shard = self.pins.shard(&self.id);
        // It is there for as long as a call uses it.
        look(shard.entries.entry(self.id).or_default())
    }
}

impl Entry {
    fn tried(&mut self, how: Tried) {
        self.trying = self.trying.saturating_sub(1);
        match how {
            Tried::MayHaveStarted => self.may = true,
            Tried::OtherEpoch if self.may => self.lost = true,
            // Another try that is under way may be the one that begins it there.
            Tried::NotStarted | Tried::OtherEpoch if !self.may && self.trying == 0 => self.place = None,
            Tried::NotStarted | Tried::OtherEpoch => {}
        }
    }
}

impl Drop for Pin {
    /// A try that is dropped may have begun the call.
    fn drop(&mut self) {
        self.tried(Tried::MayHaveStarted);
        let mut shard = self.pins.shard(&self.id);
        let Some(entry) = shard.entries.get_mut(&self.id) else { return };
        entry.users = entry.users.saturating_sub(1);
        if entry.users > 0 {
            return;
        }
        if entry.may || entry.lost {
            shard.left.push((self.id, self.remember));
        } else {
            shard.entries.remove(&self.id);
            self.pins.keys.fetch_sub(1, Relaxed);
        }
    }
}
