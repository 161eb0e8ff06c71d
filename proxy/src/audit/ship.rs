//! The way of the log to the control plane: one batch at a time, the next when the one before is acknowledged, from the files; so
//! what was not acknowledged is sent again by the next stream, and after a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pilotfish_audit::reader::{Most, Reader};
use pilotfish_config::wire::{AuditBatch, AuditTaken};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::server::Shared;
use crate::telemetry::log;

/// What a message carries at most: little beside what else the stream has to carry.
const MOST: Most = Most { lines: 512, bytes: 256 << 10 };
/// A batch that is not acknowledged for so long is sent again; a control plane that knows no audit log never does.
const AGAIN: Duration = Duration::from_secs(30);
/// Between two batches: a control plane takes a hundred messages within a second, of all kinds.
const PAUSE: Duration = Duration::from_millis(25);

/// What one stream sent.
#[derive(Debug)]
pub struct Shipping {
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
    reader: Option<Reader>,
    /// What comes next, without files.
    next: u64,
    /// A batch is under way; it is sent again then.
    again: Option<Instant>,
    /// No other before.
    pause: Instant,
    /// That the log cannot be read was said.
    told: bool,
}

impl Shipping {
    /// Of a stream that was just opened.
    pub fn new(shared: &Arc<Shared>) -> Shipping {
        let durable = shared.audit.state.durable.subscribe();
        Shipping {
            shared: shared.clone(),
            durable,
            reader: None,
            next: 0,
            again: None,
            pause: Instant::now(),
            told: false,
        }
    }

    /// The next batch, once there is one. May be dropped at any time.
    pub async fn next(&mut self) -> AuditBatch {
        loop {
            if let Some(again) = self.again {
                sleep_until(again).await;
                self.again = None;
                self.rewind(self.shared.audit.state.acked.load(Relaxed));
            }
            sleep_until(self.pause).await;
            if let Some(batch) = self.read() {
                (self.again, self.pause) = (Some(Instant::now() + AGAIN), Instant::now() + PAUSE);
                return batch;
            }
            if self.durable.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn read(&mut self) -> Option<AuditBatch> {
        let until = *self.durable.borrow_and_update();
        let state = &self.shared.audit.state;
        let (chain, place) = state.chain()?;
        if self.next == 0 {
            self.next = state.acked.load(Relaxed) + 1;
        }
        if self.next > until {
            return None;
        }
        let (prev, lines) = match place {
            None => state.remembered(self.next, MOST),
            Some(place) => {
                let reader = self.reader.get_or_insert_with(|| Reader::new(place, self.next));
                match reader.read(until, MOST) {
                    Ok(read) => read,
                    // Tried again with the next record.
                    Err(error) => {
                        self.reader = None;
                        if !std::mem::replace(&mut self.told, true) {
                            log::warn!(
                                "audit records cannot be read, so the control plane does not get them",
                                folder = place.display(),
                                error = error
                            );
                        }
                        return None;
                    }
                }
            }
        };
        let last = pilotfish_audit::chain::seq(lines.last()?.as_bytes())?;
        self.next = last + 1;
        let prev = prev.map(|prev| prev.as_str().to_owned()).unwrap_or_default();
        Some(AuditBatch { chain: chain.clone(), prev, lines })
    }

    /// The control plane has what it says, and wants what is behind it.
    pub fn taken(&mut self, taken: &AuditTaken) {
        let state = &self.shared.audit.state;
        if state.chain().is_none_or(|(chain, _)| *chain != taken.chain) {
            return;
        }
        state.taken(taken.seq);
        self.again = None;
        if taken.seq + 1 != self.next {
            self.rewind(taken.seq);
        }
    }

    fn rewind(&mut self, seq: u64) {
        (self.next, self.reader) = (seq + 1, None);
    }
}
