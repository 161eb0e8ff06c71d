//! What the control plane asks of calls that the workers remember: a few questions at a time, answered as the workers do.

use std::sync::Arc;

use pilotfish_config::wire::{Answered, MOST_ACCOUNTS, Why};
use tokio::task::JoinSet;

use crate::server::Shared;
use crate::telemetry::account;

/// Questions under way; one more is not answered, which the control plane takes for silence.
const AT_A_TIME: usize = 8;

/// Questions of one stream. Dropping it drops them.
#[derive(Debug, Default)]
pub(super) struct Asked(JoinSet<Answered>);

impl Asked {
    /// Looks for the answer.
    pub(super) fn ask(&mut self, shared: &Arc<Shared>, why: Why) {
        if self.0.len() >= AT_A_TIME {
            return;
        }
        let shared = shared.clone();
        self.0.spawn(async move {
            let (calls, left_off) = match account::question(&why) {
                Ok(question) => account::accounts(&shared, &question, MOST_ACCOUNTS).await,
                // Of a later version.
                Err(_) => (Vec::new(), 0),
            };
            Answered { ask: why.ask, calls, left_off }
        });
    }

    /// The next answer; none while nothing is asked.
    pub(super) async fn answer(&mut self) -> Option<Answered> {
        while let Some(answered) = self.0.join_next().await {
            if let Ok(answered) = answered {
                return Some(answered);
            }
        }
        None
    }
}
