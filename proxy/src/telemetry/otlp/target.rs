//! Where telemetry goes, and how. Made at the start from flags and `OTEL_*` variables, or from a TelemetryProvider.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pilotfish_identity::tls::provider;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::tls::outside;

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

/// Files of TLS with a collector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Whom to trust (PEM); the system's authorities without it.
    pub certificate: Option<String>,
    /// The own chain (PEM), ...
    pub client_certificate: Option<String>,
    /// ... and its key.
    pub client_key: Option<String>,
}

/// Which of [`TlsFiles`] is wrong, or none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFile {
    /// Whom to trust.
    Certificate,
    /// The own chain.
    ClientCertificate,
    /// Its key.
    ClientKey,
}

/// TLS with a collector.
///
/// # Errors
/// A file cannot be read, or has not in it what it should have: which one, and why.
pub fn tls(files: &TlsFiles, protocol: Protocol) -> Result<Arc<ClientConfig>, (Option<TlsFile>, String)> {
    let roots = match &files.certificate {
        Some(path) => {
            let text = std::fs::read(path).map_err(|error| error.to_string());
            let roots = text.and_then(|text| outside::roots(&text));
            Arc::new(roots.map_err(|why| (Some(TlsFile::Certificate), format!("{path}: {why}")))?)
        }
        None => outside::system_roots().clone().map_err(|why| (None, why))?,
    };
    let other = |error: rustls::Error| (None, error.to_string());
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(other)?.with_root_certificates(roots);
    let mut config = match (&files.client_certificate, &files.client_key) {
        (Some(chain), Some(key)) => {
            let chain = outside::chain(chain).map_err(|why| (Some(TlsFile::ClientCertificate), why))?;
            let key = outside::private_key(key).map_err(|why| (Some(TlsFile::ClientKey), why))?;
            let built = builder.with_client_auth_cert(chain, key);
            built.map_err(|error| (Some(TlsFile::ClientCertificate), error.to_string()))?
        }
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) => {
            return Err((Some(TlsFile::ClientCertificate), "it needs a client key too".into()));
        }
        (None, Some(_)) => {
            return Err((Some(TlsFile::ClientKey), "it needs a client certificate too".into()));
        }
    };
    config.alpn_protocols = match protocol {
        Protocol::Grpc => vec![b"h2".to_vec()],
        Protocol::Http => vec![b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}
