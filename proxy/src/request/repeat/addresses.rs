//! Calls that go to given addresses instead of a chosen endpoint: the local agent, hosts that the caller names itself.

use std::net::SocketAddr;
use std::pin::pin;

use http::Method;
use pilotfish_filters::budget::RetryPermit;
use pilotfish_filters::cluster::{Cluster, ClusterSettings};
use pilotfish_filters::inflight::RequestPermit;
use pilotfish_filters::plan::Plan;
use pilotfish_filters::retry::RetryPolicy;
use pilotfish_filters::verdict::{Deny, Reason};

use super::Task;
use super::attempt::{Sent, Unsent, protocol, try_way};
use super::course::{self, Course, Spent};
use crate::http::{Downstream, RequestHead};
use crate::request::admit::Permit;
use crate::request::ctx::Ctx;
use crate::request::dial::{self, Protocol};
use crate::request::respond::{self, Edits, Failed};
use crate::request::{credential, egress, forward, replay, trace, tunnel};
use crate::telemetry::call::Acted;
use crate::tls::dial::Secure;
use crate::worker::Worker;

/// Addresses of one host that one try goes through until one accepts.
const ADDRESSES: usize = 3;

/// Sends an inbound call to the local agent.
pub async fn to_agent(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    permit: Permit,
    mut head: RequestHead,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    if head.method == Method::CONNECT {
        return Err(Deny::with(Reason::NoRoute, "CONNECT is for the outbound listener").into());
    }
    let snapshot = worker.pin();
    let Some(agent) = snapshot.agent else {
        let detail = "this sidecar has no agent, or its name does not resolve (--app)";
        return Err(Deny::with(Reason::NoEndpoint, detail).into());
    };
    forward::add_own_headers(worker, ctx, &mut head);
    let mut to = Addresses::plain(worker, std::slice::from_ref(&agent));
    to.permit = Some(&permit);
    let mut _counted = None;
    if let Some(pool) = snapshot.plan.inbound_pool() {
        (to.cluster, to.settings) = (Some(&**pool), &pool.settings);
        _counted = Some(RequestPermit::try_acquire(&pool.limits, pool.settings.max_requests)?);
    }
    to_addresses(worker, &to, ctx, head, down, &Edits::default()).await
}

/// Sends a call to a host that no document names.
pub async fn to_unknown(
    worker: &Worker,
    plan: &Plan,
    ctx: &mut Ctx<'_>,
    _permit: Permit,
    mut head: RequestHead,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let addresses = down.unless_gone(pin!(egress::resolve(&head, plan, &worker.shared, false))).await??;
    forward::add_own_headers(worker, ctx, &mut head);
    to_addresses(worker, &Addresses::plain(worker, &addresses), ctx, head, down, &Edits::default()).await
}

/// Sends a call to the host that it names itself, under a cluster's settings (resolution NONE).
pub(super) async fn to_original(
    worker: &Worker,
    task: &Task<'_, '_>,
    cluster: &Cluster,
    ctx: &mut Ctx<'_>,
    head: RequestHead,
    down: &mut Downstream<'_>,
    edits: &Edits<'_>,
) -> Result<(), Failed> {
    // The document names its own host only: another that a wider rule leads here is judged by its address.
    let named = egress::is_host(&head, &cluster.host);
    let addresses =
        down.unless_gone(pin!(egress::resolve(&head, task.plan, &worker.shared, named))).await??;
    if let Some(held) = worker.shared.actions.held() {
        held.egress(worker.shared.clock.now())?;
    }
    let host = egress::host(&head).unwrap_or_default().to_owned();
    let to = Addresses {
        list: &addresses,
        settings: &cluster.settings,
        cluster: Some(cluster),
        secure: Secure::of_host(task.outside, cluster, &host)?,
        retries: task.retries(),
        permit: None,
    };
    // The cluster has no endpoints that could count.
    let _counted = RequestPermit::try_acquire(&cluster.limits, cluster.settings.max_requests)?;
    to_addresses(worker, &to, ctx, head, down, edits).await
}

/// Addresses of one destination, and what holds for all of them.
struct Addresses<'a> {
    list: &'a [SocketAddr],
    settings: &'a ClusterSettings,
    cluster: Option<&'a Cluster>,
    secure: Secure<'a>,
    retries: &'a RetryPolicy,
    /// Who has to know how tries go.
    permit: Option<&'a Permit>,
}

impl<'a> Addresses<'a> {
    /// Addresses of no cluster.
    fn plain(worker: &'a Worker, list: &'a [SocketAddr]) -> Self {
        Addresses {
            list,
            settings: &worker.plain_settings,
            cluster: None,
            secure: Secure::Plain,
            retries: &worker.plain_retries,
            permit: None,
        }
    }

    fn way(&self, address: SocketAddr, protocol: Protocol) -> dial::Way<'a> {
        dial::Way::to_address(address, self.settings, self.cluster, protocol, self.secure)
    }

    /// A place in the cluster's retry budget; what is no cluster's has none, and its calls are few.
    fn retry_permit(&self, spent: &Spent) -> Option<Option<RetryPermit>> {
        let Some(cluster) = self.cluster else { return Some(None) };
        let (limits, policy) = (&cluster.limits, &cluster.settings.retry_budget);
        RetryPermit::try_acquire(limits, policy, spent.now, || limits.requests()).map(Some)
    }
}

/// Sends a call to the first address that accepts, as often as its policy says.
async fn to_addresses(
    worker: &Worker,
    to: &Addresses<'_>,
    ctx: &mut Ctx<'_>,
    mut head: RequestHead,
    down: &mut Downstream<'_>,
    edits: &Edits<'_>,
) -> Result<(), Failed> {
    if head.method == Method::CONNECT {
        if to.secure.is_mesh() {
            return Box::pin(tunnel::into_mesh(worker, ctx, to.settings.tunnel_idle_timeout, down)).await;
        }
        credential::tunnelled(ctx, &head);
        let ways: Vec<_> =
            to.list.iter().map(|address| to.way(*address, Protocol::Http1).for_tunnel()).collect();
        return tunnel::connect_through(worker, ctx, &ways, down).await;
    }
    let protocol = protocol(to.settings.upstream, &head, down.is_h2())?;
    let mut course = Course::begin(ctx, to.retries, &head);
    loop {
        replay::keep(&course, edits.from_sidecar || protocol == Protocol::Http2, down);
        ctx.tries = course.begin_try();
        let began = worker.shared.clock.now();
        if let Some(cluster) = to.cluster {
            cluster.note_try(ctx.tries, began);
        }
        trace::begin_try(worker, ctx, &mut head, to.list.first().copied(), began);
        let tried = try_addresses(worker, to, protocol, ctx, &mut head, down).await?;
        trace::end_try(ctx, worker.shared.clock.now(), &tried);
        if let Some(permit) = to.permit {
            permit.tried(worker, began, &tried);
        }
        let endpoint = ctx.endpoint.ok_or(Reason::NoEndpoint)?;
        let (now, by_sidecar) = (worker.shared.clock.now(), edits.from_sidecar);
        let spent = Spent { endpoint, now, by_sidecar };
        let again = course.again(worker, &tried, &spent, || to.retry_permit(&spent), down);
        match (again, tried) {
            (Some(again), tried) => {
                ctx.call.acted.add(Acted::RETRY);
                Box::pin(course::before_next(worker, tried, down, again.wait)).await?;
            }
            (None, Ok(sent)) => {
                ctx.call.acted.add(course.acted());
                course.end();
                return respond::respond(worker, ctx, sent, down, edits, to.settings).await;
            }
            (None, Err(unsent)) => {
                ctx.call.acted.add(course.acted());
                return Err(unsent.into());
            }
        }
    }
}

/// One try: the addresses in their order, until one accepts. Going on to the next is part of connecting.
async fn try_addresses(
    worker: &Worker,
    to: &Addresses<'_>,
    protocol: Protocol,
    ctx: &mut Ctx<'_>,
    head: &mut RequestHead,
    down: &mut Downstream<'_>,
) -> Result<Result<Sent, Unsent>, Failed> {
    let mut last = None;
    for address in to.list.iter().take(ADDRESSES) {
        ctx.endpoint = Some(*address);
        if let Some(attempt) = ctx.call.current() {
            attempt.endpoint = ctx.endpoint;
        }
        let tried =
            try_way(worker, ctx, &to.way(*address, protocol), head, down, to.retries.per_try_timeout).await;
        let refused = matches!(&tried, Err(Unsent::NotConnected(deny)) if deny.reason != Reason::Overflow);
        if !refused {
            return Ok(tried);
        }
        last = Some(tried);
    }
    last.ok_or_else(|| Reason::NoEndpoint.into())
}
