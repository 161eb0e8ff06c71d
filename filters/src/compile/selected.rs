//! Which security policies are for a workload: those of its namespace and of the root namespaces, by labels or by the service that it is an
//! endpoint of.

use pilotfish_config::model::{
    Meta, Model, ROOT_NAMESPACES, Scope, ServiceEntry, StringMap, TargetRef, includes,
};

use super::CompileOptions;

/// The labels by which policies select the workload: its own, and its name under `app` and `pilotfish.dev/agent` where it has no such label.
pub(super) fn labels(options: &CompileOptions) -> StringMap {
    let mut labels = options.labels.clone();
    for key in ["app", "pilotfish.dev/agent"] {
        labels.entry(key.to_owned()).or_insert_with(|| options.agent.clone());
    }
    labels
}

/// Whether a policy is for the workload of `options`, whose [`labels`] are given.
pub(super) fn selects(
    model: &Model,
    options: &CompileOptions,
    labels: &StringMap,
    meta: &Meta,
    scope: &Scope,
    warnings: &mut Vec<Box<str>>,
) -> bool {
    let own = meta.namespace();
    if own != options.namespace && !ROOT_NAMESPACES.contains(&own) {
        return false;
    }
    if scope.targets.is_empty() {
        return includes(labels, &scope.selector);
    }
    for gateway in scope.targets.iter().filter(|target| target.kind.starts_with("Gateway")) {
        let line = format!(
            "{}: {}: the target {} `{}` does nothing here: there are no gateways (target a Service, or write `selector`)",
            meta.source, meta.key, gateway.kind, gateway.name
        );
        warnings.push(line.into());
    }
    scope.targets.iter().any(|target| is_endpoint(model, options, labels, own, target))
}

/// Whether the workload is an endpoint of the service that a policy of `namespace` names.
fn is_endpoint(
    model: &Model,
    options: &CompileOptions,
    labels: &StringMap,
    namespace: &str,
    target: &TargetRef,
) -> bool {
    if namespace != options.namespace {
        return false;
    }
    let mut entries = model.service_entries.iter().filter(|entry| entry.meta.namespace() == namespace);
    match target.kind.as_str() {
        "Service" => {
            let host = format!("{}.{namespace}.svc.cluster.local", target.name);
            target.name == options.agent
                || entries.any(|entry| {
                    entry.hosts.iter().any(|own| own.as_str() == host || own.as_str() == target.name)
                        && has(model, entry, options, labels)
                })
        }
        "ServiceEntry" => {
            entries.any(|entry| entry.meta.name() == target.name && has(model, entry, options, labels))
        }
        _ => false,
    }
}

fn has(model: &Model, entry: &ServiceEntry, options: &CompileOptions, labels: &StringMap) -> bool {
    let by_labels = entry.workload_selector.as_ref().is_some_and(|selector| includes(labels, selector));
    let named = |agent: &str| agent == options.agent;
    by_labels || model.workloads_of(entry).any(|workload| workload.agent.as_deref().is_some_and(named))
}
