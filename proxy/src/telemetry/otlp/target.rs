//! Where telemetry goes, and how. Made at the start from flags and `OTEL_*` variables, or from a TelemetryProvider.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// Every signal, in the order of their numbers.
    pub const ALL: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

    /// The word in paths and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
        }
    }

    /// The path of OTLP/gRPC.
    pub const fn method(self) -> &'static str {
        match self {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC: HTTP/2.
    Grpc,
    /// OTLP/HTTP with protobuf: HTTP/1.1.
    Http,
}

/// A collector for one signal.
#[derive(Clone)]
pub struct Collector {
    /// Its host, for DNS and for its certificate.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// The path that is asked for.
    pub path: Box<str>,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// TLS, and the name that its certificate has to have.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Sent with each request. Secrets, as a rule.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Bodies are compressed.
    pub gzip: bool,
    /// For a whole request, the connection included.
    pub timeout: Duration,
}

impl Collector {
    /// The `host:port` of its requests.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(out, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl fmt::Debug for Collector {
    /// Without its headers.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Collector")
            .field("url", &self.to_string())
            .field("protocol", &self.protocol)
            .field("gzip", &self.gzip)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Somewhere that telemetry goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// A collector.
    Collector(Box<Collector>),
    /// The control planes of `--control`, as the agent that the sidecar is.
    Control,
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Collector(collector) => collector.fmt(out),
            Target::Control => out.write_str("the control plane"),
        }
    }
}
