//! `connectionPool` and the like, as the data path uses them.

use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::model::{ClientTls, Http2Keepalive, TcpKeepalive};

use crate::concurrency::Limit;

use crate::budget::BudgetPolicy;

/// Time to connect when no DestinationRule says (Istio's default).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to connect to another sidecar when no DestinationRule says: a peer that is gone must not be waited for.
pub const MESH_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How endpoints of a cluster are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// They are in the cluster.
    #[default]
    Endpoints,
    /// The name or address that the caller asked for is dialled (resolution NONE and DYNAMIC_DNS, PASSTHROUGH); see
    /// [`Cluster::lease_to`].
    Original,
}

/// The protocol that is spoken to a cluster's endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Upstream {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// The caller's.
    #[default]
    Client,
}

/// `connectionPool` as the data path uses it. `None` is no limit.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSettings {
    /// Time to connect ([`CONNECT_TIMEOUT`]); see [`ClusterSettings::connect_timeout_to`].
    pub connect_timeout: Duration,
    /// Time to connect to another sidecar ([`MESH_CONNECT_TIMEOUT`]).
    pub mesh_connect_timeout: Duration,
    /// TLS to the endpoints. `None`: nothing is written, so mesh endpoints get mTLS and others plaintext.
    pub tls: Option<Arc<ClientTls>>,
    /// Names of which an endpoint's certificate must have one, in place of the endpoint's own identity; empty: its own.
    /// Those of the DestinationRule's `tls`, else those of the ServiceEntry.
    pub subject_alt_names: Arc<[Arc<str>]>,
    /// Connections of the whole process.
    pub max_connections: Option<u32>,
    /// Requests of the whole process that wait for a connection (`http1MaxPendingRequests`).
    pub max_pending: Option<u32>,
    /// Requests of the whole process in flight (`http2MaxRequests`, which as in Envoy counts HTTP/1.1 too).
    pub max_requests: Option<u32>,
    /// How many retries there may be.
    pub retry_budget: BudgetPolicy,
    /// Requests after which a connection is closed.
    pub max_requests_per_connection: Option<u32>,
    /// After this an idle HTTP connection is closed (1 h, Istio's default); `None`: never.
    pub idle_timeout: Option<Duration>,
    /// After this an idle tunnel (CONNECT, upgrades) is closed (1 h, Istio's default); `None`: never.
    pub tunnel_idle_timeout: Option<Duration>,
    /// The age at which a connection takes no more requests.
    pub max_connection_duration: Option<Duration>,
    /// TCP keep-alive; `None`: off.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// The protocol.
    pub upstream: Upstream,
    /// HTTP/2 PING; `None`: off.
    pub http2_keepalive: Option<Http2Keepalive>,
    /// Streams on one HTTP/2 connection; `None`: as many as the peer allows.
    pub max_concurrent_streams: Option<u32>,
    /// Calls of the whole process at once to one endpoint (`max-concurrency`, `adaptive-concurrency`).
    pub limit: Limit,
}

impl ClusterSettings {
    /// Time to connect to an endpoint, which is another sidecar or not ([`crate::endpoint::Endpoint::mesh`]).
    pub fn connect_timeout_to(&self, mesh: bool) -> Duration {
        if mesh { self.mesh_connect_timeout } else { self.connect_timeout }
    }
}

impl Default for ClusterSettings {
    fn default() -> Self {
        ClusterSettings {
            connect_timeout: CONNECT_TIMEOUT,
            mesh_connect_timeout: MESH_CONNECT_TIMEOUT,
            tls: None,
            subject_alt_names: Arc::default(),
            max_connections: None,
            max_pending: None,
            max_requests: None,
            retry_budget: BudgetPolicy::default(),
            max_requests_per_connection: None,
            idle_timeout: Some(Duration::from_secs(3600)),
            tunnel_idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            tcp_keepalive: None,
            upstream: Upstream::default(),
            http2_keepalive: None,
            max_concurrent_streams: None,
            limit: Limit::None,
        }
    }
}
