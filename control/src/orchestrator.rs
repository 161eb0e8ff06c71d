//! Makes placement so: the leader's loop over documents, nodes and what runs, and the executors that start and stop.
//!
//! One control plane of a store leads ([`leader`]). Its loop (`reconcile`) takes the newest documents, what nodes report and what
//! sidecars registered, asks [`crate::placement`], writes what it decided into the store and then lets the [`executor`] make it so.
//! A decision is in the store before anybody hears of it, so the next leader goes on from it.

mod board;
pub mod executor;
mod inventory;
mod lead;
pub mod leader;
pub mod on_demand;
mod orders;
mod reconcile;
mod records;
mod session;
mod show;
mod stuck;
pub mod view;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pilotfish_config::wire::WireError;
use pilotfish_config::wire::node::{Elsewhere, FromNode};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use crate::ca::tokens::Tokens;
use crate::fleet::Fleet;
use crate::resources::Committed;
use crate::store::Store;
use board::Board;
use executor::process::{Lead, Processes};
use executor::{Executor, Observed};
use lead::{Command, Reply};
use leader::{Elector, Role};
pub use show::Counts;
pub use view::{Explanation, NodeRow, PlacementView, ReplicaRow};

/// Why something that was asked for is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDone {
    /// There is no such agent, node or replica.
    Unknown(String),
    /// It makes no sense.
    Invalid(String),
    /// Another control plane leads; its address, if it said one.
    NotLeading(Option<String>),
    /// The store is not available.
    Store(crate::store::StoreError),
}

impl fmt::Display for NotDone {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotDone::Unknown(what) => write!(out, "{what}"),
            NotDone::Invalid(why) => write!(out, "{why}"),
            NotDone::NotLeading(Some(at)) => write!(out, "another control plane leads: {at}"),
            NotDone::NotLeading(None) => write!(out, "no control plane leads placement just now; try again"),
            NotDone::Store(error) => write!(out, "{error}"),
        }
    }
}

impl std::error::Error for NotDone {}

/// A node holds one lease for all its replicas; it beats every third of it.
pub const NODE_LEASE: Duration = Duration::from_secs(3);
/// Commands that wait for the leader's loop.
const WAITING: usize = 64;
/// Replicas that somebody may ask for, at most.
const MOST_REPLICAS: u32 = 1_000_000;

/// How placement is run.
#[derive(Clone)]
pub struct Settings {
    /// This control plane's name.
    pub id: String,
    /// Where nodes reach it, `https://HOST:PORT`.
    pub address: String,
    /// How long a node's replicas are left alone after its lease (10 s).
    pub grace: Duration,
    /// Makes tokens for replicas.
    pub tokens: Arc<Tokens>,
    /// Turns true when the process ends.
    pub closing: watch::Receiver<bool>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Settings({} at {})", self.id, self.address)
    }
}

/// What all tasks use.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    documents: watch::Receiver<Arc<Committed>>,
    elector: tokio::sync::Mutex<Elector>,
    /// What this control plane is, and until when that holds without being looked at again.
    role: watch::Sender<(Role, Instant)>,
    lead: Lead,
    executor: Arc<dyn Executor>,
    /// What an executor says that places by itself.
    observed: Mutex<Vec<Observed>>,
    /// Something happened that the leader's loop has to look at.
    wake: Notify,
    /// Whether it leads is to be found out now.
    look: Notify,
    last_session: AtomicU64,
    measures: Measures,
}

/// What is counted.
#[derive(Debug, Default)]
struct Measures {
    decisions: AtomicU64,
    deciding_us: AtomicU64,
    last_us: AtomicU64,
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Option<Board>> {
        self.lead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The term, while this control plane leads by its own clock.
    fn leads(&self) -> Option<u64> {
        match *self.role.borrow() {
            (Role::Leader { term }, until) if Instant::now() < until => Some(term),
            _ => None,
        }
    }

    /// The term, also while it cannot renew the lead.
    fn term(&self) -> Option<u64> {
        match self.role.borrow().0 {
            Role::Leader { term } | Role::Paused { term } => Some(term),
            _ => None,
        }
    }

    /// Whether it is not known yet who leads, or what was placed is being loaded.
    fn is_about_to_lead(&self) -> bool {
        let role = self.role.borrow().0.clone();
        matches!(role, Role::Unknown) || (matches!(role, Role::Leader { .. }) && self.board().is_none())
    }

    /// Who leads, when it is another.
    fn elsewhere(&self) -> Elsewhere {
        match &self.role.borrow().0 {
            Role::Follower { leader: Some(leader) } => {
                Elsewhere { control: Some(leader.control.clone()), address: Some(leader.address.clone()) }
            }
            _ => Elsewhere { control: None, address: None },
        }
    }

    fn next_session(&self) -> u64 {
        self.last_session.fetch_add(1, Relaxed) + 1
    }
}

/// Placement as a part of the control plane. Dropping it ends its tasks.
#[derive(Debug)]
pub struct Orchestrator {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Orchestrator {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Orchestrator {
    /// Starts it: follows, and leads when nobody else does. `executor` makes replicas exist; `None`: processes on nodes.
    pub fn start(
        store: Arc<dyn Store>,
        fleet: Arc<Fleet>,
        documents: watch::Receiver<Arc<Committed>>,
        executor: Option<Arc<dyn Executor>>,
        settings: Settings,
    ) -> Arc<Orchestrator> {
        let elector = Elector::new(store.clone(), settings.id.clone(), settings.address.clone());
        let lead = Lead::default();
        let shared = Arc::new(Shared {
            elector: tokio::sync::Mutex::new(elector),
            role: watch::Sender::new((Role::Unknown, Instant::now())),
            executor: executor.unwrap_or_else(|| Arc::new(Processes::new(lead.clone()))),
            lead,
            observed: Mutex::default(),
            wake: Notify::new(),
            look: Notify::new(),
            last_session: AtomicU64::new(0),
            measures: Measures::default(),
            settings,
            store,
            fleet,
            documents,
        });
        let (commands, given) = mpsc::channel(WAITING);
        let tasks = vec![
            tokio::spawn(lead::elect(shared.clone())),
            tokio::spawn(lead::leases(shared.clone())),
            tokio::spawn(lead::run(shared.clone(), given)),
        ];
        Arc::new(Orchestrator { shared, commands, tasks })
    }

    /// Serves one node's stream to its end: `node` is who its certificate says it is, `outgoing` has room for one frame.
    pub async fn serve(
        &self,
        node: &str,
        incoming: mpsc::Receiver<Result<FromNode, WireError>>,
        outgoing: mpsc::Sender<Bytes>,
    ) {
        session::serve(&self.shared, node, incoming, outgoing).await;
    }

    /// What is where, as the leader knows it.
    ///
    /// # Errors
    /// This control plane does not lead.
    pub fn view(&self) -> Result<PlacementView, NotDone> {
        let observed = self.observed();
        self.led(|board| board.view(&self.shared.settings.id, &*self.shared.executor, &observed))
    }

    /// Why an agent's replicas are where they are, and why some have no place. `agent` is `namespace/name`, or a replica's id.
    ///
    /// # Errors
    /// It is not known; this control plane does not lead.
    pub fn explain(&self, agent: &str) -> Result<Explanation, NotDone> {
        let observed = self.observed();
        self.led(|board| board.explain(agent, &*self.shared.executor, &observed))?
            .ok_or_else(|| self.unknown(agent))
    }

    /// Sets how many replicas of an agent there should be; `None`: as its documents say.
    ///
    /// # Errors
    /// It is not known; this control plane does not lead; the store.
    pub async fn scale(
        &self,
        agent: &str,
        region: Option<&str>,
        replicas: Option<u32>,
    ) -> Result<String, NotDone> {
        if replicas.is_some_and(|replicas| replicas > MOST_REPLICAS) {
            return Err(NotDone::Invalid(format!("at most {MOST_REPLICAS} replicas")));
        }
        let regions = self.led(|board| {
            let own = board.wanted.values().map(|wanted| &wanted.group);
            own.filter(|group| format!("{}/{}", group.namespace, group.agent) == agent)
                .map(|group| group.region.clone())
                .collect::<Vec<_>>()
        })?;
        let named: Vec<&str> = regions.iter().flatten().map(String::as_str).collect();
        let name = match region {
            _ if regions.is_empty() => return Err(self.unknown(agent)),
            Some(region) if named.is_empty() => {
                return Err(NotDone::Invalid(format!("{agent} has no regions, so none is `{region}`")));
            }
            Some(region) if !named.contains(&region) => {
                let why = format!("{agent} has no region `{region}`; it has {}", listed(&named));
                return Err(NotDone::Invalid(why));
            }
            Some(region) => format!("{agent}@{region}"),
            None => agent.to_owned(),
        };
        if region.is_none() {
            // A number for all regions is shared out; those of single ones would go before it.
            for region in &named {
                self.command(|reply| Command::Scale(format!("{agent}@{region}"), None, reply)).await?;
            }
        }
        self.command(|reply| Command::Scale(name.clone(), replicas, reply)).await?;
        Ok(match replicas {
            Some(1) => format!("{name}: 1 replica"),
            Some(replicas) => format!("{name}: {replicas} replicas"),
            None => format!("{name}: as many replicas as its documents say"),
        })
    }

    /// Whether new replicas may come to a node, and whether those that are there leave.
    ///
    /// # Errors
    /// It is not known; this control plane does not lead; the store.
    pub async fn mark(&self, node: &str, mark: Mark) -> Result<String, NotDone> {
        let replicas = self.command(|reply| Command::Mark(node.to_owned(), mark, reply)).await?;
        let those =
            if replicas == 1 { "its replica moves".into() } else { format!("its {replicas} replicas move") };
        Ok(match mark {
            Mark::Open => format!("{node} takes replicas again"),
            Mark::Cordoned => format!("{node} takes no new replicas; what is there stays"),
            Mark::Draining if replicas == 0 => format!("{node} takes no new replicas and has none"),
            Mark::Draining => format!("{node} takes no new replicas; {those} elsewhere"),
        })
    }

    /// Moves replicas so that whole cards become free, `moves` at most.
    ///
    /// # Errors
    /// This control plane does not lead; the store.
    pub async fn rebalance(&self, moves: u32, dry_run: bool) -> Result<Vec<String>, NotDone> {
        self.command(|reply| Command::Rebalance(moves, dry_run, reply)).await
    }

    /// The last lines of a replica's output.
    ///
    /// # Errors
    /// It is not known, or its node is away; this control plane does not lead.
    pub async fn tail(&self, replica: &str, lines: u32) -> Result<Vec<String>, NotDone> {
        let found = self.led(|board| {
            let mut all = board.assigned();
            let at = all.find(|(_, _, assigned)| *assigned.replica == *replica);
            at.map(|(name, node, _)| (name.to_owned(), node.session.clone()))
        })?;
        let (node, session) = found.ok_or_else(|| NotDone::Unknown(format!("no replica `{replica}`")))?;
        let session = session.ok_or_else(|| NotDone::Unknown(format!("the node {node} is not connected")))?;
        let lines = session.tail(replica, lines).await;
        lines.map_err(|why| NotDone::Unknown(format!("{replica} on {node}: {why}")))
    }

    /// What is counted, for a scraper.
    pub fn counts(&self) -> Counts {
        let board = self.shared.board();
        let mut counts = board.as_ref().map(Board::counts).unwrap_or_default();
        let measures = &self.shared.measures;
        counts.leads = self.shared.leads().is_some();
        counts.decisions = measures.decisions.load(Relaxed);
        counts.deciding_seconds = measures.deciding_us.load(Relaxed) as f64 / 1e6;
        counts.last_seconds = measures.last_us.load(Relaxed) as f64 / 1e6;
        counts
    }

    fn observed(&self) -> Vec<Observed> {
        self.shared.observed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn led<T>(&self, read: impl FnOnce(&Board) -> T) -> Result<T, NotDone> {
        match self.shared.board().as_ref() {
            Some(board) => Ok(read(board)),
            None => Err(NotDone::NotLeading(self.shared.elsewhere().address)),
        }
    }

    fn unknown(&self, agent: &str) -> NotDone {
        let names = self.led(|board| {
            let own = board.wanted.values().map(|wanted| &wanted.group);
            own.map(|group| format!("{}/{}", group.namespace, group.agent)).collect::<Vec<_>>()
        });
        let names = names.unwrap_or_default();
        let near = pilotfish_config::raw::nearest(agent, names.iter().map(String::as_str));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        NotDone::Unknown(format!("no AgentCluster has an agent `{agent}`{near}"))
    }

    async fn command<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, NotDone> {
        let not = || NotDone::NotLeading(self.shared.elsewhere().address);
        if self.shared.leads().is_none() {
            return Err(not());
        }
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| not())?;
        answer.await.map_err(|_| not())?
    }
}

fn listed(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// What an administrator says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// Replicas may come.
    #[default]
    Open,
    /// Nothing new comes.
    Cordoned,
    /// What is there leaves.
    Draining,
}
