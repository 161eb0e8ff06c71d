//! CONNECT: a byte pipe to a TCP address, without any HTTP behind it.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use pilotfish_filters::cluster::Cluster;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::{Downstream, Error, Framing, Io, ResponseHead, Sink, Tunnel, tunnel};
use crate::request::ctx::Ctx;
use crate::request::dial::{self, Way};
use crate::request::respond::Failed;
use crate::request::trace;
use crate::worker::Worker;

/// Connects by the first way that accepts, answers 200, and moves bytes until both ends have closed. Where a sidecar is at the
/// other end they go inside its mutual TLS: a tunnel is no way around it.
///
/// # Errors
/// As for any connection; nothing was answered then.
pub async fn connect_through(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    ways: &[Way<'_>],
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let cluster = ways.first().and_then(|way| way.cluster);
    let idle = ways.first().and_then(|way| way.settings.tunnel_idle_timeout);
    let _permit = cluster.map(Cluster::connection_permit).transpose()?;
    trace::begin_tunnel(worker, ctx, ctx.endpoint);
    let opened = down.unless_gone(pin!(first_that_accepts(worker, ways))).await?;
    trace::end_tunnel(ctx, worker.shared.clock.now(), opened.is_ok());
    let io = opened?;
    down.respond(&ResponseHead::new(StatusCode::OK), Framing::None);
    ctx.status = Some(StatusCode::OK.as_u16());
    trace::answered(worker, ctx, true);
    let upstream = Tunnel::raw((io, BytesMut::new()));
    run(ctx, down, upstream, idle).await
}

/// A tunnel to where another sidecar is ends here: what the agent says through it is served as whatever else it says, by its `host`. As a
/// pipe it would let the agent speak with its sidecar's certificate: without the chain of who asked it, with fields that only sidecars
/// write, past every rule of its own side.
///
/// # Errors
/// There is no tunnel within a tunnel; the process has no descriptors left; the client has gone.
pub async fn into_mesh(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    idle: Option<Duration>,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    if ctx.within {
        return Err(Deny::with(Reason::NoRoute, "this is a tunnel already: send the request itself").into());
    }
    let io = worker.serve_within().map_err(|error| Deny::with(Reason::ConnectFailed, error.to_string()))?;
    down.respond(&ResponseHead::new(StatusCode::OK), Framing::None);
    ctx.status = Some(StatusCode::OK.as_u16());
    trace::answered(worker, ctx, true);
    run(ctx, down, Tunnel::raw((io, BytesMut::new())), idle).await
}

/// Moves bytes both ways after 101, or 2xx to CONNECT, was queued downstream.
///
/// # Errors
/// The client's protocol has no byte pipe, or it has gone.
pub async fn run(
    ctx: &mut Ctx<'_>,
    down: &mut Downstream<'_>,
    upstream: Tunnel,
    idle: Option<Duration>,
) -> Result<(), Failed> {
    poll_fn(|cx| down.poll_flush(cx)).await?;
    let downstream = down.take_tunnel().ok_or(Error::ClientGone)?;
    let moved = tunnel(downstream, upstream, idle.unwrap_or(Duration::MAX)).await;
    ctx.sent = moved.a_to_b;
    ctx.received = moved.b_to_a;
    Ok(())
}

async fn first_that_accepts(worker: &Worker, ways: &[Way<'_>]) -> Result<Io, Deny> {
    let mut last = Deny::from(Reason::NoEndpoint);
    for way in ways {
        match dial::open(worker, way).await {
            Ok((io, _)) => return Ok(io),
            Err(deny) => last = deny,
        }
    }
    Err(last)
}
