//! AgentCluster and AgentSecurityPolicy: agents, what they are able to do, how they are governed.

use std::collections::HashMap;
use std::fmt;

use super::{CircuitBreaker, Duties, HealthCheck, Meta, PlacementRules, Runtime, StringMap, Wish};

/// Agents and what they are able to do.
#[derive(Debug, Clone)]
pub struct AgentCluster {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// All replicas together, as written.
    pub replicas: Option<u32>,
    /// Who places and watches them.
    pub orchestrator: Option<Orchestrator>,
    /// What of that is on.
    pub duties: Duties,
    /// The agents, those that only regions or `resource_management` name included. Their resources and commands are complete
    /// but for their AgentTemplate.
    pub agents: Vec<Agent>,
    /// How many run where, by the agents' own names.
    pub regions: Vec<AgentRegion>,
    /// How their number follows load.
    pub auto_scaling: Option<AutoScaling>,
    /// `pilotfish.dev/circuit-breaker`, for the endpoints of its agents; a DestinationRule's goes before it.
    pub circuit_breaker: Wish<CircuitBreaker>,
    /// `pilotfish.dev/health-check`, for the endpoints of its agents; a ServiceEntry's goes before it.
    pub health_check: Wish<HealthCheck>,
}

impl AgentCluster {
    /// How many of each agent run in which region; one that no region names is not there.
    pub fn by_agent(&self) -> HashMap<&str, Vec<(&str, u32)>> {
        let mut agents: HashMap<&str, Vec<(&str, u32)>> = HashMap::new();
        for region in &self.regions {
            for (agent, count) in &region.agent_distribution {
                agents.entry(agent).or_default().push((&region.name, *count));
            }
        }
        agents
    }
}

/// A kind of agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its name; endpoints name it by `pilotfish.dev/agent`.
    pub name: String,
    /// How many run, where no region says. With an on-demand deployment the most that run.
    pub replicas: Option<u32>,
    /// What each needs.
    pub resources: Resources,
    /// What it is able to do.
    pub capabilities: Vec<Capability>,
    /// Further labels.
    pub labels: StringMap,
    /// How it is started.
    pub runtime: Runtime,
    /// How it is placed.
    pub rules: PlacementRules,
}

/// A named thing that an agent can do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Capability {
    /// Its name in lower case.
    pub name: String,
    /// Its version, when one is written (`name@1.2.0`; `name@2` is 2.0.0).
    pub version: Option<semver::Version>,
}

impl Capability {
    /// Reads `name` or `name@version`, as documents, `--capability` and registrations write it.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Capability, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let version = version
            .map(|version| {
                let shown = crate::yaml::clip_text(version);
                read_version(version)
                    .ok_or_else(|| format!("`{shown}` is not a version, such as 2, 1.4 or 1.4.2"))
            })
            .transpose()?;
        match is_capability_name(name) {
            true => Ok(Capability { name: name.to_ascii_lowercase(), version }),
            false => Err(format!(
                "`{}` is not a capability: letters, digits, `_` and `-`, then perhaps `@1.2.0`",
                crate::yaml::clip_text(text)
            )),
        }
    }
}

impl fmt::Display for Capability {
    /// As [`Capability::parse`] reads it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(out, "{}@{version}", self.name),
            None => out.write_str(&self.name),
        }
    }
}

/// A semantic version; missing parts are 0.
pub(crate) fn read_version(text: &str) -> Option<semver::Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let missing = 2usize.checked_sub(core.matches('.').count())?;
    let full = format!("{core}{}{}", ".0".repeat(missing), &text[core.len()..]);
    semver::Version::parse(&full).ok()
}

/// Also in a header list and as a DNS label's neighbour: no comma, space, `@` or dot.
pub(crate) fn is_capability_name(name: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    !name.is_empty() && name.len() <= 63 && name.bytes().all(valid)
}

/// What each replica of an agent needs; `None` is not written, and nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Whole cards.
    pub gpu: Option<u32>,
    /// Bytes of a card: of each of `gpu` cards at least so much, or without `gpu` a share of one.
    pub gpu_memory: Option<u64>,
    /// A MIG profile, `1g.10gb`: one slice of it.
    pub gpu_slice: Option<String>,
}

impl Resources {
    /// This, with what it does not say from `other`. What is of cards is taken together: one says all of it.
    #[must_use]
    pub fn or(&self, other: &Resources) -> Resources {
        let of_cards = if self.gpu.is_some() || self.gpu_memory.is_some() || self.gpu_slice.is_some() {
            self
        } else {
            other
        };
        Resources {
            cpu_milli: self.cpu_milli.or(other.cpu_milli),
            memory: self.memory.or(other.memory),
            gpu: of_cards.gpu,
            gpu_memory: of_cards.gpu_memory,
            gpu_slice: of_cards.gpu_slice.clone(),
        }
    }
}

/// Who places and watches agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orchestrator {
    /// `hierarchical` or another word.
    pub kind: String,
    /// From the top down.
    pub levels: Vec<OrchestratorLevel>,
}

/// A level of an orchestrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrchestratorLevel {
    /// Name.
    pub name: String,
    /// What it spans.
    pub scope: Option<String>,
    /// What it does.
    pub responsibilities: Vec<String>,
}

/// How many agents run in a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRegion {
    /// Region.
    pub name: String,
    /// Number by agent name.
    pub agent_distribution: Vec<(String, u32)>,
}

/// How the number of agents follows load.
#[derive(Debug, Clone, PartialEq)]
pub struct AutoScaling {
    /// On or off.
    pub enabled: bool,
    /// Never fewer.
    pub min_replicas: Option<u32>,
    /// Never more.
    pub max_replicas: Option<u32>,
    /// Aim, in percent.
    pub target_utilization: Option<f64>,
    /// More above this, in percent.
    pub scale_up_threshold: Option<f64>,
    /// Fewer below this, in percent.
    pub scale_down_threshold: Option<f64>,
}
