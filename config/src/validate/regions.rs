//! How many of an AgentCluster's agents run where: names that differ by singular and plural, numbers that do not add up.

use std::collections::{HashMap, HashSet};

use crate::model::{Agent, AgentCluster, AgentRegion, Deployment, Resources};
use crate::raw::{AgentClusterSpec, AgentSpec, Text, nearest};
use crate::yaml::clip_text;

use super::check::{Cx, is_label_value};
use super::placement::{self, is_agent_name};
use super::runtime;

/// Replicas of one agent in one place, at most.
pub(super) const MOST_REPLICAS: u32 = 1_000_000;

/// Names that are looked through for the one that was perhaps meant.
pub(super) const MOST_NEAR: usize = 200;

/// What agents are called: by `agents`, by `resource_management`, by `agent_distribution`.
#[derive(Default)]
pub(super) struct Names<'n> {
    /// By `agents`.
    listed: Known,
    /// Keys of `resource_management`.
    keys: Known,
    /// What `resource_management` says of an agent, and where.
    resources: HashMap<String, (Text<'n>, Resources)>,
    /// Agents that `agents` does not list, in the order of `agent_distribution`.
    only_elsewhere: Vec<String>,
    /// Names of `agent_distribution` that were seen, and whose they are.
    seen: HashMap<&'n str, String>,
    owners: HashSet<String>,
}

impl<'n> Names<'n> {
    pub fn new(agents: &[Agent]) -> Names<'n> {
        let mut names = Names::default();
        agents.iter().for_each(|agent| names.listed.add(&agent.name, &agent.name));
        names
    }

    /// Takes `resource_management` in.
    pub fn resources(&mut self, cx: &mut Cx<'_>, spec: &AgentClusterSpec<'n>) {
        for (key, resources) in spec.resource_management.iter().flatten() {
            name(cx, *key);
            let resources = runtime::resources(cx, Some(resources));
            let other = || self.listed.in_other_number(key.value);
            let owner = self.listed.exactly(key.value).or_else(other).unwrap_or(key.value).to_owned();
            if owner != key.value {
                taken_as(cx, *key, &owner);
            }
            self.keys.add(key.value, &owner);
            if self.resources.contains_key(&owner) {
                cx.error(key.node, format!("the resources of `{}` are there already", clip_text(&owner)));
            }
            self.resources.insert(owner, (*key, resources));
        }
    }

    /// The agent that a name of `agent_distribution` means.
    fn meant(&mut self, cx: &mut Cx<'_>, key: Text<'n>) -> String {
        if let Some(name) = self.seen.get(key.value) {
            return name.clone();
        }
        name(cx, key);
        let exactly = self.listed.exactly(key.value).or_else(|| self.keys.exactly(key.value));
        let other = || {
            let listed = self.listed.in_other_number(key.value);
            listed.or_else(|| self.keys.in_other_number(key.value))
        };
        let found = exactly.or_else(other);
        let owner = found.unwrap_or(key.value).to_owned();
        match found {
            Some(_) if exactly.is_none() => taken_as(cx, key, &owner),
            None if !(self.listed.order.is_empty() && self.keys.order.is_empty()) => {
                let hint = match self.listed.near(key.value).or_else(|| self.keys.near(key.value)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "it is placed as an agent that needs nothing".into(),
                };
                let message =
                    format!("neither `agents` nor `resource_management` has `{}`", clip_text(key.value));
                cx.diagnose.warn_at_key(key.node, message, Some(hint));
            }
            _ => {}
        }
        if self.owners.insert(owner.clone()) && self.listed.exactly(&owner).is_none() {
            self.only_elsewhere.push(owner.clone());
        }
        self.seen.insert(key.value, owner.clone());
        owner
    }

    /// Resources that are nobody's.
    pub fn unused(&self, cx: &mut Cx<'_>) {
        for (owner, (key, _)) in &self.resources {
            if self.listed.exactly(owner).is_none() && !self.owners.contains(owner) {
                let message = format!("there is no agent `{}` here", clip_text(key.value));
                let hint = self.listed.near(key.value).map(|near| format!("did you mean `{near}`?"));
                cx.diagnose.warn_at_key(key.node, message, hint);
            }
        }
    }

    /// Agents that `agents` does not list.
    pub fn only_elsewhere(&self) -> &[String] {
        &self.only_elsewhere
    }

    /// What `resource_management` says of an agent.
    pub fn resources_of(&self, agent: &str) -> Option<&Resources> {
        self.resources.get(agent).map(|(_, resources)| resources)
    }
}

/// Names, and the agents that they stand for.
#[derive(Default)]
struct Known {
    /// In the order of writing.
    order: Vec<String>,
    exactly: HashMap<String, String>,
    /// With `_` as `-`.
    plain: HashMap<String, String>,
    /// By what each would be in the singular.
    singular: HashMap<String, String>,
}

impl Known {
    fn add(&mut self, name: &str, agent: &str) {
        self.order.push(name.to_owned());
        self.exactly.entry(name.to_owned()).or_insert_with(|| agent.to_owned());
        let plain = name.replace('_', "-");
        for one in singulars(&plain) {
            self.singular.entry(one).or_insert_with(|| agent.to_owned());
        }
        self.plain.entry(plain).or_insert_with(|| agent.to_owned());
    }

    fn exactly(&self, name: &str) -> Option<&str> {
        self.exactly.get(name).map(String::as_str)
    }

    /// The agent whose name is the plural or the singular of this one, `_` and `-` alike.
    fn in_other_number(&self, name: &str) -> Option<&str> {
        let plain = name.replace('_', "-");
        let one = || singulars(&plain).into_iter().find_map(|one| self.plain.get(&one));
        let found = self.plain.get(&plain).or_else(one).or_else(|| self.singular.get(&plain));
        found.map(String::as_str)
    }

    fn near(&self, name: &str) -> Option<&str> {
        nearest(name, self.order.iter().take(MOST_NEAR).map(String::as_str))
    }
}

/// What a plural may be the plural of: `agents` of `agent`, `boxes` of `box`, `policies` of `policy`.
fn singulars(name: &str) -> Vec<String> {
    let cut = |end: &str, instead: &str| name.strip_suffix(end).map(|stem| format!("{stem}{instead}"));
    [cut("s", ""), cut("es", ""), cut("ies", "y")]
        .into_iter()
        .flatten()
        .filter(|one| !one.is_empty())
        .collect()
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
        let mut here: HashSet<String> = HashSet::new();
        for (key, count) in region.agent_distribution.iter().flatten() {
            placement::number(cx, *count, 0, MOST_REPLICAS);
            let agent = names.meant(cx, *key);
            if !here.insert(agent.clone()) {
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
    let by_agent = cluster.by_agent();
    let in_regions = |agent: &Agent| by_agent.get(agent.name.as_str()).map(Vec::as_slice).unwrap_or_default();
    let sum = |counts: &[(&str, u32)]| -> u64 { counts.iter().map(|(_, count)| u64::from(*count)).sum() };
    // Those that are listed come first, in their order.
    let listed = spec.agents.iter().flatten().filter(|agent| agent.name.is_some());
    for (written, agent) in listed.zip(&cluster.agents) {
        let counts = in_regions(agent);
        let placed = sum(counts);
        if let Some(replicas) = written.replicas
            && !counts.is_empty()
            && placed != u64::from(replicas.value)
        {
            let message = format!("{} replicas, but the regions add up to {placed}", replicas.value);
            let hint = format!("{placed} are placed: `agent_distribution` is what counts");
            cx.warn(replicas.node, message, hint);
        }
        warm(cx, written, agent, counts);
    }
    let Some(replicas) = spec.replicas else { return };
    let written = u64::from(replicas.value);
    let placed: u64 = cluster
        .agents
        .iter()
        .map(|agent| match in_regions(agent) {
            [] => u64::from(agent.replicas.unwrap_or_default()),
            counts => sum(counts),
        })
        .sum();
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
    use super::Known;

    #[test]
    fn a_name_is_known_in_the_other_number() {
        let same = |one: &str, other: &str| {
            let mut known = Known::default();
            known.add(one, one);
            known.in_other_number(other).is_some()
        };
        for (one, other) in [
            ("conversation_agents", "conversation_agent"),
            ("conversation-agent", "conversation_agents"),
            ("box", "boxes"),
            ("policy", "policies"),
            ("database", "databases"),
            ("a_b", "a-b"),
        ] {
            assert!(same(one, other) && same(other, one), "{one} {other}");
        }
        for (one, other) in [("agent", "agentx"), ("chat", "chats2"), ("s", ""), ("bus", "bu1")] {
            assert!(!same(one, other), "{one} {other}");
        }
    }
}
