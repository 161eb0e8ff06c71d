//! What documents declare of the calls that they are for: permission, resource, class. Checks what one annotation alone cannot say.

use std::collections::HashMap;

use crate::model::{Kind, Model, ResourceKey, ResourceTemplate};
use crate::raw::{Text, TextMap, nearest};
use crate::yaml::clip_text;

use super::agent_security_policy::{Levels, check_level};
use super::annotations::PREFIX;
use super::check::Cx;

/// The annotations of one document, when it declares something.
pub(super) struct Declared<'n> {
    pub(super) key: ResourceKey,
    annotations: TextMap<'n>,
}

const NAMES: [&str; 4] = ["permission", "resource", "resource-path", "classification"];

/// An annotation of ours by its name, and for whom it is.
fn parts(key: &str) -> Option<(&str, Option<&str>)> {
    let name = key.strip_prefix(PREFIX)?;
    let (name, of) = name.split_once('.').map_or((name, None), |(name, of)| (name, Some(of)));
    NAMES.contains(&name).then_some((name, of))
}

impl<'n> Declared<'n> {
    /// What is written under that name, for all and for each.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = Text<'n>> {
        let own =
            self.annotations.iter().filter(move |(key, _)| parts(key.value).is_some_and(|own| own.0 == name));
        own.map(|(_, value)| *value)
    }

    /// Whether anything is.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }
}

/// What a document declares, if anything.
pub(super) fn note<'n>(key: &ResourceKey, annotations: Option<&TextMap<'n>>) -> Option<Declared<'n>> {
    let kind = matches!(key.kind, Kind::VirtualService | Kind::AgentCluster | Kind::Sidecar);
    let annotations = annotations.filter(|_| kind)?;
    let any = annotations.iter().any(|(key, _)| parts(key.value).is_some());
    any.then(|| Declared { key: key.clone(), annotations: annotations.clone() })
}

/// Checks all of them.
pub(super) fn check(cx: &mut Cx<'_>, all: &[Declared<'_>], model: &Model) {
    if all.is_empty() {
        return;
    }
    let names = names(model);
    let levels = Levels::new(model);
    for declared in all {
        let levels = levels.of(&declared.key.namespace);
        let written =
            || declared.annotations.iter().filter_map(|(key, value)| Some((key, parts(key.value)?, value)));
        let path_of = |of: Option<&str>| {
            let find = |wanted: Option<&str>| {
                written().find(|(_, (name, of), _)| *name == "resource-path" && *of == wanted)
            };
            find(of).or_else(|| find(None)).map(|(_, _, value)| value.value)
        };
        for (key, (name, of), value) in written() {
            if let (Some(of), Some(known)) = (of, names.get(&declared.key)) {
                known_name(cx, *key, of, known, declared.key.kind);
            }
            match (name, levels) {
                ("resource", _) => {
                    if let Err((what, hint)) = ResourceTemplate::parse(value.value, path_of(of)) {
                        cx.error_hint(value.node, format!("`{}` {what}", clip_text(value.value)), hint);
                    }
                }
                ("classification", Some(levels)) => check_level(cx, *value, levels),
                _ => {}
            }
        }
    }
}

/// The names that an annotation may be for: rules, or agents and capabilities.
fn names(model: &Model) -> HashMap<&ResourceKey, Vec<&str>> {
    let services = model.virtual_services.iter().map(|service| {
        let rules = service.http.iter().filter_map(|rule| rule.name.as_deref());
        (&service.meta.key, rules.collect())
    });
    let clusters = model.agent_clusters.iter().map(|cluster| {
        let names = cluster.agents.iter().flat_map(|agent| {
            let capabilities = agent.capabilities.iter().map(|capability| capability.name.as_str());
            std::iter::once(agent.name.as_str()).chain(capabilities)
        });
        (&cluster.meta.key, names.collect())
    });
    services.chain(clusters).collect()
}

fn known_name(cx: &mut Cx<'_>, key: Text<'_>, of: &str, known: &[&str], kind: Kind) {
    if known.contains(&of) {
        return;
    }
    let what = if kind == Kind::AgentCluster { "agent or capability" } else { "rule" };
    let hint = match nearest(of, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("no {what} here has a name"),
        None => format!("known: {}", known.iter().take(8).copied().collect::<Vec<_>>().join(", ")),
    };
    let message = format!("no {what} of this document is called `{}`", clip_text(of));
    cx.diagnose.error_at_key(key.node, message, Some(hint));
}
