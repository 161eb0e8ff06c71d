//! Messages both ways on one stream, framed, and never more of them on the way than the other end takes.

use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use pilotfish_config::wire::{Frames, frame};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::Cut;
use crate::problem::broke;

/// An open stream of messages; `M`: those that come.
#[derive(Debug)]
pub struct Messages<M> {
    pub(crate) outgoing: SendStream<Bytes>,
    pub(crate) incoming: RecvStream,
    pub(crate) frames: Frames<M>,
}

impl<M: DeserializeOwned> Messages<M> {
    /// Sends a message; a control plane that does not take it for so long is as good as gone.
    ///
    /// # Errors
    /// It is gone.
    pub async fn say(&mut self, message: &impl Serialize, within: Duration) -> Result<(), Cut> {
        send(&mut self.outgoing, message, within).await
    }

    /// The next message. Cancelling it loses nothing.
    ///
    /// # Errors
    /// The control plane is gone, or sends what is no message.
    pub async fn next(&mut self) -> Result<M, Cut> {
        let broken = |error: pilotfish_config::wire::WireError| Cut::Broken(error.to_string());
        loop {
            if let Some(message) = self.frames.next().map_err(broken)? {
                return Ok(message);
            }
            match self.incoming.data().await {
                Some(Ok(chunk)) => {
                    self.frames.push(&chunk);
                    let released = self.incoming.flow_control().release_capacity(chunk.len());
                    released.map_err(|error| Cut::Away(broke(&error)))?;
                }
                Some(Err(error)) => return Err(Cut::Away(broke(&error))),
                None => {
                    self.frames.end().map_err(broken)?;
                    return Err(Cut::Away("it ended the stream".into()));
                }
            }
        }
    }

    /// Says that nothing more comes, and waits for so long until the other end has ended too.
    pub async fn finish(mut self, within: Duration) {
        let _ = self.outgoing.send_data(Bytes::new(), true);
        let all = async {
            while let Some(Ok(chunk)) = self.incoming.data().await {
                let _ = self.incoming.flow_control().release_capacity(chunk.len());
            }
        };
        let _ = timeout(within, all).await;
    }
}

/// Sends one message, as the other end takes it.
pub(crate) async fn send(
    outgoing: &mut SendStream<Bytes>,
    message: &impl Serialize,
    within: Duration,
) -> Result<(), Cut> {
    let away = |error: h2::Error| Cut::Away(broke(&error));
    let mut bytes = Bytes::from(frame(message).map_err(|error| Cut::Away(error.to_string()))?);
    let all = async {
        while !bytes.is_empty() {
            outgoing.reserve_capacity(bytes.len());
            let granted = std::future::poll_fn(|cx| outgoing.poll_capacity(cx)).await;
            let room = granted.ok_or_else(|| Cut::Away("it takes no more".into()))?.map_err(away)?;
            let part = bytes.split_to(room.min(bytes.len()));
            outgoing.send_data(part, false).map_err(away)?;
        }
        Ok(())
    };
    timeout(within, all).await.unwrap_or_else(|_| Err(Cut::Away("it takes nothing any more".into())))
}
