//! AuthorizationProvider: our own kind, in Istio's style of keys; what are `envoyExtAuthzGrpc` and `envoyExtAuthzHttp` in Istio's
//! MeshConfig.

use super::{Bool, Int, List, OtlpTlsSpec, Text, TextMap, Time, object};

object! {
    /// Who is asked by AuthorizationPolicies with the action CUSTOM: those of its namespace, by `provider.name`; those of all
    /// namespaces, when it is in a root namespace (`istio-system`, `pilotfish-system`). It is asked by Envoy's ext_authz protocol.
    struct AuthorizationProviderSpec<'n> "AuthorizationProvider" {
        /// Asked by gRPC: `envoy.service.auth.v3.Authorization/Check`.
        grpc = "grpc": GrpcAuthorizerSpec<'n>, one_of("protocol");
        /// Asked by HTTP: the call's own method and path; 200 allows.
        http = "http": HttpAuthorizerSpec<'n>, one_of("protocol");
        /// For one question, the wait for a place in line included, 1ms to 10m (1s by default; Istio's is 600s, in which nobody
        /// waits).
        timeout = "timeout": Time<'n>;
        /// Whether calls go on when the authorizer cannot be asked: no answer, no answer in time, a broken one, HTTP 5xx (false by
        /// default, as Istio's).
        fail_open = "failOpen": Bool<'n>;
        /// The status of what is refused because the authorizer cannot be asked (403 by default, as Istio's).
        status_on_error = "statusOnError": Text<'n>;
        /// The call's body goes along with the question.
        body = "includeRequestBodyInCheck": CheckedBodySpec<'n>;
        /// Answers are remembered. Without it every call is a question.
        cache = "cache": AuthorizerCacheSpec<'n>;
    }

    /// An authorizer that speaks gRPC.
    struct GrpcAuthorizerSpec<'n> "GrpcAuthorizer" {
        /// Its host: a service of the mesh (a ServiceEntry's, or an agent's), which is reached as calls to it are, by its endpoints and
        /// its DestinationRule's `tls`; else a name of DNS or an address. `NAMESPACE/HOST` too, as in Istio's MeshConfig.
        service = "service": Text<'n>, required;
        /// Its port.
        port = "port": Int<'n>, required;
        /// It speaks TLS. Files that are named here go before the DestinationRule's.
        tls = "tls": OtlpTlsSpec<'n>;
        /// Sent along with every question, as `context_extensions`.
        context_extensions = "contextExtensions": TextMap<'n>;
    }

    /// An authorizer that speaks HTTP.
    struct HttpAuthorizerSpec<'n> "HttpAuthorizer" {
        /// Its host: a service of the mesh (a ServiceEntry's, or an agent's), which is reached as calls to it are, by its endpoints and
        /// its DestinationRule's `tls`; else a name of DNS or an address. `NAMESPACE/HOST` too, as in Istio's MeshConfig.
        service = "service": Text<'n>, required;
        /// Its port.
        port = "port": Int<'n>, required;
        /// It speaks TLS. Files that are named here go before the DestinationRule's.
        tls = "tls": OtlpTlsSpec<'n>;
        /// Written before the call's path.
        path_prefix = "pathPrefix": Text<'n>;
        /// Headers of the call that go along with the question, besides Host, method, path, Content-Length and Authorization; `prefix*`
        /// and `*suffix` too.
        include_headers = "includeRequestHeadersInCheck": List<Text<'n>>;
        /// Headers that are added to the question, and replace the call's of the same name.
        additional_headers = "includeAdditionalHeadersInCheck": TextMap<'n>;
        /// Headers of an answer that allows which replace the call's before it goes on; `prefix*` and `*suffix` too (none by default).
        to_upstream = "headersToUpstreamOnAllow": List<Text<'n>>;
        /// Headers of an answer that refuses which the caller gets; `prefix*` and `*suffix` too. By default all of them, as Envoy.
        to_downstream_on_deny = "headersToDownstreamOnDeny": List<Text<'n>>;
        /// Headers of an answer that allows which are added to what the caller gets; `prefix*` and `*suffix` too (none by default).
        to_downstream_on_allow = "headersToDownstreamOnAllow": List<Text<'n>>;
    }

    /// How much of a body goes along with a question.
    struct CheckedBodySpec<'n> "CheckedBody" {
        /// Bytes, 1 to 1048576.
        max_request_bytes = "maxRequestBytes": Int<'n>, required;
        /// Whether the beginning of a longer body goes along; otherwise a longer one is refused with 413 (false by default, as
        /// Istio's).
        allow_partial_message = "allowPartialMessage": Bool<'n>;
        /// For gRPC: in `raw_body`, as bytes, not in `body`, as text (false by default, as Istio's).
        pack_as_bytes = "packAsBytes": Bool<'n>;
    }

    /// What is remembered.
    struct AuthorizerCacheSpec<'n> "AuthorizerCache" {
        /// How long an answer holds, 1ms to 1h.
        ttl = "ttl": Time<'n>, required;
        /// Headers of the call that its answer hangs on, besides who calls, method, host, path with query and `authorization`: all that the
        /// authorizer looks at has to be here.
        headers = "headers": List<Text<'n>>;
    }
}
