//! How many of an AgentCluster's agents run where: names that differ by singular and plural, numbers that do not add up.

use crate::model::{Agent, AgentCluster, AgentRegion, Deployment, Resources};
use crate::raw::{AgentClusterSpec, AgentSpec, Text, nearest};
use crate::yaml::clip_text;

use super::check::{Cx, is_label_value};
use super::placement::{self, is_agent_name};
use super::runtime;

/// Replicas of one agent in one place, at most.
pub(super) const MOST_REPLICAS: u32 = 1_000_000;

/// What agents are called: by `agents`, by `resource_management`, by `agent_distribution`.
pub(super) struct Names<'n> {
    /// By `agents`.
    listed: Vec<String>,
    /// Keys of `resource_management`, whose they are, what they say, whether they are anybody's.
    resources: Vec<(Text<'n>, String, Resources, bool)>,
    /// Names of `agent_distribution`, and whose they are.
    regions: Vec<(&'n str, String)>,
}

impl<'n> Names<'n> {
    pub fn new(agents: &[Agent]) -> Names<'n> {
        let listed = agents.iter().map(|agent| agent.name.clone()).collect();
        Names { listed, resources: Vec::new(), regions: Vec::new() }
    }

    /// Takes `resource_management` in.
    pub fn resources(&mut self, cx: &mut Cx<'_>, spec: &AgentClusterSpec<'n>) {
        for (key, resources) in spec.resource_management.iter().flatten() {
            name(cx, *key);
            let resources = runtime::resources(cx, Some(resources));
            let listed = || self.listed.iter().map(String::as_str);
            let own = match listed().find(|name| *name == key.value) {
                Some(name) => Some(name),
                None => listed().find(|name| same_but_number(name, key.value)),
            };
            let owner = own.unwrap_or(key.value).to_owned();
            if own.is_some_and(|name| name != key.value) {
                taken_as(cx, *key, &owner);
            }
            if self.resources.iter().any(|(_, other, ..)| *other == owner) {
                cx.error(key.node, format!("the resources of `{}` are there already", clip_text(&owner)));
            }
            self.resources.push((*key, owner, resources, own.is_some()));
        }
    }

    /// The agent that a name of `agent_distribution` means.
    fn meant(&mut self, cx: &mut Cx<'_>, key: Text<'n>) -> String {
        if let Some((_, name)) = self.regions.iter().find(|(known, _)| *known == key.value) {
            return name.clone();
        }
        name(cx, key);
        let listed = self.listed.iter().map(|name| (name.as_str(), name));
        let resources = self.resources.iter().map(|(key, owner, ..)| (key.value, owner));
        let known = || listed.clone().chain(resources.clone());
        let exactly = known().find(|(known, _)| *known == key.value);
        let found = exactly.or_else(|| known().find(|(known, _)| same_but_number(known, key.value)));
        let owner = found.map_or(key.value, |(_, owner)| owner).to_owned();
        match found {
            Some(_) if exactly.is_none() => taken_as(cx, key, &owner),
            None if known().next().is_some() => {
                let near = nearest(key.value, known().map(|(known, _)| known));
                let hint = near.map(|near| format!("did you mean `{near}`?"));
                let message =
                    format!("neither `agents` nor `resource_management` has `{}`", clip_text(key.value));
                let hint = hint.unwrap_or_else(|| "it is placed as an agent that needs nothing".into());
                cx.diagnose.warn_at_key(key.node, message, Some(hint));
            }
            _ => {}
        }
        for (_, own, _, used) in &mut self.resources {
            *used |= *own == owner;
        }
        self.regions.push((key.value, owner.clone()));
        owner
    }

    /// Resources that are nobody's.
    pub fn unused(&self, cx: &mut Cx<'_>) {
        for (key, ..) in self.resources.iter().filter(|(.., used)| !used) {
            let message = format!("there is no agent `{}` here", clip_text(key.value));
            let near = nearest(key.value, self.listed.iter().map(String::as_str));
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            cx.diagnose.warn_at_key(key.node, message, hint);
        }
    }

    /// Agents that `agents` does not list.
    pub fn only_elsewhere(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (_, name) in &self.regions {
            if !self.listed.contains(name) && !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// What `resource_management` says of an agent.
    pub fn resources_of(&self, agent: &str) -> Option<&Resources> {
        self.resources.iter().find(|(_, owner, ..)| owner == agent).map(|(_, _, resources, _)| resources)
    }
}

fn name(cx: &mut Cx<'_>, key: Text<'_>) {
    if !is_agent_name(key.value) {
        let message = format!("`{}` is not a valid agent name", clip_text(key.value));
        cx.diagnose.error_at_key(
            key.node,
            message,
            Some("letters, digits and inner `-` or `_`, at most 63".into()),
        );
    }
}

fn taken_as(cx: &mut Cx<'_>, key: Text<'_>, agent: &str) {
    let message = format!("`{}` is taken as the agent `{}`", clip_text(key.value), clip_text(agent));
    cx.diagnose.warn_at_key(key.node, message, Some("write the same name everywhere".into()));
}

/// Whether one is the other's plural, `_` and `-` alike.
fn same_but_number(one: &str, other: &str) -> bool {
    let (one, other) = (one.replace('_', "-"), other.replace('_', "-"));
    one == other || is_plural(&one, &other) || is_plural(&other, &one)
}

/// `agents` of `agent`, `boxes` of `box`, `policies` of `policy`.
fn is_plural(many: &str, one: &str) -> bool {
    match many.strip_prefix(one) {
        Some(end) => end == "s" || end == "es",
        None => many.strip_suffix("ies").is_some_and(|stem| one.strip_suffix('y') == Some(stem)),
    }
}

/// Reads the regions.
pub(super) fn regions<'n>(
    cx: &mut Cx<'_>,
    spec: &AgentClusterSpec<'n>,
    names: &mut Names<'n>,
) -> Vec<AgentRegion> {
    let mut regions: Vec<AgentRegion> = Vec::new();
    for region in spec.regions.iter().flatten() {
        let Some(name) = region.name else { continue };
        if regions.iter().any(|other| other.name == name.value) {
            cx.error(name.node, format!("the region `{}` is there already", clip_text(name.value)));
        }
        place(cx, name, "region");
        let mut agent_distribution: Vec<(String, u32)> = Vec::new();
        for (key, count) in region.agent_distribution.iter().flatten() {
            placement::number(cx, *count, 0, MOST_REPLICAS);
            let agent = names.meant(cx, *key);
            if agent_distribution.iter().any(|(other, _)| *other == agent) {
                let message = format!("the agent `{}` is in this region already", clip_text(&agent));
                cx.diagnose.error_at_key(key.node, message, Some("write one number for it".into()));
            }
            agent_distribution.push((agent, count.value));
        }
        regions.push(AgentRegion { name: name.value.to_owned(), agent_distribution });
    }
    regions
}

/// The name of a region or zone: a label's value.
pub(super) fn place(cx: &mut Cx<'_>, name: Text<'_>, what: &str) -> String {
    if name.value.is_empty() || !is_label_value(name.value) {
        let message = format!("`{}` is not a {what}", clip_text(name.value));
        cx.error_hint(name.node, message, "letters, digits and inner `-`, `_`, `.`, at most 63");
    }
    name.value.to_owned()
}

/// Numbers that do not match others that are written.
pub(super) fn add_up(cx: &mut Cx<'_>, spec: &AgentClusterSpec<'_>, cluster: &AgentCluster) {
    for written in spec.agents.iter().flatten() {
        let name = written.name.map(|name| name.value);
        let Some(agent) = cluster.agents.iter().find(|agent| Some(agent.name.as_str()) == name) else {
            continue;
        };
        let in_regions = cluster.in_regions(&agent.name);
        if let (Some(replicas), false) = (written.replicas, in_regions.is_empty()) {
            let sum: u64 = in_regions.iter().map(|(_, count)| u64::from(*count)).sum();
            if sum != u64::from(replicas.value) {
                let message = format!("{} replicas, but the regions add up to {sum}", replicas.value);
                cx.warn(
                    replicas.node,
                    message,
                    format!("{sum} are placed: `agent_distribution` is what counts"),
                );
            }
        }
        warm(cx, written, agent, &in_regions);
    }
    let Some(replicas) = spec.replicas else { return };
    let written = u64::from(replicas.value);
    let placed: u64 = cluster.agents.iter().map(|agent| placed(cluster, agent)).sum();
    if placed == written {
        return;
    }
    let from = if cluster.regions.is_empty() { "agents" } else { "regions" };
    if placed > 0 {
        let message = format!("{written} replicas, but the {from} add up to {placed}");
        cx.warn(replicas.node, message, format!("{placed} are placed; make them agree"));
    } else {
        let message = format!("{written} replicas, and no agent says how many of them are its own");
        cx.warn(replicas.node, message, "write `replicas` on each agent, or `regions`; none is placed");
    }
}

fn placed(cluster: &AgentCluster, agent: &Agent) -> u64 {
    let in_regions = cluster.in_regions(&agent.name);
    match in_regions.is_empty() {
        true => u64::from(agent.replicas.unwrap_or_default()),
        false => in_regions.iter().map(|(_, count)| u64::from(*count)).sum(),
    }
}

/// More warm replicas than there may be.
fn warm(cx: &mut Cx<'_>, spec: &AgentSpec<'_>, agent: &Agent, in_regions: &[(&str, u32)]) {
    let Deployment::PreWarmed { warm, .. } = agent.rules.deployment else { return };
    let Some(deployment) = &spec.deployment else { return };
    let at = deployment.node.get("warm").unwrap_or(deployment.node);
    let anywhere = [("", agent.replicas.unwrap_or(1))];
    let counts = if in_regions.is_empty() { &anywhere } else { in_regions };
    for (region, count) in counts.iter().filter(|(_, count)| warm > *count) {
        let of = if region.is_empty() { String::new() } else { format!(" in {region}") };
        let message = format!("{warm} warm replicas are more than the {count} that there may be{of}");
        cx.error_hint(at, message, "write more `replicas`, or fewer `warm`");
    }
}

#[cfg(test)]
mod tests {
    use super::same_but_number;

    #[test]
    fn a_name_is_known_in_the_plural() {
        for (one, other) in [
            ("conversation_agents", "conversation_agent"),
            ("conversation-agent", "conversation_agents"),
            ("box", "boxes"),
            ("policy", "policies"),
            ("a_b", "a-b"),
        ] {
            assert!(same_but_number(one, other) && same_but_number(other, one), "{one} {other}");
        }
        for (one, other) in [("agent", "agentx"), ("chat", "chats2"), ("a", ""), ("bus", "bu1")] {
            assert!(!same_but_number(one, other), "{one} {other}");
        }
    }
}
