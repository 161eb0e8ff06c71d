//! A group's objects: a Deployment, and what belongs to it: a Secret with a join token, a PodDisruptionBudget.
//!
//! The Deployment owns the other two, so that they go with it.

use data_encoding::BASE64;
use pilotfish_config::model::Disruption;
use serde_json::{Value, json};

use super::{
    AGENT, DEPLOYMENT, EXPIRES, GROUP, MANAGED_BY, MESH, NAMESPACE, Settings, TERM, TOKEN, name, pod,
};
use crate::placement::demand::Wanted;

/// Who a group's objects belong to: the live Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The objects' name.
    pub name: String,
    /// The cluster's namespace.
    pub namespace: String,
    /// The Deployment's.
    pub uid: String,
}

/// The Deployment of a group. `priority_class` is the name of one with its priority, if the cluster has one.
pub fn deployment(
    settings: &Settings,
    wanted: &Wanted,
    replicas: u32,
    term: u64,
    priority_class: Option<&str>,
) -> Value {
    let group = &wanted.group;
    let object = name::object(group);
    let labels = labels(settings, wanted, &object);
    let mut spec = pod::spec(settings, wanted, &object);
    if let Some(class) = priority_class {
        spec["priorityClassName"] = json!(class);
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": object,
            "namespace": settings.namespace_of(&group.namespace),
            "labels": labels,
            "annotations": { GROUP: &*group.id, TERM: term.to_string() },
        },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "selector": { "matchLabels": { DEPLOYMENT: object } },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": rolling(wanted, replicas) },
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {
                        GROUP: &*group.id,
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": "15020",
                    },
                },
                "spec": spec,
            },
        },
    })
}

/// How many of a group may be missing because somebody moves them.
pub fn disruption_budget(settings: &Settings, wanted: &Wanted, replicas: u32, owner: &Owner) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": owned(settings, wanted, owner),
        "spec": {
            "maxUnavailable": may_miss(wanted.group.disruption, replicas),
            "selector": { "matchLabels": { DEPLOYMENT: owner.name } },
        },
    })
}

/// The Secret with a group's join token. `expires` (seconds since 1970) and `id` say which one is in it.
pub fn secret(
    settings: &Settings,
    wanted: &Wanted,
    owner: &Owner,
    token: &str,
    id: &str,
    expires: u64,
) -> Value {
    let mut metadata = owned(settings, wanted, owner);
    metadata["annotations"] = json!({ TOKEN: id, EXPIRES: expires.to_string() });
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "data": { "token": BASE64.encode(token.as_bytes()) },
    })
}

fn owned(settings: &Settings, wanted: &Wanted, owner: &Owner) -> Value {
    json!({
        "name": owner.name,
        "namespace": owner.namespace,
        "labels": labels(settings, wanted, &owner.name),
        "ownerReferences": [{
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": owner.name,
            "uid": owner.uid,
        }],
    })
}

fn labels(settings: &Settings, wanted: &Wanted, object: &str) -> Value {
    json!({
        "app.kubernetes.io/name": name::label(&wanted.group.agent),
        MANAGED_BY: "pilotfish",
        MESH: name::label(&settings.mesh),
        DEPLOYMENT: object,
        AGENT: name::label(&wanted.group.agent),
        NAMESPACE: name::label(&wanted.group.namespace),
    })
}

/// The new pod is ready before the old one ends. Where cards are needed there may be none to spare, so that as many as the
/// budget allows may end first.
fn rolling(wanted: &Wanted, replicas: u32) -> Value {
    match wanted.group.need.gpu() {
        true => json!({ "maxSurge": 1, "maxUnavailable": may_miss(wanted.group.disruption, replicas) }),
        false => json!({ "maxSurge": "25%", "maxUnavailable": 0 }),
    }
}

/// Kubernetes rounds percentages up; a budget is rounded down, but 1 at least.
fn may_miss(disruption: Disruption, replicas: u32) -> u32 {
    match disruption {
        Disruption::Count(count) => count,
        Disruption::Percent(0) => 0,
        Disruption::Percent(percent) => {
            let share = u64::from(replicas) * u64::from(percent) / 100;
            u32::try_from(share).unwrap_or(u32::MAX).max(1)
        }
    }
}
