//! The end of the process in order: unready, closing, cut.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

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
    request: Notify,
    confirmed: Notify,
}

impl Default for Drain {
    fn default() -> Self {
        Drain { phase: watch::Sender::new(Phase::Serving), request: Notify::new(), confirmed: Notify::new() }
    }
}

impl Drain {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Asks for a drain, as a signal does.
    pub fn request(&self) {
        self.request.notify_one();
    }

    /// Waits until a drain is asked for by [`Drain::request`].
    pub async fn requested(&self) {
        self.request.notified().await;
    }

    /// Nobody chooses this sidecar any more: there is nothing left to wait for while unready.
    pub fn confirm(&self) {
        self.confirmed.notify_one();
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

    /// Waits until the shutdown has come as far as `phase`.
    pub async fn reached(&self, phase: Phase) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.watch().wait_for(|now| *now >= phase).await;
    }
}

/// The signals that end the process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT.
    ///
    /// # Errors
    /// The kernel's, when a handler cannot be set.
    pub fn take() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for either, and names it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for one that means "now": that does not come together with the first.
    pub async fn again(&mut self) -> &'static str {
        let first = Instant::now();
        loop {
            let signal = self.next().await;
            if first.elapsed() >= TOGETHER {
                return signal;
            }
        }
    }
}

/// Signals that come together are one: `timeout` and terminals signal a process and its whole group.
const TOGETHER: Duration = Duration::from_millis(100);

/// Takes the drain through its phases: unready for `delay` (less when [`Drain::confirm`] is called), closing until `served` ends or `deadline` passes, cut.
pub async fn run(drain: &Drain, delay: Duration, deadline: Duration, served: impl Future<Output = ()>) {
    drain.advance(Phase::Unready);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = drain.confirmed.notified() => {}
    }
    drain.advance(Phase::Closing);
    if tokio::time::timeout(deadline, &mut served).await.is_err() {
        drain.advance(Phase::Cut);
        served.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn phases_come_in_order_and_the_deadline_cuts() {
        let drain = Drain::default();
        let start = tokio::time::Instant::now();
        let mut phase = drain.watch();
        let watcher = async {
            let mut seen = Vec::new();
            while phase.changed().await.is_ok() {
                let now = *phase.borrow_and_update();
                seen.push((now, start.elapsed().as_secs()));
                if now == Phase::Cut {
                    return seen;
                }
            }
            seen
        };
        let served = drain.reached(Phase::Cut);
        let run = run(&drain, Duration::from_secs(2), Duration::from_secs(45), served);
        let ((), seen) = tokio::join!(run, watcher);
        assert_eq!(seen, [(Phase::Unready, 0), (Phase::Closing, 2), (Phase::Cut, 47)]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_in_flight_ends_without_a_cut() {
        let drain = Drain::default();
        let start = tokio::time::Instant::now();
        run(&drain, Duration::from_secs(2), Duration::from_secs(45), async {}).await;
        assert_eq!(start.elapsed().as_secs(), 2);
        assert_eq!(drain.phase(), Phase::Closing);
    }

    #[test]
    fn phases_never_go_back() {
        let drain = Drain::default();
        drain.advance(Phase::Closing);
        drain.advance(Phase::Unready);
        assert_eq!(drain.phase(), Phase::Closing);
    }
}
