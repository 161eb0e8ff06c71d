//! What `pilotfish serve` can be told: flags, each also an environment variable.

mod audit;
mod placement;
mod traces;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use pilotfish_identity::TrustDomain;

pub use audit::AuditSettings;
pub use placement::{ExecutorKind, PlacementSettings};
pub use traces::TraceSettings;

use crate::alerts::webhook::Webhook;

/// Settings that are fixed for the life of the process. A flag wins over its environment variable.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Folder of this control plane: its store, its signing key, its Unix socket. Made (mode 0700) when it is not
    /// there. One process at a time uses it. [default: /var/lib/pilotfish for root, else $XDG_DATA_HOME/pilotfish or
    /// ~/.local/share/pilotfish]
    #[arg(long, env = "PILOTFISH_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Listener for sidecars and for command lines on other machines; TLS 1.3. Port 0 takes a free port, here and
    /// below; the ready line names it.
    #[arg(long, env = "PILOTFISH_LISTEN", value_name = "ADDR", default_value = "0.0.0.0:15012")]
    pub listen: SocketAddr,

    /// Loopback listener for the page, to sessions that `pilotfish ui` opens; `off` for none.
    #[arg(long, env = "PILOTFISH_LOCAL", value_name = "ADDR", default_value = "127.0.0.1:15014", value_parser = loopback)]
    pub local: Listener,

    /// Listener for /ready, /live and /metrics, readable by anyone who reaches it; `off` for none.
    #[arg(long, env = "PILOTFISH_STATUS", value_name = "ADDR", default_value = "off")]
    pub status: Listener,

    /// The store that several control planes share: etcd://HOST:PORT[,HOST:PORT...]. Plain text goes to loopback
    /// only, so elsewhere give --store-ca. [default: a file in --data, for one control plane]
    #[arg(long, env = "PILOTFISH_STORE", value_name = "URL")]
    pub store: Option<String>,

    /// Certificates (PEM) that the store's certificate must come from.
    #[arg(long, env = "PILOTFISH_STORE_CA", value_name = "FILE", requires = "store")]
    pub store_ca: Option<PathBuf>,

    /// Client certificate (PEM) for the store.
    #[arg(long, env = "PILOTFISH_STORE_CERT", value_name = "FILE", requires = "store_key")]
    pub store_cert: Option<PathBuf>,

    /// Key (PEM) of --store-cert.
    #[arg(long, env = "PILOTFISH_STORE_KEY", value_name = "FILE", requires = "store_cert")]
    pub store_key: Option<PathBuf>,

    /// Name of the trust domain, the first part of every identity; fixed by the first start.
    /// [default: cluster.local, as Istio]
    #[arg(long, env = "PILOTFISH_TRUST_DOMAIN", value_name = "NAME", value_parser = trust_domain)]
    pub trust_domain: Option<TrustDomain>,

    /// Your own intermediate authority (PEM: it, then what leads to its root), instead of one made at the first
    /// start.
    #[arg(long, env = "PILOTFISH_CA_CERT", value_name = "FILE", requires = "ca_key")]
    pub ca_cert: Option<PathBuf>,

    /// Key (PEM) of --ca-cert.
    #[arg(long, env = "PILOTFISH_CA_KEY", value_name = "FILE", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,

    /// The address that sidecars reach this control plane at, for the hints it prints.
    /// [default: the host name and the port of --listen]
    #[arg(long, env = "PILOTFISH_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Name of this control plane among those of one store. [default: the host name and a random part, kept in
    /// --data]
    #[arg(long, env = "PILOTFISH_ID", value_name = "NAME", value_parser = name)]
    pub id: Option<String>,

    /// How long a registration holds without a heartbeat; a heartbeat comes every third of it.
    #[arg(long, env = "PILOTFISH_LEASE", value_name = "DURATION", default_value = "10s", value_parser = lease)]
    pub lease: Duration,

    /// How long a sidecar's certificate is valid; it is renewed at half to 70 % of its life.
    #[arg(long, env = "PILOTFISH_LEAF_TTL", value_name = "DURATION", default_value = "24h", value_parser = leaf_ttl)]
    pub leaf_ttl: Duration,

    /// Nobody may call an agent whom no ALLOW policy lets in: sidecars get the AuthorizationPolicy
    /// pilotfish-system/default-deny. Otherwise every agent of the mesh may call where no policy says who may (Istio's
    /// default). Give it to every control plane of a store, or to none.
    #[arg(long, env = "PILOTFISH_DEFAULT_DENY")]
    pub default_deny: bool,

    /// Where to send alerts that fire and that are resolved: `POST` of what Alertmanager sends to its webhooks. Redirects
    /// are not followed.
    #[arg(long, env = "PILOTFISH_ALERT_WEBHOOK", value_name = "URL", hide_env_values = true)]
    pub alert_webhook: Option<String>,

    /// A file with the token that --alert-webhook is shown as `Authorization: Bearer`.
    #[arg(long, env = "PILOTFISH_ALERT_WEBHOOK_TOKEN_FILE", value_name = "FILE", requires = "alert_webhook")]
    pub alert_webhook_token_file: Option<PathBuf>,

    /// Certificates (PEM) that the certificate of --alert-webhook must come from. [default: the machine's]
    #[arg(long, env = "PILOTFISH_ALERT_WEBHOOK_CA", value_name = "FILE", requires = "alert_webhook")]
    pub alert_webhook_ca: Option<PathBuf>,

    /// Threads that serve; one is enough for thousands of sidecars.
    #[arg(long, env = "PILOTFISH_WORKERS", value_name = "N", default_value_t = 2, value_parser = workers)]
    pub workers: usize,

    /// Placement.
    #[command(flatten)]
    pub placement: PlacementSettings,

    /// Traces.
    #[command(flatten)]
    pub traces: TraceSettings,

    /// How the audit log is kept.
    #[command(flatten)]
    pub audit: AuditSettings,
}

impl Settings {
    /// The data folder: where the commands on the same machine look for it when nobody says.
    pub fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(crate::paths::default_data)
    }

    /// Who is told of alerts.
    ///
    /// # Errors
    /// A flag that cannot be used, by its name.
    pub fn webhook(&self) -> Result<Option<Webhook>, String> {
        let (token, ca) = (self.alert_webhook_token_file.as_deref(), self.alert_webhook_ca.as_deref());
        self.alert_webhook.as_ref().map(|url| Webhook::new(url, token, ca)).transpose()
    }
}

/// A listener that can be turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// There is none.
    Off,
    /// It listens here.
    On(SocketAddr),
}

impl FromStr for Listener {
    type Err = String;

    fn from_str(text: &str) -> Result<Listener, String> {
        if text == "off" {
            return Ok(Listener::Off);
        }
        text.parse().map(Listener::On).map_err(|_| "expected ADDRESS:PORT, or off".into())
    }
}

/// The page is plain HTTP with a cookie: it has no business beyond this machine.
fn loopback(text: &str) -> Result<Listener, String> {
    match text.parse()? {
        Listener::On(address) if !address.ip().is_loopback() => {
            Err("expected a loopback address (127.0.0.1:PORT or [::1]:PORT); from elsewhere use a tunnel"
                .into())
        }
        listener => Ok(listener),
    }
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(text).map_err(|error| error.to_string())
}

/// A name that can be part of a key of the store.
fn name(text: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > 63 || !text.bytes().all(good) {
        return Err("expected 1 to 63 letters, digits, `-`, `_` and `.`".into());
    }
    Ok(text.to_owned())
}

fn lease(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::from_millis(300), Duration::from_secs(600))
}

fn leaf_ttl(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::from_secs(10), Duration::from_secs(90 * 86_400))
}

fn bounded(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration = pilotfish_config::units::duration(text)?;
    if duration < least || duration > most {
        return Err(format!("expected {least:?} to {} h", most.as_secs_f64() / 3600.0));
    }
    Ok(duration)
}

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=64) => Ok(n),
        _ => Err("expected 1 to 64".into()),
    }
}
