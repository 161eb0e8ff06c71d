//! The stream: one for the life of the process, moved to another control plane whenever it ends.

mod asked;
mod session;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use pilotfish_client::{Address, Backoff};
use pilotfish_config::wire::{Resume, State};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::idle::Idle;
use super::member::Member;
use crate::audit::ship::Shipping;
use crate::control::limits::Uses;
use crate::source::file::Event;
use crate::telemetry::log;
use crate::telemetry::metrics::edges::Edges;
use asked::Asked;
use session::Ended;

/// Updates that wait for the configuration thread; more stay in the control plane, which then sends the newest only.
const WAITING: usize = 8;

/// A stream that lived so long was a good one: the next try comes soon.
const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// How often a control plane that stays away is mentioned in the log.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// Whether all workers serve a version is looked at so often at first, later rarer.
const SERVED_FIRST: Duration = Duration::from_millis(1);
const SERVED_LATER: Duration = Duration::from_millis(20);

/// Keeps the stream.
#[derive(Debug)]
pub struct Stream {
    member: Arc<Member>,
    configuration: mpsc::Sender<Event>,
    places: Arc<Semaphore>,
    /// What was received last, and what the next hello says of it.
    resume: Option<Resume>,
    /// What the stream was told of rate limits.
    uses: Uses,
    /// What the stream asks of calls.
    asked: Asked,
    /// How far the audit log was sent.
    audit: Shipping,
    /// How long the agent has had no call.
    idle: Idle,
    /// What control planes were told of whom the agent calls.
    edges: Edges,
}

impl Stream {
    /// A stream that goes on from what is on the disk.
    pub fn new(member: Arc<Member>, configuration: mpsc::Sender<Event>, resume: Option<Resume>) -> Self {
        Stream {
            audit: Shipping::new(&member.shared),
            member,
            configuration,
            places: Arc::new(Semaphore::new(WAITING)),
            resume,
            uses: Uses::default(),
            asked: Asked::default(),
            idle: Idle::default(),
            edges: Edges::default(),
        }
    }

    /// Connects, again and again, for the life of the process.
    pub async fn run(mut self) {
        let addresses = self.member.shared.settings.control.addresses.clone();
        let (mut rng, mut backoff, mut said) = (fastrand::Rng::new(), Backoff::default(), Said::default());
        let mut at = rng.usize(..addresses.len().max(1));
        loop {
            let Some(address) = addresses.get(at) else { return };
            let start = Instant::now();
            let ended = self.session(address).await;
            let was_connected = self.member.is_connected();
            self.member.set_connected(false);
            said.ended(address, &ended, was_connected);
            at = (at + 1) % addresses.len();
            let wait = match ended {
                Ended::Refused { retry: false, .. } => backoff.slow(&mut rng),
                _ if was_connected && start.elapsed() >= LONG_ENOUGH => {
                    backoff.reset();
                    backoff.next(&mut rng)
                }
                _ => backoff.next(&mut rng),
            };
            tokio::time::sleep(wait).await;
        }
    }
}

/// What the log says of a stream that ends: each change, and now and then that it stays so.
#[derive(Debug, Default)]
struct Said(Option<Instant>);

impl Said {
    fn ended(&mut self, address: &Address, ended: &Ended, was_connected: bool) {
        match ended {
            Ended::Refused { reason, retry: false } => {
                log::error!(
                    "the control plane refuses this sidecar, what it has goes on serving",
                    control = address,
                    why = reason
                );
                self.0 = Some(Instant::now());
            }
            Ended::Refused { reason: why, .. } | Ended::Lost(why) => {
                if was_connected || self.0.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                    log::warn!(
                        "no control plane, what it sent goes on serving",
                        control = address,
                        why = why
                    );
                    self.0 = Some(Instant::now());
                }
            }
            Ended::Broken(why) => {
                log::error!(
                    "what the control plane sends cannot be read, the stream is closed",
                    control = address,
                    why = why
                );
                self.0 = Some(Instant::now());
            }
        }
    }
}

/// Turns how far the configuration thread and the workers have come into what the control plane is told.
pub async fn follow_progress(member: Arc<Member>) {
    let mut progress = member.progress.subscribe();
    loop {
        let now = progress.borrow_and_update().clone();
        let told = |serving| State { accepted: now.accepted, serving, refused: now.refused.clone() };
        let before = member.state.borrow().serving;
        let snapshots = &member.shared.snapshots;
        let start = Instant::now();
        // One message instead of two when the workers are quick.
        while snapshots.served() < now.snapshot && !progress.has_changed().unwrap_or(false) {
            snapshots.nudge();
            let early = start.elapsed() < SERVED_LATER;
            if !early {
                tell(&member, told(before.min(now.accepted)));
            }
            tokio::time::sleep(if early { SERVED_FIRST } else { SERVED_LATER }).await;
        }
        let served = snapshots.served() >= now.snapshot;
        tell(&member, told(if served { now.accepted } else { before.min(now.accepted) }));
        if progress.changed().await.is_err() {
            return;
        }
    }
}

fn tell(member: &Member, state: State) {
    member.state.send_if_modified(|told| {
        let differs = *told != state;
        if differs {
            *told = state;
        }
        differs
    });
}
