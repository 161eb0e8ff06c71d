//! The fleet: which agents are registered, what their sidecars are given, and what became of it.
//!
//! It speaks messages and frames over channels; [`crate::server`] carries them over HTTP/2. One task renders: it
//! gathers changes of documents, endpoints, trust and response actions until there is a moment of quiet, and moves each class of
//! sidecars (those that see the same) on by one step. One task for each stream sends what is missing there: the newest
//! state, whenever its reader has room for it. One task keeps leases, one stores, one follows what other control
//! planes of the same store do.
//!
//! An update's version is a counter in the store (`fleet/version`), beside the digest of everything: a control plane
//! that comes to the same content takes the number that is there, any other content gets the next. While the store is
//! away the numbers go on locally; digests say what a sidecar holds in any case.

mod agents;
mod authz;
mod busy;
mod class;
mod demand;
mod documents;
mod drain;
pub mod edges;
mod explain;
mod follow;
mod graph;
mod hello;
mod lease;
mod limits;
mod peers;
mod portion;
pub mod presence;
mod ranks;
mod recall;
mod record;
mod registration;
mod registry;
mod render;
mod replicas;
mod scope;
mod share;
mod status;
mod stream;
mod sum;
mod taps;
#[cfg(test)]
mod tests;
mod told;
mod version;
mod view;
mod wait;
mod which;
mod why;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pilotfish_config::wire::{Actions, ToControl, Trust, WireError};
use pilotfish_filters::scope::ScopeClass;
use pilotfish_identity::{SpiffeId, TrustDomain};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::audit::AuditStore;
use crate::resources::{Committed, Resources};
use crate::store::{Store, StoreError};
use class::Class;
use demand::Demand;
use drain::Drains;
use edges::{EdgeTraffic, Edges};
use explain::Plans;
use peers::Peers;
use portion::Portions;
use presence::{Lost, Presence};
use ranks::Ranks;
use record::Revisions;
use registry::Registry;
use replicas::Replicas;
pub use replicas::{NODE, REPLICA, ReplicaPresence};
use scope::Scope;
use stream::Stream;
pub use taps::Looking;
use taps::Taps;
use view::View;
pub use which::Which;
use why::Asks;

/// How the fleet is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This control plane's name, unique among those of its store and the same after a restart.
    pub id: String,
    /// The mesh.
    pub trust_domain: TrustDomain,
    /// How long a registration holds without a heartbeat (10 s).
    pub lease: Duration,
    /// Changes wait for this much quiet (100 ms, Istio's `PILOT_DEBOUNCE_AFTER`) ...
    pub quiet: Duration,
    /// ... but no longer than this (10 s, Istio's `PILOT_DEBOUNCE_MAX`).
    pub longest_quiet: Duration,
    /// At most this many instances of one agent (1000).
    pub most_instances: usize,
    /// Where what sidecars decided is kept; none: nobody keeps it.
    pub audit: Option<Arc<AuditStore>>,
}

impl Settings {
    /// The defaults.
    pub fn new(id: impl Into<String>, trust_domain: TrustDomain) -> Settings {
        Settings {
            id: id.into(),
            trust_domain,
            lease: Duration::from_secs(10),
            quiet: Duration::from_millis(100),
            longest_quiet: Duration::from_secs(10),
            most_instances: 1000,
            audit: None,
        }
    }

    /// How often a heartbeat has to come.
    fn heartbeat(&self) -> Duration {
        self.lease / 3
    }
}

/// The registered agents and the streams to their sidecars. Dropping it ends its tasks; streams end with theirs.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What all tasks use.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    id: Arc<str>,
    store: Arc<dyn Store>,
    started: Instant,
    registry: Registry,
    /// What the store holds of registrations.
    revisions: Revisions,
    ranks: Ranks,
    edges: Edges,
    lost: Lost,
    push: Mutex<Push>,
    streams: Mutex<BTreeMap<u64, Arc<Stream>>>,
    last_stream: AtomicU64,
    drains: Drains,
    peers: Peers,
    portions: Portions,
    plans: Plans,
    taps: Taps,
    asks: Asks,
    replicas: Replicas,
    demand: Demand,
}

/// What was rendered last.
#[derive(Debug)]
struct Push {
    view: Arc<View>,
    classes: HashMap<ScopeClass, Arc<Class>>,
}

impl Fleet {
    /// Loads who was registered, renders, and starts. Everybody the store knows gets a full lease, so that nobody
    /// vanishes while sidecars connect again.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn start(
        store: Arc<dyn Store>,
        resources: &Resources,
        trust: watch::Receiver<Arc<Trust>>,
        actions: watch::Receiver<Arc<Actions>>,
        settings: Settings,
    ) -> Result<Arc<Fleet>, StoreError> {
        Fleet::follow(store, resources.watch(), trust, actions, settings).await
    }

    /// As [`Fleet::start`], with documents from anywhere.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn follow(
        store: Arc<dyn Store>,
        mut documents: watch::Receiver<Arc<Committed>>,
        mut trust: watch::Receiver<Arc<Trust>>,
        mut actions: watch::Receiver<Arc<Actions>>,
        settings: Settings,
    ) -> Result<Arc<Fleet>, StoreError> {
        let view = View::new(
            documents.borrow_and_update().clone(),
            trust.borrow_and_update().clone(),
            actions.borrow_and_update().clone(),
        );
        let shared = Arc::new(Shared {
            id: settings.id.as_str().into(),
            store,
            started: Instant::now(),
            registry: Registry::default(),
            revisions: Revisions::default(),
            ranks: Ranks::default(),
            edges: Edges::default(),
            lost: Lost::default(),
            push: Mutex::new(Push { view: Arc::new(view), classes: HashMap::new() }),
            streams: Mutex::default(),
            last_stream: AtomicU64::new(0),
            drains: Drains::default(),
            peers: Peers::default(),
            portions: Portions::default(),
            plans: Plans::default(),
            taps: Taps::default(),
            asks: Asks::default(),
            replicas: Replicas::default(),
            demand: Demand::default(),
            settings,
        });
        let follow = follow::start(&shared).await?;
        let mut render = render::Renderer::new(shared.clone(), documents, trust, actions);
        render.render().await;
        let tasks = vec![
            tokio::spawn(render.run()),
            tokio::spawn(follow.run()),
            tokio::spawn(record::run(shared.clone())),
            tokio::spawn(lease::run(shared.clone())),
            tokio::spawn(share::run(shared.clone())),
            tokio::spawn(portion::run(shared.clone())),
            tokio::spawn(replicas::run(shared.clone())),
            tokio::spawn(demand::run(shared.clone())),
            tokio::spawn(busy::run(shared.clone())),
        ];
        Ok(Arc::new(Fleet { shared, tasks }))
    }

    /// Serves one sidecar's stream to its end: `peer` is who its certificate says it is, `outgoing` has room for one
    /// frame. A peer that may not have what it asks for gets a refusal, and the log a line.
    pub async fn serve(
        &self,
        peer: SpiffeId,
        incoming: mpsc::Receiver<Result<ToControl, WireError>>,
        outgoing: mpsc::Sender<Bytes>,
    ) {
        stream::serve(&self.shared, peer, incoming, outgoing).await;
    }

    /// Who called whom within the last `window` (at most an hour), as the sidecars that are connected here report it.
    pub fn edges(&self, window: Duration) -> Vec<EdgeTraffic> {
        self.shared.edges.window(window, self.shared.now())
    }

    /// Every agent that is registered, or was until its lease ran out.
    pub fn presence(&self) -> Vec<Presence> {
        self.shared.presence()
    }

    /// Milliseconds since it started: the clock of [`EdgeTraffic::heard`].
    pub fn now(&self) -> u64 {
        self.shared.now()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn push(&self) -> MutexGuard<'_, Push> {
        self.push.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_stream(&self) -> u64 {
        self.last_stream.fetch_add(1, Relaxed) + 1
    }

    /// Everything as it was rendered last.
    fn view(&self) -> Arc<View> {
        self.push().view.clone()
    }
}

impl Push {
    /// The class of a sidecar; made when it is the first of it.
    fn class_of(&mut self, facts: &registration::Facts) -> Arc<Class> {
        let name = Scope::class_of(&self.view.committed, facts);
        let class = match self.classes.get(&name) {
            Some(class) => class.clone(),
            None => {
                let scope = Scope::of(&self.view.committed, facts);
                let class = Arc::new(Class::new(Arc::new(scope), self.view.clone()));
                self.classes.insert(class.name.clone(), class.clone());
                class
            }
        };
        class.used(true);
        class
    }
}
