//! What sidecars tell each other of a call: hops, the agents on its path, priority. Loops and depth.
//!
//! One field of the head, written by sidecars only, at each hop within the mesh:
//! `x-pilotfish-path: hops=3;prio=critical;cycles=deny;idle=0;path=default/planner,default/search`. Its deadline travels in
//! `agent-deadline-ms`, which each sidecar writes anew. What is not understood is no path: it is ignored as a whole.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::shed::Priority;

/// The field's name.
pub const CALL_PATH: &str = "x-pilotfish-path";
/// The field by which a sidecar tells its own agent which call this is; an agent that passes it on says what its calls belong to.
pub const CALL_ID: &str = "x-pilotfish-call";

/// How many calls of agents may hang on one another when nobody says.
pub const MAX_HOPS: u8 = 16;
/// The most that may be allowed.
pub const HIGHEST_MAX_HOPS: u8 = 64;
/// Bytes of the agents' names; the oldest are forgotten before it is more.
const MOST_NAMES: usize = 4096;
/// Bytes of a field that is read at all.
const MOST: usize = MOST_NAMES + 256;
/// Bytes of one name: namespace, `/`, agent.
const LONGEST_NAME: usize = 256;

/// The agents that a call came through, oldest first; clones share the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agents(Option<Arc<str>>);

impl Agents {
    /// Each as `namespace/name`.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.iter().flat_map(|names| names.split(','))
    }

    /// Reads `ns/a,ns/b`; `None` when something in it is no name of an agent.
    pub fn parse(text: &str) -> Option<Agents> {
        if text.len() > MOST_NAMES || !text.split(',').all(is_name) {
            return None;
        }
        Some(Agents(Some(text.into())))
    }

    /// These and one more, the oldest forgotten when that is too long. What is no name is left out.
    pub fn and(&self, next: &str) -> Agents {
        if !is_name(next) {
            return self.clone();
        }
        let Some(before) = self.0.as_deref() else { return Agents(Some(next.into())) };
        let mut kept = before;
        while kept.len() + 1 + next.len() > MOST_NAMES {
            match kept.split_once(',') {
                Some((_, newer)) => kept = newer,
                None => return Agents(Some(next.into())),
            }
        }
        Agents(Some([kept, ",", next].concat().into()))
    }

    /// Those that are on both paths, in the order of this one.
    pub fn shared_with(&self, other: &Agents) -> Agents {
        let shared: Vec<&str> = self.iter().filter(|name| other.iter().any(|too| too == *name)).collect();
        if shared.is_empty() { Agents::default() } else { Agents(Some(shared.join(",").into())) }
    }

    /// The circle that a call to `agent` closes: from its last time on the path to itself.
    pub fn cycle(&self, agent: &str) -> Option<Vec<&str>> {
        let behind = self.iter().rev().position(|name| name == agent)?;
        let all: Vec<&str> = self.iter().collect();
        Some(all.get(all.len() - 1 - behind..).unwrap_or_default().to_vec())
    }
}

fn is_name(name: &str) -> bool {
    let good = |byte: u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    let part = |part: &str| !part.is_empty() && part.bytes().all(good);
    name.len() <= LONGEST_NAME
        && name.split_once('/').is_some_and(|(namespace, agent)| part(namespace) && part(agent))
}

/// What one sidecar tells the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallPath {
    /// How many calls of agents hang on one another, this one included: at least 1.
    pub hops: u8,
    /// Who made them; the last is the caller.
    pub agents: Agents,
    /// How important the call is, as far as its callers may say so.
    pub priority: Priority,
    /// Whether a caller's policy forbids circles.
    pub deny_cycles: bool,
    /// How long nothing may move on it, when its rule says so: `Some(None)` is for ever.
    pub silence: Option<Option<Duration>>,
}

impl CallPath {
    /// The first call of a chain, by `agent`.
    pub fn first(agent: &str) -> CallPath {
        CallPath {
            hops: 1,
            agents: Agents::default().and(agent),
            priority: Priority::Default,
            deny_cycles: false,
            silence: None,
        }
    }

    /// Reads the field. `None`: too long, or not what a sidecar writes.
    pub fn parse(value: &[u8]) -> Option<CallPath> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= MOST)?;
        let mut path = CallPath { hops: 0, agents: Agents::default(), ..CallPath::first("") };
        for part in text.split(';') {
            let (key, value) = part.split_once('=')?;
            match key {
                "hops" => path.hops = value.parse().ok()?,
                "path" => path.agents = Agents::parse(value)?,
                "prio" => path.priority = Priority::parse(value.as_bytes())?,
                "cycles" => path.deny_cycles = value == "deny",
                "idle" => {
                    let millis = value.parse::<u32>().ok()?;
                    path.silence = Some((millis > 0).then(|| Duration::from_millis(millis.into())));
                }
                // Of a later release.
                _ => {}
            }
        }
        // Each agent on the path is a hop; of a long one the oldest may be forgotten.
        let named = path.agents.iter().count();
        (named > 0 && usize::from(path.hops) >= named).then_some(path)
    }

    /// Writes the field.
    pub fn print(&self) -> String {
        let mut text = String::with_capacity(64 + self.agents.0.as_deref().map_or(0, str::len));
        let _ = write!(text, "hops={}", self.hops);
        if self.priority != Priority::Default {
            let _ = write!(text, ";prio={}", self.priority.word());
        }
        if self.deny_cycles {
            text.push_str(";cycles=deny");
        }
        if let Some(silence) = self.silence {
            // 49 days are as good as for ever.
            let millis = silence.and_then(|silence| u32::try_from(silence.as_millis()).ok()).unwrap_or(0);
            let _ = write!(text, ";idle={millis}");
        }
        let _ = write!(text, ";path={}", self.agents.0.as_deref().unwrap_or_default());
        text
    }
}

/// What a rule, or a sidecar, says of depth, cycles, fan-out and priority; `None` where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathPolicy {
    /// How many sidecars a call may pass.
    pub max_hops: Option<u8>,
    /// What happens to a call that comes back to an agent on its path.
    pub cycles: Option<Cycles>,
    /// How many calls an agent may make for one call that it serves.
    pub fan_out: Option<u32>,
    /// The highest priority that a call may have.
    pub max_priority: Option<Priority>,
}

/// What happens to a call that comes back to an agent on its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cycles {
    /// It is counted, and goes on.
    #[default]
    Warn,
    /// It is refused.
    Deny,
}

impl PathPolicy {
    /// The same, with `general` where this says nothing.
    pub fn or(self, general: &PathPolicy) -> PathPolicy {
        PathPolicy {
            max_hops: self.max_hops.or(general.max_hops),
            cycles: self.cycles.or(general.cycles),
            fan_out: self.fan_out.or(general.fan_out),
            max_priority: match (self.max_priority, general.max_priority) {
                (Some(own), Some(general)) => Some(own.min(general)),
                (own, general) => own.or(general),
            },
        }
    }

    /// For a person.
    pub(crate) fn describe(&self) -> Value {
        json!({
            "max_hops": self.max_hops.unwrap_or(MAX_HOPS),
            "cycles": if self.cycles == Some(Cycles::Deny) { "deny" } else { "warn" },
            "fan_out_limit": self.fan_out,
            "max_priority": self.max_priority.unwrap_or(Priority::Critical).word(),
        })
    }

    /// Reads what annotations say; `find` gives the value of one by its name. Bad values were refused before.
    pub fn read<'a>(find: impl Fn(&str) -> Option<&'a str>) -> PathPolicy {
        let cycles = |word| match word {
            "deny" => Some(Cycles::Deny),
            "warn" => Some(Cycles::Warn),
            _ => None,
        };
        PathPolicy {
            max_hops: find("max-hops").and_then(|text| text.parse().ok()),
            cycles: find("call-cycles").and_then(cycles),
            fan_out: find("fan-out-limit").and_then(|text| text.parse().ok()),
            max_priority: find("max-priority").and_then(|text| Priority::parse(text.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests;
