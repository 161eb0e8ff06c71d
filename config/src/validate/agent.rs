//! AgentCluster: agents, what they are able to do, what they are called elsewhere in the document.

use std::collections::HashSet;

use crate::model::{
    Agent, AgentCluster, AutoScaling, Capability, Meta, Orchestrator, OrchestratorLevel, PlacementRules,
    Resources, Runtime, StringMap, is_capability_name, read_version,
};
use crate::raw::{
    AgentClusterSpec, AgentSpec, AutoScalingSpec, CapabilitySpec, List, Quantity, Text, TextMap, nearest,
};
use crate::yaml::{Node, clip_text};

use super::annotations::PREFIX;
use super::check::Cx;
use super::regions::{MOST_NEAR, Names};
use super::{duties, health, placement, regions, runtime};

/// An agent as it is written: `namespace/name`, and where.
pub(super) struct AgentDraft<'n> {
    pub name: String,
    pub node: Node<'n>,
}

/// Reads an AgentCluster.
pub(super) fn agent_cluster<'n>(
    cx: &mut Cx<'_>,
    meta: Meta,
    annotations: Option<&TextMap<'n>>,
    spec: &AgentClusterSpec<'n>,
    drafts: &mut Vec<AgentDraft<'n>>,
) -> AgentCluster {
    let mut agents: Vec<Agent> = Vec::new();
    let mut listed: HashSet<&str> = HashSet::new();
    for agent in spec.agents.iter().flatten() {
        let Some(name) = agent.name else { continue };
        if !listed.insert(name.value) {
            cx.error(name.node, format!("the agent `{}` is there already", clip_text(name.value)));
        }
        agents.push(self::agent(cx, agent, name));
        drafts.push(AgentDraft { name: format!("{}/{}", meta.namespace(), name.value), node: agent.node });
    }
    let mut names = Names::new(&agents);
    names.resources(cx, spec);
    let regions = regions::regions(cx, spec, &mut names);
    names.unused(cx);
    for name in names.only_elsewhere() {
        agents.push(Agent { name: name.clone(), ..nothing() });
    }
    for agent in &mut agents {
        if let Some(resources) = names.resources_of(&agent.name) {
            agent.resources = agent.resources.or(resources);
        }
        if agent.runtime.command.is_empty()
            && let Some(text) = meta.annotation_for("command", Some(&agent.name))
        {
            agent.runtime.command = runtime::command_text(text).unwrap_or_default();
        }
    }
    commands(cx, annotations, &agents);
    if let ([only], Some(all), true) = (agents.as_mut_slice(), spec.replicas, regions.is_empty()) {
        only.replicas = only.replicas.or(Some(all.value));
    }
    let cluster = AgentCluster {
        circuit_breaker: health::wish(&meta, "circuit-breaker", health::circuit_breaker),
        health_check: health::wish(&meta, "health-check", health::health_check),
        meta,
        replicas: spec.replicas.map(|replicas| replicas.value),
        orchestrator: spec.orchestrator.as_ref().map(|orchestrator| Orchestrator {
            kind: orchestrator.kind.map_or(String::new(), |kind| kind.value.to_owned()),
            levels: orchestrator
                .levels
                .iter()
                .flatten()
                .map(|level| OrchestratorLevel {
                    name: level.name.map_or(String::new(), |name| name.value.to_owned()),
                    scope: level.scope.map(|scope| scope.value.to_owned()),
                    responsibilities: texts(level.responsibilities.as_ref()),
                })
                .collect(),
        }),
        duties: spec
            .orchestrator
            .as_ref()
            .map(|orchestrator| duties::read(cx, orchestrator))
            .unwrap_or_default(),
        agents,
        regions,
        auto_scaling: spec.auto_scaling.as_ref().map(|scaling| auto_scaling(cx, scaling)),
    };
    regions::add_up(cx, spec, &cluster);
    cluster
}

pub(super) fn texts(list: Option<&List<Text<'_>>>) -> Vec<String> {
    list.into_iter().flatten().map(|text| text.value.to_owned()).collect()
}

/// An agent of which nothing is said.
fn nothing() -> Agent {
    Agent {
        name: String::new(),
        replicas: None,
        resources: Resources::default(),
        capabilities: Vec::new(),
        labels: StringMap::new(),
        runtime: Runtime::default(),
        rules: PlacementRules::default(),
    }
}

fn agent(cx: &mut Cx<'_>, spec: &AgentSpec<'_>, name: Text<'_>) -> Agent {
    let mut capabilities: Vec<Capability> = Vec::new();
    for entry in spec.capabilities.iter().flatten() {
        let Some(capability) = capability(cx, entry) else { continue };
        if capabilities.contains(&capability) {
            cx.warn(entry.name.node, format!("`{}` is there already", capability.name), "remove it");
        } else {
            capabilities.push(capability);
        }
    }
    Agent {
        name: cx.label(name, "agent name"),
        replicas: spec.replicas.map(|replicas| {
            placement::number(cx, replicas, 0, regions::MOST_REPLICAS);
            replicas.value
        }),
        resources: runtime::resources(cx, spec.resources.as_ref()),
        capabilities,
        labels: cx.labels(spec.labels.as_ref()),
        runtime: runtime::of_agent(cx, spec),
        rules: placement::rules(cx, spec),
    }
}

/// Commands in annotations for agents that are not there.
fn commands(cx: &mut Cx<'_>, annotations: Option<&TextMap<'_>>, agents: &[Agent]) {
    let names: HashSet<&str> = agents.iter().map(|agent| agent.name.as_str()).collect();
    for (key, _) in annotations.into_iter().flatten() {
        let name = key.value.strip_prefix(PREFIX).and_then(|name| name.strip_prefix("command."));
        let Some(name) = name.filter(|name| !names.contains(name)) else { continue };
        let near = nearest(name, agents.iter().take(MOST_NEAR).map(|agent| agent.name.as_str()));
        let hint = near.map(|near| format!("did you mean `{PREFIX}command.{near}`?"));
        cx.diagnose.error_at_key(key.node, format!("there is no agent `{}` here", clip_text(name)), hint);
    }
}

fn capability(cx: &mut Cx<'_>, spec: &CapabilitySpec<'_>) -> Option<Capability> {
    let (name, inline) = match spec.name.value.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (spec.name.value, None),
    };
    if !is_capability_name(name) {
        let message = format!("`{}` is not a capability", clip_text(spec.name.value));
        cx.error_hint(spec.name.node, message, "letters, digits, `_` and `-`, then perhaps `@1.2.0`");
        return None;
    }
    let apart = spec.version.map(|version| version.0);
    if let (Some(_), Some(version)) = (inline, apart) {
        cx.error(version.node, "the version is written twice");
    }
    let (text, node) = match (inline, apart) {
        (Some(text), _) => (text, spec.name.node),
        (None, Some(version)) => (version.value, version.node),
        (None, None) => return Some(Capability { name: name.to_ascii_lowercase(), version: None }),
    };
    let Some(version) = read_version(text) else {
        cx.error_hint(node, format!("`{}` is not a version", clip_text(text)), "such as 2, 1.4 or 1.4.2");
        return None;
    };
    Some(Capability { name: name.to_ascii_lowercase(), version: Some(version) })
}

fn auto_scaling(cx: &mut Cx<'_>, spec: &AutoScalingSpec<'_>) -> AutoScaling {
    if spec.enabled.is_none_or(|enabled| enabled.value) {
        let hint = "the number of agents is set by hand: `pilotfish scale AGENT N`";
        cx.diagnose.warn_at_key(spec.node, "checked, and not acted on yet".into(), Some(hint.into()));
    }
    if let (Some(min), Some(max)) = (spec.min_replicas, spec.max_replicas)
        && min.value > max.value
    {
        cx.error(min.node, format!("min_replicas {} is above max_replicas {}", min.value, max.value));
    }
    let scaling = AutoScaling {
        enabled: spec.enabled.is_none_or(|enabled| enabled.value),
        min_replicas: spec.min_replicas.map(|min| min.value),
        max_replicas: spec.max_replicas.map(|max| max.value),
        target_utilization: spec.target_utilization.and_then(|percent| percentage(cx, percent)),
        scale_up_threshold: spec.scale_up_threshold.and_then(|percent| percentage(cx, percent)),
        scale_down_threshold: spec.scale_down_threshold.and_then(|percent| percentage(cx, percent)),
    };
    if let (Some(up), Some(down)) = (scaling.scale_up_threshold, scaling.scale_down_threshold)
        && down >= up
    {
        cx.error(spec.node, format!("scale_down_threshold {down}% is not below scale_up_threshold {up}%"));
    }
    scaling
}

/// `70%` or `70`.
fn percentage(cx: &mut Cx<'_>, quantity: Quantity<'_>) -> Option<f64> {
    let text = quantity.0;
    let number = text.value.strip_suffix('%').unwrap_or(text.value).trim().parse::<f64>().ok();
    let percent = number.filter(|percent| (0.0..=100.0).contains(percent));
    if percent.is_none() {
        cx.error_hint(text.node, format!("`{}` is not a percentage", clip_text(text.value)), "such as 70%");
    }
    percent
}

#[cfg(test)]
mod tests {
    use crate::model::read_version as version;

    #[test]
    fn short_versions_are_filled_up() {
        for (text, full) in
            [("2", "2.0.0"), ("v1.4", "1.4.0"), ("1.4.2-rc.1", "1.4.2-rc.1"), ("1-beta", "1.0.0-beta")]
        {
            assert_eq!(version(text).map(|v| v.to_string()).as_deref(), Some(full), "{text}");
        }
        for text in ["", "x", "1.2.3.4", "-1", "1..2"] {
            assert_eq!(version(text), None, "{text}");
        }
    }
}
