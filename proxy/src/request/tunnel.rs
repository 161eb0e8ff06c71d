//! CONNECT: a byte pipe to a TCP address, without any HTTP behind it.

use std::future::poll_fn;
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use pilotfish_filters::cluster::{Cluster, ClusterSettings};
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::{Downstream, Error, Framing, Io, ResponseHead, Sink, Tunnel, tunnel};
use crate::request::ctx::Ctx;
use crate::request::respond::Failed;
use crate::upstream::connect::{Address, connect};
use crate::worker::Worker;

/// Connects to the first address that accepts, answers 200, and moves bytes until both ends have closed.
///
/// # Errors
/// As for any connection; nothing was answered then.
pub async fn connect_through(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    addresses: &[Address<'_>],
    settings: &ClusterSettings,
    cluster: Option<&Cluster>,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let _permit = cluster.map(Cluster::connection_permit).transpose()?;
    let io = first_that_accepts(worker, addresses, settings).await?;
    down.respond(&ResponseHead::new(StatusCode::OK), Framing::None);
    ctx.status = Some(StatusCode::OK.as_u16());
    let upstream = Tunnel::raw((io, BytesMut::new()));
    run(ctx, down, upstream, settings.tunnel_idle_timeout).await
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

async fn first_that_accepts(
    worker: &Worker,
    addresses: &[Address<'_>],
    settings: &ClusterSettings,
) -> Result<Io, Deny> {
    let mut last = Deny::from(Reason::NoEndpoint);
    for address in addresses {
        match connect(*address, settings.connect_timeout, settings.tcp_keepalive.as_ref()).await {
            Ok(io) => {
                worker.metrics.upstream_connects.add(1);
                return Ok(io);
            }
            Err(deny) => {
                worker.metrics.upstream_connect_failures.add(1);
                last = deny;
            }
        }
    }
    Err(last)
}
