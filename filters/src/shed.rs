//! Who waits and who is refused when the limit is reached: places for the calls that are served at once, and a bounded line of
//! those that wait for one, by priority.
//!
//! * Important calls go first. Of the places that critical calls leave, one in ten goes to a sheddable call if one waits, so that
//!   nobody starves while critical calls do not need everything.
//! * The less important a call is, the less long it waits ([`QueuePolicy::longest`]).
//! * When the line is full, the longest waiting of the least important calls is refused: its caller is the likeliest to have
//!   given up.
//! * A line that was not empty for [`INTERVAL`] *stands*: more comes than can be served, and whoever waits for his turn waits in
//!   vain. Then the newest call goes first (Facebook's adaptive LIFO) and calls that waited longer than [`TARGET`] are dropped from the
//!   front (CoDel), but for as many as there are places, so that a place never stands empty. Critical calls stay first come, first
//!   served: they are few, and they wait until their deadline.
//!
//! CoDel's 5 ms and 100 ms are for packets. Agents answer in seconds: the target is 100 ms and the interval 1 s.

mod gate;
mod line;
mod queue;

use std::time::Duration;

pub use gate::{Entered, Gate, Place};
pub use line::{Line, Overloaded, Waiter};

/// A line that was not empty for so long stands (CoDel's interval is 100 ms, for packets).
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How long calls wait in a line that stands before they are dropped (CoDel's target is 5 ms, for packets).
pub const TARGET: Duration = Duration::from_millis(100);
/// How long a critical call waits when its caller sets no deadline.
pub const LONGEST_CRITICAL: Duration = Duration::from_secs(30);
/// Of so many places that critical calls leave, one is a sheddable call's.
const SHEDDABLE_TURN: u32 = 10;

/// How important a call is (`agent-priority`). The order is the order of importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Refused first.
    Sheddable,
    /// What holds when nobody says.
    #[default]
    Default,
    /// Refused last.
    Critical,
}

impl Priority {
    /// Reads a word of `agent-priority`, of `max-priority`; `None` for an unknown one.
    pub fn parse(word: &[u8]) -> Option<Priority> {
        Priority::ALL
            .into_iter()
            .find(|priority| word.trim_ascii().eq_ignore_ascii_case(priority.word().as_bytes()))
    }

    /// All, the least important first.
    pub const ALL: [Priority; 3] = [Priority::Sheddable, Priority::Default, Priority::Critical];

    /// The word in `agent-priority`, metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Priority::Sheddable => "sheddable",
            Priority::Default => "default",
            Priority::Critical => "critical",
        }
    }
}

/// How many calls wait for a place, and how long (`pilotfish.dev/queue`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Calls that wait at most, of all priorities together. 100 by default; 0: nobody waits.
    pub size: u32,
    /// How long a call of the default priority waits at most. 1 s by default.
    pub wait: Duration,
}

impl Default for QueuePolicy {
    fn default() -> Self {
        QueuePolicy { size: 100, wait: Duration::from_secs(1) }
    }
}

impl QueuePolicy {
    /// How long a call waits at most: a sheddable one a twentieth of [`QueuePolicy::wait`] (50 ms), a critical one until its own
    /// deadline, and 30 s when it has none.
    pub fn longest(&self, priority: Priority) -> Duration {
        match priority {
            Priority::Sheddable => self.wait / 20,
            Priority::Default => self.wait,
            Priority::Critical => LONGEST_CRITICAL.max(self.wait),
        }
    }
}

#[cfg(test)]
mod tests;
