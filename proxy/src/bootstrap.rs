//! Settings that are fixed for the life of the process: flags, each also an environment variable.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

mod access;
mod access_log;
mod audit;
mod control;
mod explain;
pub mod otlp;
mod probe;
mod reading;
mod supervise;
mod telemetry;

pub use access::{AccessSettings, MissingChain, RefusalDetail};
pub use access_log::{AccessLogFormat, AccessLogSettings};
pub use audit::{AuditLevel, AuditSettings};
pub use control::{ControlSettings, Secret};
pub use explain::ExplainCallers;
pub use probe::ProbeKind;
pub use reading::{PathNormalization, ReadingSettings};
pub use supervise::{AgentLog, Duty, OnSidecarLoss, SuperviseSettings};
pub use telemetry::{Slow, Switch, TelemetrySettings};

/// What the command line and the environment say. A flag wins over its environment variable.
#[derive(Debug, Clone, Parser)]
#[command(name = "pilotfish-proxy", version, about = ABOUT, long_about = LONG_ABOUT, max_term_width = 110)]
pub struct Settings {
    /// File or folder with the routing documents (.yaml, .yml). A folder is watched: a change that is valid as a
    /// whole is taken within a fraction of a second, an invalid one is reported and leaves the last good one serving.
    #[arg(long, env = "PILOTFISH_CONFIG", value_name = "PATH", required_unless_present = "control")]
    pub config: Option<PathBuf>,

    /// Name of the agent beside this sidecar, as in AgentCluster and `pilotfish.dev/agent`. No default.
    #[arg(long, env = "PILOTFISH_AGENT", value_name = "NAME")]
    pub agent: String,

    /// Namespace of the agent: short host names in rules mean hosts of this namespace, and `sourceNamespace`
    /// matches it.
    #[arg(long, env = "PILOTFISH_NAMESPACE", value_name = "NAME", default_value = "default")]
    pub namespace: String,

    /// Where the agent itself listens; inbound requests go there. Without it the sidecar serves a caller only
    /// and answers inbound requests with 503.
    #[arg(long, env = "PILOTFISH_APP", value_name = "HOST:PORT")]
    pub app: Option<HostPort>,

    /// Listener for the agent's own calls. Port 0 takes a free port, here and below; the start-up line names it.
    #[arg(long, env = "PILOTFISH_OUTBOUND", value_name = "ADDR", default_value = "127.0.0.1:15001")]
    pub outbound: SocketAddr,

    /// Listener for calls from the mesh to the agent.
    #[arg(long, env = "PILOTFISH_INBOUND", value_name = "ADDR", default_value = "0.0.0.0:15006")]
    pub inbound: SocketAddr,

    /// Listener for /ready, /live and /metrics, all read-only.
    #[arg(long, env = "PILOTFISH_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:15000")]
    pub admin: SocketAddr,

    /// Unix socket (mode 0600) for /config, /why and /drain.
    /// [default: $XDG_RUNTIME_DIR (or /tmp)/pilotfish-<namespace>-<agent>-<pid>.sock]
    #[arg(long, env = "PILOTFISH_ADMIN_SOCKET", value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,

    /// Worker threads, each with its own event loop and upstream connections. One carries tens of thousands of
    /// requests per second, more than one agent asks for, and keeps every upstream connection in one pool.
    #[arg(long, env = "PILOTFISH_WORKERS", value_name = "N", default_value_t = 1, value_parser = parse_workers)]
    pub workers: usize,

    /// What happens to an unknown host that is asked for by HTTP_PROXY or CONNECT (Istio's outboundTrafficPolicy,
    /// and Istio's default). Loopback, link-local and the mesh's own ports are refused in both modes unless a
    /// ServiceEntry names them.
    #[arg(
        long,
        env = "PILOTFISH_OUTBOUND_POLICY",
        value_name = "MODE",
        default_value = "allow-any",
        ignore_case = true
    )]
    pub outbound_policy: OutboundPolicy,

    /// Read the documents exactly as Istio does: no subset by `version` label, no trafficPolicy lent by a
    /// DestinationRule whose host is a VirtualService's.
    #[arg(long, env = "PILOTFISH_STRICT_ISTIO")]
    pub strict_istio: bool,

    /// Nobody may call this agent whom no ALLOW policy lets in. Otherwise everybody may where no policy says who may
    /// (Istio's default). With a control plane `pilotfish serve --default-deny` says so for the whole mesh.
    #[arg(long, env = "PILOTFISH_DEFAULT_DENY")]
    pub default_deny: bool,

    /// Root certificates (PEM) to trust when the keys of token issuers are fetched (RequestAuthentication's `jwksUri`). The `tls` of a
    /// DestinationRule for an issuer's host goes before it. [default: the system's]
    #[arg(long, env = "PILOTFISH_ISSUER_CA", value_name = "PATH")]
    pub issuer_ca: Option<PathBuf>,

    /// A label of this workload, for `sourceLabels`. Repeat it, or separate several by commas.
    #[arg(long = "label", env = "PILOTFISH_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_label)]
    pub labels: Vec<(String, String)>,

    /// Where this workload runs, for locality load balancing: region, region/zone or region/zone/subzone.
    #[arg(long, env = "PILOTFISH_LOCALITY", value_name = "LOCALITY")]
    pub locality: Option<String>,

    /// How long requests in flight may take to finish after SIGTERM before they are cut (Istio's and Envoy's
    /// drain time).
    #[arg(long, env = "PILOTFISH_DRAIN", value_name = "DURATION", default_value = "45s", value_parser = parse_duration)]
    pub drain: Duration,

    /// How long the sidecar goes on accepting after SIGTERM while /ready already fails, so that others stop
    /// choosing it first.
    #[arg(long, env = "PILOTFISH_DRAIN_DELAY", value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub drain_delay: Duration,

    /// Connections that each of the two listeners serves at a time; more wait in the kernel's backlog. Fewer when the
    /// process may not open enough files for them (ulimit -n).
    #[arg(long, env = "PILOTFISH_MAX_CONNECTIONS", value_name = "N", default_value_t = 10_000)]
    pub max_connections: usize,

    /// Connections that one caller of the inbound listener may have open: by its SPIFFE ID once it proved one, by its
    /// address before. One more is refused with 503 `too-many-connections`, or closed where TLS is spoken, so that a caller
    /// that opens connections without end keeps nobody else out. [default: half of --max-connections]
    #[arg(long, env = "PILOTFISH_MAX_CONNECTIONS_PER_CALLER", value_name = "N")]
    pub max_connections_per_caller: Option<usize>,

    /// HTTP/2 streams that one connection of a caller may have open at a time; more are refused, and a caller that
    /// respects the setting waits with them. The least that RFC 9113 recommends is 100.
    #[arg(long, env = "PILOTFISH_MAX_CONCURRENT_STREAMS", value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_concurrent_streams: u32,

    /// Resident memory that the process may use: bytes, or with a unit, as in 512MiB. Above 80 % of it calls with
    /// `agent-priority: sheddable` are refused, above 90 % all new calls (503 `memory-pressure`), and kept connections are
    /// closed: better than to be killed by the kernel. [default: 90 % of the cgroup's limit; without one, none]
    #[arg(long, env = "PILOTFISH_MEMORY_LIMIT", value_name = "BYTES")]
    pub memory_limit: Option<Bytes>,

    /// Certificate chain of this sidecar's identity, leaf first (PEM), with one SPIFFE ID as its URI name. With it calls
    /// within the mesh are mutual TLS in both directions. The three files are watched: what is valid is taken at once.
    #[arg(long, env = "PILOTFISH_IDENTITY_CERT", value_name = "PATH", requires_all = ["identity_key", "trust_bundle"])]
    pub identity_cert: Option<PathBuf>,

    /// Private key of that certificate (PEM).
    #[arg(long, env = "PILOTFISH_IDENTITY_KEY", value_name = "PATH", requires = "identity_cert")]
    pub identity_key: Option<PathBuf>,

    /// Root certificates of the trust domain (PEM).
    #[arg(long, env = "PILOTFISH_TRUST_BUNDLE", value_name = "PATH", requires = "identity_cert")]
    pub trust_bundle: Option<PathBuf>,

    /// The trust domain that the certificate has to be of. [default: the certificate's own]
    #[arg(long, env = "PILOTFISH_TRUST_DOMAIN", value_name = "NAME")]
    pub trust_domain: Option<String>,

    /// DNS server for ServiceEntries with `resolution: DNS`. [default: those of /etc/resolv.conf]
    #[arg(long, env = "PILOTFISH_DNS_SERVER", value_name = "ADDR")]
    pub dns_server: Option<SocketAddr>,

    /// How requests are read.
    #[command(flatten)]
    pub reading: ReadingSettings,

    /// What calls have to bring, and what one who is refused is told.
    #[command(flatten)]
    pub access: AccessSettings,

    /// Which calls it logs.
    #[command(flatten)]
    pub access_log: AccessLogSettings,

    /// Which decisions it records.
    #[command(flatten)]
    pub audit: AuditSettings,

    /// What it tells of its calls.
    #[command(flatten)]
    pub telemetry: TelemetrySettings,

    /// The mesh that it belongs to.
    #[command(flatten)]
    pub control: ControlSettings,

    /// The agent as a process of its own.
    #[command(flatten)]
    pub supervise: SuperviseSettings,
}

const ABOUT: &str = "The sidecar of an AI agent: routes its calls by Istio's YAML, and by capability.";
const LONG_ABOUT: &str = "The sidecar of an AI agent: routes its calls by Istio's YAML, and by capability.\n\n\
    Send the agent's calls to the outbound listener (HTTP/1.1, HTTP/2 with prior knowledge, gRPC, WebSocket, or as its \
    HTTP_PROXY); calls from the mesh arrive at the inbound listener and go on to --app. Routing documents come from a \
    folder (--config) or from a control plane (--control). SIGTERM drains, a second one \
    stops at once. Each flag is also an environment variable, named beside it; the flag wins.";

/// What to do with calls to hosts that no document names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutboundPolicy {
    /// Pass them, except to loopback, link-local addresses and the mesh's own ports.
    #[value(name = "allow-any", alias = "ALLOW_ANY", alias = "allow_any")]
    AllowAny,
    /// Refuse them with 403 `egress-not-allowed`.
    #[value(name = "registry-only", alias = "REGISTRY_ONLY", alias = "registry_only")]
    RegistryOnly,
}

/// A host (name or address) and a port, unresolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    /// `host:port`, `1.2.3.4:port`, `[::1]:port`, or a bare port, which means 127.0.0.1.
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or("expected HOST:PORT with a port of 1 to 65535")?;
        if host.is_empty() || host.contains(['/', ' ', '@']) {
            return Err("expected HOST:PORT, a host without scheme or path".into());
        }
        Ok(HostPort { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{}:{}", self.host, self.port)
        }
    }
}

/// A number of bytes: `1048576`, `512KiB`, `256MiB`, `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale: u64 = match unit.trim() {
            "" | "B" => 1,
            "KiB" | "Ki" | "K" => 1 << 10,
            "MiB" | "Mi" | "M" => 1 << 20,
            "GiB" | "Gi" | "G" => 1 << 30,
            _ => return Err("expected bytes, or a number and KiB, MiB or GiB".into()),
        };
        let number: u64 =
            number.parse().map_err(|_| "expected bytes, or a number and KiB, MiB or GiB".to_owned())?;
        number.checked_mul(scale).filter(|bytes| *bytes > 0).map(Bytes).ok_or("expected 1 or more".into())
    }
}

impl Settings {
    /// Connections that one caller of the inbound listener may have: never so many that nobody else gets one.
    pub fn most_connections_per_caller(&self) -> usize {
        self.max_connections_per_caller.unwrap_or(self.max_connections / 2).max(1)
    }

    /// The Unix socket's path: `--admin-socket`, else one that names agent and process.
    pub fn admin_socket_path(&self) -> PathBuf {
        self.admin_socket.clone().unwrap_or_else(|| {
            let folder =
                std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
            folder.join(format!("pilotfish-{}-{}-{}.sock", self.namespace, self.agent, std::process::id()))
        })
    }
}

fn parse_workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=256) => Ok(n),
        _ => Err("expected 1 to 256".into()),
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

/// `250ms`, `45s`, `2m`, `1h`; no unit means seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("expected a number and ms, s, m or h".into()),
    };
    let number: f64 = number.parse().map_err(|_| "expected a duration such as 500ms, 45s or 2m")?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| "too long".into())
}

#[cfg(test)]
mod tests;
