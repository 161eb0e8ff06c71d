//! Agents as pods: a Deployment with the sidecar for each group, in a Kubernetes cluster whose scheduler places.
//!
//! Two tasks work while the leader asks: one makes Deployments be as told ([`pass`]), one follows the pods ([`pods`], by a
//! watch). Nobody waits for the cluster: what is told is taken, what is answered is what is known. Only objects with our labels
//! are changed or deleted, and only by a leader whose term is not below the one that they carry: each change says which version
//! of the object it was decided on, so that a leader that was overtaken meanwhile changes nothing.

mod api;
mod manifest;
mod name;
mod pass;
mod pod;
mod pods;
#[cfg(test)]
mod tests;
mod token;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Desired, Doing, Executor, ExecutorError, Observed};
use crate::ca::tokens::Tokens;
use crate::placement::demand::Wanted;
use api::{Api, ApiError, Kind};
use pass::Known;
use pods::Pods;

/// Kubernetes' own label for who made an object.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label: whose control planes, by trust domain. Two meshes in one cluster leave each other's objects alone.
const MESH: &str = "pilotfish.dev/mesh";
/// Label: the group's objects' name; Deployments and budgets select pods by it.
const DEPLOYMENT: &str = "pilotfish.dev/deployment";
/// Label: the agent, for affinities.
const AGENT: &str = "pilotfish.dev/agent";
/// Label: the agent's namespace, which may be another than the cluster's.
const NAMESPACE: &str = "pilotfish.dev/namespace";
/// Annotation: [`crate::placement::world::Group::id`].
const GROUP: &str = "pilotfish.dev/group";
/// Annotation: the term of the leader that last changed it.
const TERM: &str = "pilotfish.dev/term";
/// Annotation of a Secret: which token is in it.
const TOKEN: &str = "pilotfish.dev/token-id";
/// Annotation of a Secret: until when that is good, seconds since 1970.
const EXPIRES: &str = "pilotfish.dev/token-expires";

/// [`Settings::recheck`] by default.
pub const RECHECK: Duration = Duration::from_secs(5);
/// [`Settings::patience`] by default.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// After an error it is tried again no sooner than this, or than the cluster is looked at anyway.
const PAUSE: Duration = Duration::from_secs(1);
/// Pods are followed for so long after the last question.
const INTEREST: Duration = Duration::from_secs(30);

/// How agents become pods.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where all agents go; `None`: each to the namespace of its own name.
    pub namespace: Option<String>,
    /// The URL that pods reach the control plane at.
    pub control: String,
    /// The sidecar's image.
    pub proxy_image: String,
    /// Whose objects they are: the trust domain.
    pub mesh: String,
    /// Without a change of what is wanted the cluster is looked at this often.
    pub recheck: Duration,
    /// One request may take so long.
    pub patience: Duration,
}

impl Settings {
    /// The cluster's namespace for agents of a namespace.
    fn namespace_of<'a>(&'a self, namespace: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(namespace)
    }

    /// Between two tries.
    fn pause(&self) -> Duration {
        PAUSE.min(self.recheck)
    }

    /// What selects our objects.
    fn labels(&self) -> String {
        format!("{MANAGED_BY}=pilotfish,{MESH}={}", name::label(&self.mesh))
    }
}

/// The executor.
#[derive(Debug)]
pub struct Kubernetes {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    api: Api,
    tokens: Tokens,
    wish: Mutex<Option<Wish>>,
    wished: Notify,
    told: Mutex<Told>,
    seen: Mutex<Seen>,
    asked: Notify,
}

/// What should be.
#[derive(Debug, Clone)]
struct Wish {
    term: u64,
    desired: Vec<Desired>,
}

/// What came of it.
#[derive(Debug, Default)]
struct Told {
    failed: Option<String>,
    /// By group.
    waiting: BTreeMap<Arc<str>, String>,
    notes: Vec<String>,
}

/// What pods there are.
#[derive(Debug, Default)]
struct Seen {
    pods: Pods,
    /// Why that is not what is there now; at first it never was.
    stale: Option<String>,
    asked: Option<Instant>,
}

impl Kubernetes {
    /// Finds the cluster, and waits for orders. `tokens` makes what pods join with.
    ///
    /// # Errors
    /// There is nothing that says where a cluster is. One that does not answer is no error.
    pub async fn start(
        settings: Settings,
        kubeconfig: Option<&Path>,
        tokens: Tokens,
    ) -> Result<Kubernetes, String> {
        let api = Api::connect(kubeconfig, settings.patience).await?;
        let stale = Some("the cluster was not looked at yet".to_owned());
        let shared = Arc::new(Shared {
            settings,
            api,
            tokens,
            wish: Mutex::default(),
            wished: Notify::new(),
            told: Mutex::default(),
            seen: Mutex::new(Seen { stale, ..Seen::default() }),
            asked: Notify::new(),
        });
        let tasks = [tokio::spawn(shared.clone().make()), tokio::spawn(shared.clone().follow())];
        Ok(Kubernetes { shared, tasks })
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Executor for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn places(&self) -> bool {
        false
    }

    /// Takes what should be, and says what came of it the last time. Has to be called again now and then.
    fn reconcile<'a>(&'a self, term: u64, desired: &'a [Desired]) -> Doing<'a, ()> {
        *lock(&self.shared.wish) = Some(Wish { term, desired: desired.to_vec() });
        self.shared.wished.notify_one();
        let failed = lock(&self.shared.told).failed.clone();
        Box::pin(async move { failed.map_or(Ok(()), |why| Err(ExecutorError(why))) })
    }

    fn observe(&self) -> Doing<'_, Vec<Observed>> {
        let mut seen = lock(&self.shared.seen);
        seen.asked = Some(Instant::now());
        self.shared.asked.notify_one();
        let known = match &seen.stale {
            Some(why) => Err(ExecutorError(why.clone())),
            None => Ok(seen.pods.all()),
        };
        Box::pin(async move { known })
    }

    fn waiting(&self, wanted: &Wanted) -> Option<String> {
        unfit(wanted).or_else(|| lock(&self.shared.told).waiting.get(&wanted.group.id).cloned())
    }

    fn notes(&self) -> Vec<String> {
        lock(&self.shared.told).notes.clone()
    }
}

/// What of an agent cannot be said to Kubernetes.
fn unfit(wanted: &Wanted) -> Option<String> {
    let (group, need) = (&wanted.group, &wanted.group.need);
    if group.runtime.image.is_none() {
        return Some(
            "no image: the Kubernetes executor starts containers; write `image` into the agent or into an AgentTemplate of \
             its name"
                .into(),
        );
    }
    if need.gpu_memory > 0 && need.gpus == 0 && need.gpu_slice.is_none() {
        return Some("gpuMemory shares need process nodes, or MIG slices".into());
    }
    if group.gang {
        return Some("gang placement needs process nodes: Kubernetes' scheduler places pod by pod".into());
    }
    None
}

impl Shared {
    /// Makes what is wished for, whenever something is.
    async fn make(self: Arc<Shared>) {
        let mut known = Known::default();
        loop {
            self.wished.notified().await;
            let Some(wish) = lock(&self.wish).clone() else { continue };
            if !known.is_due(&self.settings, &wish) {
                continue;
            }
            let done = self.pass(&wish, &mut known).await;
            let failed = done.failed.is_some();
            *lock(&self.told) = done;
            if failed {
                tokio::time::sleep(self.settings.pause()).await;
            }
        }
    }

    /// Follows the pods while somebody asks for them.
    async fn follow(self: Arc<Shared>) {
        let (namespace, labels) = (self.settings.namespace.as_deref(), self.settings.labels());
        loop {
            if !self.interesting() {
                lock(&self.seen).stale = Some("the cluster is looked at again".into());
                self.asked.notified().await;
            }
            if let Err(error) = self.watch(namespace, &labels).await {
                if error == ApiError::Gone {
                    continue;
                }
                lock(&self.seen).stale = Some(error.to_string());
                tokio::time::sleep(self.settings.pause()).await;
            }
        }
    }

    fn interesting(&self) -> bool {
        lock(&self.seen).asked.is_some_and(|asked| asked.elapsed() < INTEREST)
    }

    async fn watch(&self, namespace: Option<&str>, labels: &str) -> Result<(), ApiError> {
        let mut pods = Pods::default();
        let mut version = self.api.list(Kind::Pod, namespace, labels, |pod| pods.add(&pod)).await?;
        {
            let mut seen = lock(&self.seen);
            seen.pods = pods;
            seen.stale = None;
        }
        while self.interesting() {
            let from = version.clone();
            let take = |event| {
                if let Some(now) = lock(&self.seen).pods.take(event) {
                    version = now;
                }
            };
            self.api.watch(Kind::Pod, namespace, labels, &from, take).await?;
        }
        Ok(())
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
