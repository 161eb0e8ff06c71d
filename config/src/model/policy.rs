//! TrafficPolicy: how endpoints are chosen and how much may be in flight. Absent parts are `None` in
//! [`TrafficPolicy`] because merging needs to know; each part has a `Default` with Istio's defaults.

use std::time::Duration;

use super::{CircuitBreaker, HashKey, LocalityPolicy, Wish};

/// Settings for the traffic to a host, a subset or a port.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrafficPolicy {
    /// How an endpoint is chosen. `None`: [`LoadBalancer::default`].
    pub load_balancer: Option<LoadBalancer>,
    /// Limits. `None`: [`ConnectionPool::default`].
    pub connection_pool: Option<ConnectionPool>,
    /// When an endpoint is put aside. `None`: only when it cannot be reached.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS to the upstream. `None`: mTLS to other sidecars, plaintext to others.
    pub tls: Option<ClientTls>,
    /// Settings for single ports; they replace, they do not merge.
    pub port_level: Vec<(u16, TrafficPolicy)>,
    /// Tunnel to the upstream (not enforced yet).
    pub tunnel: Option<Tunnel>,
    /// PROXY protocol version, 1 or 2 (not enforced yet).
    pub proxy_protocol: Option<u8>,
    /// How many retries may be active. `None`: 20 %, at least 3.
    pub retry_budget: Option<RetryBudget>,
    /// `pilotfish.dev/circuit-breaker`; the same for the whole rule.
    pub circuit_breaker: Wish<CircuitBreaker>,
}

impl TrafficPolicy {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == TrafficPolicy::default()
    }

    /// This policy as it applies to `port`.
    pub fn for_port(&self, port: u16) -> TrafficPolicy {
        let mut merged = TrafficPolicy { port_level: Vec::new(), ..self.clone() };
        merged.replace_for_port(self, port);
        merged
    }

    /// This policy with what `own` says in its place, as it applies to `port`.
    pub fn overridden_by(&self, own: &TrafficPolicy, port: u16) -> TrafficPolicy {
        let mut merged = self.for_port(port);
        merged.load_balancer = own.load_balancer.clone().or(merged.load_balancer);
        merged.connection_pool = own.connection_pool.clone().or(merged.connection_pool);
        merged.outlier_detection = own.outlier_detection.clone().or(merged.outlier_detection);
        merged.tls = own.tls.clone().or(merged.tls);
        merged.tunnel = own.tunnel.clone().or(merged.tunnel);
        merged.proxy_protocol = own.proxy_protocol.or(merged.proxy_protocol);
        merged.retry_budget = own.retry_budget.clone().or(merged.retry_budget);
        merged.replace_for_port(own, port);
        merged
    }

    fn replace_for_port(&mut self, from: &TrafficPolicy, port: u16) {
        if let Some((_, own)) = from.port_level.iter().find(|(number, _)| *number == port) {
            self.load_balancer = own.load_balancer.clone();
            self.connection_pool = own.connection_pool.clone();
            self.outlier_detection = own.outlier_detection.clone();
            self.tls = own.tls.clone();
        }
    }
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadBalancer {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Which localities are preferred. `None`: as the mesh, which prefers none.
    pub locality: Option<LocalityPolicy>,
    /// How a new endpoint's share grows.
    pub warmup: Option<Warmup>,
}

/// The algorithm that chooses an endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Algorithm {
    /// Two random endpoints, the one with fewer requests in flight. Istio's default.
    #[default]
    LeastRequest,
    /// Any.
    Random,
    /// One after the other.
    RoundRobin,
    /// The address that the caller asked for.
    Passthrough,
    /// Two random endpoints, the one with the lower latency x load (`pilotfish.dev/load-balancer: peak-ewma`).
    PeakEwma,
    /// By a hash of something in the request.
    ConsistentHash(ConsistentHash),
}

/// Choice by a hash.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: HashKey,
    /// How a hash becomes an endpoint.
    pub table: HashTable,
    /// No endpoint gets more than this times the average load (`pilotfish.dev/hash-balance-factor`); above 1.
    pub balance_factor: Option<f64>,
}

/// How a hash becomes an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashTable {
    /// Points on a ring.
    Ring {
        /// At least this many points (1024 by default).
        minimum_size: u64,
    },
    /// Maglev's table.
    Maglev {
        /// Its size, a prime (65537 by default).
        size: u64,
    },
}

impl Default for HashTable {
    fn default() -> Self {
        HashTable::Ring { minimum_size: 1024 }
    }
}

/// How a new endpoint's share grows.
#[derive(Debug, Clone, PartialEq)]
pub struct Warmup {
    /// How long it takes.
    pub duration: Duration,
    /// The share at the start, in percent of its full one (10 by default).
    pub minimum_percent: f64,
    /// Above 1: faster at first; below: slower at first (1 by default).
    pub aggression: f64,
}

/// Limits of connections and requests to a host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectionPool {
    /// Of connections.
    pub tcp: TcpPool,
    /// Of requests.
    pub http: HttpPool,
}

/// Limits of connections.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpPool {
    /// Connections to the host (2^32-1 by default).
    pub max_connections: u32,
    /// Time to connect; `None`: 10 s, Istio's default, and 1 s to another sidecar.
    pub connect_timeout: Option<Duration>,
    /// TCP keep-alive probes; `None`: the system's.
    pub keepalive: Option<TcpKeepalive>,
    /// A connection is closed (after its last request) when it is this old.
    pub max_connection_duration: Option<Duration>,
    /// Idle time of a TCP stream (1 h by default); `None` (written `0s`): for ever.
    pub idle_timeout: Option<Duration>,
}

impl Default for TcpPool {
    fn default() -> Self {
        TcpPool {
            max_connections: u32::MAX,
            connect_timeout: None,
            keepalive: None,
            max_connection_duration: None,
            idle_timeout: Some(Duration::from_secs(3600)),
        }
    }
}

/// TCP keep-alive probes; `None`: the system's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes without an answer before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
}

/// Limits of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpPool {
    /// Requests that wait for a connection (2^32-1 by default).
    pub http1_max_pending_requests: u32,
    /// Requests in flight (2^32-1 by default); for HTTP/1.1 too, as in Envoy.
    pub http2_max_requests: u32,
    /// Requests on one connection; `None` (written 0): no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Retries in flight (2^32-1 by default).
    pub max_retries: u32,
    /// An idle connection is closed after this (1 h by default); `None` (written `0s`): never.
    pub idle_timeout: Option<Duration>,
    /// Whether HTTP/1.1 requests are sent as HTTP/2.
    pub h2_upgrade: H2Upgrade,
    /// The client's protocol is kept, whatever `h2_upgrade` says.
    pub use_client_protocol: bool,
    /// Streams on one HTTP/2 connection (2^31-1 by default).
    pub max_concurrent_streams: u32,
    /// HTTP/2 PING.
    pub http2_keepalive: Option<Http2Keepalive>,
}

impl Default for HttpPool {
    fn default() -> Self {
        HttpPool {
            http1_max_pending_requests: u32::MAX,
            http2_max_requests: u32::MAX,
            max_requests_per_connection: None,
            max_retries: u32::MAX,
            idle_timeout: Some(Duration::from_secs(3600)),
            h2_upgrade: H2Upgrade::Default,
            use_client_protocol: false,
            max_concurrent_streams: i32::MAX as u32,
            http2_keepalive: None,
        }
    }
}

/// Whether HTTP/1.1 requests are sent as HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum H2Upgrade {
    /// As the mesh: the client's protocol is kept.
    #[default]
    Default,
    /// HTTP/1.1.
    DoNotUpgrade,
    /// HTTP/2.
    Upgrade,
}

/// HTTP/2 PING.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Keepalive {
    /// Between PINGs.
    pub interval: Duration,
    /// Time for the answer.
    pub timeout: Duration,
}

/// When an endpoint is put aside.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierDetection {
    /// Count local failures apart from the upstream's errors.
    pub split_external_local_origin_errors: bool,
    /// Local failures in a row (5 by default); `None`: off.
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503, 504 in a row; `None` (the default): off.
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row (5 by default); `None` (written 0): off.
    pub consecutive_5xx_errors: Option<u32>,
    /// Between sweeps (10 s by default).
    pub interval: Duration,
    /// Times the number of ejections (30 s by default).
    pub base_ejection_time: Duration,
    /// Share of endpoints that may be aside (10 by default).
    pub max_ejection_percent: u8,
    /// Below this share of healthy endpoints nothing is put aside (0 by default).
    pub min_health_percent: u8,
    /// Further statuses that count as 5xx.
    pub http_errors: Vec<u16>,
}

/// TLS to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// The mode.
    pub mode: TlsMode,
    /// Path of our certificate.
    pub client_certificate: Option<String>,
    /// Path of our key.
    pub private_key: Option<String>,
    /// Path of the authorities' certificates.
    pub ca_certificates: Option<String>,
    /// Path of the revocation list.
    pub ca_crl: Option<String>,
    /// Name of a secret that holds them.
    pub credential_name: Option<String>,
    /// Names of which the peer must have one.
    pub subject_alt_names: Vec<String>,
    /// Server name to ask for.
    pub sni: Option<String>,
    /// Do not verify the peer.
    pub insecure_skip_verify: Option<bool>,
}

/// How TLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// None.
    #[default]
    Disable,
    /// The server proves who it is.
    Simple,
    /// Both prove who they are, with given certificates.
    Mutual,
    /// Both prove who they are, with the mesh's certificates.
    IstioMutual,
}

/// Tunnel to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// `CONNECT` (the default) or `POST`.
    pub protocol: String,
    /// Where the tunnel leads.
    pub target_host: String,
    /// Its port.
    pub target_port: u16,
}

/// How many retries may be active.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryBudget {
    /// In percent of active requests (20 by default).
    pub percent: f64,
    /// At least this many (3 by default).
    pub min_retry_concurrency: u32,
    /// Over how long requests are counted; 0: those active.
    pub budget_interval: Duration,
}
