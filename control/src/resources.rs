//! The documents, version by version: what people apply, what every control plane of a store follows.
//!
//! Versions are kept as git keeps them: each document's JSON and each piece of a version's list of documents lies under
//! the digest of its bytes (`blob/<sha256>`), a version is a small record that names the pieces (`commit/<version>`), and
//! one key (`head`) says which version is the newest. It moves by compare-and-set, so two who apply at once cannot both
//! win, and a version that was not finished is never seen.

mod check;
pub mod default_deny;
mod follow;
mod loaded;
mod objects;
mod plan;
mod sweep;
#[cfg(test)]
mod tests;
mod tree;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use pilotfish_config::Model;
use pilotfish_config::model::Meta;
use pilotfish_config::wire::{self, Key};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::api::types;
use crate::ca::Clock;
use crate::store::{Revision, Store, StoreError};
pub use check::compile_errors;
use objects::Record;
pub use plan::Planned;

/// A stored document.
#[derive(Debug, Clone)]
pub struct Stored {
    /// As sidecars get it.
    pub document: wire::Document,
    /// SHA-256 of its JSON, lower-case hexadecimal: the same content has the same digest.
    pub digest: String,
    /// The version that changed it last.
    pub version: u64,
    /// Its key, labels, annotations and place.
    pub meta: Meta,
}

/// A version of the documents, valid as a whole.
#[derive(Debug, Clone, Default)]
pub struct Committed {
    /// Its number; 0 before the first.
    pub version: u64,
    /// Its documents. What two versions share is shared in memory.
    pub documents: Arc<BTreeMap<Key, Arc<Stored>>>,
    /// Their meaning.
    pub model: Arc<Model>,
}

/// Why nothing was changed.
#[derive(Debug)]
pub enum Refusal {
    /// The documents are wrong, alone or together with those that are stored.
    Invalid(types::Failure),
    /// Somebody else was faster.
    Conflict(String),
    /// What was named is not there.
    NotFound(String),
    /// The store does not answer.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        Refusal::Store(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Invalid(failure) => out.write_str(&failure.error),
            Refusal::Conflict(why) | Refusal::NotFound(why) => out.write_str(why),
            Refusal::Store(error) => error.fmt(out),
        }
    }
}

/// Which of two versions is newer is told by the store's revision: it counts over every control plane.
#[derive(Debug)]
struct Newest {
    committed: Arc<Committed>,
    /// What wrote `head`; none before the first version.
    revision: Option<Revision>,
    record: Arc<Record>,
}

/// The documents of a store.
pub struct Resources {
    store: Arc<dyn Store>,
    clock: Clock,
    trust_domain: Option<String>,
    newest: Mutex<Arc<Newest>>,
    published: watch::Sender<Arc<Committed>>,
    /// One loads at a time, one applies at a time.
    loading: tokio::sync::Mutex<()>,
    writing: tokio::sync::Mutex<()>,
    follower: Mutex<Option<AbortHandle>>,
}

impl fmt::Debug for Resources {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Resources").field("version", &self.newest().version).finish_non_exhaustive()
    }
}

impl Drop for Resources {
    fn drop(&mut self) {
        if let Some(task) = self.follower.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Resources {
    /// Loads the newest version, and follows what other control planes write from then on. `trust_domain` is the mesh's own, for
    /// warnings about policies that name callers of others.
    ///
    /// # Errors
    /// The store does not answer, or holds what this build cannot read.
    pub async fn open(
        store: Arc<dyn Store>,
        trust_domain: Option<&str>,
    ) -> Result<Arc<Resources>, StoreError> {
        Self::open_at(store, trust_domain, Arc::new(SystemTime::now)).await
    }

    /// [`Resources::open`] with a clock, for the times in the history.
    ///
    /// # Errors
    /// The same.
    pub async fn open_at(
        store: Arc<dyn Store>,
        trust_domain: Option<&str>,
        clock: Clock,
    ) -> Result<Arc<Resources>, StoreError> {
        let newest = Newest { committed: Arc::default(), revision: None, record: Arc::default() };
        let resources = Arc::new(Resources {
            store,
            clock,
            trust_domain: trust_domain.map(str::to_owned),
            published: watch::Sender::new(newest.committed.clone()),
            newest: Mutex::new(Arc::new(newest)),
            loading: tokio::sync::Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            follower: Mutex::default(),
        });
        let seen = resources.catch_up().await?;
        let task = tokio::spawn(follow::follow(Arc::downgrade(&resources), seen));
        *resources.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        Ok(resources)
    }

    /// The newest version that is known here.
    pub fn newest(&self) -> Arc<Committed> {
        self.now().committed.clone()
    }

    /// The newest version, now and whenever there is a newer one, whoever made it.
    pub fn watch(&self) -> watch::Receiver<Arc<Committed>> {
        self.published.subscribe()
    }

    /// What applying would change. Stores nothing.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] when a sidecar would refuse the result; [`Refusal::Conflict`] when `base` is not the newest
    /// version; [`Refusal::Store`].
    pub async fn plan(&self, submission: &types::Submission) -> Result<Planned, Refusal> {
        self.catch_up().await?;
        let before = self.newest();
        if let Some(base) = submission.base.filter(|base| *base != before.version) {
            return Err(self.overtaken(base, before.version).await);
        }
        let (submission, domain) = (submission.clone(), self.trust_domain.clone());
        in_background(move || plan::submitted(&before, &submission, domain.as_deref())).await?
    }

    /// Makes a new version with these documents in it; all or nothing. Nothing different: no new version.
    ///
    /// # Errors
    /// As [`Resources::plan`]; [`Refusal::Conflict`] also when somebody else's version came first: then nothing is
    /// stored, and the message says whose.
    pub async fn apply(
        &self,
        submission: &types::Submission,
        author: &str,
    ) -> Result<types::Applied, Refusal> {
        if submission.dry_run {
            return Ok(self.plan(submission).await?.applied());
        }
        let (submission, domain) = (submission.clone(), self.trust_domain.clone());
        let (base, summary) = (submission.base, submission.summary.clone());
        let planned = move |before: &Arc<Committed>| plan::submitted(before, &submission, domain.as_deref());
        self.change(base, author, &summary, planned).await
    }

    /// Makes a new version without these documents.
    ///
    /// # Errors
    /// One is not there; the others are not valid without it; as [`Resources::apply`].
    pub async fn delete(&self, keys: &[Key], author: &str) -> Result<types::Applied, Refusal> {
        let keys = keys.to_vec();
        let summary = match keys.as_slice() {
            [one] => format!("deleted {one}"),
            many => format!("deleted {} documents", many.len()),
        };
        self.change(None, author, &summary, move |before| plan::without(before, &keys)).await
    }

    /// Makes a new version with the documents of an older one.
    ///
    /// # Errors
    /// There is no such version (any more), or its documents are not valid for this build; as [`Resources::apply`].
    pub async fn rollback(&self, version: u64, author: &str) -> Result<types::Applied, Refusal> {
        let record = objects::record(&*self.store, version).await?;
        let Some(record) = record else {
            return Err(Refusal::NotFound(format!(
                "there is no version {version}; `pilotfish history` lists those that are kept"
            )));
        };
        let known = self.newest().documents.clone();
        let documents = objects::documents(&*self.store, &record, &known).await?;
        let summary = format!("rolled back to version {version}");
        self.change(None, author, &summary, move |before| plan::replaced(before, &documents)).await
    }

    /// The newest versions, the newest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn history(&self, limit: usize) -> Result<Vec<types::Commit>, Refusal> {
        self.catch_up().await?;
        Ok(objects::history(&*self.store, self.newest().version, limit).await?)
    }

    /// Stored documents of a kind, namespace and name; `None` means any.
    pub fn get(
        &self,
        kind: Option<&str>,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Vec<types::Resource> {
        let is = |wanted: Option<&str>, own: &str| wanted.is_none_or(|wanted| wanted == own);
        let newest = self.newest();
        let wanted = newest.documents.values().filter(|stored| {
            let key = &stored.document.key;
            kind.is_none_or(|kind| kind.eq_ignore_ascii_case(&key.kind))
                && is(namespace, &key.namespace)
                && is(name, &key.name)
        });
        wanted.map(|stored| resource(stored)).collect()
    }

    fn now(&self) -> Arc<Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes `newest` what everybody sees, unless something newer is there already.
    fn publish(&self, newest: Newest) {
        let mut own = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.revision > own.revision {
            let committed = newest.committed.clone();
            *own = Arc::new(newest);
            self.published.send_replace(committed);
        }
    }

    async fn overtaken(&self, base: u64, newest: u64) -> Refusal {
        let record = objects::record(&*self.store, newest).await.ok().flatten();
        let by = record.map(|record| format!(" by {}", record.author)).unwrap_or_default();
        Refusal::Conflict(format!(
            "this was made from version {base}, and version {newest}{by} is the newest by now; nothing was stored: \
             look at the difference and apply again"
        ))
    }
}

fn resource(stored: &Stored) -> types::Resource {
    let document = &stored.document;
    types::Resource {
        key: document.key.clone(),
        version: stored.version,
        source: document.source.clone(),
        yaml: yaml(document),
        body: document.body.clone(),
    }
}

fn yaml(document: &wire::Document) -> String {
    let json = document.body.get();
    pilotfish_config::to_yaml(json).unwrap_or_else(|| json.to_owned())
}

/// Documents by digest, to find those that are known already.
fn by_digest(documents: &BTreeMap<Key, Arc<Stored>>) -> HashMap<&str, &Arc<Stored>> {
    documents.values().map(|stored| (stored.digest.as_str(), stored)).collect()
}

/// Runs what takes long (validating ten thousand documents) where it holds nobody up.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    // A runtime of one thread is a test's or a simulation's: another thread would only make its order uncertain.
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StoreError::Unavailable { why: error.to_string(), unsure: false })
}
