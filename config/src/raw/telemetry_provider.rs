//! TelemetryProvider: our own kind, in Istio's style of keys; what are extension providers in Istio's MeshConfig.

use super::{One, Text, TextMap, Time, object, words};

object! {
    /// Where telemetry goes, by a name that Telemetry documents of its namespace may use in `providers`; those of all
    /// namespaces, when it is in a root namespace (`istio-system`, `pilotfish-system`).
    struct TelemetryProviderSpec<'n> "TelemetryProvider" {
        /// A collector that speaks OpenTelemetry's protocol.
        otlp = "otlp": OtlpSpec<'n>, required;
    }

    /// A collector.
    struct OtlpSpec<'n> "OtlpProvider" {
        /// Its URL, `http://HOST:PORT` or `https://HOST:PORT`. With `http/protobuf` it may have a path, to which `/v1/traces` and
        /// so on are added.
        endpoint = "endpoint": Text<'n>, required;
        /// `grpc` or `http/protobuf` (the default, as OpenTelemetry's).
        protocol = "protocol": One<'n, OtlpProtocolWord>;
        /// For one attempt, 1ms to 10m (10s by default, as OpenTelemetry's).
        timeout = "timeout": Time<'n>;
        /// `gzip` or `none` (the default, as OpenTelemetry's).
        compression = "compression": One<'n, CompressionWord>;
        /// Headers of every request, each with the environment variable of the sidecar's process that has its value: documents
        /// are no place for keys. A header whose variable is not set is not sent.
        headers_from_environment = "headersFromEnvironment": TextMap<'n>;
        /// For `https` endpoints.
        tls = "tls": OtlpTlsSpec<'n>;
    }

    /// Whom to trust.
    struct OtlpTlsSpec<'n> "OtlpTls" {
        /// A file with root certificates (PEM) on the sidecar's machine (the system's roots by default).
        ca_certificates = "caCertificates": Text<'n>;
        /// A file with the client's certificate chain (PEM), with `privateKey`.
        client_certificate = "clientCertificate": Text<'n>;
        /// A file with the client's key (PEM).
        private_key = "privateKey": Text<'n>;
    }
}

words! {
    /// How spans are sent.
    enum OtlpProtocolWord {
        /// gRPC.
        Grpc = "grpc",
        /// Protobuf over HTTP.
        Http = "http/protobuf",
    }

    /// How bodies are compressed.
    enum CompressionWord {
        /// Not.
        None = "none",
        /// gzip.
        Gzip = "gzip",
    }
}
