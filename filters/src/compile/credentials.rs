//! OutboundCredentials that are for this sidecar.

use std::cmp::Reverse;
use std::sync::Arc;

use pilotfish_config::model::{Model, OutboundCredential, ROOT_NAMESPACES, TlsMode};

use super::{CompileOptions, selected};
use crate::cluster::Cluster;
use crate::credentials::{Credential, Credentials};
use crate::endpoint::Endpoint;
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

/// Says which hosts would get a secret in plaintext, or without anybody having verified them: calls to them are refused.
pub(super) fn warn_of_plaintext<'c>(
    made: &Credentials,
    clusters: impl Iterator<Item = &'c Cluster>,
    warnings: &mut Vec<Box<str>>,
) {
    if made.is_empty() {
        return;
    }
    let mut told: Vec<&str> = Vec::new();
    for cluster in clusters {
        let tls = cluster.settings.tls.as_ref().filter(|tls| tls.mode != TlsMode::Disable);
        let is_safe = match tls {
            Some(tls) => tls.insecure_skip_verify != Some(true),
            None => !cluster.endpoints().is_empty() && cluster.endpoints().iter().all(|one| stays_here(one)),
        };
        let credential = made.of(&cluster.host).and_then(|at| made.all().get(at));
        let Some(credential) = credential.filter(|one| !one.insecure && !is_safe) else { continue };
        if !told.contains(&&*cluster.host) {
            told.push(&cluster.host);
            let line = format!(
                "OutboundCredential {}: calls to {} are refused, since their secret would be seen: it needs a DestinationRule with \
                 `tls: {{mode: SIMPLE}}` (or `insecure: true` here)",
                credential.name, cluster.host
            );
            warnings.push(line.into());
        }
    }
}

/// Whether calls to it do not leave the machine, or go to another sidecar.
fn stays_here(endpoint: &Endpoint) -> bool {
    let here = endpoint.hostname.is_none() && endpoint.addr.ip().is_loopback();
    here || endpoint.unix.is_some() || endpoint.mesh
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
