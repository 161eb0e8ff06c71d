//! What sidecars tell each other of a call: hops, the agents on its path, priority. Loops and depth.

use crate::shed::Priority;

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
