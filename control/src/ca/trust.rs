//! Whom the mesh trusts: roots of its own domain, roots of federated ones, and the identities that are revoked.
//!
//! | key of the store | value |
//! |---|---|
//! | `trust/domain` | the own trust domain: control planes of one store agree on it |
//! | `trust/root/<fingerprint>` | a root of the own domain, PEM; two of them while one replaces the other |
//! | `trust/revoked/<SPIFFE ID>` | when it was revoked, seconds since 1970 |
//!
//! Every control plane follows the store, so that each tells its sidecars within moments. Federated roots come from
//! TrustDomain documents.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pilotfish_config::wire;
use pilotfish_identity::{Bundles, SpiffeId, TrustDomain, fingerprint, hex};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{Authority, Clock, issue};
use crate::api::types;
use crate::log;
use crate::store::{Batch, Change, Expect, Listed, Revision, Store, StoreError};

const PREFIX: &str = "trust/";
const DOMAIN: &str = "trust/domain";
const ROOT: &str = "trust/root/";
const REVOKED: &str = "trust/revoked/";
/// How soon a watch that ended is begun again.
const AGAIN: Duration = Duration::from_millis(200);

/// Why trust was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTrusted {
    /// What was asked for makes no sense: why, and what to do.
    Invalid(String),
    /// There is no such root or revocation.
    Unknown(String),
    /// The root signs here and now.
    InUse(String),
    /// The store is of another trust domain.
    OtherDomain(String),
    /// The store.
    Store(StoreError),
}

impl fmt::Display for NotTrusted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotTrusted::Invalid(why) => out.write_str(why),
            NotTrusted::Unknown(what) => write!(out, "there is no {what}"),
            NotTrusted::InUse(root) => write!(
                out,
                "the root {root} signs the certificates of this control plane: restart it with --ca-cert and --ca-key \
                 of another root, wait until every sidecar has renewed (a day), then remove this one"
            ),
            NotTrusted::OtherDomain(stored) => write!(
                out,
                "the store is of the trust domain {stored}: start with --trust-domain {stored} and an empty --data, or \
                 with another store"
            ),
            NotTrusted::Store(error) => write!(out, "{error}"),
        }
    }
}

impl std::error::Error for NotTrusted {}

impl From<StoreError> for NotTrusted {
    fn from(error: StoreError) -> NotTrusted {
        NotTrusted::Store(error)
    }
}

/// What is known.
#[derive(Debug, Default)]
struct State {
    /// What of the store is in here.
    revision: Revision,
    /// PEM by fingerprint.
    roots: BTreeMap<String, String>,
    /// When each was revoked, seconds since 1970.
    revoked: BTreeMap<String, u64>,
    /// PEM by trust domain.
    federated: BTreeMap<String, String>,
}

/// Whom the mesh trusts, as the store says it now.
pub struct Trust {
    store: Arc<dyn Store>,
    domain: TrustDomain,
    clock: Clock,
    state: Mutex<State>,
    published: watch::Sender<Arc<wire::Trust>>,
    following: Mutex<Option<AbortHandle>>,
}

impl Trust {
    /// Reads the store, sees to it that the authority's root is in it, and follows it until this is dropped.
    ///
    /// # Errors
    /// The store is not available, or of another trust domain.
    pub async fn open(store: Arc<dyn Store>, authority: &Authority) -> Result<Arc<Trust>, NotTrusted> {
        let trust = Arc::new(Trust {
            store,
            domain: authority.domain().clone(),
            clock: authority.clock.clone(),
            state: Mutex::default(),
            published: watch::Sender::new(Arc::default()),
            following: Mutex::default(),
        });
        trust.agree_on_domain().await?;
        trust.refresh().await?;
        trust.put_root(&authority.fingerprint(), authority.root_pem()).await?;
        let task = tokio::spawn(follow(Arc::downgrade(&trust)));
        *trust.following.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        Ok(trust)
    }

    async fn agree_on_domain(&self) -> Result<(), NotTrusted> {
        for _ in 0..2 {
            if let Some(entry) = self.store.get(DOMAIN).await? {
                let stored = String::from_utf8_lossy(&entry.value).into_owned();
                let same = stored == self.domain.as_str();
                return if same { Ok(()) } else { Err(NotTrusted::OtherDomain(stored)) };
            }
            let value = Bytes::copy_from_slice(self.domain.as_str().as_bytes());
            match self.put(DOMAIN, value, Some(Expect::Absent)).await {
                Err(StoreError::Conflict) => {}
                other => return other.map_err(NotTrusted::Store),
            }
        }
        Err(NotTrusted::Store(StoreError::Conflict))
    }

    /// What sidecars have to be told, now and from now on.
    pub fn watch(&self) -> watch::Receiver<Arc<wire::Trust>> {
        self.published.subscribe()
    }

    /// What sidecars have to be told now.
    pub fn newest(&self) -> Arc<wire::Trust> {
        self.published.borrow().clone()
    }

    /// Whether an identity is revoked: then it gets no new certificate and no stream.
    pub fn is_revoked(&self, id: &SpiffeId) -> bool {
        self.lock().revoked.contains_key(id.as_str())
    }

    /// Trusts one more root of the own domain. Trusting one that is trusted is no error.
    ///
    /// # Errors
    /// The text is not exactly one certificate of an authority that is valid now; the store.
    pub async fn add_root(&self, pem: &str) -> Result<(), NotTrusted> {
        let invalid = |why: &dyn fmt::Display| NotTrusted::Invalid(why.to_string());
        Bundles::one(&self.domain, pem).map_err(|error| invalid(&error))?;
        let certificates = issue::certificates(pem).map_err(|error| invalid(&error))?;
        let [root] = certificates.as_slice() else {
            return Err(invalid(&"give one root certificate at a time"));
        };
        if issue::ends(root).map_err(|error| invalid(&error))? <= (self.clock)() {
            return Err(invalid(&"the root has ended: make another one"));
        }
        self.put_root(&hex(&fingerprint(root)), pem.trim()).await
    }

    async fn put_root(&self, fingerprint: &str, pem: &str) -> Result<(), NotTrusted> {
        if self.lock().roots.contains_key(fingerprint) {
            return Ok(());
        }
        let text = format!("{}\n", pem.trim());
        self.put(&format!("{ROOT}{fingerprint}"), text.into(), None).await?;
        self.refresh().await
    }

    /// Trusts a root of the own domain no more: what it vouches for is closed. `fingerprint`: hexadecimal, whole or the
    /// first 8 digits or more.
    ///
    /// # Errors
    /// There is no such root, or it is the one of `authority`.
    pub async fn remove_root(&self, authority: &Authority, fingerprint: &str) -> Result<(), NotTrusted> {
        let wanted = fingerprint.to_ascii_lowercase().replace(':', "");
        let mut found = self.roots_that_begin(&wanted);
        if wanted.len() < 8 || found.len() != 1 {
            return Err(NotTrusted::Unknown(format!("root with the fingerprint {fingerprint}")));
        }
        let found = found.remove(0);
        if found == authority.fingerprint() {
            return Err(NotTrusted::InUse(found));
        }
        self.delete(format!("{ROOT}{found}")).await
    }

    fn roots_that_begin(&self, with: &str) -> Vec<String> {
        self.lock().roots.keys().filter(|root| root.starts_with(with)).cloned().collect()
    }

    /// Takes certificates of an identity no more. Revoking the revoked is no error.
    ///
    /// # Errors
    /// It is of another trust domain, a control plane's, or the store is not available.
    pub async fn revoke(&self, id: &SpiffeId) -> Result<(), NotTrusted> {
        if *id.trust_domain() != self.domain {
            return Err(NotTrusted::Invalid(format!("{id} is not of the trust domain {}", self.domain)));
        }
        if id.as_control().is_some() {
            return Err(NotTrusted::Invalid(
                "a control plane is not revoked: stop it, and remove its root".into(),
            ));
        }
        if self.is_revoked(id) {
            return Ok(());
        }
        let now = (self.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.put(&format!("{REVOKED}{id}"), now.to_string().into(), None).await?;
        self.refresh().await
    }

    /// Takes certificates of an identity again.
    ///
    /// # Errors
    /// It is not revoked, or the store is not available.
    pub async fn readmit(&self, id: &SpiffeId) -> Result<(), NotTrusted> {
        if !self.is_revoked(id) {
            return Err(NotTrusted::Unknown(format!("revocation of {id}")));
        }
        self.delete(format!("{REVOKED}{id}")).await
    }

    /// Roots of other trust domains (PEM by domain): what the TrustDomain documents of the newest version say. For the own
    /// domain no document speaks, and what cannot be read is left out and logged.
    pub fn federate(&self, bundles: BTreeMap<String, String>) {
        let good = |domain: &String, pem: &String| {
            let one = BTreeMap::from([(domain.clone(), pem.clone())]);
            let read = Bundles::from_wire(&one);
            if let Err(error) = &read {
                log::warn!("a federated trust domain is left out", domain = domain, error = error);
            }
            read.is_ok() && domain != self.domain.as_str()
        };
        let federated = bundles.into_iter().filter(|(domain, pem)| good(domain, pem)).collect();
        let mut state = self.lock();
        state.federated = federated;
        self.publish(&state);
    }

    /// For people.
    ///
    /// # Errors
    /// The authority's certificates cannot be read.
    pub fn status(&self, authority: &Authority) -> Result<types::TrustStatus, super::CaError> {
        let (_, issuer) = authority.describe()?;
        let state = self.lock();
        let describe = |domain: &TrustDomain, pem: &str| {
            let roots = issue::certificates(pem).unwrap_or_default();
            roots.iter().filter_map(|root| issue::describe(domain, root).ok()).collect::<Vec<_>>()
        };
        let federated =
            state.federated.iter().filter_map(|(name, pem)| Some((TrustDomain::parse(name).ok()?, pem)));
        Ok(types::TrustStatus {
            trust_domain: self.domain.as_str().to_owned(),
            roots: state.roots.values().flat_map(|pem| describe(&self.domain, pem)).collect(),
            federated: federated.flat_map(|(domain, pem)| describe(&domain, pem)).collect(),
            issuer,
            revoked: state.revoked.keys().cloned().collect(),
        })
    }

    async fn put(&self, key: &str, value: Bytes, expect: Option<Expect>) -> Result<(), StoreError> {
        let expect = expect.map(|expect| (key.to_owned(), expect)).into_iter().collect();
        self.store.batch(Batch { expect, put: vec![(key.to_owned(), value)], delete: Vec::new() }).await?;
        Ok(())
    }

    async fn delete(&self, key: String) -> Result<(), NotTrusted> {
        self.store.batch(Batch { delete: vec![key], ..Batch::default() }).await?;
        self.refresh().await
    }

    /// Reads everything: who changed something finds it in force at once, without waiting for the watch.
    async fn refresh(&self) -> Result<(), NotTrusted> {
        let listed = self.store.list(PREFIX).await?;
        let mut state = self.lock();
        if listed.revision >= state.revision {
            state.replace(listed);
            self.publish(&state);
        }
        Ok(())
    }

    /// Changes of one revision.
    fn take(&self, changes: Vec<Change>) {
        let mut state = self.lock();
        for change in changes {
            if change.revision >= state.revision {
                state.revision = change.revision;
                state.set(&change.key, change.value);
            }
        }
        self.publish(&state);
    }

    fn publish(&self, state: &State) {
        let mut bundles = state.federated.clone();
        bundles.insert(self.domain.as_str().to_owned(), state.roots.values().map(String::as_str).collect());
        let next = wire::Trust { bundles, revoked: state.revoked.keys().cloned().collect() };
        self.published.send_if_modified(|current| {
            let differs = **current != next;
            if differs {
                *current = Arc::new(next);
            }
            differs
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what others change, for as long as somebody has the trust.
async fn follow(trust: Weak<Trust>) {
    loop {
        let Some(now) = trust.upgrade() else { return };
        let revision = now.lock().revision;
        let watched = now.store.watch(PREFIX, revision).await;
        drop(now);
        if let Ok(mut changes) = watched {
            while let Some(Ok(some)) = changes.recv().await {
                let Some(now) = trust.upgrade() else { return };
                now.take(some);
            }
        }
        tokio::time::sleep(AGAIN).await;
        let Some(now) = trust.upgrade() else { return };
        if let Err(error) = now.refresh().await {
            log::warn!("trust cannot be read", error = error);
        }
    }
}

impl State {
    fn replace(&mut self, listed: Listed) {
        self.roots.clear();
        self.revoked.clear();
        for entry in listed.entries {
            self.set(&entry.key, Some(entry.value));
        }
        self.revision = listed.revision;
    }

    fn set(&mut self, key: &str, value: Option<Bytes>) {
        let text = value.map(|value| String::from_utf8_lossy(&value).into_owned());
        if let Some(fingerprint) = key.strip_prefix(ROOT) {
            match text {
                Some(pem) => self.roots.insert(fingerprint.to_owned(), pem),
                None => self.roots.remove(fingerprint),
            };
        } else if let Some(id) = key.strip_prefix(REVOKED) {
            match text {
                Some(time) => self.revoked.insert(id.to_owned(), time.parse().unwrap_or(0)),
                None => self.revoked.remove(id),
            };
        }
    }
}

impl Drop for Trust {
    fn drop(&mut self) {
        if let Some(task) = self.following.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Trust({})", self.domain)
    }
}
