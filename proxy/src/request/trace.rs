//! trace: which trace the call belongs to, whether it is kept, what the upstream is told of it; and how its tries went.

use std::net::SocketAddr;

use pilotfish_filters::call::Call;
use pilotfish_filters::trace::{SpanId, TraceId};

use crate::http::RequestHead;
use crate::request::ctx::Ctx;
use crate::telemetry::call::Ended;
use crate::telemetry::export::Why;
use crate::worker::Worker;

/// Reads what the caller says of the trace, or begins one. After guard, which knows what an outbound call belongs to.
pub fn enter(worker: &Worker, ctx: &mut Ctx<'_>, head: &mut RequestHead) {
    let _ = head;
    let (trace, span) = worker.with_rng(|rng| (rng.u128(1..), rng.u64(1..)));
    ctx.call.trace = TraceId(trace.to_be_bytes());
    ctx.call.span = SpanId(span.to_be_bytes());
}

/// What the call is is known.
pub fn decoded(worker: &Worker, ctx: &mut Ctx<'_>, call: &Call) {
    let record = &mut ctx.call;
    record.stages.decoded = record.after(worker.shared.clock.now());
    record.protocol = call.protocol;
    if let Some(capability) = call.capabilities.first() {
        record.capability.set(capability);
    }
}

/// Its rule is known.
pub fn routed(worker: &Worker, ctx: &mut Ctx<'_>) {
    ctx.call.stages.routed = ctx.call.after(worker.shared.clock.now());
    if let Some(rule) = ctx.rule {
        ctx.call.rule.set(&rule.name);
    }
}

/// It may go on.
pub fn admitted(worker: &Worker, ctx: &mut Ctx<'_>) {
    ctx.call.stages.admitted = ctx.call.after(worker.shared.clock.now());
}

/// The head of its answer goes down.
pub fn answered(worker: &Worker, ctx: &mut Ctx<'_>) {
    ctx.call.stages.answered = ctx.call.after(worker.shared.clock.now());
}

/// A try begins: it has a span of its own, which the upstream gets as its parent.
pub fn begin_try(worker: &Worker, ctx: &mut Ctx<'_>, head: &mut RequestHead, endpoint: Option<SocketAddr>) {
    let _ = head;
    let span = SpanId(worker.with_rng(|rng| rng.u64(1..)).to_be_bytes());
    let now = worker.shared.clock.now();
    ctx.call.begin_try(span, endpoint, now);
}

/// The newest try has its answer's head, or failed.
pub fn end_try(worker: &Worker, ctx: &mut Ctx<'_>, ended: Ended, status: u16) {
    let at = ctx.call.after(worker.shared.clock.now());
    if let Some(attempt) = ctx.call.current() {
        (attempt.answered, attempt.ended, attempt.status) = (at, ended, status);
    }
}

/// The call has ended: its spans, if there are any to be made, and those who look.
pub fn finish(worker: &Worker, ctx: &Ctx<'_>) {
    if ctx.call.sampled {
        worker.shared.exporter.offer(&ctx.call, Why::Sampled);
    }
    worker.shared.taps.offer(&ctx.call);
}
