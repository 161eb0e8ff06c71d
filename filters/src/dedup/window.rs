//! The window of one receiving sidecar: which calls run, which were done, and what they were answered.
//!
//! Shared by all workers; only calls with a key touch it. Locks are held for a look into a map, never across a wait.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::DedupSettings;
use crate::clock::Micros;

/// A digest of scope and key.
pub type Id = [u8; 32];
/// A digest of a request's body.
pub type BodyDigest = [u8; 32];

/// Parts of the window with a lock each.
const SHARDS: usize = 16;

/// Tells those who wait for a call of another.
pub trait Bell: Default {
    /// Hears what rings from now on.
    type Listener: Debug;
    /// Begins to listen.
    fn listen(&self) -> Self::Listener;
    /// Something about the call has changed: look again.
    fn ring(&self);
}

/// Keys and what became of their calls. `A`: an answer; `B`: what those wait on who came while the first ran.
#[derive(Debug)]
pub struct Window<A, B: Bell> {
    shards: Box<[Mutex<Shard<A, B>>]>,
    keys: AtomicUsize,
    bytes: AtomicUsize,
    most_bytes: usize,
}

#[derive(Debug)]
struct Shard<A, B> {
    entries: BTreeMap<Id, Entry<A, B>>,
    /// Entries whose call has ended, by when they may be forgotten.
    ends: BTreeSet<(Micros, Id)>,
    /// Entries whose ticket was dropped, at a time that nobody told: remembered from the next look on.
    dropped: Vec<(Id, Duration)>,
}

#[derive(Debug)]
struct Entry<A, B> {
    /// `None` while the body is still on its way.
    body: Option<BodyDigest>,
    state: State<A>,
    bell: Arc<B>,
}

#[derive(Debug)]
enum State<A> {
    Running,
    Kept(Arc<A>, usize),
    NotKept,
    Unknown,
}

/// What a call with a key has to do.
#[derive(Debug)]
pub enum Claim<A, B: Bell> {
    /// It is the first: it is done, and the ticket told how that ended.
    First(Ticket<A, B>),
    /// The first runs: wait for the bell, then claim again.
    Running(B::Listener),
    /// It was done, with this answer.
    Kept(Arc<A>),
    /// It was done, or is being done, and its answer is not kept.
    NotKept,
    /// It may have been done; nobody knows.
    Unknown,
    /// The key stands for a call with another body.
    OtherBody,
    /// There is no room for another key.
    Full,
}

/// How the first call of a key ended.
#[derive(Debug)]
pub enum Ending<A> {
    /// Nothing was sent to the agent: the key is free again.
    NotStarted,
    /// The agent's whole answer, whose bytes were [reserved](Ticket::reserve).
    Answered(A),
    /// The agent answered, and the answer is not kept.
    NotKept,
    /// The agent's connection broke before a whole answer.
    Unknown,
}

impl<A, B: Bell> Window<A, B> {
    /// An empty window that keeps at most `most_bytes` of answers.
    pub fn new(most_bytes: usize) -> Arc<Self> {
        let shard =
            || Mutex::new(Shard { entries: BTreeMap::new(), ends: BTreeSet::new(), dropped: Vec::new() });
        Arc::new(Window {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            keys: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            most_bytes,
        })
    }

    /// Keys that are remembered, perhaps some whose time has just passed.
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    /// Bytes of answers that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Takes the key for a call, or says what became of the call that has it. `body` is `None` for one whose body is too
    /// long to be looked at before: if the key is taken, then read it and ask again.
    pub fn claim(
        self: &Arc<Self>,
        id: Id,
        body: Option<BodyDigest>,
        settings: DedupSettings,
        now: Micros,
    ) -> Claim<A, B> {
        if let Some(claim) = self.try_claim(id, body, settings, now) {
            return claim;
        }
        for shard in &self.shards {
            self.forget(&mut lock(shard), now);
        }
        self.try_claim(id, body, settings, now).unwrap_or(Claim::Full)
    }

    /// `None`: the window is full.
    fn try_claim(
        self: &Arc<Self>,
        id: Id,
        body: Option<BodyDigest>,
        settings: DedupSettings,
        now: Micros,
    ) -> Option<Claim<A, B>> {
        let mut shard = self.shard(&id);
        self.forget(&mut shard, now);
        if let Some(entry) = shard.entries.get(&id) {
            return Some(entry.claim(body));
        }
        self.keys.fetch_update(Relaxed, Relaxed, |keys| (keys < settings.keys).then_some(keys + 1)).ok()?;
        let bell = Arc::new(B::default());
        shard.entries.insert(id, Entry { body, state: State::Running, bell: Arc::clone(&bell) });
        let window = Arc::clone(self);
        Some(Claim::First(Ticket { window, id, remember: settings.window, reserved: 0, ended: false }))
    }

    fn shard(&self, id: &Id) -> MutexGuard<'_, Shard<A, B>> {
        lock(&self.shards[usize::from(id[0]) % SHARDS])
    }

    /// Forgets keys whose time has passed; never one before.
    fn forget(&self, shard: &mut Shard<A, B>, now: Micros) {
        for (id, remember) in std::mem::take(&mut shard.dropped) {
            shard.ends.insert((now.after(remember), id));
        }
        while let Some((end, id)) = shard.ends.first().copied()
            && end <= now
        {
            shard.ends.pop_first();
            if let Some(entry) = shard.entries.remove(&id) {
                self.keys.fetch_sub(1, Relaxed);
                self.release(&entry.state);
            }
        }
    }

    fn release(&self, state: &State<A>) {
        if let State::Kept(_, size) = state {
            self.bytes.fetch_sub(*size, Relaxed);
        }
    }
}

/// What a panicking thread left is whole: each change is one insertion or removal.
fn lock<A, B>(shard: &Mutex<Shard<A, B>>) -> MutexGuard<'_, Shard<A, B>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A, B: Bell> Entry<A, B> {
    fn claim(&self, body: Option<BodyDigest>) -> Claim<A, B> {
        match (&self.state, self.body, body) {
            (_, Some(first), Some(again)) if first != again => Claim::OtherBody,
            (State::Running, ..) => Claim::Running(self.bell.listen()),
            (State::Kept(answer, _), ..) => Claim::Kept(Arc::clone(answer)),
            (State::NotKept, ..) => Claim::NotKept,
            (State::Unknown, ..) => Claim::Unknown,
        }
    }
}

/// The right and the duty to do a call. Dropped without [`Ticket::end`] the outcome is unknown.
#[derive(Debug)]
pub struct Ticket<A, B: Bell> {
    window: Arc<Window<A, B>>,
    id: Id,
    remember: Duration,
    reserved: usize,
    ended: bool,
}

impl<A, B: Bell> Ticket<A, B> {
    /// For how long the key is remembered once the call has ended.
    pub fn remember(&self) -> Duration {
        self.remember
    }

    /// The body has come to its end.
    pub fn body_is(&self, digest: BodyDigest) {
        self.change(|entry| entry.body = Some(digest));
    }

    /// Takes room for so many more bytes of the answer; false: there is none, and what was reserved is given back.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let taken = self.window.bytes.fetch_update(Relaxed, Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= self.window.most_bytes)
        });
        if taken.is_err() {
            self.give_back();
            return false;
        }
        self.reserved += bytes;
        true
    }

    /// The answer has begun and will not be kept: repeats are told so from now on.
    pub fn will_not_keep(&mut self) {
        self.give_back();
        self.change(|entry| entry.state = State::NotKept);
    }

    /// The call has ended.
    pub fn end(mut self, ending: Ending<A>, now: Micros) {
        self.end_now(ending, Some(now));
    }

    fn end_now(&mut self, ending: Ending<A>, now: Option<Micros>) {
        self.ended = true;
        let mut shard = self.window.shard(&self.id);
        let Some(entry) = shard.entries.get_mut(&self.id) else { return };
        let bell = Arc::clone(&entry.bell);
        entry.state = match ending {
            Ending::NotStarted => {
                shard.entries.remove(&self.id);
                self.window.keys.fetch_sub(1, Relaxed);
                drop(shard);
                self.give_back();
                return bell.ring();
            }
            // Without the whole body nobody can tell whether a repeat is the same call.
            Ending::Answered(answer) if entry.body.is_some() => {
                State::Kept(Arc::new(answer), std::mem::take(&mut self.reserved))
            }
            Ending::Answered(_) | Ending::NotKept => State::NotKept,
            Ending::Unknown => State::Unknown,
        };
        match now {
            Some(now) => drop(shard.ends.insert((now.after(self.remember), self.id))),
            None => shard.dropped.push((self.id, self.remember)),
        }
        drop(shard);
        self.give_back();
        bell.ring();
    }

    fn give_back(&mut self) {
        self.window.bytes.fetch_sub(std::mem::take(&mut self.reserved), Relaxed);
    }

    fn change(&self, change: impl FnOnce(&mut Entry<A, B>)) {
        let mut shard = self.window.shard(&self.id);
        let Some(entry) = shard.entries.get_mut(&self.id) else { return };
        change(entry);
        let bell = Arc::clone(&entry.bell);
        drop(shard);
        bell.ring();
    }
}

impl<A, B: Bell> Drop for Ticket<A, B> {
    fn drop(&mut self) {
        if !self.ended {
            self.end_now(Ending::Unknown, None);
        }
    }
}
