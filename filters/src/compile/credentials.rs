//! OutboundCredentials that are for this sidecar.

use std::cmp::Reverse;
use std::sync::Arc;

use pilotfish_config::model::{Model, OutboundCredential, ROOT_NAMESPACES};

use super::{CompileOptions, selected};
use crate::credentials::{Credential, Credentials};
use crate::route::hash::FixedMap;

/// What holds for the sidecar of `options`. Of several for one host: the namespace's before a root namespace's, one with a selector
/// before one without, then the first by name.
pub(super) fn compile(model: &Model, options: &CompileOptions, warnings: &mut Vec<Box<str>>) -> Credentials {
    if model.outbound_credentials.is_empty() {
        return Credentials::default();
    }
    let labels = selected::labels(options);
    let is_for = |one: &&OutboundCredential| one.is_for(&options.namespace, &labels);
    let mut documents: Vec<_> = model.outbound_credentials.iter().filter(is_for).collect();
    let rank = |one: &OutboundCredential| {
        let root = ROOT_NAMESPACES.contains(&one.meta.namespace());
        (root, one.selector.is_empty(), one.meta.namespace().to_owned(), one.meta.name().to_owned())
    };
    documents.sort_by_key(|one| rank(one));
    let all: Vec<_> = documents
        .iter()
        .map(|one| {
            Arc::new(Credential {
                name: format!("{}/{}", one.meta.namespace(), one.meta.name()).into(),
                hosts: one.hosts.iter().map(|host| Box::from(host.as_str())).collect(),
                insecure: one.insecure,
                secret: one.secret.clone(),
            })
        })
        .collect();
    let made = by_host(all);
    for (at, one) in documents.iter().enumerate() {
        for host in &one.hosts {
            let first = owner(&made, host.as_str());
            if let Some(first) = first.filter(|first| *first != at) {
                let line = format!(
                    "{}: {}: {} is shown to {host} instead, by this workload",
                    one.meta.source, one.meta.key, documents[first].meta.key
                );
                warnings.push(line.into());
            }
        }
    }
    made
}

/// The table of these, of which the first that has a host is shown to it.
pub(crate) fn by_host(all: Vec<Arc<Credential>>) -> Credentials {
    let mut names = FixedMap::default();
    let mut below: Vec<(Box<str>, u32)> = Vec::new();
    for (at, credential) in (0..).zip(&all) {
        for host in &credential.hosts {
            match host.strip_prefix('*') {
                Some(suffix) if below.iter().all(|(known, _)| **known != *suffix) => {
                    below.push((suffix.into(), at));
                }
                Some(_) => {}
                None => {
                    names.entry(host.clone()).or_insert(at);
                }
            }
        }
    }
    below.sort_by_key(|(suffix, _)| Reverse(suffix.len()));
    let exchanges = all.iter().any(|credential| credential.is_for_another());
    Credentials { all: all.into(), names, below: below.into(), exchanges }
}

/// Which of them has a host as it is written.
fn owner(made: &Credentials, host: &str) -> Option<usize> {
    let at = match host.strip_prefix('*') {
        Some(suffix) => made.below.iter().find(|(known, _)| **known == *suffix).map(|(_, at)| at),
        None => made.names.get(host),
    };
    at.map(|at| *at as usize)
}
