//! The telemetry thread: gathers what the workers offer, makes messages of it, and sends them. All that telemetry costs apart
//! from filling a record is here, at a lower priority than the workers.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use pilotfish_filters::clock::Micros;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::gather::{Ends, log_record};
use super::routes::Routes;
use super::{Bell, Item};
use crate::bootstrap::otlp::{Batching, Plan};
use crate::clock::Epoch;
use crate::listen::Direction;
use crate::server::{Shared, yield_to_workers};
use crate::telemetry::access_log::records;
use crate::telemetry::log;
use crate::telemetry::metrics::{self, otlp};
use crate::telemetry::otlp::lane::Counts;
use crate::telemetry::otlp::resource::resource;
use crate::telemetry::otlp::spans::Spans;

/// The wall clock and the process's are compared this often; between that a leap of the wall clock moves no span.
const COMPARE: Duration = Duration::from_secs(10);

/// Runs for the life of the process.
pub fn run(
    shared: Arc<Shared>,
    plan: Plan,
    items: Receiver<Item>,
    bell: Arc<Bell>,
    counts: [Arc<Counts>; 3],
) {
    yield_to_workers();
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(async {
            Thread::new(shared, plan, items, bell, counts).run().await;
        }),
        Err(error) => log::error!("telemetry cannot be sent", error = error),
    }
}

struct Thread {
    shared: Arc<Shared>,
    items: Receiver<Item>,
    bell: Arc<Bell>,
    batching: Batching,
    metric_interval: Duration,
    routes: Routes,
    spans: Spans,
    flushes: Vec<oneshot::Sender<()>>,
    epoch: Epoch,
    compared: Instant,
    /// When the process started, as every export of metrics says it.
    started: u64,
}

impl Thread {
    fn new(
        shared: Arc<Shared>,
        plan: Plan,
        items: Receiver<Item>,
        bell: Arc<Bell>,
        counts: [Arc<Counts>; 3],
    ) -> Thread {
        let settings = &shared.settings;
        let ends = Ends::new(resource(&settings.agent, &settings.namespace, &plan.resource));
        let epoch = shared.clock.epoch();
        Thread {
            items,
            bell,
            batching: plan.batching,
            metric_interval: plan.metric_interval,
            routes: Routes::new(shared.clone(), plan, counts, ends),
            spans: Spans::default(),
            flushes: Vec::new(),
            epoch,
            started: epoch.nanos(Micros(0)),
            compared: Instant::now(),
            shared,
        }
    }

    async fn run(mut self) {
        let first = Instant::now() + self.metric_interval;
        let mut tick = interval_at(first, self.metric_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // A pause: woken by the next item.
            let metrics = self.routes.takes_metrics();
            let due = if self.bell.set(1) > 0 {
                false
            } else {
                tokio::select! {
                    biased;
                    _ = tick.tick(), if metrics => true,
                    () = self.bell.rung.notified() => false,
                }
            };
            if due {
                self.metrics();
                continue;
            }
            // More may come; a whole batch is enough.
            let until = Instant::now() + self.batching.delay;
            while self.bell.set(self.batching.batch) < self.batching.batch {
                tokio::select! {
                    biased;
                    () = sleep_until(until) => break,
                    () = self.bell.rung.notified() => {
                        self.drain().await;
                        if !self.flushes.is_empty() {
                            break;
                        }
                    }
                    _ = tick.tick(), if metrics => self.metrics(),
                }
            }
            self.drain().await;
            self.routes.send();
            self.answer_flushes();
        }
    }

    /// Takes what waits.
    async fn drain(&mut self) {
        if self.compared.elapsed() >= COMPARE {
            (self.epoch, self.compared) = (self.shared.clock.epoch(), Instant::now());
        }
        self.routes.follow();
        let mut taken = 0;
        while let Ok(item) = self.items.try_recv() {
            self.bell.waiting.fetch_sub(1, SeqCst);
            match item {
                Item::Call(call, why) => self.routes.call(&mut self.spans, &call, why, self.epoch),
                Item::Logged(call) => {
                    let line = records::record(&call, self.shared.access_log.fields());
                    self.routes.log(call.direction, &log_record(line, self.epoch));
                }
                // Where its own calls are told of.
                Item::Line(line) => self.routes.log(Direction::Outbound, &log_record(*line, self.epoch)),
                Item::Flush(done) => self.flushes.push(done),
            }
            taken += 1;
            if taken % self.batching.batch == 0 {
                // The lanes are tasks of this thread.
                tokio::task::yield_now().await;
            }
        }
    }

    fn metrics(&mut self) {
        if self.routes.takes_metrics() {
            let now = self.epoch.nanos(self.shared.clock.now());
            self.routes.metrics(otlp::metrics(&metrics::collect(&self.shared), self.started, now));
        }
    }

    /// Tells those who wait for it, once the lanes are empty. Metrics are sent a last time.
    fn answer_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        self.metrics();
        let (flushes, lanes) = (std::mem::take(&mut self.flushes), self.routes.lanes());
        tokio::spawn(async move {
            for lane in lanes {
                lane.flush().await;
            }
            for done in flushes {
                let _ = done.send(());
            }
        });
    }
}
