//! A try beside the first: when a safe call without a body takes long, it is sent to another endpoint as well. The first good
//! answer wins; the other try is dropped at once, which resets its stream or closes its connection.

use std::pin::pin;
use std::time::Duration;

use pilotfish_filters::clock::Micros;
use pilotfish_filters::cluster::{Cluster, Lease, Outcome};
use pilotfish_filters::hedge::Hedge;
use pilotfish_filters::trace::SpanId;

use super::Task;
use super::attempt::{Sent, Unsent, protocol, try_way};
use super::course::Course;
use crate::http::{Downstream, Framing, Pump, RequestHead, exchange_alone};
use crate::request::ctx::Ctx;
use crate::request::dial::{self, Protocol};
use crate::request::select::{self, Selected, Wish};
use crate::request::trace;
use crate::request::{credential, guard};
use crate::telemetry::call::Ended;
use crate::worker::Worker;

/// The first try, where it goes and what it has.
pub struct First<'a> {
    /// The way to its endpoint.
    pub way: dial::Way<'a>,
    /// The cluster in whose budget both are.
    pub cluster: &'a Cluster,
    /// Its endpoint's lease.
    pub lease: &'a Lease,
    /// When it began.
    pub began: Micros,
    /// `perTryTimeout`.
    pub limit: Option<Duration>,
}

/// The try beside it.
pub struct Second<'p> {
    /// It has the answer.
    pub won: bool,
    /// Its CLIENT span.
    pub span: SpanId,
    /// How it ended, and the status of its answer.
    pub ended: (Ended, u16),
    /// How the first try ended, if it did before this one won.
    pub first: (Ended, u16),
    /// Where it went.
    pub cluster: &'p Cluster,
    /// Its endpoint's lease.
    pub lease: Lease,
    /// When it began.
    pub began: Micros,
    /// What its endpoint speaks.
    pub protocol: Protocol,
    /// Its endpoint is another sidecar that proved so.
    pub by_sidecar: bool,
}

/// How long the first try is waited for; `None`: there is no other beside it.
pub fn delay(
    hedge: Option<Hedge>,
    cluster: &Cluster,
    course: &Course<'_>,
    head: &RequestHead,
    down: &Downstream<'_>,
) -> Option<Duration> {
    let hedge = hedge?;
    let may = course.may_hedge() && down.framing().is_empty() && head.upgrade().is_none();
    may.then(|| hedge.delay(cluster.limits.times())).flatten()
}

/// Sends the first try, and after `delay` another. Gives the answer that won, or the first try's failure; and the second try if
/// there was one.
pub async fn race<'p>(
    worker: &Worker,
    task: &Task<'p, '_>,
    ctx: &Ctx<'_>,
    first: &First<'_>,
    (wish, delay): (&Wish<'_>, Duration),
    (head, down): (&mut RequestHead, &mut Downstream<'_>),
) -> (Result<Sent, Unsent>, Option<Second<'p>>) {
    let (mut other_head, is_h2) = (head.clone(), down.is_h2());
    let mut one = pin!(try_way(worker, ctx, &first.way, head, down, first.limit));
    if let Some(tried) = worker.timers.within(delay, &mut one).await {
        return (tried, None);
    }
    let Some(mut second) = choose(worker, task, ctx, first, wish, &mut other_head, is_h2) else {
        return (one.await, None);
    };
    let now = worker.shared.clock.now();
    let Some(_place) = task.plan.retry_permit(first.cluster, first.lease.endpoint(), now) else {
        worker.metrics.hedges.over_budget.add(1);
        return (one.await, None);
    };
    worker.metrics.hedges.sent.add(1);
    let mut failed: Option<Result<Sent, Unsent>> = None;
    let lost = {
        // On the heap: few calls get this far.
        let mut other = Box::pin(send(worker, task, ctx, &second, &mut other_head));
        loop {
            tokio::select! {
                biased;
                tried = &mut one, if failed.is_none() => match tried {
                    Ok(sent) if sent.head.status.as_u16() < 500 => break Lost::Itself(Ok(sent)),
                    Err(unsent) if unsent.happened().is_none() => break Lost::Itself(Err(unsent)),
                    tried => failed = Some(tried),
                },
                answered = &mut other => match answered {
                    Some(sent) if sent.head.status.as_u16() < 500 => {
                        worker.metrics.hedges.won.add(1);
                        break Lost::First(sent);
                    }
                    answered => break Lost::Second(answered),
                },
            }
        }
    };
    match lost {
        Lost::Itself(tried) => (tried, Some(second)),
        Lost::First(sent) => {
            second.won = true;
            second.first = failed.as_ref().map_or((Ended::Cancelled, 0), trace::ended);
            (Ok(sent), Some(second))
        }
        Lost::Second(answered) => {
            let now = worker.shared.clock.now();
            second.ended = answered
                .as_ref()
                .map_or((Ended::Reset, 0), |sent| (Ended::Answered, sent.head.status.as_u16()));
            let outcome =
                answered.map_or(Outcome::Reset, |sent| sent.outcome(second.protocol, second.by_sidecar));
            second.lease.record(now, outcome, now.since(second.began));
            match failed {
                Some(tried) => (tried, Some(second)),
                None => (one.await, Some(second)),
            }
        }
    }
}

/// How the race ended.
enum Lost {
    /// The first try has an answer, or there is nothing to race for any more: the second was dropped.
    Itself(Result<Sent, Unsent>),
    /// The second try has a good answer.
    First(Sent),
    /// The second try has none, or a bad one.
    Second(Option<Sent>),
}

/// Another endpoint than the first try's, if there is one.
fn choose<'p>(
    worker: &Worker,
    task: &Task<'p, '_>,
    ctx: &Ctx<'_>,
    first: &First<'_>,
    wish: &Wish<'_>,
    head: &mut RequestHead,
    is_h2: bool,
) -> Option<Second<'p>> {
    let tried = [first.lease.endpoint().addr];
    let selected = select::select(worker, task.plan, &Wish { tried: &tried, ..*wish }).ok()?;
    let Selected::Endpoint(cluster, lease) = selected else { return None };
    if lease.endpoint().addr == tried[0] {
        return None;
    }
    let protocol = protocol(cluster.settings.upstream, head, is_h2).ok()?;
    let way = dial::Way::to_endpoint(worker, task.outside, cluster, lease.endpoint(), protocol).ok()?;
    let by_sidecar = way.secure.is_mesh();
    drop(way);
    let (span, began) = (trace::beside(worker, ctx, head), worker.shared.clock.now());
    let (ended, first) = ((Ended::Cancelled, 0), (Ended::Open, 0));
    Some(Second { won: false, span, ended, first, cluster, lease, began, protocol, by_sidecar })
}

/// The second try; `None` when it gets no answer, for whatever reason.
async fn send(
    worker: &Worker,
    task: &Task<'_, '_>,
    ctx: &Ctx<'_>,
    second: &Second<'_>,
    head: &mut RequestHead,
) -> Option<Sent> {
    let (cluster, endpoint) = (second.cluster, second.lease.endpoint());
    let way = dial::Way::to_endpoint(worker, task.outside, cluster, endpoint, second.protocol).ok()?;
    let shown = match credential::wanted(ctx, &way, head).ok()? {
        Some(live) => Some(Box::pin(credential::obtain(worker, ctx, live)).await.ok()?),
        None => None,
    };
    let mut dialed = dial::dial(worker, &way).await.ok()?;
    guard::leave(worker, ctx, head, way.hop(ctx.direction)).ok()?;
    let mut upload = Pump::new();
    match &shown {
        None => dialed.upstream.request(head, Framing::None),
        Some(shown) => shown.request(head, &mut dialed.upstream, Framing::None).ok()?,
    }
    let head = exchange_alone(&mut dialed.upstream, &mut upload, Default::default()).await.ok()?;
    if let Some(shown) = shown {
        shown.answered(worker, head.status.as_u16());
    }
    Some(Sent { head, dialed, upload })
}
