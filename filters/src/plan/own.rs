//! What the sidecar's own Sidecar document says of all its calls, in both directions.

use std::time::Duration;

use pilotfish_config::model::Sidecar;

use crate::call_path::PathPolicy;
use crate::compile::timeouts;
use crate::deadline::Timeouts;
use crate::dedup::DedupSettings;

/// Policies for all calls of one agent; rules may say more.
#[derive(Debug, Clone)]
pub struct Own {
    /// Depth, cycles, fan-out, priority.
    pub path: PathPolicy,
    /// How long nothing may move on an inbound call when its caller's sidecar does not say; `None`: for ever.
    pub stream_idle: Option<Duration>,
    /// How inbound calls with a key are remembered.
    pub dedup: DedupSettings,
}

impl Default for Own {
    fn default() -> Self {
        let stream_idle = Timeouts::default().stream_idle;
        Own { path: PathPolicy::default(), stream_idle, dedup: DedupSettings::default() }
    }
}

impl Own {
    pub(crate) fn of(sidecar: &Sidecar) -> Own {
        let find = |name: &str| sidecar.meta.annotation(name);
        Own {
            path: PathPolicy::read(find),
            stream_idle: timeouts(find).stream_idle,
            dedup: DedupSettings::read(find),
        }
    }

    /// Whether it matters which inbound call an outbound one belongs to, so much that bodies are read for it.
    pub fn reads_conversations(&self) -> bool {
        self.path.fan_out.is_some() || self.path.cycles == Some(crate::call_path::Cycles::Deny)
    }
}
