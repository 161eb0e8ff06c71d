//! record: the finished request becomes counters and, when asked for, one line of the access log.

use std::time::Duration;

use pilotfish_filters::verdict::Deny;

use crate::http::ConnContext;
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::request::{explain, trace};
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::Finished;
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
    tell(worker, &mut ctx, places, duration);
    if let (Some(log), Some(asked)) = (&worker.shared.access_log, &ctx.asked) {
        log.record(&Finished {
            direction: ctx.direction,
            peer: ctx.peer.ip(),
            protocol: asked.protocol,
            method: asked.method.as_str(),
            authority: &asked.authority,
            path: &asked.path,
            status: ctx.status,
            reason: ctx.reason,
            rule: ctx.rule.map_or("", |rule| &rule.name),
            cluster: ctx.cluster.unwrap_or_default(),
            endpoint: ctx.endpoint,
            request_id: &asked.request_id,
            duration,
            request_bytes: ctx.sent,
            response_bytes: ctx.received,
        });
    }
}

/// Completes the call's record, and hands it on.
fn tell(worker: &Worker, ctx: &mut Ctx<'_>, places: Places, duration: Duration) {
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
    ctx.call.remember();
}

/// Counts a request that could not be parsed, so that nothing is known of it but who sent it.
pub fn refused(worker: &Worker, direction: Direction, conn: &ConnContext, deny: &Deny) {
    worker.metrics.finished(direction, Some(deny.reason.status()), Duration::ZERO);
    worker.metrics.refused(deny.reason);
    worker.metrics.unparsed(direction, conn.h2, deny.reason);
    if let Some(log) = &worker.shared.access_log {
        log.record(&Finished {
            direction,
            peer: conn.peer.ip(),
            protocol: if conn.h2 { "HTTP/2" } else { "HTTP/1.1" },
            method: "",
            authority: "",
            path: "",
            status: Some(deny.reason.status()),
            reason: Some(deny.reason),
            rule: "",
            cluster: "",
            endpoint: None,
            request_id: "",
            duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
        });
    }
}
