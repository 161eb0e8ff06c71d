//! Everything that sidecars may be given, at one version; immutable, and cheap to copy.

use std::collections::HashMap;
use std::sync::Arc;

use pilotfish_config::wire::{Actions, Endpoint, Trust};

use super::demand::{self, OnDemand};
use super::documents::{self, Differing, Given};
use super::sum::{Item, Kind, Sum};
use crate::resources::Committed;

/// Endpoints are kept in this many parts; a copy of the whole shares those that did not change.
const PARTS: usize = 64;

/// An endpoint that may be chosen.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) endpoint: Endpoint,
    pub(super) item: Item,
}

impl Shown {
    /// With its hash.
    pub(super) fn new(endpoint: Endpoint) -> Arc<Shown> {
        // Serializing a message of plain texts and numbers cannot fail.
        let text = serde_json::to_vec(&endpoint).unwrap_or_default();
        Arc::new(Shown { item: Item::of(Kind::Endpoint, &[&text]), endpoint })
    }
}

type Part = HashMap<Arc<str>, Arc<Shown>>;

/// Endpoints by id.
#[derive(Debug, Clone)]
pub(super) struct Endpoints(Vec<Arc<Part>>);

impl Default for Endpoints {
    fn default() -> Self {
        Endpoints(vec![Arc::default(); PARTS])
    }
}

impl Endpoints {
    fn place(id: &str) -> usize {
        // FNV-1a; only spreads, nothing depends on it.
        let hash =
            id.bytes().fold(0xcbf2_9ce4_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        (hash ^ (hash >> 16)) as usize % PARTS
    }

    /// One of them.
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Shown>> {
        self.0.get(Self::place(id))?.get(id)
    }

    /// Puts one in or takes it out; gives what was there.
    fn set(&mut self, id: &Arc<str>, shown: Option<Arc<Shown>>) -> Option<Arc<Shown>> {
        let part = Arc::make_mut(self.0.get_mut(Self::place(id))?);
        match shown {
            Some(shown) => part.insert(id.clone(), shown),
            None => part.remove(id),
        }
    }

    /// All of them, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Shown>)> {
        self.0.iter().flat_map(|part| part.iter())
    }
}

/// An endpoint that differs between two views.
#[derive(Debug, Clone)]
pub(super) struct Moved {
    pub(super) id: Arc<str>,
    pub(super) before: Option<Arc<Shown>>,
}

/// What differs between two views.
#[derive(Debug, Clone, Default)]
pub(super) struct Dirty {
    pub(super) documents: Vec<Differing>,
    pub(super) endpoints: Vec<Moved>,
    pub(super) trust: bool,
    pub(super) actions: bool,
}

impl Dirty {
    /// Whether nothing differs.
    pub(super) fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.endpoints.is_empty() && !self.trust && !self.actions
    }
}

/// Everything at one version.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) version: u64,
    pub(super) committed: Arc<Committed>,
    pub(super) endpoints: Endpoints,
    pub(super) trust: Arc<Trust>,
    pub(super) trust_item: Item,
    pub(super) actions: Arc<Actions>,
    /// None while nobody is held: a control plane that knows no actions has the same sum then.
    pub(super) actions_item: Option<Item>,
    /// Capabilities that documents give.
    pub(super) given: Arc<Given>,
    /// Agents that documents start on demand.
    pub(super) on_demand: Arc<OnDemand>,
    /// Over all of it: two control planes with the same content have the same.
    pub(super) sum: Sum,
}

fn trust_item(trust: &Trust) -> Item {
    Item::of(Kind::Trust, &[&serde_json::to_vec(trust).unwrap_or_default()])
}

fn actions_item(actions: &Actions) -> Option<Item> {
    let item = || Item::of(Kind::Actions, &[&serde_json::to_vec(actions).unwrap_or_default()]);
    (!actions.actions.is_empty()).then(item)
}

impl View {
    /// A view without endpoints; its version is not known yet.
    pub(super) fn new(committed: Arc<Committed>, trust: Arc<Trust>, actions: Arc<Actions>) -> View {
        let (trust_item, actions_item) = (trust_item(&trust), actions_item(&actions));
        let mut sum = Sum::default();
        sum.add(&trust_item);
        actions_item.iter().for_each(|item| sum.add(item));
        for (key, stored) in committed.documents.iter() {
            sum.add(&documents::item(key, stored));
        }
        let given = Arc::new(documents::given(&committed.model));
        let on_demand = Arc::new(demand::on_demand(&committed.model));
        let endpoints = Endpoints::default();
        View {
            version: 0,
            committed,
            endpoints,
            trust,
            trust_item,
            actions,
            actions_item,
            given,
            on_demand,
            sum,
        }
    }

    /// Goes on to other documents, trust and actions; gives what differs.
    pub(super) fn advance(
        &mut self,
        committed: Arc<Committed>,
        trust: Arc<Trust>,
        actions: Arc<Actions>,
    ) -> Dirty {
        let (trusts, acts) = (trust != self.trust, actions != self.actions);
        let mut dirty = Dirty { trust: trusts, actions: acts, ..Dirty::default() };
        if dirty.actions {
            self.actions_item.iter().for_each(|item| self.sum.remove(item));
            self.actions_item = actions_item(&actions);
            self.actions_item.iter().for_each(|item| self.sum.add(item));
            self.actions = actions;
        }
        if dirty.trust {
            self.sum.remove(&self.trust_item);
            self.trust_item = trust_item(&trust);
            self.sum.add(&self.trust_item);
            self.trust = trust;
        }
        if !Arc::ptr_eq(&committed, &self.committed) {
            dirty.documents = documents::differing(&self.committed, &committed);
            for Differing { key, before, after } in &dirty.documents {
                before.iter().for_each(|stored| self.sum.remove(&documents::item(key, stored)));
                after.iter().for_each(|stored| self.sum.add(&documents::item(key, stored)));
            }
            if !Arc::ptr_eq(&committed.model, &self.committed.model) {
                self.given = Arc::new(documents::given(&committed.model));
                self.on_demand = Arc::new(demand::on_demand(&committed.model));
            }
            self.committed = committed;
        }
        dirty
    }

    /// Shows an endpoint, or no more; gives what differs.
    pub(super) fn show(&mut self, id: &Arc<str>, endpoint: Option<Endpoint>) -> Option<Moved> {
        let known = self.endpoints.get(id);
        let after = match (known, endpoint) {
            (None, None) => return None,
            (Some(known), Some(endpoint)) if known.endpoint == endpoint => return None,
            (_, endpoint) => endpoint.map(Shown::new),
        };
        let before = self.endpoints.set(id, after.clone());
        before.iter().for_each(|shown| self.sum.remove(&shown.item));
        after.iter().for_each(|shown| self.sum.add(&shown.item));
        Some(Moved { id: id.clone(), before })
    }
}
