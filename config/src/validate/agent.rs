//! AgentCluster and AgentSecurityPolicy. Numbers that do not add up are warnings.

use std::time::Duration;

use crate::model::{
    Agent, AgentCluster, AgentRegion, AgentRole, AgentSecurityPolicy, AutoScaling, Capability, Duties, Meta,
    Orchestrator, OrchestratorLevel, PlacementRules, Resources, Runtime, is_capability_name, read_version,
};
use crate::quantity::{self, NotAQuantity};
use crate::raw::{
    AgentClusterSpec, AgentSecurityPolicySpec, AgentSpec, AutoScalingSpec, Bool, CapabilitySpec,
    EncryptionWord, List, Quantity, ResourcesSpec, Text,
};
use crate::units;
use crate::yaml::clip_text;

use super::check::Cx;
use super::health;

/// Reads an AgentCluster.
pub(super) fn agent_cluster(cx: &mut Cx<'_>, meta: Meta, spec: &AgentClusterSpec<'_>) -> AgentCluster {
    let mut agents: Vec<Agent> = Vec::new();
    for agent in spec.agents.iter().flatten() {
        let Some(name) = agent.name else { continue };
        if agents.iter().any(|other| other.name == name.value) {
            cx.error(name.node, format!("the agent `{}` is there already", clip_text(name.value)));
        }
        agents.push(self::agent(cx, agent, name));
    }
    let regions = regions(cx, spec);
    replicas(cx, spec, &agents, &regions);
    let resource_management = spec
        .resource_management
        .iter()
        .flatten()
        .map(|(name, resources)| (name.value.to_owned(), self::resources(cx, Some(resources))))
        .collect();
    AgentCluster {
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
        duties: Duties::default(),
        agents,
        regions,
        auto_scaling: spec.auto_scaling.as_ref().map(|scaling| auto_scaling(cx, scaling)),
        resource_management,
    }
}

fn texts(list: Option<&List<Text<'_>>>) -> Vec<String> {
    list.into_iter().flatten().map(|text| text.value.to_owned()).collect()
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
        replicas: spec.replicas.map(|replicas| replicas.value),
        resources: resources(cx, spec.resources.as_ref()),
        capabilities,
        labels: cx.labels(spec.labels.as_ref()),
        runtime: Runtime::default(),
        rules: PlacementRules::default(),
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

fn resources(cx: &mut Cx<'_>, spec: Option<&ResourcesSpec<'_>>) -> Resources {
    let Some(spec) = spec else { return Resources::default() };
    let mut one = |quantity: Option<Quantity<'_>>, read: fn(&str) -> Result<u64, NotAQuantity>| {
        let text = quantity?.0;
        match read(text.value) {
            Ok(number) => Some(number),
            Err(why) => {
                let message = format!("`{}` is not a quantity", clip_text(text.value));
                cx.error_hint(text.node, message, why.to_string());
                None
            }
        }
    };
    Resources {
        cpu_milli: one(spec.cpu, quantity::milli),
        memory: one(spec.memory, quantity::whole),
        gpu: one(spec.gpu, quantity::whole).and_then(|gpus| u32::try_from(gpus).ok()),
        gpu_memory: None,
        gpu_slice: None,
    }
}

fn regions(cx: &mut Cx<'_>, spec: &AgentClusterSpec<'_>) -> Vec<AgentRegion> {
    let mut regions: Vec<AgentRegion> = Vec::new();
    for region in spec.regions.iter().flatten() {
        let Some(name) = region.name else { continue };
        if regions.iter().any(|other| other.name == name.value) {
            cx.error(name.node, format!("the region `{}` is there already", clip_text(name.value)));
        }
        let of = |(name, number): &(Text<'_>, crate::raw::Int<'_>)| (name.value.to_owned(), number.value);
        let agent_distribution = region.agent_distribution.iter().flatten().map(of).collect();
        regions.push(AgentRegion { name: name.value.to_owned(), agent_distribution });
    }
    regions
}

/// Sums that do not match what is written.
fn replicas(cx: &mut Cx<'_>, spec: &AgentClusterSpec<'_>, agents: &[Agent], regions: &[AgentRegion]) {
    let Some(replicas) = spec.replicas else { return };
    let written = u64::from(replicas.value);
    let in_regions: u64 = regions
        .iter()
        .flat_map(|region| &region.agent_distribution)
        .map(|(_, number)| u64::from(*number))
        .sum();
    if !regions.is_empty() && in_regions != written {
        let message = format!("{written} replicas, but the regions add up to {in_regions}");
        cx.warn(replicas.node, message, "neither is acted on yet; make them agree");
    }
    let in_agents: u64 = agents.iter().filter_map(|agent| agent.replicas).map(u64::from).sum();
    if in_agents > 0 && in_agents != written {
        let message = format!("{written} replicas, but the agents add up to {in_agents}");
        cx.warn(replicas.node, message, "neither is acted on yet; make them agree");
    }
}

fn auto_scaling(cx: &mut Cx<'_>, spec: &AutoScalingSpec<'_>) -> AutoScaling {
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

/// Reads an AgentSecurityPolicy.
pub(super) fn agent_security_policy(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &AgentSecurityPolicySpec<'_>,
) -> AgentSecurityPolicy {
    let flag = |flag: Option<Bool<'_>>| flag.is_some_and(|flag| flag.value);
    let authentication = spec.authentication.as_ref();
    let authorization = spec.authorization.as_ref();
    let communication = spec.communication.as_ref();
    let monitoring = spec.monitoring.as_ref();
    AgentSecurityPolicy {
        meta,
        authentication_required: authentication.is_some_and(|a| flag(a.required)),
        authentication_methods: texts(authentication.and_then(|a| a.methods.as_ref())),
        token_lifetime: authentication.and_then(|a| a.token_lifetime).and_then(|time| lifetime(cx, time.0)),
        authorization_model: authorization.and_then(|a| a.model).map(|model| model.value.to_owned()),
        roles: authorization
            .and_then(|a| a.roles.as_ref())
            .into_iter()
            .flatten()
            .map(|role| AgentRole {
                name: role.name.map_or(String::new(), |name| name.value.to_owned()),
                permissions: permissions(cx, role.permissions.as_ref()),
                resources: texts(role.resources.as_ref()),
            })
            .collect(),
        encryption: communication.and_then(|c| c.encryption).map(|word| {
            match word.value {
                EncryptionWord::Required => "required",
                EncryptionWord::Preferred => "preferred",
                EncryptionWord::Disabled => "disabled",
            }
            .to_owned()
        }),
        protocols: texts(communication.and_then(|c| c.protocols.as_ref())),
        classification_required: spec.data_access.as_ref().is_some_and(|d| flag(d.classification_required)),
        access_levels: texts(spec.data_access.as_ref().and_then(|d| d.access_levels.as_ref())),
        audit_all_actions: monitoring.is_some_and(|m| flag(m.audit_all_actions)),
        log_data_access: monitoring.is_some_and(|m| flag(m.log_data_access)),
        alert_on_anomalies: monitoring.is_some_and(|m| flag(m.alert_on_anomalies)),
        frameworks: texts(spec.compliance.as_ref().and_then(|c| c.frameworks.as_ref())),
        retention: spec
            .compliance
            .as_ref()
            .and_then(|c| c.retention_policy)
            .and_then(|time| lifetime(cx, time)),
    }
}

fn permissions(cx: &mut Cx<'_>, list: Option<&List<Text<'_>>>) -> Vec<String> {
    for text in list.into_iter().flatten().filter(|text| text.value.split(':').count() != 2) {
        let message = format!("`{}` is not a permission", clip_text(text.value));
        cx.error_hint(text.node, message, "write area:verb, such as knowledge:read");
    }
    texts(list)
}

/// Seconds without a unit, or a duration that may also be in days, weeks or years.
fn lifetime(cx: &mut Cx<'_>, text: Text<'_>) -> Option<Duration> {
    if let Ok(seconds) = text.value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let days = [("d", 1u64), ("w", 7), ("y", 365)].iter().find_map(|(unit, days)| {
        text.value
            .strip_suffix(unit)
            .and_then(|number| number.parse::<u32>().ok())
            .map(|n| u64::from(n) * days)
    });
    if let Some(days) = days {
        return Some(Duration::from_secs(days * 86_400));
    }
    match units::duration(text.value) {
        Ok(time) => Some(time),
        Err(_) => {
            let hint = "seconds, or a number with a unit: 90d, 12h, 30m";
            cx.error_hint(text.node, format!("`{}` is not a duration", clip_text(text.value)), hint);
            None
        }
    }
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
