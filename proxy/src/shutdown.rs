//! The end of the process in order: unready, closing, cut.

use tokio::sync::watch;

/// How far the shutdown has come. The order is the order in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Normal service.
    Serving,
    /// `/ready` fails, everything else goes on, so that others stop choosing this sidecar first.
    Unready,
    /// Listeners are closed, connections are told to close, requests in flight finish.
    Closing,
    /// The deadline has passed: what is still open is cut.
    Cut,
}

/// The phase, for everyone to see and to wait for.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
}

impl Default for Drain {
    fn default() -> Self {
        Drain { phase: watch::Sender::new(Phase::Serving) }
    }
}

impl Drain {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
            }
            later
        });
    }

    /// A receiver to wait on: `receiver.wait_for(|phase| *phase >= Phase::Closing)`.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}
