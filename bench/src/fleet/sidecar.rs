//! A simulated sidecar: it joins, says hello, takes each update as served, and lives.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pilotfish_config::wire::{Heartbeat, Hello, Reading, State, Status, ToControl, ToSidecar, Versions};
use tokio::time::{Instant, sleep_until};

use super::link::{Identity, Link};

/// What sidecars saw, together.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Bytes of frames.
    pub(super) bytes: AtomicU64,
    /// Heartbeats that were sent.
    pub(super) beats: AtomicU64,
    /// Streams that ended although nobody ended them.
    pub(super) ended: AtomicU64,
}

/// An open stream.
pub(super) struct Sidecar {
    link: Link,
    every: Duration,
    seen: Arc<Seen>,
}

impl Sidecar {
    /// Connects, and returns when the first update is there.
    pub(super) async fn open(identity: &Identity, number: usize, seen: Arc<Seen>) -> io::Result<Sidecar> {
        let hello = ToControl::Hello(Box::new(hello(identity, number)));
        let link = Link::open(identity, "/v1/stream", &hello).await?;
        let mut sidecar = Sidecar { link, every: Duration::from_secs(3), seen };
        while !sidecar.receive().await? {}
        Ok(sidecar)
    }

    /// Lives until it is dropped.
    pub(super) async fn live(mut self) {
        let seen = self.seen.clone();
        if let Err(error) = self.beat().await {
            eprintln!("         a stream ended: {error}");
            seen.ended.fetch_add(1, Relaxed);
        }
    }

    async fn beat(&mut self) -> io::Result<()> {
        // Spread over the time between two.
        let mut due = Instant::now() + self.every.mul_f64(fastrand::f64());
        loop {
            tokio::select! {
                received = self.receive() => { received?; }
                () = sleep_until(due) => {
                    due += self.every;
                    let beat = Heartbeat { status: Status::Ready, ..Heartbeat::default() };
                    self.link.send(&ToControl::Heartbeat(beat)).await?;
                    self.seen.beats.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// Takes in what comes next; gives whether an update was among it, which counts as served at once.
    async fn receive(&mut self) -> io::Result<bool> {
        let came = self.link.receive().await?;
        self.seen.bytes.fetch_add(came as u64, Relaxed);
        let mut served = None;
        while let Some(frame) = self.link.frame() {
            // Only its version: reading documents is the real sidecar's work, which is measured elsewhere.
            match version(&frame) {
                Some(version) => served = Some(version),
                None => match serde_json::from_slice(&frame)? {
                    ToSidecar::Welcome(welcome) => self.every = Duration::from_millis(welcome.heartbeat_ms),
                    ToSidecar::Refused(refused) => return Err(io::Error::other(refused.reason)),
                    _ => {}
                },
            }
        }
        if let Some(version) = served {
            let state = State { accepted: version, serving: version, refused: None };
            self.link.send(&ToControl::State(state)).await?;
        }
        Ok(served.is_some())
    }
}

/// The version of an update, which begins with its type and version.
fn version(frame: &[u8]) -> Option<u64> {
    let rest = frame.strip_prefix(br#"{"type":"update","version":"#)?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

fn hello(identity: &Identity, number: usize) -> Hello {
    let labels = [("app", identity.agent.as_str()), ("version", "v1")];
    let ip = [10, (number >> 16) as u8, (number >> 8) as u8, number as u8];
    Hello {
        capacity: 0,
        versions: Versions::own(),
        agent: identity.agent.clone(),
        namespace: identity.namespace.clone(),
        instance: format!("{:032x}", fastrand::u128(..)),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        locality: Some("region-1/zone-a".into()),
        address: Some(SocketAddr::from((ip, 15006))),
        weight: 1,
        capabilities: vec!["natural_language_understanding@1.2.0".into(), "summarisation".into()],
        status: Status::Ready,
        resume: None,
        certificate_expires: None,
        dedup_epoch: None,
        signs_chains: true,
        reading: Reading::default(),
    }
}
