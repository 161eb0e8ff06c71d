//! Which part of everything concerns a sidecar. Sidecars of the same class see the same, and share one rendered set.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use pilotfish_config::Model;
use pilotfish_config::wire::{Endpoint, Key};
use pilotfish_filters::scope::{Scope as Filter, ScopeClass};

use super::registration::Facts;
use crate::resources::{Committed, Stored};

/// Verdicts on endpoints that are remembered.
const MOST_VERDICTS: usize = 64 << 10;

/// What sidecars of one class see under one version of the documents.
#[derive(Debug)]
pub(super) struct Scope {
    class: ScopeClass,
    model: Arc<Model>,
    namespace: String,
    labels: BTreeMap<String, String>,
    documents: HashSet<ByKey>,
    /// It sees every endpoint.
    wide: bool,
    /// Whether it sees the instances of an agent with these labels; asked once for all of them.
    verdicts: Mutex<HashMap<u64, bool>>,
    hasher: RandomState,
}

/// A document, found by its key.
#[derive(Debug)]
struct ByKey(Arc<Stored>);

impl Borrow<Key> for ByKey {
    fn borrow(&self) -> &Key {
        &self.0.document.key
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.document.key.hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.document.key == other.0.document.key
    }
}

impl Eq for ByKey {}

impl Scope {
    /// The class of a sidecar under these documents.
    pub(super) fn class_of(committed: &Committed, facts: &Facts) -> ScopeClass {
        ScopeClass::of(&committed.model, &facts.namespace, &facts.labels)
    }

    /// The scope of a sidecar under these documents.
    pub(super) fn of(committed: &Committed, facts: &Facts) -> Scope {
        Scope::new(committed, &facts.namespace, &facts.labels)
    }

    /// The same sidecar's scope under other documents; `None` when it is of another class then.
    pub(super) fn under(&self, committed: &Committed) -> Option<Scope> {
        let class = ScopeClass::of(&committed.model, &self.namespace, &self.labels);
        (class == self.class).then(|| Scope::new(committed, &self.namespace, &self.labels))
    }

    fn new(committed: &Committed, namespace: &str, labels: &BTreeMap<String, String>) -> Scope {
        let filter = Filter::new(&committed.model, namespace, labels);
        let seen = committed.documents.iter().filter(|(key, _)| filter.sees_document(key));
        Scope {
            class: filter.class().clone(),
            documents: seen.map(|(_, stored)| ByKey(stored.clone())).collect(),
            wide: filter.is_wide(),
            verdicts: Mutex::default(),
            hasher: RandomState::new(),
            model: committed.model.clone(),
            namespace: namespace.to_owned(),
            labels: labels.clone(),
        }
    }

    /// Scopes of the same class, under the same documents, see the same.
    pub(super) fn class(&self) -> &ScopeClass {
        &self.class
    }

    /// Whether it sees this document.
    pub(super) fn document(&self, key: &Key) -> bool {
        self.documents.contains(key)
    }

    /// What it sees that `other` does not.
    pub(super) fn documents_beyond<'s>(&'s self, other: &'s Scope) -> impl Iterator<Item = &'s Key> {
        let beyond = self.documents.iter().filter(|own| !other.documents.contains(*own));
        beyond.map(|own| &own.0.document.key)
    }

    /// Whether it sees every endpoint.
    pub(super) fn is_wide(&self) -> bool {
        self.wide
    }

    /// Whether it sees this endpoint.
    pub(super) fn endpoint(&self, endpoint: &Endpoint) -> bool {
        if self.wide {
            return true;
        }
        let of = self.hasher.hash_one((&endpoint.namespace, &endpoint.agent, &endpoint.labels));
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if verdicts.len() > MOST_VERDICTS {
            verdicts.clear();
        }
        let ask = || Filter::new(&self.model, &self.namespace, &self.labels).sees_endpoint(endpoint);
        *verdicts.entry(of).or_insert_with(ask)
    }
}
