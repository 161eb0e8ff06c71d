//! repeat: one call may take several tries; each try selects an endpoint, dials it and sends the request.
//!
//! Which failures are tried again, how often and after which wait is the rule's [`RetryPolicy`]; what must never be done
//! twice is [`pilotfish_filters::retry::may_repeat`]; [`course`] asks both, the cluster's retry budget and the deadline.

pub mod addresses;
pub mod attempt;
pub mod course;
pub mod hedge;

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use pilotfish_filters::affinity;
use pilotfish_filters::balance::compared::Compared;
use pilotfish_filters::call::{Call, Caller};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::cluster::{Cluster, Lease};
use pilotfish_filters::hedge::Hedge;
use pilotfish_filters::plan::{Matched, Plan, Split, WeightedDestination};
use pilotfish_filters::retry::{Again, RetryPolicy};

pub use addresses::{to_agent, to_unknown};
pub use attempt::Sent;
use attempt::{Unsent, protocol, try_way};
use course::{Course, Spent};
use hedge::{First, Second};

use crate::http::{Downstream, RequestHead};
use crate::request::ctx::Ctx;
use crate::request::dedup::calling::{self, Calling, Then};
use crate::request::dial::{self, Protocol};
use crate::request::mirror::{self, Original};
use crate::request::respond::{self, Edits, Failed};
use crate::request::select::{self, Selected, Wish, room};
use crate::request::{credential, explain, forward, replay, start, trace, tunnel};
use crate::telemetry::call::Acted;
use crate::tls::outside::OutsideSet;
use crate::worker::Worker;

/// What a call by a rule needs.
#[derive(Clone, Copy)]
pub struct Task<'p, 'a> {
    /// The configuration that the call keeps.
    pub plan: &'p Plan,
    /// Its rule.
    pub matched: Matched<'p>,
    /// The rule's destinations.
    pub split: &'p Split,
    /// What the call is.
    pub call: &'a Call,
    /// Who sends it.
    pub caller: &'a Caller,
    /// TLS settings of clusters outside of the mesh.
    pub outside: &'p OutsideSet,
}

impl<'p> Task<'p, '_> {
    /// The destination that an endpoint belongs to; any when it belongs to none, which is found out later.
    fn leading_to(&self, endpoint: SocketAddr) -> &'p WeightedDestination {
        let all = self.split.destinations();
        let leads = |to: &&WeightedDestination| {
            select::endpoint(self.plan, &to.target, self.caller, endpoint).is_some()
        };
        all.iter().find(leads).unwrap_or(&all[0])
    }

    fn retries(&self) -> &'p RetryPolicy {
        &self.matched.rule.resilience.retry
    }
}

/// Sends a call to one of its rule's destinations.
pub async fn by_rule<'p>(
    worker: &Worker,
    mut task: Task<'p, '_>,
    ctx: &mut Ctx<'p>,
    mut head: RequestHead,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let key = match &task.matched.rule.affinity {
        Some(policy) => worker.with_rng(|rng| affinity::key(policy, &head, task.call, task.caller, rng)),
        None => affinity::Key::default(),
    };
    if key.hash.is_some() && task.matched.rule.affinity.is_some() {
        ctx.call.acted.add(Acted::AFFINITY);
    }
    let mut calling = Calling::begin(worker, &task, ctx, &head)?;
    let destination = match calling::only(&calling)? {
        Some(endpoint) => task.leading_to(endpoint),
        None => worker.with_rng(|rng| task.split.choose(key.hash, rng)),
    };
    forward::add_own_headers(worker, ctx, &mut head);
    forward::edit_request(&task.matched, destination, &mut head);
    let Task { matched, call, caller, .. } = task;
    let original = Original { rule: matched.rule, call, caller, key: key.hash, head: &head };
    mirror::begin(worker, ctx, &original, down);
    let mut edits = Edits {
        matched: Some(&task.matched),
        destination: Some(destination),
        cookie: key.set_cookie.as_deref(),
        from_sidecar: false,
    };
    let policy = task.retries();
    // The destination in a newer plan, after the call waited for an agent.
    let mut moved = None;
    let mut course = Course::begin(ctx, policy, &head);
    loop {
        let compared = Compared::default();
        let wish = Wish {
            target: moved.as_ref().unwrap_or(&destination.target),
            call: task.call,
            caller: task.caller,
            key: key.hash,
            tried: course.tried(),
            remote: policy.remote_localities,
            compared: Some(&compared),
        };
        explain::look(worker, ctx, task.plan, &wish);
        let selected = match calling::only(&calling)? {
            None => match room::select_or_wait(worker, task.plan, &wish, ctx.priority, down).await {
                Ok(selected) => selected,
                Err(failed) => {
                    let started = Box::pin(start::wait(worker, ctx, &task, &wish, failed, down)).await?;
                    (task.plan, task.outside) = (&started.snapshot.plan, &started.snapshot.outside);
                    moved = Some(started.target);
                    started.selected
                }
            },
            Some(_) => calling::select(worker, task.plan, &wish, &mut calling)?,
        };
        let target = moved.as_ref().unwrap_or(&destination.target);
        let (cluster, lease) = match selected {
            Selected::Endpoint(cluster, lease) => (cluster, lease),
            Selected::Original(cluster) => {
                ctx.cluster = Some(&cluster.name);
                let sent = addresses::to_original(worker, &task, cluster, ctx, head, down, &edits);
                return Box::pin(sent).await;
            }
        };
        ctx.cluster = Some(&cluster.name);
        ctx.endpoint = Some(lease.endpoint().addr);
        explain::chosen(ctx, lease.endpoint().addr);
        if head.method == Method::CONNECT {
            let way =
                dial::Way::to_endpoint(worker, task.outside, cluster, lease.endpoint(), Protocol::Http1)?;
            if way.secure.is_mesh() {
                let idle = way.settings.tunnel_idle_timeout;
                drop(lease);
                return Box::pin(tunnel::into_mesh(worker, ctx, idle, down)).await;
            }
            credential::tunnelled(ctx, &head);
            return Box::pin(tunnel::connect_through(worker, ctx, &[way.for_tunnel()], down)).await;
        }
        let protocol = protocol(cluster.settings.upstream, &head, down.is_h2())?;
        let mut trying = Trying::new(worker.shared.clock.now(), cluster, lease, protocol);
        let way = dial::Way::to_endpoint(worker, task.outside, cluster, trying.lease.endpoint(), protocol);
        edits.from_sidecar = way.as_ref().is_ok_and(|way| way.secure.is_mesh());
        if let Some(calling) = calling.as_mut().filter(|_| way.is_ok()) {
            if !calling.choose(trying.lease.endpoint(), edits.from_sidecar, &mut head) {
                continue;
            }
            course.keyed = calling.keyed();
        }
        replay::keep(&course, edits.from_sidecar || protocol == Protocol::Http2, down);
        ctx.tries = course.begin_try();
        trying.begin(worker, ctx, &mut head);
        if let Some(attempt) = ctx.call.current() {
            let chosen = (cluster, trying.lease.endpoint());
            select::weighed(attempt, task.plan, target, chosen, (&compared, trying.began));
        }
        let hedge = task.matched.rule.resilience.hedge.filter(|_| calling.is_none());
        let beside = hedge::delay(hedge, trying.cluster, &course, &head, down);
        let mut tried = match (way, beside) {
            (Ok(way), None) => try_way(worker, ctx, &way, &mut head, down, policy.per_try_timeout).await,
            (Ok(way), Some(delay)) => {
                let (tried, second) = {
                    let (key, remote) = (key.hash, policy.remote_localities);
                    let wish = Wish { target, call, caller, key, tried: &[], remote, compared: None };
                    let first = trying.first(way, policy.per_try_timeout);
                    hedge::race(worker, &task, ctx, &first, (&wish, delay), (&mut head, down)).await
                };
                if let Some(second) = &second {
                    trace::raced(ctx, worker.shared.clock.now(), &tried, second);
                }
                if let Some(second) = second.filter(|second| second.won) {
                    edits.from_sidecar = second.by_sidecar;
                    trying.lost_to(worker, ctx, second);
                }
                tried
            }
            (Err(deny), _) => Err(Unsent::NotConnected(deny)),
        };
        let spent = trying.end(worker, ctx, &tried, hedge, edits.from_sidecar);
        let then = match &mut calling {
            Some(calling) => calling.tried(&mut tried, trying.lease.endpoint(), edits.from_sidecar),
            None => Then::Policy,
        };
        let permit = || task.plan.retry_permit(trying.cluster, trying.lease.endpoint(), spent.now).map(Some);
        let again = match then {
            Then::Policy => course.again(worker, &tried, &spent, permit, down),
            Then::AtOnce => down.rewind().then_some(Again::AT_ONCE),
            Then::Never => None,
        };
        match (again, tried) {
            (Some(again), tried) => {
                ctx.call.acted.add(Acted::RETRY);
                drop(trying);
                Box::pin(course::before_next(worker, tried, down, again.wait)).await?;
            }
            (None, Ok(sent)) => {
                ctx.call.acted.add(course.acted());
                course.end();
                calling::answered(&calling)?;
                return respond::respond(worker, ctx, sent, down, &edits, &trying.cluster.settings).await;
            }
            (None, Err(unsent)) => {
                ctx.call.acted.add(course.acted());
                return Err(calling::failed(&calling, unsent));
            }
        }
    }
}

/// The try that is under way: where it goes, and when it began.
struct Trying<'p> {
    cluster: &'p Cluster,
    lease: Lease,
    protocol: Protocol,
    began: Micros,
    /// When the first of those that race began.
    first_began: Micros,
}

impl<'p> Trying<'p> {
    fn new(began: Micros, cluster: &'p Cluster, lease: Lease, protocol: Protocol) -> Trying<'p> {
        Trying { cluster, lease, protocol, began, first_began: began }
    }

    /// Begins it: its cluster and the call's record are told, and the head names its span.
    fn begin(&self, worker: &Worker, ctx: &mut Ctx<'_>, head: &mut RequestHead) {
        self.cluster.note_try(ctx.tries, self.began);
        trace::begin_try(worker, ctx, head, ctx.endpoint, self.began);
        if let Some(attempt) = ctx.call.current() {
            trace::chosen(attempt, self.lease.endpoint());
        }
    }

    /// The same as the first of two that race.
    fn first<'a>(&'a self, way: dial::Way<'a>, limit: Option<Duration>) -> First<'a> {
        First { way, cluster: self.cluster, lease: &self.lease, began: self.began, limit }
    }

    /// The one beside it has answered: the call goes on with that.
    fn lost_to(&mut self, worker: &Worker, ctx: &mut Ctx<'_>, second: Second<'p>) {
        self.lease.waited(worker.shared.clock.now(), self.began);
        ctx.endpoint = Some(second.lease.endpoint().addr);
        ctx.tries += 1;
        (self.cluster, self.lease, self.protocol) = (second.cluster, second.lease, second.protocol);
        self.began = second.began;
    }

    /// Ends it: its endpoint, its cluster and the call's record are told what it came to.
    fn end(
        &mut self,
        worker: &Worker,
        ctx: &mut Ctx<'_>,
        tried: &Result<Sent, Unsent>,
        hedge: Option<Hedge>,
        by_sidecar: bool,
    ) -> Spent {
        let now = worker.shared.clock.now();
        trace::end_try(ctx, now, tried);
        if let (Some(Hedge::P95), Ok(_)) = (hedge, tried) {
            self.cluster.limits.times().record(now.since(self.first_began));
        }
        let outcome = match tried {
            Ok(sent) => Some(sent.outcome(self.protocol, by_sidecar)),
            Err(unsent) => unsent.outcome(),
        };
        if let Some(outcome) = outcome {
            self.lease.record(now, outcome, now.since(self.began));
        }
        Spent { endpoint: self.lease.endpoint().addr, now, by_sidecar }
    }
}
