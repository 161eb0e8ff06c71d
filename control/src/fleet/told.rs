//! What of a document sidecars are given: of an AgentCluster not how its agents are started and where they are placed. Commands
//! and environments may hold secrets, and no sidecar needs them: a node has them from the leader.

use std::borrow::Cow;

use pilotfish_config::model::Kind;
use pilotfish_config::wire::Document;
use serde_json::Value;
use serde_json::value::RawValue;

/// Fields of the spec that only control planes act on.
const OF_SPEC: [&str; 5] = ["replicas", "orchestrator", "regions", "auto_scaling", "resource_management"];
/// Those of each agent. `deployment` says what a call may wait for; how many are warm is not for sidecars.
const OF_AGENTS: [&str; 17] = [
    "replicas",
    "resources",
    "image",
    "command",
    "env",
    "working_dir",
    "probe",
    "start_timeout",
    "stop_timeout",
    "priority",
    "pool",
    "node_selector",
    "tolerations",
    "affinity",
    "anti_affinity",
    "gang",
    "disruption_budget",
];
/// The annotation that is a command, for all agents and (with a dot and its name) for one.
const COMMAND: &str = "pilotfish.dev/command";

/// The document as sidecars get it.
pub(super) fn told(document: &Document) -> Cow<'_, Document> {
    if document.key.kind != Kind::AgentCluster.name() {
        return Cow::Borrowed(document);
    }
    // What was admitted is JSON; should it not be, a sidecar refuses it as it is.
    match without(document.body.get()) {
        Some(body) => Cow::Owned(Document { body, ..document.clone() }),
        None => Cow::Borrowed(document),
    }
}

fn without(body: &str) -> Option<Box<RawValue>> {
    let mut body: Value = serde_json::from_str(body).ok()?;
    if let Some(annotations) = body.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| {
            let rest = name.strip_prefix(COMMAND);
            !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
    }
    let spec = body.get_mut("spec")?.as_object_mut()?;
    spec.retain(|field, _| !OF_SPEC.contains(&field.as_str()));
    for agent in spec.get_mut("agents").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(agent) = agent.as_object_mut() {
            agent.retain(|field, _| !OF_AGENTS.contains(&field.as_str()));
            if let Some(deployment) = agent.get_mut("deployment").and_then(Value::as_object_mut) {
                deployment.remove("warm");
            }
        }
    }
    serde_json::value::to_raw_value(&body).ok()
}
