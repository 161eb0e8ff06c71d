//! record: the finished request becomes counters and, when asked for, one line of the access log.

use std::time::Duration;

use pilotfish_filters::verdict::Deny;

use crate::http::ConnContext;
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::request::{explain, trace};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Places;
use crate::worker::Worker;

/// Counts a request that has ended, however it ended.
pub fn record(worker: &Worker, snapshot: &Snapshot, mut ctx: Ctx<'_>) {
    let duration = worker.shared.clock.now().since(ctx.started);
    let metrics = &worker.metrics;
    metrics.finished(ctx.direction, ctx.status, duration);
    if let Some(reason) = ctx.reason {
        metrics.refused(reason);
    }
    let mut places = Places::default();
    // The names are parts of this request's snapshot, which need not be the newest.
    let (shared, version) = (&worker.shared, snapshot.version);
    if let Some(rule) = ctx.rule {
        let slot = worker.rules.of(&shared.rules, version, rule.number, &rule.name);
        metrics.finished_by_rule(slot, ctx.status);
        places.rule = Some(slot);
    }
    if let Some(cluster) = ctx.cluster {
        let slot = worker.clusters.of(&shared.clusters, version, cluster);
        metrics.finished_by_cluster(slot, ctx.status, duration);
        places.cluster = Some(slot);
    }
    let direction = metrics.direction(ctx.direction);
    direction.request_bytes.add(ctx.sent);
    direction.response_bytes.add(ctx.received);
    tell(worker, snapshot, &mut ctx, places, duration);
}

/// Completes the call's record, and hands it on.
fn tell(worker: &Worker, snapshot: &Snapshot, ctx: &mut Ctx<'_>, places: Places, duration: Duration) {
    let call = &mut *ctx.call;
    call.stages.ended = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    (call.status, call.reason) = (ctx.status.unwrap_or(0), ctx.reason);
    (call.sent, call.received) = (ctx.sent, ctx.received);
    if let Some(cluster) = ctx.cluster {
        call.cluster.set(cluster);
    }
    if let Some(agentic) = ctx.agentic.take() {
        let told = agentic.finish(call);
        worker.metrics.told(&told, call, places.cluster, worker.vocabulary());
    }
    explain::finish(ctx);
    trace::finish(worker, ctx);
    let call = &*ctx.call;
    worker.metrics.ended(call, places);
    worker.metrics.called(call, worker.vocabulary());
    let (log, policy) = (&worker.shared.access_log, &ctx.direction.telemetry(&snapshot.plan).access_log);
    if log.wants(policy) {
        ctx.call.keep_names(ctx.rule.map_or("", |rule| &rule.name), ctx.cluster.unwrap_or_default());
        log.end(policy, &ctx.call, &worker.shared.exporter);
    }
    ctx.call.remember();
}

/// Counts a request that could not be parsed, so that nothing is known of it but who sent it.
pub fn refused(worker: &Worker, direction: Direction, conn: &ConnContext, deny: &Deny) {
    worker.metrics.finished(direction, Some(deny.reason.status()), Duration::ZERO);
    worker.metrics.refused(deny.reason);
    worker.metrics.unparsed(direction, conn.h2, deny.reason);
    let (log, snapshot) = (&worker.shared.access_log, worker.pin());
    let policy = &direction.telemetry(&snapshot.plan).access_log;
    if log.wants(policy) {
        let mut call = worker.calls.take();
        call.begin(direction, conn.peer, worker.shared.clock.now());
        call.h2 = conn.h2;
        (call.status, call.reason) = (deny.reason.status(), Some(deny.reason));
        log.end(policy, &call, &worker.shared.exporter);
    }
}
