//! What Telemetry documents say of a sidecar's calls: how traces are sampled and tagged, which metrics and log lines there are.

mod metrics;

use std::time::Duration;

use crate::expression::Expression;
use crate::sampling::Sampling;

pub use metrics::{MetricSet, MetricsPolicy, label};

/// What holds for calls of one direction. `Default`: no document says anything.
#[derive(Debug, Clone, Default)]
pub struct TelemetryPolicy {
    /// Traces.
    pub tracing: TracingPolicy,
    /// The access log.
    pub access_log: AccessLogPolicy,
    /// Metrics.
    pub metrics: MetricsPolicy,
}

/// Traces.
#[derive(Debug, Clone, Default)]
pub struct TracingPolicy {
    /// How many of the traces that begin here are kept; `None`: as the process's settings say.
    pub sampling: Option<Sampling>,
    /// No spans are reported (`disableSpanReporting`); the context is passed on nevertheless.
    pub silent: bool,
    /// The context is not passed on (`disableContextPropagation`).
    pub cut: bool,
    /// `useRequestIdForTraceSampling`.
    pub by_request_id: bool,
    /// Attributes of the SERVER span.
    pub tags: Box<[Tag]>,
    /// Where spans go: `otlp`, `pilotfish`, or the name of one of the plan's [`Collector`]s; empty: the default.
    pub providers: Box<[Box<str>]>,
}

/// A custom tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The attribute's name.
    pub name: Box<str>,
    /// Its value.
    pub source: TagSource,
}

/// Where a tag's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagSource {
    /// Always the same (`literal`, and `environment`, which is looked up when the plan is compiled).
    Literal(Box<str>),
    /// A request header, its name in lower case; the default when it is not there, no tag without one.
    Header(Box<str>, Option<Box<str>>),
}

/// The access log.
#[derive(Debug, Clone, Default)]
pub struct AccessLogPolicy {
    /// The sidecar's own log (`envoy`, `stdout`).
    pub lines: LogPolicy,
    /// OpenTelemetry's log records (`otlp`, and TelemetryProviders).
    pub records: LogPolicy,
    /// Where those go: `otlp`, or the name of one of the plan's [`Collector`]s; empty: the default.
    pub providers: Box<[Box<str>]>,
}

/// One kind of access log.
#[derive(Debug, Clone, Default)]
pub struct LogPolicy {
    /// On or off, whatever the process's settings say; `None`: as these say.
    pub on: Option<bool>,
    /// Only calls for which this holds.
    pub filter: Option<Box<Expression>>,
}

/// A collector, as a TelemetryProvider describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// `namespace/name` of its document.
    pub name: Box<str>,
    /// `http://` or `https://`, host, port, perhaps a path.
    pub endpoint: Box<str>,
    /// gRPC, else protobuf over HTTP.
    pub grpc: bool,
    /// For one attempt.
    pub timeout: Duration,
    /// Bodies are compressed by gzip.
    pub gzip: bool,
    /// Header, in lower case, and the environment variable with its value.
    pub headers_from_environment: Box<[(Box<str>, Box<str>)]>,
    /// A file with roots (PEM); `None`: the system's.
    pub ca_certificates: Option<Box<str>>,
    /// Files with the client's certificate chain and its key (PEM).
    pub client: Option<(Box<str>, Box<str>)>,
}
