//! What became of spans, metrics and log records on their way to whoever collects them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::server::Shared;
use crate::telemetry::metrics::family::{Families, Kind};
use crate::telemetry::otlp::lane::Counts;
use crate::telemetry::otlp::target::Signal;

pub(super) fn collect(page: &mut Families, shared: &Shared) {
    let exporter = &shared.exporter;
    let by_signal = |page: &mut Families, counter: fn(&Counts) -> &AtomicU64| {
        for signal in Signal::ALL {
            page.by("signal", signal.word(), counter(exporter.of(signal)).load(Relaxed));
        }
    };
    let help = "Spans, metrics and log records that were taken by whoever collects them.";
    page.family("pilotfish_telemetry_sent_total", Kind::Counter, help);
    by_signal(page, |counts| &counts.sent);
    let help = "Spans, metrics and log records that were dropped: the queue was full, the target slower than what is to be \
                sent, away for too long, or it refused them.";
    page.family("pilotfish_telemetry_dropped_total", Kind::Counter, help);
    type Reason = (&'static str, fn(&Counts) -> &AtomicU64);
    let reasons: [Reason; 4] = [
        ("queue-full", |counts| &counts.queue_full),
        ("target-slow", |counts| &counts.target_slow),
        ("failed", |counts| &counts.failed),
        ("refused", |counts| &counts.refused),
    ];
    for signal in Signal::ALL {
        for (reason, counter) in reasons {
            let labels = vec![("signal", signal.word().into()), ("reason", reason.into())];
            page.sample(labels, counter(exporter.of(signal)).load(Relaxed));
        }
    }
    page.family(
        "pilotfish_telemetry_batches_failed_total",
        Kind::Counter,
        "Batches of telemetry that were dropped.",
    );
    by_signal(page, |counts| &counts.batches_failed);
    let help = "Calls and log records that wait for the telemetry thread.";
    page.single("pilotfish_telemetry_queue", Kind::Gauge, help, exporter.waiting() as u64);
}
