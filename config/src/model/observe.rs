//! Telemetry: tracing, metrics, access logs. Not enforced yet.

use std::time::Duration;

use super::{Meta, Scope};

/// Tracing, metrics, access logs of the workloads in scope.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// Whom it is for.
    pub scope: Scope,
    /// Tracing.
    pub tracing: Vec<Tracing>,
    /// Metrics.
    pub metrics: Vec<Metrics>,
    /// Access logs.
    pub access_logging: Vec<AccessLogging>,
}

/// Which side of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// Both (the default).
    #[default]
    Both,
    /// The caller's sidecar.
    Client,
    /// The callee's sidecar.
    Server,
}

/// Tracing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tracing {
    /// Which side.
    pub side: Side,
    /// Providers by name.
    pub providers: Vec<String>,
    /// 0 to 100; `None`: inherited.
    pub random_sampling_percentage: Option<f64>,
    /// No spans are reported.
    pub disable_span_reporting: Option<bool>,
    /// Tags by name.
    pub custom_tags: Vec<(String, CustomTag)>,
    /// The request id decides about sampling.
    pub use_request_id_for_trace_sampling: Option<bool>,
    /// Istio's tags are added.
    pub enable_istio_tags: Option<bool>,
    /// Trace headers are not sent on.
    pub disable_context_propagation: Option<bool>,
}

/// Where a tag's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomTag {
    /// The value itself.
    Literal(String),
    /// An environment variable, with a default.
    Environment(String, Option<String>),
    /// A request header, with a default.
    Header(String, Option<String>),
    /// A format string.
    Formatter(String),
}

/// Metrics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    /// Providers by name.
    pub providers: Vec<String>,
    /// Changes to single metrics.
    pub overrides: Vec<MetricOverride>,
    /// Between reports.
    pub reporting_interval: Option<Duration>,
}

/// A change to a metric.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetricOverride {
    /// Its name: one of Istio's, or a custom one; empty: all.
    pub metric: String,
    /// Which side.
    pub side: Side,
    /// It is not reported.
    pub disabled: Option<bool>,
    /// Tag and its new value; `None`: the tag is removed.
    pub tags: Vec<(String, Option<String>)>,
}

/// Access logs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AccessLogging {
    /// Which side.
    pub side: Side,
    /// Providers by name.
    pub providers: Vec<String>,
    /// Off.
    pub disabled: Option<bool>,
    /// CEL expression.
    pub filter: Option<String>,
}
