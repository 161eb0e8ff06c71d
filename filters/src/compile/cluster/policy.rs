//! What a traffic policy means for a cluster.

use std::sync::Arc;

use pilotfish_config::model::{
    self, ConnectionPool, H2Upgrade, HashKey, LocalityMode, PortProtocol, TrafficPolicy,
};

use crate::balance::Algorithm;
use crate::balance::maglev;
use crate::balance::slow_start::Warmup;
use crate::budget::BudgetPolicy;
use crate::cluster::settings::{CONNECT_TIMEOUT, MESH_CONNECT_TIMEOUT};
use crate::cluster::{ClusterSettings, Upstream};

/// How a cluster chooses.
pub(super) struct Balancing {
    pub(super) algorithm: Algorithm,
    pub(super) passthrough: bool,
    pub(super) hash_key: Option<HashKey>,
    pub(super) factor: Option<u32>,
    pub(super) warmup: Option<Warmup>,
    pub(super) locality: Option<LocalityMode>,
}

pub(super) fn balancing(policy: &TrafficPolicy) -> Balancing {
    let balancer = policy.load_balancer.clone().unwrap_or_default();
    let mut hash_key = None;
    let mut factor = None;
    let algorithm = match balancer.algorithm {
        model::Algorithm::LeastRequest | model::Algorithm::Passthrough => Algorithm::LeastRequest,
        model::Algorithm::Random => Algorithm::Random,
        model::Algorithm::RoundRobin => Algorithm::RoundRobin,
        model::Algorithm::PeakEwma => Algorithm::PeakEwma,
        model::Algorithm::ConsistentHash(hash) => {
            hash_key = Some(hash.key);
            factor = hash.balance_factor.map(|factor| (factor * 100.0).round() as u32);
            match hash.table {
                model::HashTable::Ring { minimum_size } => Algorithm::Ring { min_size: minimum_size },
                model::HashTable::Maglev { size } => Algorithm::Maglev { size: table_size(size) },
            }
        }
    };
    Balancing {
        algorithm,
        passthrough: policy
            .load_balancer
            .as_ref()
            .is_some_and(|own| own.algorithm == model::Algorithm::Passthrough),
        hash_key,
        factor,
        warmup: balancer.warmup.map(|warmup| Warmup {
            duration: warmup.duration,
            minimum_percent: warmup.minimum_percent,
            aggression: warmup.aggression,
        }),
        locality: locality(policy),
    }
}

/// A size that is no prime would leave slots that some endpoint never reaches.
fn table_size(size: u64) -> u32 {
    let size = u32::try_from(size).unwrap_or(maglev::MAX_SIZE).min(maglev::MAX_SIZE);
    if maglev::is_prime(size) { size } else { maglev::DEFAULT_SIZE }
}

/// Istio prefers near endpoints only where outlier detection can tell that they are gone. Failed connects put an
/// endpoint aside here without it, so a failover that is written out holds on its own; mere nearness, which is the
/// mesh's default, stays tied to outlier detection lest traffic narrow to one zone that nobody asked for.
fn locality(policy: &TrafficPolicy) -> Option<LocalityMode> {
    let written = policy.load_balancer.as_ref().and_then(|balancer| balancer.locality.as_ref());
    match written {
        Some(own) if !own.enabled => None,
        Some(own) if own.mode != LocalityMode::Nearest => Some(own.mode.clone()),
        _ => policy.outlier_detection.as_ref().map(|_| LocalityMode::Nearest),
    }
}

/// `of_service`: names that the ServiceEntry expects of endpoints; those of the policy come before them.
pub(in crate::compile) fn settings(
    policy: &TrafficPolicy,
    protocol: PortProtocol,
    of_service: &[String],
) -> ClusterSettings {
    let tls = policy.tls.clone().map(Arc::new);
    let of_policy = tls.as_ref().map(|tls| tls.subject_alt_names.as_slice()).unwrap_or_default();
    let names = if of_policy.is_empty() { of_service } else { of_policy };
    let ConnectionPool { tcp, http } = policy.connection_pool.clone().unwrap_or_default();
    let limit = |value: u32, unlimited: u32| (value < unlimited).then_some(value);
    let upstream = match http.h2_upgrade {
        _ if http.use_client_protocol => Upstream::Client,
        _ if protocol.is_http2() => Upstream::Http2,
        H2Upgrade::Upgrade => Upstream::Http2,
        H2Upgrade::DoNotUpgrade => Upstream::Http1,
        H2Upgrade::Default => Upstream::Client,
    };
    ClusterSettings {
        connect_timeout: tcp.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        mesh_connect_timeout: tcp.connect_timeout.unwrap_or(MESH_CONNECT_TIMEOUT),
        subject_alt_names: names.iter().map(|name| Arc::from(name.as_str())).collect(),
        tls,
        max_connections: limit(tcp.max_connections, u32::MAX),
        max_pending: limit(http.http1_max_pending_requests, u32::MAX),
        max_requests: limit(http.http2_max_requests, u32::MAX),
        retry_budget: budget(policy.retry_budget.as_ref(), limit(http.max_retries, u32::MAX)),
        max_requests_per_connection: http.max_requests_per_connection,
        idle_timeout: http.idle_timeout,
        tunnel_idle_timeout: tcp.idle_timeout,
        max_connection_duration: tcp.max_connection_duration,
        tcp_keepalive: tcp.keepalive,
        upstream,
        http2_keepalive: http.http2_keepalive,
        max_concurrent_streams: limit(http.max_concurrent_streams, i32::MAX as u32),
        ..ClusterSettings::default()
    }
}

/// `retryBudget`, whose default holds when it is not written, and `maxRetries`.
fn budget(written: Option<&model::RetryBudget>, max: Option<u32>) -> BudgetPolicy {
    let default = BudgetPolicy { max, ..BudgetPolicy::default() };
    written.map_or(default, |budget| BudgetPolicy {
        percent: budget.percent,
        min: budget.min_retry_concurrency,
        interval: Some(budget.budget_interval).filter(|interval| !interval.is_zero()),
        max,
    })
}
