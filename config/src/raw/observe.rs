//! Telemetry, as Istio defines it.

use super::{Bool, List, Map, Number, One, SelectorSpec, TargetRefSpec, Text, Time, object, words};

object! {
    /// Tracing, metrics, access logs. What a document says about a field holds over what one for more workloads says: first
    /// the workloads that it selects, then its namespace, then the mesh (a root namespace: `istio-system`, `pilotfish-system`).
    /// Of several for the same workloads the first by name holds.
    struct TelemetrySpec<'n> "Telemetry" {
        /// The workloads that it is for; all of the namespace by default, all of the mesh in a root namespace.
        selector = "selector": SelectorSpec<'n>;
        /// The object that it is for (older form). Sidecars leave the whole document alone.
        target_ref = "targetRef": TargetRefSpec<'n>;
        /// The objects that it is for: gateways and waypoints. Sidecars leave the whole document alone.
        target_refs = "targetRefs": List<TargetRefSpec<'n>>;
        /// Tracing.
        tracing = "tracing": List<TracingSpec<'n>>;
        /// Metrics.
        metrics = "metrics": List<MetricsSpec<'n>>;
        /// Access logs.
        access_logging = "accessLogging": List<AccessLoggingSpec<'n>>;
    }

    /// Tracing.
    struct TracingSpec<'n> "Tracing" {
        /// Which side: calls that the agent makes (`CLIENT`), calls that it gets (`SERVER`), or both (the default).
        matching = "match": SideSpec<'n>;
        /// Where spans go: `otlp` (where the sidecar's settings say), `pilotfish` (the control plane's own store), or a
        /// TelemetryProvider of the namespace or a root namespace.
        providers = "providers": List<ProviderRefSpec<'n>>;
        /// How many of the traces that begin here are kept, 0 to 100. Of a trace that began elsewhere its flag decides.
        random_sampling_percentage = "randomSamplingPercentage": Number<'n>;
        /// No spans are reported; the context is passed on nevertheless.
        disable_span_reporting = "disableSpanReporting": Bool<'n>;
        /// Attributes of the SERVER span by name. Replaces the tags of a wider document as a whole.
        custom_tags = "customTags": Map<'n, CustomTagSpec<'n>>;
        /// `x-request-id` decides which traces the percentage keeps, where there is one, and not the trace's id (false by
        /// default; Istio's default is true).
        use_request_id = "useRequestIdForTraceSampling": Bool<'n>;
        /// Istio's tags are added.
        enable_istio_tags = "enableIstioTags": Bool<'n>, ignored("spans have OpenTelemetry's names, and pilotfish's own");
        /// The trace's context is not passed on to whom the agent calls.
        disable_context_propagation = "disableContextPropagation": Bool<'n>;
    }

    /// Which side.
    struct SideSpec<'n> "Selector" {
        /// Which side.
        mode = "mode": One<'n, SideWord>;
    }

    /// A provider.
    struct ProviderRefSpec<'n> "ProviderRef" {
        /// Its name.
        name = "name": Text<'n>, required;
    }

    /// Where a tag's value comes from.
    struct CustomTagSpec<'n> "CustomTag" {
        /// The value itself.
        literal = "literal": TagValueSpec<'n>, one_of("tag");
        /// An environment variable of the sidecar's process. One that looks like a credential, by its name or by its value, is
        /// not told.
        environment = "environment": TagNameSpec<'n>, one_of("tag");
        /// A request header. One that carries credentials (`authorization`, `cookie`, `x-api-key`, ...) is not told.
        header = "header": TagNameSpec<'n>, one_of("tag");
        /// A format string of Envoy's.
        formatter = "formatter": TagValueSpec<'n>, one_of("tag"), ignored("format strings are Envoy's; write literal, environment or header");
    }

    /// A value.
    struct TagValueSpec<'n> "Literal" {
        /// The value.
        value = "value": Text<'n>, required;
    }

    /// A name with a default.
    struct TagNameSpec<'n> "Named" {
        /// The name.
        name = "name": Text<'n>, required;
        /// The value when it is not there.
        default_value = "defaultValue": Text<'n>;
    }

    /// Metrics.
    struct MetricsSpec<'n> "Metrics" {
        /// Providers.
        providers = "providers": List<ProviderRefSpec<'n>>;
        /// Changes to single metrics.
        overrides = "overrides": List<MetricOverrideSpec<'n>>;
        /// Between reports.
        reporting_interval = "reportingInterval": Time<'n>, ignored("OTEL_METRIC_EXPORT_INTERVAL of the sidecar's process says it");
    }

    /// A change to a metric.
    struct MetricOverrideSpec<'n> "MetricsOverrides" {
        /// Which metric.
        matching = "match": MetricMatchSpec<'n>;
        /// It is not reported.
        disabled = "disabled": Bool<'n>;
        /// Changes to its tags.
        tag_overrides = "tagOverrides": Map<'n, TagOverrideSpec<'n>>;
    }

    /// Which metric.
    struct MetricMatchSpec<'n> "MetricSelector" {
        /// One of Istio's.
        metric = "metric": One<'n, MetricWord>, one_of("metric");
        /// A custom one.
        custom_metric = "customMetric": Text<'n>, one_of("metric");
        /// Which side.
        mode = "mode": One<'n, SideWord>;
    }

    /// A change to a tag.
    struct TagOverrideSpec<'n> "TagOverride" {
        /// What happens to it (UPSERT by default).
        operation = "operation": One<'n, TagOperation>;
        /// The value, a CEL expression.
        value = "value": Text<'n>, ignored("labels can be removed, not given other values");
    }

    /// Access logs.
    struct AccessLoggingSpec<'n> "AccessLogging" {
        /// Which side: calls that the agent makes (`CLIENT`), calls that it gets (`SERVER`), or both (the default).
        matching = "match": SideSpec<'n>;
        /// `envoy` or `stdout`: the sidecar's own log, whose form its flags say. `otlp`, or a TelemetryProvider: log records
        /// of OpenTelemetry. None: all that are in use, or the sidecar's own log.
        providers = "providers": List<ProviderRefSpec<'n>>;
        /// Off; otherwise on.
        disabled = "disabled": Bool<'n>;
        /// Which calls; a wider document's filter holds until one is written here.
        filter = "filter": LogFilterSpec<'n>;
    }

    /// Which calls are logged.
    struct LogFilterSpec<'n> "Filter" {
        /// A condition in CEL, such as `response.code >= 400`; empty: every call.
        expression = "expression": Text<'n>;
    }
}

words! {
    /// Which side of a call.
    enum SideWord {
        /// Both.
        Both = "CLIENT_AND_SERVER",
        /// The caller's.
        Client = "CLIENT",
        /// The callee's.
        Server = "SERVER",
    }

    /// What happens to a tag.
    enum TagOperation {
        /// It gets the value.
        Upsert = "UPSERT",
        /// It is removed.
        Remove = "REMOVE",
    }

    /// Istio's metrics.
    enum MetricWord {
        /// All.
        All = "ALL_METRICS",
        /// Requests.
        RequestCount = "REQUEST_COUNT",
        /// Their duration.
        RequestDuration = "REQUEST_DURATION",
        /// Their size.
        RequestSize = "REQUEST_SIZE",
        /// Size of responses.
        ResponseSize = "RESPONSE_SIZE",
        /// Connections opened.
        TcpOpened = "TCP_OPENED_CONNECTIONS",
        /// Connections closed.
        TcpClosed = "TCP_CLOSED_CONNECTIONS",
        /// Bytes sent.
        TcpSent = "TCP_SENT_BYTES",
        /// Bytes received.
        TcpReceived = "TCP_RECEIVED_BYTES",
        /// gRPC requests.
        GrpcRequest = "GRPC_REQUEST_MESSAGES",
        /// gRPC responses.
        GrpcResponse = "GRPC_RESPONSE_MESSAGES",
    }
}
