//! Telemetry, as Istio defines it.

use super::{Bool, List, Map, Number, One, SelectorSpec, TargetRefSpec, Text, Time, object, words};

object! {
    /// Tracing, metrics, access logs.
    struct TelemetrySpec<'n> "Telemetry" {
        /// The workloads that it is for.
        selector = "selector": SelectorSpec<'n>;
        /// The object that it is for (older form).
        target_ref = "targetRef": TargetRefSpec<'n>;
        /// The objects that it is for.
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
        /// Which side.
        matching = "match": SideSpec<'n>;
        /// Providers.
        providers = "providers": List<ProviderRefSpec<'n>>;
        /// 0 to 100.
        random_sampling_percentage = "randomSamplingPercentage": Number<'n>;
        /// No spans are reported.
        disable_span_reporting = "disableSpanReporting": Bool<'n>;
        /// Tags by name.
        custom_tags = "customTags": Map<'n, CustomTagSpec<'n>>;
        /// The request id decides about sampling.
        use_request_id = "useRequestIdForTraceSampling": Bool<'n>;
        /// Istio's tags are added.
        enable_istio_tags = "enableIstioTags": Bool<'n>;
        /// Trace headers are not sent on.
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
        /// An environment variable.
        environment = "environment": TagNameSpec<'n>, one_of("tag");
        /// A request header.
        header = "header": TagNameSpec<'n>, one_of("tag");
        /// A format string.
        formatter = "formatter": TagValueSpec<'n>, one_of("tag");
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
        reporting_interval = "reportingInterval": Time<'n>;
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
        value = "value": Text<'n>;
    }

    /// Access logs.
    struct AccessLoggingSpec<'n> "AccessLogging" {
        /// Which side.
        matching = "match": SideSpec<'n>;
        /// Providers.
        providers = "providers": List<ProviderRefSpec<'n>>;
        /// Off.
        disabled = "disabled": Bool<'n>;
        /// Which calls.
        filter = "filter": LogFilterSpec<'n>;
    }

    /// Which calls are logged.
    struct LogFilterSpec<'n> "Filter" {
        /// CEL expression.
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
