//! Where telemetry goes: `--otlp-...`, and OpenTelemetry's own variables with their rules.

pub mod provider;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::{HeaderName, HeaderValue, Uri};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::{Secret, parse_duration};
use crate::telemetry::otlp::target::{Collector, Protocol, Signal};
use crate::tls::client::{TlsFile, TlsFiles, tls};

/// Where spans, metrics and log records go. Each flag stands for the variable of OpenTelemetry that it names; the variables of
/// one signal (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, say) are for that signal stronger than both.
#[derive(Debug, Clone, Default, Args)]
pub struct OtlpSettings {
    /// An OpenTelemetry collector for traces, metrics and OTLP logs: http://HOST:4318, or http://HOST:4317 with
    /// --otlp-protocol grpc; https:// for TLS. Without it the control plane of --control keeps the traces itself.
    /// Or OTEL_EXPORTER_OTLP_ENDPOINT.
    #[arg(long = "otlp-endpoint", env = "PILOTFISH_OTLP_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,

    /// What the collector speaks: http/protobuf (OpenTelemetry's default) or grpc. Or OTEL_EXPORTER_OTLP_PROTOCOL.
    #[arg(long = "otlp-protocol", env = "PILOTFISH_OTLP_PROTOCOL", value_name = "PROTOCOL")]
    pub protocol: Option<String>,

    /// Headers for the collector, an API key, say: NAME=VALUE, several separated by commas, values percent-encoded. Everyone
    /// on this machine can read the arguments of a process: better use the variable. Or OTEL_EXPORTER_OTLP_HEADERS.
    #[arg(
        long = "otlp-headers",
        env = "PILOTFISH_OTLP_HEADERS",
        hide_env_values = true,
        value_name = "NAME=VALUE"
    )]
    pub headers: Option<Secret>,

    /// Time that a batch may take to be sent: milliseconds, or with a unit. [default: 10s, OpenTelemetry's]
    /// Or OTEL_EXPORTER_OTLP_TIMEOUT.
    #[arg(long = "otlp-timeout", env = "PILOTFISH_OTLP_TIMEOUT", value_name = "DURATION")]
    pub timeout: Option<String>,

    /// Compression of what is sent: none (OpenTelemetry's default) or gzip, which costs more CPU than all the rest of telemetry.
    /// Or OTEL_EXPORTER_OTLP_COMPRESSION.
    #[arg(long = "otlp-compression", env = "PILOTFISH_OTLP_COMPRESSION", value_name = "NAME")]
    pub compression: Option<String>,

    /// Certificates that the collector's has to lead to (PEM). [default: the system's authorities]
    /// Or OTEL_EXPORTER_OTLP_CERTIFICATE.
    #[arg(long = "otlp-certificate", env = "PILOTFISH_OTLP_CERTIFICATE", value_name = "PATH")]
    pub certificate: Option<String>,

    /// This sidecar's certificate chain for the collector (PEM). Or OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE.
    #[arg(long = "otlp-client-certificate", env = "PILOTFISH_OTLP_CLIENT_CERTIFICATE", value_name = "PATH")]
    pub client_certificate: Option<String>,

    /// The key of that certificate (PEM). Or OTEL_EXPORTER_OTLP_CLIENT_KEY.
    #[arg(long = "otlp-client-key", env = "PILOTFISH_OTLP_CLIENT_KEY", value_name = "PATH")]
    pub client_key: Option<String>,
}

/// Where one signal goes.
#[derive(Debug, Clone, Default)]
pub enum Way {
    /// Nowhere: that was asked for.
    Off,
    /// Nothing was said.
    #[default]
    Unset,
    /// To a collector.
    Collector(Box<Collector>),
}

/// What all flags and variables come to.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Where spans go, metrics, log records; by the signals' numbers.
    pub ways: [Way; 3],
    /// How spans and log records are gathered.
    pub batching: Batching,
    /// `OTEL_METRIC_EXPORT_INTERVAL`.
    pub metric_interval: Duration,
    /// Attributes of the resource, the later the stronger.
    pub resource: Vec<(String, String)>,
}

/// How calls are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Calls that may wait: `OTEL_BSP_MAX_QUEUE_SIZE`, 2048 (OpenTelemetry's default).
    pub queue: usize,
    /// Spans that are sent at once: `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`, 512 (OpenTelemetry's default).
    pub batch: usize,
    /// How long a batch is gathered: `OTEL_BSP_SCHEDULE_DELAY`, 1 s. OpenTelemetry's default is 5 s; people wait for traces.
    pub delay: Duration,
}

impl Default for Batching {
    fn default() -> Self {
        Batching { queue: 2048, batch: 512, delay: Duration::from_secs(1) }
    }
}

/// OpenTelemetry's default for a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// OpenTelemetry's default between two exports of metrics.
const METRIC_INTERVAL: Duration = Duration::from_secs(60);

impl OtlpSettings {
    /// Puts flags and variables together. `env` looks a variable up.
    ///
    /// # Errors
    /// One that cannot be understood, by its name, and what it should be.
    pub fn plan(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Plan, String> {
        let said = Said { flags: self, env };
        let mut plan = Plan { metric_interval: METRIC_INTERVAL, ..Plan::default() };
        if said.switch("OTEL_SDK_DISABLED")?.unwrap_or(false) {
            plan.ways = [Way::Off, Way::Off, Way::Off];
            return Ok(plan);
        }
        for (way, signal) in plan.ways.iter_mut().zip(Signal::ALL) {
            *way = said.way(signal)?;
        }
        let batching = &mut plan.batching;
        if let Some(queue) = said.count("OTEL_BSP_MAX_QUEUE_SIZE", 1_000_000)? {
            batching.queue = queue;
        }
        if let Some(batch) = said.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 65_536)? {
            batching.batch = batch;
        }
        batching.batch = batching.batch.min(batching.queue);
        if let Some(delay) = said.millis("OTEL_BSP_SCHEDULE_DELAY")? {
            batching.delay = delay;
        }
        if let Some(interval) = said.millis("OTEL_METRIC_EXPORT_INTERVAL")? {
            plan.metric_interval = interval;
        }
        if let Some(pairs) = said.value("OTEL_RESOURCE_ATTRIBUTES") {
            plan.resource = pairs_of(&pairs).map_err(|why| format!("OTEL_RESOURCE_ATTRIBUTES: {why}"))?;
        }
        if let Some(name) = said.value("OTEL_SERVICE_NAME") {
            plan.resource.push(("service.name".into(), name));
        }
        Ok(plan)
    }
}

/// The environment of this process, for [`OtlpSettings::plan`].
pub fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// A value and where it was said.
struct From {
    value: String,
    place: String,
    /// It was said for one signal.
    own: bool,
}

impl From {
    fn wrong(&self, why: impl Display) -> String {
        format!("{}: {why}", self.place)
    }
}

fn own_variable(signal: Signal, what: &str) -> String {
    format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.word().to_ascii_uppercase())
}

struct Said<'a> {
    flags: &'a OtlpSettings,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl Said<'_> {
    /// An empty variable is none, as OpenTelemetry says.
    fn value(&self, name: &str) -> Option<String> {
        (self.env)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn switch(&self, name: &str) -> Result<Option<bool>, String> {
        match self.value(name).map(|value| value.to_ascii_lowercase()).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(format!("{name}: expected true or false, not `{other}`")),
        }
    }

    fn count(&self, name: &str, most: usize) -> Result<Option<usize>, String> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match value.parse() {
            Ok(count) if (1..=most).contains(&count) => Ok(Some(count)),
            _ => Err(format!("{name}: expected 1 to {most}, not `{value}`")),
        }
    }

    fn millis(&self, name: &str) -> Result<Option<Duration>, String> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match value.parse() {
            Ok(millis @ 1..=86_400_000) => Ok(Some(Duration::from_millis(millis))),
            _ => Err(format!("{name}: expected milliseconds, 1 to 86400000, not `{value}`")),
        }
    }

    /// What holds for a signal: its own variable, else the flag, else the variable for all.
    fn of(&self, signal: Signal, what: &str, flag: Option<&str>) -> Option<From> {
        let own = own_variable(signal, what);
        if let Some(value) = self.value(&own) {
            return Some(From { value, place: own, own: true });
        }
        if let Some(value) = flag.map(str::trim).filter(|value| !value.is_empty()) {
            let place = format!("--otlp-{}", what.to_ascii_lowercase().replace('_', "-"));
            return Some(From { value: value.into(), place, own: false });
        }
        let all = format!("OTEL_EXPORTER_OTLP_{what}");
        self.value(&all).map(|value| From { value, place: all, own: false })
    }

    fn way(&self, signal: Signal) -> Result<Way, String> {
        let choice = format!("OTEL_{}_EXPORTER", signal.word().to_ascii_uppercase());
        let wanted = match self.value(&choice).as_deref() {
            None => false,
            Some("none") => return Ok(Way::Off),
            Some("otlp") => true,
            Some(other) => return Err(format!("{choice}: expected otlp or none, not `{other}`")),
        };
        let flags = self.flags;
        let endpoint = self.of(signal, "ENDPOINT", flags.endpoint.as_deref());
        if endpoint.is_none() && !wanted {
            return Ok(Way::Unset);
        }
        let protocol = match self.of(signal, "PROTOCOL", flags.protocol.as_deref()) {
            None => Protocol::Http,
            Some(said) => match &*said.value {
                "grpc" => Protocol::Grpc,
                "http/protobuf" => Protocol::Http,
                "http/json" => return Err(said.wrong("http/json is not offered: http/protobuf or grpc")),
                other => return Err(said.wrong(format!("expected http/protobuf or grpc, not `{other}`"))),
            },
        };
        let endpoint = endpoint.unwrap_or_else(|| {
            let port = if protocol == Protocol::Grpc { 4317 } else { 4318 };
            From { value: format!("http://localhost:{port}"), place: choice, own: false }
        });
        let insecure = match self.switch(&own_variable(signal, "INSECURE"))? {
            Some(insecure) => insecure,
            None => self.switch("OTEL_EXPORTER_OTLP_INSECURE")?.unwrap_or(false),
        };
        let address =
            Address::read(&endpoint.value, protocol, insecure).map_err(|why| endpoint.wrong(why))?;
        // A variable of one signal is the whole address; what is for all gets the signal's path.
        let path = match (protocol, endpoint.own) {
            (Protocol::Grpc, _) => signal.method().to_owned(),
            (Protocol::Http, true) => {
                if address.path.is_empty() {
                    "/".into()
                } else {
                    address.path.clone()
                }
            }
            (Protocol::Http, false) => format!("{}/v1/{}", address.path.trim_end_matches('/'), signal.word()),
        };
        let value = |what: &str, flag: &Option<String>| self.of(signal, what, flag.as_deref());
        let tls = if address.tls { Some(self.tls(signal, protocol, &address, &endpoint)?) } else { None };
        let headers = match self.of(signal, "HEADERS", flags.headers.as_ref().map(Secret::expose)) {
            Some(said) => headers_of(&said.value).map_err(|why| said.wrong(why))?,
            None => Vec::new(),
        };
        let gzip = match value("COMPRESSION", &flags.compression) {
            None => false,
            Some(said) => match &*said.value {
                "none" => false,
                "gzip" => true,
                other => return Err(said.wrong(format!("expected gzip or none, not `{other}`"))),
            },
        };
        let timeout = match value("TIMEOUT", &flags.timeout) {
            None => TIMEOUT,
            Some(said) => timeout_of(&said.value).map_err(|why| said.wrong(why))?,
        };
        let collector = Collector {
            host: address.host.into(),
            port: address.port,
            path: path.into(),
            protocol,
            tls,
            headers,
            gzip,
            timeout,
        };
        Ok(Way::Collector(Box::new(collector)))
    }

    fn tls(
        &self,
        signal: Signal,
        protocol: Protocol,
        address: &Address,
        endpoint: &From,
    ) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
        let flags = self.flags;
        let certificate = self.of(signal, "CERTIFICATE", flags.certificate.as_deref());
        let client_certificate = self.of(signal, "CLIENT_CERTIFICATE", flags.client_certificate.as_deref());
        let client_key = self.of(signal, "CLIENT_KEY", flags.client_key.as_deref());
        let path = |said: &Option<From>| said.as_ref().map(|said| said.value.clone());
        let files = TlsFiles {
            certificate: path(&certificate),
            client_certificate: path(&client_certificate),
            client_key: path(&client_key),
        };
        let config = tls(&files, protocol == Protocol::Grpc).map_err(|(file, why)| {
            let said = match file {
                Some(TlsFile::Certificate) => &certificate,
                Some(TlsFile::ClientCertificate) => &client_certificate,
                Some(TlsFile::ClientKey) => &client_key,
                None => &None,
            };
            said.as_ref().unwrap_or(endpoint).wrong(why)
        })?;
        let name = ServerName::try_from(address.host.clone());
        let name = name.map_err(|_| endpoint.wrong("its host is no name that a certificate could have"))?;
        Ok((config, name))
    }
}

/// Milliseconds, as OpenTelemetry has it, or a duration with a unit.
fn timeout_of(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse() {
        Ok(millis) => Ok(Duration::from_millis(millis)),
        Err(_) => parse_duration(text),
    };
    match parsed {
        Ok(timeout) if !timeout.is_zero() => Ok(timeout),
        _ => Err(format!("expected milliseconds, or a number and ms, s or m, not `{text}`")),
    }
}

/// A collector's address.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Address {
    /// `http://host:port/path`; for gRPC also `host:port`, which is TLS unless `insecure`.
    fn read(text: &str, protocol: Protocol, insecure: bool) -> Result<Address, String> {
        let (tls, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else if protocol == Protocol::Grpc && !text.contains("://") {
            (!insecure, text)
        } else {
            return Err("expected a URL: http://HOST:PORT or https://HOST:PORT".into());
        };
        let uri: Uri = format!("http://{rest}")
            .parse()
            .map_err(|_| "expected a URL: http://HOST:PORT or https://HOST:PORT".to_owned())?;
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        if authority.contains('@') {
            return Err(
                "no password in the URL: it would be in logs; send a header (OTEL_EXPORTER_OTLP_HEADERS)"
                    .into(),
            );
        }
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err("the URL has no host".into());
        }
        let port = match uri.port_u16() {
            Some(0) => return Err("the URL has port 0".into()),
            Some(port) => port,
            None if authority.ends_with(':') => return Err("the URL's port is empty".into()),
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
        };
        let path = uri.path_and_query().map(|path| path.as_str()).unwrap_or_default();
        let path = if path == "/" && !rest.ends_with('/') { "" } else { path };
        Ok(Address { tls, host: host.into(), port, path: path.into() })
    }
}

/// `name=value,name=value` as in W3C baggage: values are percent-encoded. The message never has a value in it.
fn pairs_of(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for (at, pair) in text.split(',').map(str::trim).enumerate() {
        if pair.is_empty() {
            continue;
        }
        let wrong = || format!("entry {}: expected NAME=VALUE, the value percent-encoded", at + 1);
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let (name, value) = (name.trim(), percent_decoded(value.trim()).ok_or_else(wrong)?);
        if name.is_empty() {
            return Err(wrong());
        }
        pairs.push((name.to_owned(), value));
    }
    Ok(pairs)
}

fn percent_decoded(text: &str) -> Option<String> {
    let (mut bytes, mut decoded) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

fn headers_of(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut headers = Vec::new();
    for (name, value) in pairs_of(text)? {
        let lower = name.to_ascii_lowercase();
        let known = HeaderName::try_from(&lower).map_err(|_| format!("`{name}` is no name of a header"))?;
        if matches!(
            &*lower,
            "host" | "content-type" | "content-length" | "transfer-encoding" | "connection" | "te"
        ) {
            return Err(format!("`{name}` is set by the sidecar itself"));
        }
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| format!("the value of `{name}` cannot be in a header"))?;
        value.set_sensitive(true);
        headers.push((known, value));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;
