//! How long the local agent has had no call: looked at with every report, so that calls pay nothing for it.

use std::time::Duration;

use tokio::time::Instant;

use crate::listen::Direction;
use crate::server::Shared;

/// What was seen of the agent's calls.
#[derive(Debug)]
pub struct Idle {
    since: Instant,
    /// Calls that had ended.
    ended: u64,
}

impl Default for Idle {
    fn default() -> Self {
        Idle { since: Instant::now(), ended: 0 }
    }
}

impl Idle {
    /// Looks again; gives how long no call has been in flight, streams and tunnels included. It is never longer than that, and
    /// shorter by the time between two looks at most.
    pub fn look(&mut self, shared: &Shared, now: Instant) -> Duration {
        let inbound = || shared.metrics.iter().map(|worker| worker.direction(Direction::Inbound));
        let ended = inbound().fold(0u64, |sum, calls| sum.wrapping_add(calls.ended()));
        let active = inbound().fold(0u64, |sum, calls| sum.wrapping_add(calls.active_requests.get())) > 0;
        if active || std::mem::replace(&mut self.ended, ended) != ended {
            self.since = now;
        }
        now.saturating_duration_since(self.since)
    }
}
