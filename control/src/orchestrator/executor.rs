//! What makes replicas exist: processes on nodes, or Kubernetes.

#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod process;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pilotfish_config::wire::node::ReplicaPhase;

use crate::placement::demand::Wanted;
use crate::placement::world::GpuShare;

/// A replica with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// `<namespace>/<agent>/<replica>`.
    pub replica: Arc<str>,
    /// The node; empty where the executor's own scheduler places.
    pub node: String,
    /// [`crate::placement::world::Group::generation`] that it was ordered with.
    pub generation: String,
    /// Its cards.
    pub gpus: Vec<GpuShare>,
}

/// What should be there of one group.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The group and how its replicas are started.
    pub wanted: Arc<Wanted>,
    /// So many: what the group's replicas come to now (scale, warm pool, demand).
    pub replicas: u32,
    /// Where each is, for an executor that does not place itself.
    pub assignments: Vec<Assignment>,
}

/// A replica as the executor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// `<namespace>/<agent>/<replica>`, or the executor's own name for it (a pod's).
    pub replica: String,
    /// [`crate::placement::world::Group::id`], when it is known.
    pub group: Option<Arc<str>>,
    /// Where it is.
    pub node: Option<String>,
    /// How far.
    pub phase: ReplicaPhase,
    /// Why, for people.
    pub reason: Option<String>,
}

/// What an asynchronous call of an executor gives.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, ExecutorError>> + Send + 'a>>;

/// Why an executor could not do it now; it is asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorError(pub String);

/// Makes what runs match what should. Level-triggered: it is told everything each time, and asked again until it holds.
pub trait Executor: Send + Sync + std::fmt::Debug {
    /// `process` or `kubernetes`.
    fn name(&self) -> &'static str;
    /// Whether [`crate::placement`] chooses nodes for it.
    fn places(&self) -> bool;
    /// Makes it so. `term` is the leader's.
    fn reconcile<'a>(&'a self, term: u64, desired: &'a [Desired]) -> Doing<'a, ()>;
    /// What is there. An error says nothing about what is there: what was seen before still holds.
    fn observe(&self) -> Doing<'_, Vec<Observed>>;
    /// Why a group is not started, or not as it says: because of what it asks for, or what went wrong with it last.
    fn waiting(&self, wanted: &Wanted) -> Option<String> {
        wanted.waiting.clone()
    }
    /// What should be looked at, for people.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}
