//! Cross-origin rules for calls that come to the workload by no sidecar: those of VirtualServices whose hosts are the workload's.

use std::sync::Arc;

use pilotfish_config::model::{Host, Meta, Model, ROOT_NAMESPACES};

use super::governance::{blocks, hosts, overlaps};
use super::{CompileOptions, names_of};
use crate::cors::{Arriving, Cors};

/// Of the namespace of `options`, or a root namespace: nobody else says which pages may call this workload.
pub(super) fn compile(model: &Model, options: &CompileOptions) -> Box<[Arriving]> {
    let own =
        |meta: &Meta| meta.namespace() == options.namespace || ROOT_NAMESPACES.contains(&meta.namespace());
    let has_any = |service: &&pilotfish_config::model::VirtualService| {
        own(&service.meta) && service.is_for_mesh() && service.http.iter().any(|rule| rule.cors.is_some())
    };
    let mut services = model.virtual_services.iter().filter(has_any).peekable();
    if services.peek().is_none() {
        return Box::default();
    }
    let own_hosts = hosts(model, options, &Default::default());
    services
        .filter(|service| service.hosts.iter().any(|host| overlaps(&own_hosts, host)))
        .map(|service| {
            let mut rules: Vec<_> = service
                .http
                .iter()
                .map(|rule| {
                    (blocks(rule, options).0, rule.cors.as_ref().map(|cors| Arc::new(Cors::new(cors))))
                })
                .collect();
            rules.truncate(rules.iter().rposition(|(_, cors)| cors.is_some()).map_or(0, |last| last + 1));
            let names = service.hosts.iter();
            let hosts =
                names.flat_map(|host| names_of(host, &options.namespace).map(Host::verbatim)).collect();
            Arriving { hosts, rules }
        })
        .collect()
}
