//! repeat: one call may take several tries; each try selects an endpoint, dials it and sends the request.
//!
//! In this release a call is tried again only where nothing can have happened twice: the connection could not be
//! made, the upstream says that it never processed the request, or a *kept* connection turned out to be closed
//! before the first byte of an answer to a request that is idempotent and has no body (RFC 9110 section 9.2.2).

use std::net::SocketAddr;
use std::pin::pin;

use http::Method;
use pilotfish_filters::affinity;
use pilotfish_filters::call::{Call, Caller};
use pilotfish_filters::cluster::{ClusterSettings, Outcome, Upstream};
use pilotfish_filters::plan::{Matched, Plan, Split};
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::{Downstream, Error, Pump, RequestHead, ResponseHead, exchange};
use crate::request::admit::Permit;
use crate::request::ctx::Ctx;
use crate::request::dial::{self, Dialed, Protocol};
use crate::request::respond::{self, Edits, Failed};
use crate::request::select::{self, Selected, Wish};
use crate::request::{egress, forward, guard, tunnel};
use crate::tls::dial::Secure;
use crate::tls::outside::OutsideSet;
use crate::worker::Worker;

/// Tries of one call: the first and Istio's two more.
const TRIES: usize = 3;

/// What a call by a rule needs.
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
    /// That it may.
    pub permit: Permit,
    /// TLS settings of clusters outside of the mesh.
    pub outside: &'p OutsideSet,
}

/// Sends a call to one of its rule's destinations.
pub async fn by_rule<'p>(
    worker: &Worker,
    task: &Task<'p, '_>,
    ctx: &mut Ctx<'p>,
    mut head: RequestHead,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let key = match &task.matched.rule.affinity {
        Some(policy) => worker.with_rng(|rng| affinity::key(policy, &head, task.call, task.caller, rng)),
        None => affinity::Key::default(),
    };
    let destination = worker.with_rng(|rng| task.split.choose(key.hash, rng));
    forward::add_own_headers(worker, ctx, &mut head);
    forward::edit_request(&task.matched, destination, &mut head);
    let mut edits = Edits {
        matched: Some(&task.matched),
        destination: Some(destination),
        cookie: key.set_cookie.as_deref(),
        from_sidecar: false,
    };
    let mut tried = Tried::none();
    loop {
        let wish = Wish {
            target: &destination.target,
            call: task.call,
            caller: task.caller,
            key: key.hash,
            tried: tried.addresses(),
        };
        let (cluster, mut lease) = match select::select(worker, task.plan, &wish)? {
            Selected::Endpoint(cluster, lease) => (cluster, lease),
            Selected::Original(cluster) => {
                ctx.cluster = Some(&cluster.name);
                return to_original(worker, task, cluster, ctx, head, down, &edits).await;
            }
        };
        ctx.cluster = Some(&cluster.name);
        ctx.endpoint = Some(lease.endpoint().addr);
        if head.method == Method::CONNECT {
            let way =
                dial::Way::to_endpoint(worker, task.outside, cluster, lease.endpoint(), Protocol::Http1)?;
            return tunnel::connect_through(worker, ctx, &[way.for_tunnel()], down).await;
        }
        let protocol = protocol(cluster.settings.upstream, &head, down)?;
        let way = dial::Way::to_endpoint(worker, task.outside, cluster, lease.endpoint(), protocol);
        let began = worker.shared.clock.now();
        edits.from_sidecar = way.as_ref().is_ok_and(|way| way.secure.is_mesh());
        let sent = match way {
            Ok(way) => try_way(worker, ctx, &way, &mut head, down).await,
            Err(deny) => Err(Unsent::NotConnected(deny)),
        };
        let now = worker.shared.clock.now();
        match sent {
            Ok(sent) => {
                lease.record(now, Outcome::Answered(sent.head.status.as_u16()), now.since(began));
                return respond::respond(worker, ctx, sent, down, &edits, &cluster.settings).await;
            }
            Err(unsent) => {
                if let Some(outcome) = unsent.outcome() {
                    lease.record(now, outcome, now.since(began));
                }
                if !unsent.may_repeat(&head, down) || !tried.again(unsent.rules_out(lease.endpoint().addr)) {
                    return Err(unsent.into());
                }
            }
        }
    }
}

/// Sends an inbound call to the local agent.
pub async fn to_agent(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    _permit: Permit,
    mut head: RequestHead,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    if head.method == Method::CONNECT {
        return Err(Deny::with(Reason::NoRoute, "CONNECT is for the outbound listener").into());
    }
    let Some(agent) = worker.pin().agent else {
        let detail = "this sidecar has no agent, or its name does not resolve (--app)";
        return Err(Deny::with(Reason::NoEndpoint, detail).into());
    };
    forward::add_own_headers(worker, ctx, &mut head);
    let to = Addresses::plain(worker, std::slice::from_ref(&agent));
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
async fn to_original(
    worker: &Worker,
    task: &Task<'_, '_>,
    cluster: &pilotfish_filters::cluster::Cluster,
    ctx: &mut Ctx<'_>,
    head: RequestHead,
    down: &mut Downstream<'_>,
    edits: &Edits<'_>,
) -> Result<(), Failed> {
    // The document names its own host only: another that a wider rule leads here is judged by its address.
    let named = egress::is_host(&head, &cluster.host);
    let addresses =
        down.unless_gone(pin!(egress::resolve(&head, task.plan, &worker.shared, named))).await??;
    let host = egress::host(&head).unwrap_or_default().to_owned();
    let secure = Secure::of_host(task.outside, cluster, &host)?;
    let to = Addresses { list: &addresses, settings: &cluster.settings, cluster: Some(cluster), secure };
    to_addresses(worker, &to, ctx, head, down, edits).await
}

/// Addresses of one destination, and what holds for all of them.
struct Addresses<'a> {
    list: &'a [SocketAddr],
    settings: &'a ClusterSettings,
    cluster: Option<&'a pilotfish_filters::cluster::Cluster>,
    secure: Secure<'a>,
}

impl<'a> Addresses<'a> {
    /// Addresses of no cluster.
    fn plain(worker: &'a Worker, list: &'a [SocketAddr]) -> Self {
        Addresses { list, settings: &worker.plain_settings, cluster: None, secure: Secure::Plain }
    }

    fn way(&self, address: SocketAddr, protocol: Protocol) -> dial::Way<'a> {
        dial::Way::to_address(address, self.settings, self.cluster, protocol, self.secure)
    }
}

/// Tries addresses in their order.
async fn to_addresses(
    worker: &Worker,
    to: &Addresses<'_>,
    ctx: &mut Ctx<'_>,
    mut head: RequestHead,
    down: &mut Downstream<'_>,
    edits: &Edits<'_>,
) -> Result<(), Failed> {
    if head.method == Method::CONNECT {
        let ways: Vec<_> =
            to.list.iter().map(|address| to.way(*address, Protocol::Http1).for_tunnel()).collect();
        return tunnel::connect_through(worker, ctx, &ways, down).await;
    }
    let mut tries = 0;
    let mut at = 0;
    loop {
        let address = *to.list.get(at).ok_or(Reason::NoEndpoint)?;
        ctx.endpoint = Some(address);
        let protocol = protocol(to.settings.upstream, &head, down)?;
        match try_way(worker, ctx, &to.way(address, protocol), &mut head, down).await {
            Ok(sent) => return respond::respond(worker, ctx, sent, down, edits, to.settings).await,
            Err(unsent) => {
                tries += 1;
                at += usize::from(matches!(unsent, Unsent::NotConnected(_)));
                if !unsent.may_repeat(&head, down) || tries == TRIES || at == to.list.len() {
                    return Err(unsent.into());
                }
            }
        }
    }
}

/// One try: a connection, then the request and the head of its answer.
async fn try_way(
    worker: &Worker,
    ctx: &Ctx<'_>,
    way: &dial::Way<'_>,
    head: &mut RequestHead,
    down: &mut Downstream<'_>,
) -> Result<Sent, Unsent> {
    let dialed = down.unless_gone(pin!(dial::dial(worker, way))).await;
    let dialed = dialed.map_err(Unsent::gone)?.map_err(Unsent::NotConnected)?;
    guard::leave(worker, ctx, head, way.hop(ctx.direction)).map_err(Unsent::Refused)?;
    send(head, down, dialed).await
}

/// What the upstream speaks for this request.
fn protocol(wanted: Upstream, head: &RequestHead, down: &Downstream<'_>) -> Result<Protocol, Deny> {
    let upgrade = head.upgrade().is_some();
    match wanted {
        Upstream::Http1 => Ok(Protocol::Http1),
        Upstream::Http2 if upgrade => Err(Deny::with(
            Reason::UpgradeNotPossible,
            "the destination is spoken to in HTTP/2 only (h2UpgradePolicy), which has no Upgrade",
        )),
        Upstream::Http2 => Ok(Protocol::Http2),
        // A WebSocket that came by HTTP/2 goes on as the Upgrade that every WebSocket server knows.
        Upstream::Client if down.is_h2() && !upgrade => Ok(Protocol::Http2),
        Upstream::Client => Ok(Protocol::Http1),
    }
}

/// A request that has its answer's head.
pub struct Sent {
    /// The answer's head.
    pub head: ResponseHead,
    /// The connection, on which the answer's body follows.
    pub dialed: Dialed,
    /// The request's body, perhaps still on its way.
    pub upload: Pump,
}

/// A try that got no answer.
enum Unsent {
    /// The sidecar itself does not send it.
    Refused(Deny),
    NotConnected(Deny),
    Broken {
        error: Error,
        reused: bool,
        body_began: bool,
    },
}

impl Unsent {
    /// The client went away before anything was sent.
    fn gone(error: Error) -> Unsent {
        Unsent::Broken { error, reused: false, body_began: false }
    }

    /// Whether nothing can have happened twice if the call is tried again.
    fn may_repeat(&self, head: &RequestHead, down: &Downstream<'_>) -> bool {
        match self {
            Unsent::Refused(_) => false,
            Unsent::NotConnected(deny) => deny.reason != Reason::Overflow,
            Unsent::Broken { body_began: true, .. } => false,
            Unsent::Broken { error: Error::NotProcessed, .. } => true,
            Unsent::Broken { error: Error::UpstreamClosed, reused: true, .. } => {
                head.method.is_idempotent() && down.framing().is_empty()
            }
            Unsent::Broken { .. } => false,
        }
    }

    /// The endpoint that another try should avoid; a kept connection that was closed says nothing about its endpoint.
    fn rules_out(&self, endpoint: SocketAddr) -> Option<SocketAddr> {
        matches!(self, Unsent::NotConnected(_)).then_some(endpoint)
    }

    fn outcome(&self) -> Option<Outcome> {
        match self {
            Unsent::Refused(_) => None,
            Unsent::NotConnected(deny) if deny.reason == Reason::Overflow => None,
            Unsent::NotConnected(_) => Some(Outcome::Unreachable),
            Unsent::Broken { error, .. } if error.is_downstream() => None,
            Unsent::Broken { reused: true, error: Error::UpstreamClosed, .. } => None,
            Unsent::Broken { error: Error::Silent, .. } => Some(Outcome::TimedOut),
            Unsent::Broken { .. } => Some(Outcome::Reset),
        }
    }
}

impl From<Unsent> for Failed {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Refused(deny) | Unsent::NotConnected(deny) => Failed::Refused(deny),
            Unsent::Broken { error, .. } => Failed::Broken(error),
        }
    }
}

/// Sends the request and waits for the answer's head.
async fn send(head: &RequestHead, down: &mut Downstream<'_>, mut dialed: Dialed) -> Result<Sent, Unsent> {
    let mut upload = Pump::new();
    dialed.upstream.request(head, down.framing());
    match exchange(down, &mut dialed.upstream, &mut upload, respond::CONTINUE_WAIT).await {
        Ok(head) => Ok(Sent { head, dialed, upload }),
        Err(error) => {
            let body_began = upload.bytes > 0;
            Err(Unsent::Broken { error, reused: dialed.reused, body_began })
        }
    }
}

/// Endpoints that a call could not be sent to, on the stack, and the tries so far.
struct Tried {
    addresses: [SocketAddr; TRIES],
    len: usize,
    tries: usize,
}

impl Tried {
    fn none() -> Self {
        Tried { addresses: [SocketAddr::from(([0, 0, 0, 0], 0)); TRIES], len: 0, tries: 0 }
    }

    fn addresses(&self) -> &[SocketAddr] {
        &self.addresses[..self.len]
    }

    /// Notes a try that failed; whether there may be another.
    fn again(&mut self, failed: Option<SocketAddr>) -> bool {
        if let (Some(failed), Some(slot)) = (failed, self.addresses.get_mut(self.len)) {
            *slot = failed;
            self.len += 1;
        }
        self.tries += 1;
        self.tries < TRIES
    }
}
