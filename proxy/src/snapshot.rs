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
use tokio::sync::Notify;

use crate::credentials::LiveSet;
use crate::tls::outside::OutsideSet;
use crate::tokens::Issuers;

/// A compiled plan with its version. A request pins one and keeps it to its end.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up from 1 with each published plan; 0 is the empty one before the first.
    pub version: u64,
    /// The compiled configuration.
    pub plan: Plan,
    /// TLS settings of clusters outside of the mesh.
    pub outside: OutsideSet,
    /// The issuers that the plan's token rules name.
    pub issuers: Issuers,
    /// What is shown to hosts outside of the mesh.
    pub credentials: LiveSet,
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
    /// What each worker serves, by worker number.
    pinned: Box<[AtomicU64]>,
    /// Rung for workers that have no request to notice a new snapshot by.
    nudge: Notify,
}

impl Snapshots {
    /// A snapshot of nothing for this many workers, until the first is published.
    ///
    /// # Errors
    /// Never in practice: nothing compiles.
    pub fn empty(state: &State, now: Micros, workers: usize) -> io::Result<Self> {
        let compiled =
            compile(&Model::default(), &CompileOptions::default(), &Resolved::default(), state, now);
        let plan = compiled.map_err(|_| io::Error::other("an empty configuration does not compile"))?;
        let empty = Snapshot {
            version: 0,
            plan,
            outside: OutsideSet::default(),
            issuers: Issuers::default(),
            credentials: LiveSet::default(),
            agent: None,
            resources: 0,
            published: SystemTime::now(),
        };
        Ok(Snapshots {
            newest: ArcSwap::from_pointee(empty),
            version: AtomicU64::new(0),
            pinned: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            nudge: Notify::new(),
        })
    }

    /// The newest snapshot, with its reference count raised: for workers that cache it by [`Snapshots::version`].
    pub fn newest(&self) -> Arc<Snapshot> {
        self.newest.load_full()
    }

    /// The newest version: one relaxed load, for a worker to see cheaply that its cached snapshot is stale.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Worker `index` serves `version` from now on.
    pub fn pinned(&self, index: usize, version: u64) {
        if let Some(pinned) = self.pinned.get(index) {
            pinned.store(version, Ordering::Release);
        }
    }

    /// What every worker serves at least.
    pub fn served(&self) -> u64 {
        self.pinned.iter().map(|pinned| pinned.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    /// Asks the workers that wait in [`Snapshots::nudged`] to take the newest snapshot.
    pub fn nudge(&self) {
        self.nudge.notify_waiters();
    }

    /// Waits for the next [`Snapshots::nudge`].
    pub async fn nudged(&self) {
        self.nudge.notified().await;
    }

    /// Makes `snapshot` the newest and gives the one it replaces, which the caller must drop outside the workers.
    pub(crate) fn publish(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let version = snapshot.version;
        let old = self.newest.swap(snapshot);
        self.version.store(version, Ordering::Release);
        old
    }
}
