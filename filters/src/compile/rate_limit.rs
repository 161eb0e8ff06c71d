//! RateLimit documents onto the rules that they are about, once all rules are there.

use std::sync::Arc;

use pilotfish_config::model::{Host, LimitTarget, Model, RateLimit};

use super::route::Routes;
use super::{CompileOptions, names_of};
use crate::plan::{Action, Limits, Rule, Target};
use crate::rate_limit::{Concern, FIRST_SHARE, Limit, Only, RuleLimits, WHOLE};
use crate::state::Pass;

/// What a limit is about, ready to be compared.
struct Ready<'m> {
    document: &'m RateLimit,
    limit: Arc<Limit>,
    /// For each target that is a host, all its names.
    hosts: Vec<Box<[Host]>>,
}

/// Gives each rule its limits.
pub(super) fn compile(
    model: &Model,
    options: &CompileOptions,
    routes: &mut Routes,
    state: &mut Pass<'_>,
) -> Limits {
    let first_share = if options.alone { WHOLE } else { FIRST_SHARE };
    let mut own: Vec<&RateLimit> =
        model.rate_limits.iter().filter(|limit| limit.is_for(&options.namespace, &options.labels)).collect();
    own.sort_by_key(|limit| (limit.meta.namespace(), limit.meta.name()));
    let ready: Vec<Ready<'_>> =
        own.into_iter().map(|document| ready(document, options, first_share, state)).collect();
    if ready.is_empty() {
        return Limits::default();
    }
    for limit in ready.iter().filter(|limit| limit.document.fleet && options.alone) {
        let line = format!(
            "{}: {}: there is no control plane to share it out, so this sidecar has the whole of it",
            limit.document.meta.source, limit.document.meta.key
        );
        routes.warnings.push(line.into());
    }
    let (inbound, outbound): (Vec<_>, Vec<_>) = ready.iter().partition(|limit| limit.document.inbound);
    if !outbound.is_empty() {
        let mut names = vec![Vec::new(); routes.table.hosts().len()];
        for (name, host) in routes.table.names() {
            if let Some(names) = names.get_mut(host as usize) {
                names.push(name);
            }
        }
        let written = routes.written;
        for (at, (host, names)) in routes.table.hosts_mut().iter_mut().zip(&names).enumerate() {
            for rule in host.rules_mut() {
                rule.resilience.limits = of_rule(&outbound, rule, names, at < written);
            }
        }
        routes.by_capability.resilience.limits = of_rule(&outbound, &routes.by_capability, &[], false);
    }
    let inbound = inbound.into_iter().map(|limit| Concern {
        limit: limit.limit.clone(),
        only: limit.document.targets.iter().filter_map(asks).collect(),
    });
    Limits {
        inbound: RuleLimits(inbound.collect()),
        all: ready.iter().map(|ready| ready.limit.clone()).collect(),
        first_share,
    }
}

fn ready<'m>(
    document: &'m RateLimit,
    options: &CompileOptions,
    first_share: u32,
    state: &mut Pass<'_>,
) -> Ready<'m> {
    let name = format!("{}/{}", document.meta.namespace(), document.meta.name());
    let share = if document.fleet { first_share } else { WHOLE };
    let limit = Limit {
        state: state.rate_limit(&name, document.amount, document.fleet, share),
        name: name.into(),
        amount: document.amount,
        fleet: document.fleet,
        dry_run: document.dry_run,
        by: document.by.clone().into(),
    };
    let hosts = document.targets.iter().filter_map(|target| match target {
        LimitTarget::Host(host) => Some(names_of(host, &options.namespace).map(Host::verbatim).collect()),
        _ => None,
    });
    Ready { document, limit: Arc::new(limit), hosts: hosts.collect() }
}

fn asks(target: &LimitTarget) -> Option<Only> {
    match target {
        LimitTarget::Capability(name) => Some(Only::Asks(name.as_str().into())),
        _ => None,
    }
}

/// The limits of one rule, whose host has these names. `written`: it is a VirtualService's.
fn of_rule(limits: &[&Ready<'_>], rule: &Rule, names: &[String], written: bool) -> RuleLimits {
    let concerns = limits.iter().filter_map(|ready| {
        let only = concern(ready, rule, names, written)?;
        Some(Concern { limit: ready.limit.clone(), only: only.into() })
    });
    RuleLimits(concerns.collect())
}

/// Which calls of a rule a limit is about: empty is all, nothing is none.
fn concern(ready: &Ready<'_>, rule: &Rule, names: &[String], written: bool) -> Option<Vec<Only>> {
    let mut only = Vec::new();
    let mut hosts = ready.hosts.iter();
    for target in &ready.document.targets {
        match target {
            LimitTarget::Route { namespace, service, rule: wanted } => {
                let own = rule.name.strip_prefix(namespace.as_str()).and_then(|rest| rest.strip_prefix('/'));
                let own = own.and_then(|rest| rest.strip_prefix(service.as_str()));
                let own = own.and_then(|rest| rest.strip_prefix('/')).filter(|_| written);
                if own.is_some_and(|own| wanted.as_ref().is_none_or(|wanted| wanted == own)) {
                    return Some(Vec::new());
                }
            }
            LimitTarget::Host(_) => {
                let Some(patterns) = hosts.next() else { continue };
                let covered = |name: &String| patterns.iter().any(|pattern| pattern.covers(name));
                if !names.is_empty() && names.iter().all(covered) {
                    return Some(Vec::new());
                }
                let wider = |name: &String| {
                    let name = Host::verbatim(name);
                    name.is_wildcard() && patterns.iter().any(|pattern| name.covers(pattern))
                };
                if names.iter().any(|name| covered(name) || wider(name)) {
                    only.push(Only::Host(patterns.clone()));
                }
            }
            LimitTarget::Capability(name) => {
                let Action::Forward(split) = &rule.action else { continue };
                for destination in split.destinations() {
                    if let Target::Capability(target) = &destination.target {
                        if target.wanted.iter().any(|wanted| wanted.name.eq_ignore_ascii_case(name)) {
                            return Some(Vec::new());
                        }
                        only.push(Only::Asks(name.as_str().into()));
                    }
                }
                only.dedup();
            }
        }
    }
    (!only.is_empty()).then_some(only)
}
