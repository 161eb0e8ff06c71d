//! Telemetry: tracing, metrics, access logs; and where all that goes.

use std::time::Duration;

use super::{Meta, ROOT_NAMESPACES, Scope, Source};

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
    /// Tags by name; `None`: inherited.
    pub custom_tags: Option<Vec<(String, CustomTag)>>,
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
    /// Which calls; an empty text: every call.
    pub filter: Option<Condition>,
}

/// A condition in CEL, which is compiled with the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The text.
    pub text: String,
    /// Where it is written.
    pub source: Source,
}

/// A provider that needs no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// It takes spans.
    pub tracing: bool,
    /// It takes metrics.
    pub metrics: bool,
    /// It takes the access log.
    pub access_log: bool,
}

const fn built_in(name: &'static str, [tracing, metrics, access_log]: [bool; 3]) -> BuiltIn {
    BuiltIn { name, tracing, metrics, access_log }
}

/// Providers that need no document.
pub const BUILT_IN: [BuiltIn; 5] = [
    // Where the sidecar's settings say.
    built_in("otlp", [true, true, true]),
    // The control plane's own store of traces.
    built_in("pilotfish", [true, false, false]),
    built_in("prometheus", [false, true, false]),
    // The sidecar's own log, by Istio's name and by ours.
    built_in("envoy", [false, false, true]),
    built_in("stdout", [false, false, true]),
];

/// Where telemetry goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryProvider {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// The collector.
    pub otlp: Otlp,
}

impl TelemetryProvider {
    /// Whether Telemetry documents of `namespace` may name it.
    pub fn is_for(&self, namespace: &str) -> bool {
        self.meta.namespace() == namespace || ROOT_NAMESPACES.contains(&self.meta.namespace())
    }
}

/// A collector that speaks OpenTelemetry's protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// `http://` or `https://`, host, port, perhaps a path; without query and user.
    pub endpoint: String,
    /// gRPC, else protobuf over HTTP.
    pub grpc: bool,
    /// For one attempt.
    pub timeout: Duration,
    /// Bodies are compressed by gzip.
    pub gzip: bool,
    /// Header, in lower case, and the environment variable with its value.
    pub headers_from_environment: Vec<(String, String)>,
    /// A file with roots (PEM).
    pub ca_certificates: Option<String>,
    /// Files with the client's certificate chain and its key (PEM).
    pub client: Option<(String, String)>,
}
