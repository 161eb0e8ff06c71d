//! VirtualService, as Istio defines it.

use super::{Bool, Int, List, Map, Number, One, Signed, Text, TextMap, Time, object, words};

object! {
    /// Routing rules for one or more hosts.
    struct VirtualServiceSpec<'n> "VirtualService" {
        /// The hosts that the rules are for; a name without a dot is a service of the resource's namespace.
        /// Absent: a delegate, used by other VirtualServices.
        hosts = "hosts": List<Text<'n>>;
        /// Gateways that the rules are for; `mesh`, the default, means every sidecar.
        gateways = "gateways": List<Text<'n>>;
        /// Rules for HTTP, in order; the first that matches wins.
        http = "http": List<HttpRouteSpec<'n>>;
        /// Rules for TLS that is passed through.
        tls = "tls": List<TlsRouteSpec<'n>>, later;
        /// Rules for opaque TCP.
        tcp = "tcp": List<TcpRouteSpec<'n>>, later;
        /// Namespaces that see it: `.`, `*` (the default), or names.
        export_to = "exportTo": List<Text<'n>>;
    }

    /// One rule for HTTP.
    struct HttpRouteSpec<'n> "HTTPRoute" {
        /// The rule's name, for logs.
        name = "name": Text<'n>;
        /// Conditions: any one block is enough; within a block all must hold. Absent: every request.
        matches = "match": List<HttpMatchSpec<'n>>;
        /// Destinations by weight.
        route = "route": List<HttpDestinationSpec<'n>>;
        /// Answer with a redirect instead.
        redirect = "redirect": Box<RedirectSpec<'n>>;
        /// Answer with a fixed response instead.
        direct_response = "directResponse": Box<DirectResponseSpec<'n>>;
        /// Go on with the rules of another VirtualService that has no hosts.
        delegate = "delegate": Box<DelegateSpec<'n>>;
        /// Change path or authority before sending on.
        rewrite = "rewrite": Box<RewriteSpec<'n>>;
        /// For the whole call, at least 1ms; no limit when absent.
        timeout = "timeout": Time<'n>;
        /// When to try again.
        retries = "retries": Box<RetrySpec<'n>>;
        /// Faults to inject. `timeout` and `retries` of the rule are not applied then.
        fault = "fault": Box<FaultSpec<'n>>;
        /// Where a copy of each request goes; its answer is thrown away.
        mirror = "mirror": Box<DestinationSpec<'n>>;
        /// Where copies of requests go.
        mirrors = "mirrors": List<MirrorSpec<'n>>;
        /// Share of the requests that `mirror` copies (100 by default).
        mirror_percentage = "mirrorPercentage": PercentSpec<'n>;
        /// Share of the requests that `mirror` copies.
        mirror_percent = "mirrorPercent": Int<'n>, deprecated("mirrorPercentage: {value: N}");
        /// Old spelling of `mirrorPercent`.
        mirror_percent_old = "mirror_percent": Int<'n>, deprecated("mirrorPercentage: {value: N}");
        /// Cross-origin rules.
        cors_policy = "corsPolicy": Box<CorsSpec<'n>>;
        /// Edits of headers.
        headers = "headers": Box<HeadersSpec<'n>>;
        /// Removed from Istio.
        websocket_upgrade = "websocketUpgrade": Bool<'n>,
            ignored("Upgrade, WebSocket included, always works; Istio removed this field too");
    }

    /// Conditions that must all hold.
    struct HttpMatchSpec<'n> "HTTPMatchRequest" {
        /// The block's name, for logs.
        name = "name": Text<'n>;
        /// Of the path, without the query.
        uri = "uri": StringMatchSpec<'n>;
        /// Of the scheme.
        scheme = "scheme": StringMatchSpec<'n>;
        /// Of the method.
        method = "method": StringMatchSpec<'n>;
        /// Of the Host header or `:authority`.
        authority = "authority": StringMatchSpec<'n>;
        /// Of headers, by name; `{}` asks only that it is there.
        headers = "headers": Map<'n, StringMatchSpec<'n>>;
        /// The port that the client addressed.
        port = "port": Int<'n>;
        /// Labels of the calling workload.
        source_labels = "sourceLabels": TextMap<'n>;
        /// Gateways; those of the VirtualService when absent.
        gateways = "gateways": List<Text<'n>>;
        /// Of query parameters, by name.
        query_params = "queryParams": Map<'n, StringMatchSpec<'n>>;
        /// `uri` exact and prefix ignore case.
        ignore_uri_case = "ignoreUriCase": Bool<'n>;
        /// Headers that must not match.
        without_headers = "withoutHeaders": Map<'n, StringMatchSpec<'n>>;
        /// Namespace of the calling workload.
        source_namespace = "sourceNamespace": Text<'n>;
        /// Prefix for statistics.
        stat_prefix = "statPrefix": Text<'n>;
    }

    /// How a text is matched; empty: it is there.
    struct StringMatchSpec<'n> "StringMatch" {
        /// The whole text.
        exact = "exact": Text<'n>, one_of("match");
        /// The start of the text.
        prefix = "prefix": Text<'n>, one_of("match");
        /// The whole text against a regular expression (RE2 syntax).
        regex = "regex": Text<'n>, one_of("match");
    }

    /// A destination and its share.
    struct HttpDestinationSpec<'n> "HTTPRouteDestination" {
        /// Where to.
        destination = "destination": DestinationSpec<'n>, required;
        /// Its share of the sum of all weights.
        weight = "weight": Signed<'n>;
        /// Edits of headers for this destination.
        headers = "headers": Box<HeadersSpec<'n>>;
    }

    /// Where a request goes.
    struct DestinationSpec<'n> "Destination" {
        /// A service's host, or `<capability>.capability.mesh`.
        host = "host": Text<'n>, required;
        /// A subset of the host's DestinationRule.
        subset = "subset": Text<'n>;
        /// The service's port, when it has several.
        port = "port": PortSelectorSpec<'n>;
    }

    /// A port by number.
    struct PortSelectorSpec<'n> "PortSelector" {
        /// 1 to 65535.
        number = "number": Int<'n>, required;
    }

    /// Edits of headers in both directions.
    struct HeadersSpec<'n> "Headers" {
        /// Of the request.
        request = "request": HeaderOpsSpec<'n>;
        /// Of the response.
        response = "response": HeaderOpsSpec<'n>;
    }

    /// Edits of one header section.
    struct HeaderOpsSpec<'n> "HeaderOperations" {
        /// Replaces whatever is there.
        set = "set": TextMap<'n>;
        /// Adds a value.
        add = "add": TextMap<'n>;
        /// Removes all values.
        remove = "remove": List<Text<'n>>;
    }

    /// Answer with a redirect.
    struct RedirectSpec<'n> "HTTPRedirect" {
        /// Replaces the whole path.
        uri = "uri": Text<'n>, one_of("path");
        /// Replaces the prefix that matched.
        prefix_rewrite = "prefixRewrite": Text<'n>, one_of("path");
        /// Replaces the authority.
        authority = "authority": Text<'n>;
        /// The port in the Location.
        port = "port": Int<'n>, one_of("port");
        /// Which port the Location names.
        derive_port = "derivePort": One<'n, DerivePort>, one_of("port");
        /// `http` or `https`.
        scheme = "scheme": Text<'n>;
        /// 301 by default.
        redirect_code = "redirectCode": Int<'n>;
    }

    /// Answer with a fixed response.
    struct DirectResponseSpec<'n> "HTTPDirectResponse" {
        /// 200 to 599.
        status = "status": Int<'n>, required;
        /// The body.
        body = "body": BodySpec<'n>;
    }

    /// A body.
    struct BodySpec<'n> "HTTPBody" {
        /// As text.
        string = "string": Text<'n>, one_of("body");
        /// As base64.
        bytes = "bytes": Text<'n>, one_of("body");
    }

    /// Another VirtualService without hosts.
    struct DelegateSpec<'n> "Delegate" {
        /// Its name.
        name = "name": Text<'n>, required;
        /// Its namespace; the root's when absent.
        namespace = "namespace": Text<'n>;
    }

    /// Change path or authority before sending on.
    struct RewriteSpec<'n> "HTTPRewrite" {
        /// Replaces the prefix that matched, or the whole path if the match was not a prefix.
        uri = "uri": Text<'n>, one_of("path");
        /// Replaces what a regular expression matches in the path.
        uri_regex_rewrite = "uriRegexRewrite": RegexRewriteSpec<'n>, one_of("path");
        /// Replaces the authority.
        authority = "authority": Text<'n>;
    }

    /// Replaces what a regular expression matches.
    struct RegexRewriteSpec<'n> "RegexRewrite" {
        /// The expression (RE2 syntax).
        matching = "match": Text<'n>, required;
        /// The replacement; `\1` is the first group.
        rewrite = "rewrite": Text<'n>, required;
    }

    /// When to try again.
    struct RetrySpec<'n> "HTTPRetry" {
        /// Tries after the first; 0 turns retries off. Without `retries` there are 2.
        attempts = "attempts": Signed<'n>;
        /// For each try, from connecting to the head of the answer; the rest of the rule's `timeout` by default.
        per_try_timeout = "perTryTimeout": Time<'n>;
        /// Envoy's words and statuses, separated by commas (`connect-failure,refused-stream,unavailable,cancelled` by
        /// default). What may have been done is repeated for idempotent methods only.
        retry_on = "retryOn": Text<'n>;
        /// Prefer endpoints of other localities and priorities to those of the own one that failed (false by default).
        retry_remote_localities = "retryRemoteLocalities": Bool<'n>;
        /// Avoid endpoints that already failed (true by default).
        retry_ignore_previous_hosts = "retryIgnorePreviousHosts": Bool<'n>;
        /// The first wait is at random up to this (25ms by default); it doubles with each further try, up to 10 times.
        backoff = "backoff": Time<'n>;
    }

    /// Faults to inject.
    struct FaultSpec<'n> "HTTPFaultInjection" {
        /// Wait before sending on.
        delay = "delay": DelaySpec<'n>;
        /// Answer instead of sending on.
        abort = "abort": AbortSpec<'n>;
    }

    /// Wait before sending on.
    struct DelaySpec<'n> "Delay" {
        /// Share of the requests (none when absent); fractions down to 0.0001.
        percentage = "percentage": PercentSpec<'n>;
        /// Share of the requests.
        percent = "percent": Signed<'n>, deprecated("percentage: {value: N}");
        /// How long, at least 1ms.
        fixed_delay = "fixedDelay": Time<'n>, one_of("delay");
        /// Istio never implemented it.
        exponential_delay = "exponentialDelay": Time<'n>, one_of("delay");
    }

    /// Answer instead of sending on.
    struct AbortSpec<'n> "Abort" {
        /// Share of the requests (none when absent); fractions down to 0.0001.
        percentage = "percentage": PercentSpec<'n>;
        /// An HTTP status, 200 to 600.
        http_status = "httpStatus": Signed<'n>, one_of("abort");
        /// A gRPC status, by name (`UNAVAILABLE`) or number; other callers get the HTTP status that it means.
        grpc_status = "grpcStatus": Text<'n>, one_of("abort");
        /// An error of HTTP/2 by name (`CANCEL`): the stream is reset with it; an HTTP/1.1 connection is closed.
        http2_error = "http2Error": Text<'n>, one_of("abort");
    }

    /// A share.
    struct PercentSpec<'n> "Percent" {
        /// 0 to 100.
        value = "value": Number<'n>;
    }

    /// Where copies of requests go.
    struct MirrorSpec<'n> "HTTPMirrorPolicy" {
        /// Where to.
        destination = "destination": DestinationSpec<'n>, required;
        /// Share of the requests (100 by default).
        percentage = "percentage": PercentSpec<'n>;
    }

    /// Cross-origin rules.
    struct CorsSpec<'n> "CorsPolicy" {
        /// Origins that are allowed.
        allow_origins = "allowOrigins": List<StringMatchSpec<'n>>;
        /// Origins that are allowed, exactly.
        allow_origin = "allowOrigin": List<Text<'n>>, deprecated("allowOrigins: [{exact: ORIGIN}]");
        /// Methods that a preflight is told; `*`: every one.
        allow_methods = "allowMethods": List<Text<'n>>;
        /// Request headers that a preflight is told; `*`: every one.
        allow_headers = "allowHeaders": List<Text<'n>>;
        /// Response headers that scripts may read.
        expose_headers = "exposeHeaders": List<Text<'n>>;
        /// How long a preflight's answer may be cached, in whole seconds.
        max_age = "maxAge": Time<'n>;
        /// Whether scripts may use cookies and other credentials.
        allow_credentials = "allowCredentials": Bool<'n>;
        /// Whether preflights whose origin is not allowed are sent on (`FORWARD`, the default) or answered here (`IGNORE`).
        unmatched_preflights = "unmatchedPreflights": One<'n, UnmatchedPreflights>;
    }

    /// A rule for TLS that is passed through.
    struct TlsRouteSpec<'n> "TLSRoute" {
        /// Conditions: any one block is enough.
        matches = "match": List<TlsMatchSpec<'n>>, required;
        /// Destinations by weight.
        route = "route": List<L4DestinationSpec<'n>>;
    }

    /// Conditions on a TLS connection.
    struct TlsMatchSpec<'n> "TLSMatchAttributes" {
        /// Server names.
        sni_hosts = "sniHosts": List<Text<'n>>, required;
        /// Addresses or CIDR blocks of the destination.
        destination_subnets = "destinationSubnets": List<Text<'n>>;
        /// Port of the destination.
        port = "port": Int<'n>;
        /// Labels of the calling workload.
        source_labels = "sourceLabels": TextMap<'n>;
        /// Gateways.
        gateways = "gateways": List<Text<'n>>;
        /// Namespace of the calling workload.
        source_namespace = "sourceNamespace": Text<'n>;
    }

    /// A rule for opaque TCP.
    struct TcpRouteSpec<'n> "TCPRoute" {
        /// Conditions: any one block is enough.
        matches = "match": List<L4MatchSpec<'n>>;
        /// Destinations by weight.
        route = "route": List<L4DestinationSpec<'n>>;
    }

    /// Conditions on a connection.
    struct L4MatchSpec<'n> "L4MatchAttributes" {
        /// Addresses or CIDR blocks of the destination.
        destination_subnets = "destinationSubnets": List<Text<'n>>;
        /// Port of the destination.
        port = "port": Int<'n>;
        /// Address or CIDR block of the caller.
        source_subnet = "sourceSubnet": Text<'n>;
        /// Labels of the calling workload.
        source_labels = "sourceLabels": TextMap<'n>;
        /// Gateways.
        gateways = "gateways": List<Text<'n>>;
        /// Namespace of the calling workload.
        source_namespace = "sourceNamespace": Text<'n>;
    }

    /// A destination and its share.
    struct L4DestinationSpec<'n> "RouteDestination" {
        /// Where to.
        destination = "destination": DestinationSpec<'n>, required;
        /// Its share of the sum of all weights.
        weight = "weight": Signed<'n>;
    }
}

words! {
    /// Which port a redirect's Location names.
    enum DerivePort {
        /// The scheme's.
        FromProtocolDefault = "FROM_PROTOCOL_DEFAULT",
        /// The request's.
        FromRequestPort = "FROM_REQUEST_PORT",
    }

    /// Whether preflights that match no origin are sent on.
    enum UnmatchedPreflights {
        /// They are.
        Unspecified = "UNSPECIFIED",
        /// They are.
        Forward = "FORWARD",
        /// They are answered.
        Ignore = "IGNORE",
    }
}
