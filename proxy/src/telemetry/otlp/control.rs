//! The control plane as a target: its own port, and the identity of the sidecar.

use bytes::Bytes;
use pilotfish_client::{Connection, Proof};

use super::send::{Answer, Verdict};
use super::target::Signal;
use crate::control::connect::connect;
use crate::server::Shared;

/// The way to whichever control plane answers.
#[derive(Debug, Default)]
pub struct Control {
    connection: Option<Connection>,
    /// Which of the addresses is tried next.
    next: usize,
}

impl Control {
    /// Sends one message of the signal's service.
    pub async fn send(&mut self, shared: &Shared, signal: Signal, message: Bytes) -> Verdict {
        let path = format!("/v1/otlp/{}", signal.word());
        let live = &shared.tls.live;
        if live.load().credentials.is_none() {
            return Verdict::Later(None, "the sidecar has no identity yet".into());
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let addresses = &shared.settings.control.addresses;
                let Some(address) = addresses.get(self.next % addresses.len().max(1)) else {
                    return Verdict::Never("there is no control plane (--control)".into());
                };
                self.next = self.next.wrapping_add(1);
                match connect(shared, address, &Proof::Live(live.clone())).await {
                    Ok(connection) => connection,
                    Err(problem) => return Verdict::Later(None, problem.to_string()),
                }
            }
        };
        match connection.post_bytes(&path, "application/x-protobuf", message).await {
            Ok(answer) => {
                let pilotfish_client::Answer { status, headers, body } = answer;
                let answer = Answer { status, headers, body };
                // Another one may have room.
                if !matches!(answer.status, 429 | 502..=504) {
                    self.connection = Some(connection);
                }
                answer.of_http(signal)
            }
            Err(problem) => Verdict::Later(None, problem.to_string()),
        }
    }

    /// Closes the connection.
    pub fn rest(&mut self) {
        self.connection = None;
    }
}
