//! connectionPool: limits of connections and requests.

use crate::model::{ConnectionPool, H2Upgrade, Http2Keepalive, HttpPool, TcpKeepalive, TcpPool};
use crate::raw::{ConnectionPoolSpec, H2UpgradePolicy, HttpPoolSpec, Signed, TcpPoolSpec};

use super::check::Cx;

/// Limits.
pub(super) fn connection_pool(cx: &mut Cx<'_>, spec: &ConnectionPoolSpec<'_>) -> ConnectionPool {
    if spec.tcp.is_none() && spec.http.is_none() {
        cx.error_hint(spec.node, "the connection pool is empty", "write `tcp` or `http`");
    }
    ConnectionPool {
        tcp: spec.tcp.as_ref().map(|tcp| tcp_pool(cx, tcp)).unwrap_or_default(),
        http: spec.http.as_ref().map(|http| http_pool(cx, http)).unwrap_or_default(),
    }
}

/// A limit; 0 means none was set, as in Istio's proto.
fn limit(cx: &mut Cx<'_>, number: Option<Signed<'_>>, default: u32) -> u32 {
    match number.map(|number| cx.not_negative(number)) {
        None | Some(0) => default,
        Some(limit) => limit,
    }
}

fn tcp_pool(cx: &mut Cx<'_>, spec: &TcpPoolSpec<'_>) -> TcpPool {
    let default = TcpPool::default();
    TcpPool {
        max_connections: limit(cx, spec.max_connections, default.max_connections),
        connect_timeout: spec.connect_timeout.map(|time| cx.duration(time)),
        keepalive: spec.tcp_keepalive.as_ref().map(|keepalive| TcpKeepalive {
            probes: keepalive.probes.map(|probes| probes.value).filter(|probes| *probes > 0),
            time: keepalive.time.map(|time| cx.duration(time)),
            interval: keepalive.interval.map(|time| cx.duration(time)),
        }),
        max_connection_duration: spec.max_connection_duration.map(|time| cx.duration(time)),
        idle_timeout: match spec.idle_timeout {
            Some(time) => cx.duration_or_zero(time),
            None => default.idle_timeout,
        },
    }
}

fn http_pool(cx: &mut Cx<'_>, spec: &HttpPoolSpec<'_>) -> HttpPool {
    let default = HttpPool::default();
    let h2_upgrade = match spec.h2_upgrade_policy.map(|policy| policy.value) {
        None | Some(H2UpgradePolicy::Default) => H2Upgrade::Default,
        Some(H2UpgradePolicy::DoNotUpgrade) => H2Upgrade::DoNotUpgrade,
        Some(H2UpgradePolicy::Upgrade) => H2Upgrade::Upgrade,
    };
    let use_client_protocol = spec.use_client_protocol.is_some_and(|keep| keep.value);
    if use_client_protocol && h2_upgrade == H2Upgrade::Upgrade {
        cx.error(spec.node, "`useClientProtocol` and `h2UpgradePolicy: UPGRADE` exclude each other");
    }
    HttpPool {
        http1_max_pending_requests: limit(
            cx,
            spec.http1_max_pending_requests,
            default.http1_max_pending_requests,
        ),
        http2_max_requests: limit(cx, spec.http2_max_requests, default.http2_max_requests),
        max_requests_per_connection: Some(limit(cx, spec.max_requests_per_connection, 0)).filter(|n| *n > 0),
        max_retries: limit(cx, spec.max_retries, default.max_retries),
        idle_timeout: spec.idle_timeout.map_or(default.idle_timeout, |time| Some(cx.duration(time))),
        h2_upgrade,
        use_client_protocol,
        max_concurrent_streams: limit(cx, spec.max_concurrent_streams, default.max_concurrent_streams),
        http2_keepalive: spec.http2_keep_alive.as_ref().and_then(|keepalive| {
            let interval = keepalive.interval.map(|time| cx.duration(time))?;
            let timeout = keepalive.timeout.map(|time| cx.duration(time))?;
            Some(Http2Keepalive { interval, timeout })
        }),
    }
}
