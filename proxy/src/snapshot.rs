//! One immutable version of the configuration, and the place where workers find the newest.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use pilotfish_config::Model;
use pilotfish_filters::clock::Micros;
use pilotfish_filters::compile::{CompileOptions, Resolved, compile};
use pilotfish_filters::plan::Plan;
use pilotfish_filters::state::State;

/// A compiled plan with its version. A request pins one and keeps it to its end.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up from 1 with each published plan; 0 is the empty one before the first.
    pub version: u64,
    /// The compiled configuration.
    pub plan: Plan,
    /// Where the local agent listens (`--app`), when there is one and its name resolves.
    pub agent: Option<SocketAddr>,
    /// How many documents it was made of.
    pub resources: usize,
    /// When it was published.
    pub published: SystemTime,
}

/// The newest snapshot. Readers never wait; only the publisher in [`crate::source`] stores.
#[derive(Debug)]
pub struct Snapshots {
    newest: ArcSwap<Snapshot>,
    version: AtomicU64,
}

impl Snapshots {
    /// A snapshot of nothing, until the first is published.
    ///
    /// # Errors
    /// Never in practice: nothing compiles.
    pub fn empty(state: &State, now: Micros) -> io::Result<Self> {
        let compiled =
            compile(&Model::default(), &CompileOptions::default(), &Resolved::default(), state, now);
        let plan = compiled.map_err(|_| io::Error::other("an empty configuration does not compile"))?;
        let empty = Snapshot { version: 0, plan, agent: None, resources: 0, published: SystemTime::now() };
        Ok(Snapshots { newest: ArcSwap::from_pointee(empty), version: AtomicU64::new(0) })
    }

    /// The newest snapshot, with its reference count raised: for workers that cache it by [`Snapshots::version`].
    pub fn newest(&self) -> Arc<Snapshot> {
        self.newest.load_full()
    }

    /// The newest version: one relaxed load, for a worker to see cheaply that its cached snapshot is stale.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Makes `snapshot` the newest and gives the one it replaces, which the caller must drop outside the workers.
    pub(crate) fn publish(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let version = snapshot.version;
        let old = self.newest.swap(snapshot);
        self.version.store(version, Ordering::Release);
        old
    }
}
