//! What one worker thread owns. Nothing here is shared with other threads, so nothing here has a lock.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use pilotfish_config::model::MtlsMode;
use pilotfish_filters::cluster::ClusterSettings;
use pilotfish_filters::held::Held;
use pilotfish_filters::retry::RetryPolicy;
use tokio::net::UnixStream;

use crate::audit::turned::Turned;
use crate::delegation::memory::Memory;
use crate::http::{self, Accepted, Closing, Io, Limits, Timers};
use crate::listen::Direction;
use crate::listen::callers::{self, Caller};
use crate::listen::plain::{self, Plain};
use crate::memory::Level;
use crate::request::cut::Watched;
use crate::request::decode::whole::Reading;
use crate::request::dedup::Executions;
use crate::request::{Service, explain, mirror};
use crate::server::Shared;
use crate::shutdown::Phase;
use crate::snapshot::Snapshot;
use crate::telemetry::log;
use crate::telemetry::metrics::WorkerMetrics;
use crate::telemetry::metrics::agentic::{KnownWords, Vocabulary};
use crate::telemetry::ring::Calls;
use crate::telemetry::series::{NumberedSlots, Slots};
use crate::tls::accept::{self, HalfOpen};
use crate::tls::peers::Peers;
use crate::tokens::cache;
use crate::upstream::pool::Pool;

/// How often kept connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// The state of one worker; connections share it by `Rc`.
pub struct Worker {
    /// The worker's number, from 0.
    pub index: usize,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// This worker's own counters.
    pub metrics: Arc<WorkerMetrics>,
    /// Kept upstream connections.
    pub pool: Pool,
    /// What peers may send, on both sides.
    pub limits: Rc<Limits>,
    /// Where the counters of rules are.
    pub rules: NumberedSlots,
    /// Where the counters of clusters are.
    pub clusters: Slots,
    /// Where the counters of models, tools and agents are.
    pub words: KnownWords,
    /// Settings of connections that belong to no cluster: Istio's defaults.
    pub plain_settings: ClusterSettings,
    /// Retries of calls that no rule leads: the defaults.
    pub plain_retries: RetryPolicy,
    /// Open connections within the mesh.
    pub peers: Peers,
    /// Open connections of the own agent.
    pub plain: Plain,
    /// Chains of who asked whom.
    pub delegations: Memory,
    /// Open calls that are for somebody besides their caller.
    pub watched: Watched,
    /// Handshakes under way on the inbound port.
    pub half_open: HalfOpen,
    /// Timers of calls.
    pub timers: Timers,
    /// Calls with a key that are being done.
    pub executions: Executions,
    /// Records of calls: those under way, and the last.
    pub calls: Calls,
    /// How often calls are explained.
    pub explaining: explain::Pace,
    /// Bodies that are read before a decision.
    pub reading: Reading,
    /// Connections that were turned away, as far as records tell of them.
    pub turned: Turned,
    /// Copies of calls under way.
    pub mirrors: mirror::UnderWay,
    /// Callers' tokens that were looked at before.
    pub tokens: RefCell<cache::Cache>,
    this: Weak<Worker>,
    closing: Closing,
    services: [Rc<Service>; 2],
    rng: RefCell<fastrand::Rng>,
    /// Who is held, as far as connections were cut for it.
    held: RefCell<Option<Arc<Held>>>,
    pinned: RefCell<Rc<Pinned>>,
    version: Cell<u64>,
}

/// The snapshot that requests of this worker hold. One `Arc` for the worker; requests clone the `Rc`, which costs
/// no atomic operation.
#[derive(Debug)]
pub struct Pinned(Arc<Snapshot>);

impl std::ops::Deref for Pinned {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Worker {
    /// The state of worker `index`; runs on its thread, inside its runtime.
    pub fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let metrics = shared.metrics[index].clone();
        let version = Cell::new(shared.snapshots.version());
        let pinned = RefCell::new(Rc::new(Pinned(shared.snapshots.newest())));
        shared.snapshots.pinned(index, version.get());
        Rc::new_cyclic(|this| Worker {
            index,
            metrics,
            pool: Pool::default(),
            limits: Rc::new(Limits {
                h2_max_streams: shared.settings.max_concurrent_streams,
                ..Limits::default()
            }),
            rules: NumberedSlots::default(),
            clusters: Slots::default(),
            words: KnownWords::default(),
            plain_settings: ClusterSettings::default(),
            plain_retries: RetryPolicy::default(),
            peers: Peers::default(),
            plain: Plain::default(),
            delegations: Memory::default(),
            watched: Watched::default(),
            half_open: HalfOpen::default(),
            timers: Timers::default(),
            executions: Executions::default(),
            calls: Calls::new(shared.settings.telemetry.ring),
            explaining: explain::Pace::default(),
            reading: Reading::default(),
            turned: Turned::default(),
            mirrors: mirror::UnderWay::default(),
            tokens: RefCell::default(),
            this: this.clone(),
            closing: Closing::new(),
            services: Direction::ALL.map(|direction| Rc::new(Service::new(this.clone(), direction))),
            rng: RefCell::new(fastrand::Rng::new()),
            held: RefCell::default(),
            pinned,
            version,
            shared,
        })
    }

    /// Itself, for tasks that outlive a request. `None`: it is ending.
    pub fn handle(&self) -> Option<Rc<Worker>> {
        self.this.upgrade()
    }

    /// The newest snapshot, for one request to keep to its end.
    pub fn pin(&self) -> Rc<Pinned> {
        let newest = self.shared.snapshots.version();
        if newest != self.version.get() {
            // Requests under way keep the old one; the publisher holds a reference of its own to every snapshot it
            // replaced, so the last one is never dropped on this thread.
            self.pinned.replace(Rc::new(Pinned(self.shared.snapshots.newest())));
            self.version.set(newest);
            self.shared.snapshots.pinned(self.index, newest);
        }
        Rc::clone(&self.pinned.borrow())
    }

    /// Randomness for choices; it guards nothing.
    pub fn with_rng<T>(&self, choose: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        choose(&mut self.rng.borrow_mut())
    }

    /// Looks through kept connections once a second, and whenever a request of some worker waits for a place; runs
    /// for the life of the worker.
    pub async fn keep_house(self: Rc<Self>) {
        let mut actions = self.shared.actions.watch();
        self.cut_held();
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.shared.pressure.notified() => {}
                () = self.shared.tls.changed.notified() => {}
                Ok(()) = actions.changed() => self.cut_held(),
                () = self.shared.snapshots.nudged() => {
                    drop(self.pin());
                    continue;
                }
                _ = tick.tick() => drop(self.pin()),
            }
            self.peers.judge(&self.shared.tls.live);
            if self.shared.memory.level() == Level::Full {
                self.pool.close();
            }
            self.pool.sweep(self.shared.clock.now());
        }
    }

    /// Cuts the connections of agents that are held since it looked last.
    fn cut_held(&self) {
        let held = self.shared.actions.held();
        let before = self.held.replace(held.clone());
        let Some(held) = held else { return };
        let now = self.shared.clock.now();
        let calls = self.watched.cut(&held, before.as_deref(), now);
        if calls > 0 {
            log::warn!("calls cut", calls = calls, reason = "an agent is held for whom they were");
        }
        let mut cut = self.peers.cut(&held, before.as_deref(), now);
        if let Some(grip) = held.own_since(before.as_deref(), now) {
            cut += self.plain.cut(grip);
            self.pool.close();
        }
        if cut > 0 {
            log::warn!("connections cut", connections = cut, reason = "an agent is held");
        }
    }

    /// The names of models, tools and agents.
    pub fn vocabulary(&self) -> Vocabulary<'_> {
        Vocabulary { words: &self.shared.words, known: &self.words }
    }

    /// Answers what other threads ask of its calls; runs for the life of the worker.
    pub async fn answer(self: Rc<Self>) {
        let answering = self
            .shared
            .asking
            .get(self.index)
            .and_then(|(_, answering)| answering.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(answering) = answering {
            answering.run(&self.calls, &self.shared).await;
        }
    }

    /// Tells connections to close once the drain has come so far.
    pub async fn close_when_draining(self: Rc<Self>) {
        self.shared.drain.reached(Phase::Closing).await;
        self.closing.start();
        self.peers.close();
    }

    /// What the inbound port takes now. PeerAuthentication counts by the agent's own port.
    pub fn inbound_mode(&self) -> MtlsMode {
        let port = self.shared.settings.app.as_ref().map_or(0, |app| app.port);
        self.pin().plan.inbound_mtls(port)
    }

    /// Serves what the agent says through a tunnel as it serves whatever else the agent says. Gives the other end.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub fn serve_within(&self) -> io::Result<Io> {
        let (own, other) = UnixStream::pair()?;
        let service = Rc::clone(&self.services[Direction::Outbound as usize]);
        let accepted = Accepted { within: true, ..Accepted::from(Io::Unix(own)) };
        let serving = http::serve(accepted, Rc::clone(&self.limits), service, self.closing.clone());
        let plain = self.plain.add(Direction::Outbound);
        tokio::task::spawn_local(plain::until_cut(Some(plain), serving));
        Ok(Io::Unix(other))
    }

    /// Serves one accepted connection to its end. `caller`: as whose it is counted until it proves who it is.
    pub async fn serve(self: Rc<Self>, io: Io, direction: Direction, mut caller: Option<callers::Held>) {
        let service = Rc::clone(&self.services[direction as usize]);
        let limits = Rc::clone(&self.limits);
        let mut closing = self.closing.clone();
        let accepted = match direction {
            Direction::Outbound => Some(io.into()),
            // On the heap, and gone before the connection is idle.
            Direction::Inbound => Box::pin(accept::arrive(&self, io)).await,
        };
        let Some(accepted) = accepted else { return };
        if let (Some(peer), Some(fuse)) = (&accepted.mesh, accepted.io.fuse()) {
            if caller.is_some() {
                let id = peer.peer.id.to_string().into();
                caller = self.shared.callers.take(Caller::Agent(id));
                if caller.is_none() {
                    return;
                }
            }
            closing = Closing::new();
            if self.closing.is_started() {
                closing.start();
            }
            self.peers.add(Rc::clone(peer), fuse, Some(closing.clone()));
        }
        let plain = accepted.mesh.is_none().then(|| self.plain.add(direction));
        drop(self);
        plain::until_cut(plain, http::serve(accepted, limits, service, closing)).await;
        drop(caller);
    }
}
