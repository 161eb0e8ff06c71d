//! The documents as the fleet needs them: which there are, which differ between two versions, what they mean for agents.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pilotfish_config::Model;
use pilotfish_config::wire::Key;

use super::sum::{Item, Kind};
use crate::resources::{Committed, Stored};

/// Capabilities that AgentCluster documents give, by `<namespace>/<agent>`.
pub(super) type Given = BTreeMap<String, Vec<String>>;

/// A document that differs between two versions.
#[derive(Debug, Clone)]
pub(super) struct Differing {
    pub(super) key: Key,
    pub(super) before: Option<Arc<Stored>>,
    pub(super) after: Option<Arc<Stored>>,
}

/// The hash of a document.
pub(super) fn item(key: &Key, stored: &Stored) -> Item {
    let parts = [&key.kind, &key.namespace, &key.name, &stored.digest];
    Item::of(Kind::Document, &parts.map(|part| part.as_bytes()))
}

/// What differs, by key.
pub(super) fn differing(before: &Committed, after: &Committed) -> Vec<Differing> {
    if Arc::ptr_eq(&before.documents, &after.documents) {
        return Vec::new();
    }
    let gone = before.documents.iter().filter(|(key, _)| !after.documents.contains_key(key));
    let gone =
        gone.map(|(key, stored)| Differing { key: key.clone(), before: Some(stored.clone()), after: None });
    let changed = after.documents.iter().filter_map(|(key, stored)| {
        let before = before.documents.get(key);
        let same = |own: &Arc<Stored>| Arc::ptr_eq(own, stored) || own.digest == stored.digest;
        (!before.is_some_and(same)).then(|| Differing {
            key: key.clone(),
            before: before.cloned(),
            after: Some(stored.clone()),
        })
    });
    gone.chain(changed).collect()
}

/// Capabilities by agent.
pub(super) fn given(model: &Model) -> Given {
    let mut given: HashMap<String, Vec<String>> = HashMap::new();
    for cluster in &model.agent_clusters {
        for agent in &cluster.agents {
            let own = given.entry(format!("{}/{}", cluster.meta.namespace(), agent.name)).or_default();
            own.extend(agent.capabilities.iter().map(ToString::to_string));
        }
    }
    given.retain(|_, capabilities| !capabilities.is_empty());
    given.into_iter().collect()
}

/// Agents whose capabilities differ.
pub(super) fn agents_differing(before: &Given, after: &Given) -> Vec<String> {
    let gone = before.keys().filter(|agent| !after.contains_key(*agent));
    let changed = after.iter().filter(|(agent, own)| before.get(*agent) != Some(own));
    gone.chain(changed.map(|(agent, _)| agent)).cloned().collect()
}
