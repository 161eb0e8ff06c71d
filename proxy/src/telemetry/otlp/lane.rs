//! Batches on their way to one target, one after the other: patience with a target that is away, and an end to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use pilotfish_client::Backoff;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::send::{Sender, Verdict};
use super::target::Signal;
use crate::telemetry::log;

/// Batches that wait for a target.
const WAITING: usize = 4;
/// After this time without an end a batch is dropped.
const PATIENCE: Duration = Duration::from_secs(64);
/// Waits between two tries, unless the target says how long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// A connection that nothing was sent on for this long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// A target that stays away is written of this often.
const REMIND: Duration = Duration::from_secs(600);

/// What became of the items of one signal.
#[derive(Debug, Default)]
pub struct Counts {
    /// They were taken.
    pub sent: AtomicU64,
    /// The queue between the workers and the telemetry thread was full.
    pub queue_full: AtomicU64,
    /// The target was slower than what is to be sent.
    pub target_slow: AtomicU64,
    /// The target was away for too long, or will never take them.
    pub failed: AtomicU64,
    /// The target took the batch but not them.
    pub refused: AtomicU64,
    /// Batches that were dropped.
    pub batches_failed: AtomicU64,
}

/// Some items as one message.
#[derive(Debug)]
struct Batch {
    message: Bytes,
    items: u64,
}

#[derive(Debug)]
enum Entry {
    Batch(Batch),
    /// Everything before this has been sent, or given up.
    Flush(oneshot::Sender<()>),
}

/// The end of a lane that batches go into.
#[derive(Debug, Clone)]
pub struct Lane {
    entries: mpsc::Sender<Entry>,
    counts: Arc<Counts>,
}

impl Lane {
    /// A lane, whose other end runs as a task of this runtime until this end is dropped.
    pub fn start(name: &str, signal: Signal, sender: Sender, counts: Arc<Counts>) -> Lane {
        let (entries, waiting) = mpsc::channel(WAITING);
        let course = Course {
            name: name.to_owned(),
            signal,
            sender,
            counts: counts.clone(),
            away: None,
            backoff: backoff(),
        };
        tokio::spawn(course.run(waiting));
        Lane { entries, counts }
    }

    /// Sends a batch, or counts its items when too many batches wait already; whether there was room.
    pub fn push(&self, message: Bytes, items: u64) -> bool {
        let room = self.entries.try_send(Entry::Batch(Batch { message, items })).is_ok();
        if !room {
            self.counts.target_slow.fetch_add(items, Relaxed);
            self.counts.batches_failed.fetch_add(1, Relaxed);
        }
        room
    }

    /// Waits until everything pushed before has been sent, or given up.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.entries.send(Entry::Flush(done)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

fn backoff() -> Backoff {
    Backoff::new(FIRST_WAIT, LONGEST_WAIT)
}

/// The other end.
struct Course {
    name: String,
    signal: Signal,
    sender: Sender,
    counts: Arc<Counts>,
    /// When it was last written that the target is away.
    away: Option<Instant>,
    backoff: Backoff,
}

impl Course {
    async fn run(mut self, mut waiting: mpsc::Receiver<Entry>) {
        loop {
            let entry = match tokio::time::timeout(IDLE, waiting.recv()).await {
                Ok(entry) => entry,
                Err(_) => {
                    self.sender.rest();
                    waiting.recv().await
                }
            };
            match entry {
                Some(Entry::Batch(batch)) => self.deliver(batch).await,
                Some(Entry::Flush(done)) => drop(done.send(())),
                None => return,
            }
        }
    }

    async fn deliver(&mut self, batch: Batch) {
        let began = Instant::now();
        loop {
            match self.sender.send(self.signal, batch.message.clone()).await {
                Verdict::Taken(refused, why) => {
                    let refused = refused.min(batch.items);
                    self.counts.sent.fetch_add(batch.items - refused, Relaxed);
                    self.counts.refused.fetch_add(refused, Relaxed);
                    if refused > 0 {
                        self.complain("telemetry is refused in part", &why);
                    } else if self.away.take().is_some() {
                        log::info!(
                            "telemetry is taken again",
                            target = self.name,
                            signal = self.signal.word()
                        );
                    }
                    self.backoff.reset();
                    return;
                }
                Verdict::Later(asked, why) => {
                    self.complain("telemetry cannot be sent now", &why);
                    let wait = self.backoff.next(&mut fastrand::Rng::new());
                    let wait = asked.map_or(wait, |asked| asked.max(wait));
                    if began.elapsed() + wait >= PATIENCE {
                        return self.give_up(&batch);
                    }
                    tokio::time::sleep(wait).await;
                }
                Verdict::Never(why) => {
                    self.complain("telemetry is refused", &why);
                    return self.give_up(&batch);
                }
            }
        }
    }

    fn give_up(&self, batch: &Batch) {
        self.counts.failed.fetch_add(batch.items, Relaxed);
        self.counts.batches_failed.fetch_add(1, Relaxed);
    }

    /// Writes it once for as long as it lasts, with a reminder now and then. Never what was sent, nor any header.
    fn complain(&mut self, what: &str, why: &str) {
        let now = Instant::now();
        if self.away.is_none_or(|last| now.duration_since(last) >= REMIND) {
            self.away = Some(now);
            log::warn!(what, target = self.name, signal = self.signal.word(), why = why);
        }
    }
}
