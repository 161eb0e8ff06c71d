//! The connections that one worker keeps, by endpoint. No locks: the pool belongs to its worker's thread.
//!
//! The limits of `connectionPool` hold for the whole process: every connection, kept or in use, holds a
//! [`ConnectionPermit`]. When a cluster is at its limit, a request waits (`http1MaxPendingRequests`): it gets the
//! next connection that its own worker frees, and the other workers give up their idle ones for it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_filters::clock::Micros;
use pilotfish_filters::endpoint::EndpointStats;
use pilotfish_filters::inflight::ConnectionPermit;
use tokio::sync::Notify;

use crate::http::h1::client::ClientConn;
use crate::http::h2::client as h2;
use crate::http::io::Fuse;
use crate::tls::MeshPeer;
use crate::tls::dial::{Proved, Secure};

/// Whose connections they are. An endpoint is known by its counters, which outlive a change of the configuration.
#[derive(Debug, Clone)]
pub enum Key {
    /// An endpoint of a cluster.
    Endpoint(Arc<EndpointStats>),
    /// An address without a cluster: the local agent, or a host that no document names.
    Address(SocketAddr),
}

impl Key {
    fn slot(&self) -> SlotKey {
        match self {
            Key::Endpoint(stats) => SlotKey::Endpoint(Arc::as_ptr(stats) as usize),
            Key::Address(address) => SlotKey::Address(*address),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum SlotKey {
    /// The address of the counters; the slot holds a reference, so it is not used again meanwhile.
    Endpoint(usize),
    Address(SocketAddr),
}

/// Multiply-and-fold: the keys are few and nobody outside chooses them.
#[derive(Default)]
struct FoldHasher(u64);

impl Hasher for FoldHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

/// When a connection must not be used again.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    /// Longest time without a request (Istio's default: 1 h); none is no limit.
    pub idle: Option<Duration>,
    /// Longest time since it was made.
    pub age: Option<Duration>,
    /// Most requests it may carry.
    pub requests: Option<u32>,
    /// Most streams that an HTTP/2 connection may have at a time; the peer's own limit holds besides.
    pub streams: Option<u32>,
}

/// What the pool knows of a connection besides the connection.
#[derive(Debug)]
pub struct Meta {
    /// Its place within the cluster's limit; freed with it. None for addresses without a cluster.
    pub permit: Option<ConnectionPermit>,
    /// When it was made.
    pub made: Micros,
    /// Requests carried, the one under way included.
    pub requests: u32,
    /// Its limits, as of the configuration that made it.
    pub lifetime: Lifetime,
    /// What the other end proved when it was made.
    pub proved: Proved,
    /// What cuts or retires it.
    pub fuse: Option<Rc<Fuse>>,
}

impl Meta {
    fn is_spent(&self, now: Micros) -> bool {
        if self.fuse.as_ref().is_some_and(|fuse| fuse.is_retired()) {
            return true;
        }
        let old = self.lifetime.age.is_some_and(|age| now.since(self.made) >= age);
        old || self.lifetime.requests.is_some_and(|most| self.requests >= most)
    }

    /// Whether some request of the process waits for a place of the cluster.
    fn is_wanted(&self) -> bool {
        self.permit.as_ref().is_some_and(|permit| permit.limits().pending() > 0)
    }

    fn is_fresh(&self, since: Micros, now: Micros) -> bool {
        !self.is_spent(now) && self.lifetime.idle.is_none_or(|most| now.since(since) < most)
    }
}

#[derive(Debug)]
struct Idle {
    connection: ClientConn,
    meta: Meta,
    since: Micros,
}

/// A shared HTTP/2 connection.
#[derive(Debug)]
struct Shared {
    connection: h2::ClientConn,
    meta: Meta,
    /// Since when no stream is open, as far as the sweeps have seen.
    idle_since: Option<Micros>,
}

impl Shared {
    /// Whether it may stay: open, and in use, or neither too old, nor idle for too long, nor in the way of a request that
    /// waits for its place.
    fn may_stay(&mut self, now: Micros) -> bool {
        if self.connection.is_closed() {
            return false;
        }
        if self.connection.open_streams() > 0 {
            self.idle_since = None;
            return true;
        }
        let since = *self.idle_since.get_or_insert(now);
        self.meta.is_fresh(since, now) && !self.meta.is_wanted()
    }

    fn has_room(&self) -> bool {
        let room =
            self.meta.lifetime.streams.is_none_or(|most| self.connection.open_streams() < most as usize);
        room && self.connection.can_open()
    }
}

#[derive(Debug, Default)]
struct Slot {
    /// Keeps the address in [`SlotKey::Endpoint`] taken.
    _stats: Option<Arc<EndpointStats>>,
    /// HTTP/1.1 connections without a request, the most recently used last.
    idle: VecDeque<Idle>,
    h2: Vec<Shared>,
    /// Held while an HTTP/2 connection is being made.
    dialing: Option<Rc<tokio::sync::Mutex<()>>>,
}

/// Slots by key, and in the order in which they came: a key may be an address, by whose order nothing should happen.
#[derive(Debug, Default)]
struct Slots {
    known: HashMap<SlotKey, Slot, BuildHasherDefault<FoldHasher>>,
    order: Vec<SlotKey>,
}

impl Slots {
    fn get(&mut self, key: &Key) -> Option<&mut Slot> {
        self.known.get_mut(&key.slot())
    }

    fn get_or_insert(&mut self, key: &Key) -> &mut Slot {
        self.known.entry(key.slot()).or_insert_with_key(|slot| {
            self.order.push(*slot);
            let stats = match key {
                Key::Endpoint(stats) => Some(Arc::clone(stats)),
                Key::Address(_) => None,
            };
            Slot { _stats: stats, ..Slot::default() }
        })
    }

    fn retain(&mut self, mut keeps: impl FnMut(&mut Slot) -> bool) {
        self.order.retain(|key| {
            let kept = self.known.get_mut(key).is_some_and(&mut keeps);
            if !kept {
                self.known.remove(key);
            }
            kept
        });
    }
}

/// All kept connections of a worker.
#[derive(Debug, Default)]
pub struct Pool {
    slots: RefCell<Slots>,
    freed: Notify,
    waiting: Cell<usize>,
}

/// A request that waits for a connection to be freed; counted until it is dropped.
#[derive(Debug)]
pub struct Waiter<'a>(&'a Pool);

impl Waiter<'_> {
    /// Completes when some connection of this worker was freed.
    pub async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl Pool {
    /// An HTTP/1.1 connection that was kept, is still good and proved what is wanted; most recently used first.
    pub fn take_h1(&self, key: &Key, wanted: &Secure<'_>, now: Micros) -> Option<(ClientConn, Meta)> {
        let mut slots = self.slots.borrow_mut();
        let idle = &mut slots.get(key)?.idle;
        while let Some(at) = idle.iter().rposition(|idle| idle.meta.proved.suits(wanted)) {
            let Idle { mut connection, mut meta, since } = idle.remove(at)?;
            if meta.is_fresh(since, now) && connection.is_idle_healthy() {
                meta.requests += 1;
                return Some((connection, meta));
            }
        }
        None
    }

    /// Takes back a connection after a whole exchange, unless its time is up or someone waits for its place.
    pub fn put_h1(&self, key: &Key, connection: ClientConn, meta: Meta, now: Micros) {
        let wanted_elsewhere = meta.is_wanted() && self.waiting.get() == 0;
        if meta.is_spent(now) || wanted_elsewhere {
            drop((connection, meta));
        } else {
            let mut slots = self.slots.borrow_mut();
            slots.get_or_insert(key).idle.push_back(Idle { connection, meta, since: now });
        }
        self.freed.notify_waiters();
    }

    /// A shared HTTP/2 connection with room for another stream, which proved what is wanted; and who is at its other end.
    pub fn take_h2(
        &self,
        key: &Key,
        wanted: &Secure<'_>,
        now: Micros,
    ) -> Option<(h2::ClientConn, Option<Rc<MeshPeer>>)> {
        let mut slots = self.slots.borrow_mut();
        let shared = &mut slots.get(key)?.h2;
        shared.retain(|one| {
            !one.connection.is_closed() && (!one.meta.is_spent(now) || one.connection.open_streams() > 0)
        });
        let one = shared
            .iter_mut()
            .find(|one| one.meta.proved.suits(wanted) && one.has_room() && !one.meta.is_spent(now))?;
        one.meta.requests += 1;
        Some((one.connection.clone(), one.meta.proved.peer().cloned()))
    }

    /// Shares a new HTTP/2 connection.
    pub fn put_h2(&self, key: &Key, connection: h2::ClientConn, meta: Meta) {
        let mut slots = self.slots.borrow_mut();
        slots.get_or_insert(key).h2.push(Shared { connection, meta, idle_since: None });
    }

    /// The lock under which an HTTP/2 connection to this endpoint is made, so that many requests make one.
    pub fn dialing(&self, key: &Key) -> Rc<tokio::sync::Mutex<()>> {
        let mut slots = self.slots.borrow_mut();
        Rc::clone(slots.get_or_insert(key).dialing.get_or_insert_default())
    }

    /// Starts waiting for a connection.
    pub fn wait(&self) -> Waiter<'_> {
        self.waiting.set(self.waiting.get() + 1);
        Waiter(self)
    }

    /// Drops what must not be kept: idle for too long, too old, closed by the peer; and the idle connections of
    /// clusters for whose places other workers wait. Called about once a second, and when someone waits.
    pub fn sweep(&self, now: Micros) {
        self.slots.borrow_mut().retain(|slot| {
            slot.idle.retain_mut(|idle| {
                let wanted = idle.meta.is_wanted();
                idle.meta.is_fresh(idle.since, now) && !wanted && idle.connection.is_idle_healthy()
            });
            slot.h2.retain_mut(|one| one.may_stay(now));
            !slot.idle.is_empty() || !slot.h2.is_empty() || slot.dialing.is_some()
        });
    }

    /// Closes every idle connection and forgets the shared ones: the worker is going away.
    pub fn close(&self) {
        self.slots.borrow_mut().retain(|_| false);
    }
}
