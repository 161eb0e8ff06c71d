//! How an endpoint's health is found out: the breaker and the active check, as annotations write them.

use std::time::Duration;

/// `pilotfish.dev/circuit-breaker`: when an endpoint gets no more calls for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitBreaker {
    /// It opens after this many failures in a row (7, Linkerd's default); `None`: off.
    pub consecutive: Option<u32>,
    /// It opens when a smaller share than this succeeds, above 0 and at most 1 (0.8, Linkerd's default); `None`: off.
    pub success_rate: Option<f64>,
    /// The time over which the share is taken (10 s, Linkerd's default).
    pub window: Duration,
    /// Calls in the window below which the share says nothing (5, Linkerd's default).
    pub min_requests: u32,
    /// How long it is open the first time (1 s, Linkerd's default); doubles each time.
    pub open: Duration,
    /// The longest time that it is open (60 s, Linkerd's default).
    pub longest: Duration,
}

impl Default for CircuitBreaker {
    fn default() -> CircuitBreaker {
        CircuitBreaker {
            consecutive: Some(7),
            success_rate: Some(0.8),
            window: Duration::from_secs(10),
            min_requests: 5,
            open: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        }
    }
}

/// `pilotfish.dev/health-check`: how endpoints are asked whether they are well.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub method: CheckMethod,
    /// At which port, when that is not the one that calls go to.
    pub port: Option<u16>,
    /// Between two checks (10 s, Kubernetes' default).
    pub interval: Duration,
    /// How long an answer may take (2 s).
    pub timeout: Duration,
    /// Good answers in a row after which an endpoint that was not well is well (2).
    pub healthy: u32,
    /// Bad answers in a row after which it is not (3, Kubernetes' default).
    pub unhealthy: u32,
    /// The interval is longer or shorter by up to this share of it, by chance (0.1).
    pub jitter: f64,
    /// It shows the host's OutboundCredential (no).
    pub credential: bool,
}

impl HealthCheck {
    /// This method with the default numbers.
    pub fn by(method: CheckMethod) -> HealthCheck {
        HealthCheck {
            method,
            port: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            healthy: 2,
            unhealthy: 3,
            jitter: 0.1,
            credential: false,
        }
    }
}

/// What an active check asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckMethod {
    /// GET of this path; 200 to 399 is good.
    Http(String),
    /// `grpc.health.v1.Health/Check` of this service; empty: the server as a whole.
    Grpc(String),
    /// Whether it accepts a connection.
    Tcp,
}

/// What a document says of something that another document may say too.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Wish<T> {
    /// Nothing.
    #[default]
    Silent,
    /// `off`: not even what the other one says.
    Off,
    /// This.
    On(T),
}

impl<T> Wish<T> {
    /// What holds when `self` goes before `other`.
    pub fn or<'a>(&'a self, other: &'a Wish<T>) -> Option<&'a T> {
        match (self, other) {
            (Wish::On(own), _) => Some(own),
            (Wish::Silent, Wish::On(other)) => Some(other),
            _ => None,
        }
    }
}
