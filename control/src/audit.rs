//! The audit store: what sidecars recorded, chain by chain as it came, on this control plane's disk.
//!
//! `<folder>/<namespace>.<agent>/<chain>/` is a chain's folder as `pilotfish_audit` keeps it, and `findings.jsonl` beside its
//! stretches tells what was not as it should be when it came. One thread appends: batches that came together are on the disk before
//! any of them is acknowledged.

mod chains;
pub mod holders;
mod query;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pilotfish_config::model::{Model, ROOT_NAMESPACES};
use pilotfish_config::wire::{AuditBatch, AuditTaken};
use tokio::sync::watch;

use crate::log;
use crate::resources::Committed;
use chains::Chains;
pub use holders::Holder;
pub use query::{Query, Row};

/// Batches that wait for the thread, of all sidecars: each has one under way.
const QUEUE: usize = 256;
/// Batches that are put on the disk together.
const TOGETHER: usize = 64;
/// How often it is looked for old records at least.
const LOOK: Duration = Duration::from_secs(30);

/// How long records are kept of an agent: `None` when no policy says.
pub type Retention = Arc<dyn Fn(&str) -> Option<Duration> + Send + Sync>;

/// A batch on its way to the disk.
struct Arrived {
    agent: String,
    batch: AuditBatch,
    answer: Box<dyn FnOnce(AuditTaken) + Send>,
}

/// The store.
pub struct AuditStore {
    folder: PathBuf,
    chains: Arc<Mutex<Chains>>,
    queue: SyncSender<Arrived>,
    retention: Retention,
}

impl std::fmt::Debug for AuditStore {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("AuditStore").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl AuditStore {
    /// The store in a folder that may take so many bytes; its thread starts now.
    ///
    /// # Errors
    /// The folder cannot be made, or the thread not be started.
    pub fn open(folder: &Path, disk: u64, retention: Retention) -> io::Result<AuditStore> {
        let chains = Arc::new(Mutex::new(Chains::open(folder, disk, retention.clone())?));
        let (queue, arrived) = sync_channel(QUEUE);
        let shared = chains.clone();
        let thread = std::thread::Builder::new().name("audit".into());
        thread.spawn(move || run(&shared, &arrived))?;
        Ok(AuditStore { folder: folder.to_owned(), chains, queue, retention })
    }

    /// Takes what the sidecar of `agent` (`namespace/name`) sent. `answer` is called when it is on the disk; never, when it is not,
    /// and the sidecar sends it again.
    pub fn take(&self, agent: String, batch: AuditBatch, answer: impl FnOnce(AuditTaken) + Send + 'static) {
        let _ = self.queue.try_send(Arrived { agent, batch, answer: Box::new(answer) });
    }

    /// Records that fit, the newest first.
    ///
    /// # Errors
    /// The disk's.
    pub fn find(&self, query: &Query) -> io::Result<Vec<Row>> {
        query::find(&self.folder, query, now(), &self.retention)
    }

    /// Looks at every line of the chains of an agent (`namespace/name` or `name`), or of all.
    ///
    /// # Errors
    /// The disk's.
    pub fn verify(&self, agent: Option<&str>) -> io::Result<Vec<pilotfish_audit::Report>> {
        query::verify(&self.folder, agent)
    }

    /// Erases what is older than policies say at `now`, nanoseconds since 1970, and what there is no room for.
    pub fn erase(&self, now: u64) {
        lock(&self.chains).erase(now);
    }
}

/// What the documents say of how long records are kept. Of several policies the shortest holds, as in sidecars.
pub fn retention(documents: watch::Receiver<Arc<Committed>>) -> Retention {
    Arc::new(move |agent| shortest(&documents.borrow().model, agent))
}

fn shortest(model: &Model, agent: &str) -> Option<Duration> {
    let namespace = agent.split_once('/').map_or(agent, |(namespace, _)| namespace);
    let of = |here: &str| here == namespace || ROOT_NAMESPACES.contains(&here);
    let policies = model.agent_security_policies.iter().filter(|policy| of(policy.meta.namespace()));
    policies.filter_map(|policy| policy.retention).min()
}

fn run(chains: &Mutex<Chains>, arrived: &Receiver<Arrived>) {
    let mut looked = None::<Instant>;
    loop {
        let batches: Vec<Arrived> = match arrived.recv_timeout(LOOK) {
            Ok(first) => std::iter::once(first).chain(arrived.try_iter().take(TOGETHER - 1)).collect(),
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut chains = lock(chains);
        let mut taken = Vec::new();
        for Arrived { agent, batch, answer } in batches {
            match chains.append(&agent, &batch, now()) {
                Ok(seq) => taken.push((answer, AuditTaken { chain: batch.chain, seq })),
                Err(error) => log::error!("audit records cannot be stored", agent = agent, error = error),
            }
        }
        match chains.sync(now()) {
            Ok(()) => taken.into_iter().for_each(|(answer, taken)| answer(taken)),
            Err(error) => log::error!("audit records cannot be stored", error = error),
        }
        if looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            looked = Some(Instant::now());
            chains.erase(now());
        }
    }
}

/// Now, nanoseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn lock(chains: &Mutex<Chains>) -> MutexGuard<'_, Chains> {
    chains.lock().unwrap_or_else(PoisonError::into_inner)
}
