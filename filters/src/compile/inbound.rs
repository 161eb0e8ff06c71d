//! PeerAuthentication: whether callers must speak mTLS, with Istio's precedence.
//!
//! A policy that selects the workload comes before its namespace's, and that before the mesh's, which is the one without
//! a selector in a root namespace. UNSET inherits; a port's mode comes before its policy's. Documents have no age, so of
//! equals the first by name holds.

use std::collections::BTreeMap;

use pilotfish_config::model::{Model, MtlsMode, PeerAuthentication, ROOT_NAMESPACES, includes};

use super::CompileOptions;
use crate::plan::InboundMtls;

/// What holds for the workload of `options`, and what is valid but does nothing.
pub(super) fn compile(model: &Model, options: &CompileOptions) -> (InboundMtls, Vec<Box<str>>) {
    let mut warnings = Vec::new();
    let all = || model.peer_authentications.iter();
    let is_root = |policy: &&PeerAuthentication| ROOT_NAMESPACES.contains(&policy.meta.namespace());
    let is_own = |policy: &&PeerAuthentication| policy.meta.namespace() == options.namespace;
    let is_wide = |policy: &&PeerAuthentication| policy.selector.is_empty();
    let mesh = first(all().filter(is_root).filter(is_wide), &mut warnings);
    let wide = first(all().filter(|p| is_own(p) && !is_root(p) && is_wide(p)), &mut warnings);
    let selects = |policy: &&PeerAuthentication| {
        is_own(policy) && !is_root(policy) && !is_wide(policy) && includes(&options.labels, &policy.selector)
    };
    let own = first(all().filter(selects), &mut warnings);
    (effective([own, wide, mesh], options), warnings)
}

/// The first by namespace and name, a warning for the others that loading has not warned of already.
fn first<'m>(
    policies: impl Iterator<Item = &'m PeerAuthentication>,
    warnings: &mut Vec<Box<str>>,
) -> Option<&'m PeerAuthentication> {
    let root = |policy: &PeerAuthentication| {
        ROOT_NAMESPACES.iter().position(|root| *root == policy.meta.namespace())
    };
    let mut policies: Vec<&PeerAuthentication> = policies.collect();
    policies.sort_by_key(|policy| (root(policy), policy.meta.name()));
    let first = policies.first().copied()?;
    let told = |other: &PeerAuthentication| {
        other.selector.is_empty() && other.meta.namespace() == first.meta.namespace()
    };
    for other in policies.iter().skip(1).filter(|other| !told(other)) {
        let line = format!(
            "{}: {}: this workload has {} already, so this one does nothing for it (put them into one)",
            other.meta.source, other.meta.key, first.meta.key
        );
        warnings.push(line.into());
    }
    Some(first)
}

/// `policies`: the most specific first.
fn effective(policies: [Option<&PeerAuthentication>; 3], options: &CompileOptions) -> InboundMtls {
    let said = policies.into_iter().flatten().find_map(|policy| Some((policy.mode?, policy)));
    let has_identity = options.trust_domain.is_some();
    let default =
        options.default_mtls.unwrap_or(if has_identity { MtlsMode::Strict } else { MtlsMode::Disable });
    let mode = said.map_or(default, |(mode, _)| mode);
    let own = policies[0];
    let ports: BTreeMap<u16, MtlsMode> = own
        .into_iter()
        .flat_map(|policy| &policy.port_level)
        .filter_map(|(port, mode)| Some((*port, (*mode)?)))
        .collect();
    let by_mode = said.filter(|(mode, _)| *mode == MtlsMode::Strict).map(|(_, policy)| policy);
    let by_port = own.filter(|_| ports.values().any(|mode| *mode == MtlsMode::Strict));
    let strict_by =
        by_mode.or(by_port).map(|policy| format!("{}: {}", policy.meta.source, policy.meta.key).into());
    InboundMtls { mode, ports, strict_by }
}
