//! What Telemetry documents say of a sidecar's calls: how traces are sampled and tagged, which metrics and log lines there are.

mod metrics;

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
    /// Where spans go, by name; empty: the default.
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
    /// Always the same (`literal`; `environment`, once it is looked up).
    Literal(Box<str>),
    /// A request header; the default when it is not there, no tag without one.
    Header(Box<str>, Option<Box<str>>),
}

/// The access log.
#[derive(Debug, Clone, Default)]
pub struct AccessLogPolicy {
    /// On or off, whatever the process's settings say.
    pub on: Option<bool>,
}
