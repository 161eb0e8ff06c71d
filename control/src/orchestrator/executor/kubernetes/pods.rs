//! What is there: the cluster's pods as replicas, followed by a watch.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_config::wire::node::ReplicaPhase;
use serde_json::Value;

use super::super::Observed;
use super::GROUP;
use super::api::{Event, annotation, text};

/// Pods by namespace and name.
#[derive(Debug, Default)]
pub struct Pods {
    known: BTreeMap<(String, String), Observed>,
}

impl Pods {
    /// One that is there, or was changed.
    pub fn add(&mut self, pod: &Value) {
        self.known.extend(key(pod).zip(observed(pod)));
    }

    /// One change. Gives the version to go on from.
    pub fn take(&mut self, event: Event) -> Option<String> {
        let version = |pod: &Value| text(pod, "/metadata/resourceVersion").map(str::to_owned);
        match event {
            Event::Is(pod) => {
                self.add(&pod);
                version(&pod)
            }
            Event::Gone(pod) => {
                if let Some(key) = key(&pod) {
                    self.known.remove(&key);
                }
                version(&pod)
            }
            Event::Version(version) => Some(version),
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Observed> {
        self.known.values().cloned().collect()
    }
}

fn key(pod: &Value) -> Option<(String, String)> {
    Some((text(pod, "/metadata/namespace")?.to_owned(), text(pod, "/metadata/name")?.to_owned()))
}

/// A pod as a replica; `None`: it does not say whose it is.
pub fn observed(pod: &Value) -> Option<Observed> {
    let group: Arc<str> = annotation(pod, GROUP)?.into();
    let agent = group.split_once('@').map_or(&*group, |(agent, _)| agent);
    let (phase, reason) = state(pod);
    Some(Observed {
        replica: format!("{agent}/{}", text(pod, "/metadata/name")?),
        node: text(pod, "/spec/nodeName").map(str::to_owned),
        group: Some(group),
        phase,
        reason,
    })
}

fn state(pod: &Value) -> (ReplicaPhase, Option<String>) {
    let status = &pod["status"];
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return (ReplicaPhase::Stopping, None);
    }
    let said = |reason: Option<&str>, message: Option<&str>| match (reason, message) {
        (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
        (one, other) => one.or(other).map(str::to_owned),
    };
    match text(status, "/phase") {
        // An evicted pod stays in the list; another one is there for it.
        Some("Failed" | "Succeeded") => {
            return (ReplicaPhase::Gone, said(text(status, "/reason"), text(status, "/message")));
        }
        Some("Unknown") => return (ReplicaPhase::Starting, Some("its node does not answer".into())),
        _ => {}
    }
    let condition =
        |kind: &str| status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind);
    if let Some(unplaced) = condition("PodScheduled").filter(|condition| condition["status"] == "False") {
        return (ReplicaPhase::Starting, said(text(unplaced, "/reason"), text(unplaced, "/message")));
    }
    let lists = ["initContainerStatuses", "containerStatuses"];
    let containers = lists.iter().filter_map(|list| status[*list].as_array()).flatten();
    for container in containers {
        if let Some(trouble) = trouble(container) {
            return trouble;
        }
    }
    match condition("Ready") {
        Some(ready) if ready["status"] == "True" => (ReplicaPhase::Running, None),
        _ => (ReplicaPhase::Starting, None),
    }
}

/// What keeps a container from running.
fn trouble(container: &Value) -> Option<(ReplicaPhase, Option<String>)> {
    let name = text(container, "/name").unwrap_or("a container");
    let waiting = &container["state"]["waiting"];
    let reason = text(waiting, "/reason")?;
    let message = text(waiting, "/message").unwrap_or_default();
    match reason {
        "ContainerCreating" | "PodInitializing" => None,
        "CrashLoopBackOff" => {
            let ended = ended(&container["lastState"]["terminated"]);
            let restarts = container["restartCount"].as_u64().unwrap_or_default();
            Some((ReplicaPhase::CrashLoop, Some(format!("{name} {ended}, {restarts} times"))))
        }
        // ErrImagePull, ImagePullBackOff, InvalidImageName, CreateContainerConfigError, RunContainerError, ...
        reason => {
            let colon = if message.is_empty() { "" } else { ": " };
            Some((ReplicaPhase::Failed, Some(format!("{name}: {reason}{colon}{message}"))))
        }
    }
}

fn ended(terminated: &Value) -> String {
    match (text(terminated, "/reason"), terminated["exitCode"].as_i64()) {
        (Some("OOMKilled"), _) => "was killed for using more memory than it may (OOMKilled)".into(),
        (_, Some(code)) => format!("ended with {code}"),
        (Some(reason), None) => format!("ended: {reason}"),
        (None, None) => "ended".into(),
    }
}
