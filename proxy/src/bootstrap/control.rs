//! Flags for a sidecar that belongs to a mesh: its control planes, its identity, the health of its agent.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use pilotfish_client::Address;
use zeroize::Zeroizing;

use super::probe::ProbeKind;
use super::{HostPort, parse_duration};

/// What a sidecar needs in order to join a mesh.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Mesh")]
pub struct ControlSettings {
    /// A control plane, `https://HOST:15012`. Repeat it, or separate several by commas: the sidecar moves to another
    /// one within 2 s. It gives this sidecar its identity and its documents, so --config is not for it.
    #[arg(
        id = "control",
        long = "control",
        env = "PILOTFISH_CONTROL",
        value_name = "URL",
        value_delimiter = ',',
        conflicts_with = "config"
    )]
    pub addresses: Vec<Address>,

    /// A join token, as `pilotfish token create` prints it; needed once, since the identity is kept in --state-dir.
    /// Everyone on this machine can read the arguments of a process: better give it by --token-file or the environment.
    #[arg(
        long,
        env = "PILOTFISH_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        conflicts_with = "token_file"
    )]
    pub token: Option<Secret>,

    /// A file whose only line is the join token.
    #[arg(long, env = "PILOTFISH_TOKEN_FILE", value_name = "PATH")]
    pub token_file: Option<PathBuf>,

    /// SHA-256 of the root certificate that the control plane has to show at the first join, in hexadecimal.
    /// [default: the one in the token]
    #[arg(long, env = "PILOTFISH_CA_FINGERPRINT", value_name = "SHA256", value_parser = parse_fingerprint)]
    pub ca_fingerprint: Option<[u8; 32]>,

    /// Folder (mode 0700) for this sidecar's key, certificate and last good configuration: it starts from them when
    /// the control plane is away. [default: $XDG_STATE_HOME (or ~/.local/state)/pilotfish/<namespace>-<agent>]
    #[arg(long, env = "PILOTFISH_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// What the agent is able to do, besides what AgentCluster documents say: NAME or NAME@VERSION. Repeat it, or
    /// separate several by commas.
    #[arg(long = "capability", env = "PILOTFISH_CAPABILITIES", value_name = "NAME[@V]", value_delimiter = ',', value_parser = parse_capability)]
    pub capabilities: Vec<String>,

    /// What other sidecars connect to. [default: the inbound listener, with this machine's address towards the
    /// control plane when the listener is on all addresses]
    #[arg(long, env = "PILOTFISH_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<HostPort>,

    /// Socket of a SPIFFE Workload API (SPIRE, say), `unix:/path`: the identity comes from there instead of a join.
    /// Without a value: $SPIFFE_ENDPOINT_SOCKET.
    #[arg(
        long,
        env = "PILOTFISH_WORKLOAD_API",
        value_name = "unix:PATH",
        num_args = 0..=1,
        default_missing_value = "",
        value_parser = parse_unix,
        conflicts_with_all = ["token", "token_file"]
    )]
    pub workload_api: Option<PathBuf>,

    /// A file with a secret of at least 16 characters that the agent has to send with each outbound call, as
    /// `Proxy-Authorization: Bearer SECRET` or as the password of Basic (`HTTP_PROXY=http://agent:SECRET@127.0.0.1:15001`).
    /// Without it every process on this machine can call as this agent.
    #[arg(long, env = "PILOTFISH_LOCAL_SECRET_FILE", value_name = "PATH")]
    pub local_secret_file: Option<PathBuf>,

    /// One more listener for /ready, /live and /metrics, for probes and scrapers from elsewhere. Off by default.
    #[arg(long, env = "PILOTFISH_STATUS", value_name = "ADDR")]
    pub status: Option<SocketAddr>,

    /// How the agent's health is found out: http:PATH, grpc, grpc:SERVICE, tcp, or exec:COMMAND (run by `sh -c`).
    /// The first three ask the agent at --app. [default: the WorkloadGroup's probe, else tcp when there is --app]
    #[arg(long, env = "PILOTFISH_PROBE", value_name = "KIND")]
    pub probe: Option<ProbeKind>,

    /// Time between two probes, as Kubernetes' periodSeconds.
    #[arg(long, env = "PILOTFISH_PROBE_INTERVAL", value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub probe_interval: Duration,

    /// Time that a probe may take, as Kubernetes' timeoutSeconds.
    #[arg(long, env = "PILOTFISH_PROBE_TIMEOUT", value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub probe_timeout: Duration,

    /// Good probes in a row that make an agent ready, as Kubernetes' successThreshold.
    #[arg(long, env = "PILOTFISH_PROBE_SUCCESS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub probe_success: u32,

    /// Bad probes in a row that make a ready agent unready, as Kubernetes' failureThreshold.
    #[arg(long, env = "PILOTFISH_PROBE_FAILURES", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub probe_failures: u32,
}

impl ControlSettings {
    /// The folder for what outlives the process: `--state-dir`, else one that names the agent.
    pub fn state_dir(&self, namespace: &str, agent: &str) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| {
            let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            let states = of("XDG_STATE_HOME").or_else(|| Some(of("HOME")?.join(".local/state")));
            let states = states.unwrap_or_else(|| PathBuf::from("/var/lib"));
            states.join("pilotfish").join(format!("{namespace}-{agent}"))
        })
    }

    /// The join token: from the flag, or from its file, read now.
    ///
    /// # Errors
    /// The file cannot be read, or is empty.
    pub fn token(&self) -> Result<Option<Secret>, String> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(path)) => Secret::read(path).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// Something that no log, answer or message of the process may show. Its memory is wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The first line of a file.
    ///
    /// # Errors
    /// The file cannot be read, or its first line is empty.
    pub fn read(path: &Path) -> Result<Secret, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let text = Zeroizing::new(text);
        match text.lines().next().map(str::trim) {
            Some(line) if !line.is_empty() => Ok(Secret(Zeroizing::new(line.to_owned()))),
            _ => Err(format!("{}: the file is empty", path.display())),
        }
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("it is empty".into()),
            text => Ok(Secret(Zeroizing::new(text.to_owned()))),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(secret)")
    }
}

fn parse_fingerprint(text: &str) -> Result<[u8; 32], String> {
    let bare: String = text.chars().filter(|c| *c != ':').collect();
    let bare = bare.strip_prefix("sha256").unwrap_or(&bare);
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(bare.as_bytes()).ok();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "expected the 64 hexadecimal digits of a SHA-256".into())
}

fn parse_capability(text: &str) -> Result<String, String> {
    let text = text.trim();
    let name = text.split_once('@').map_or(text, |(name, _)| name);
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || !name.chars().all(good) || text.len() > 128 || text.ends_with('@') {
        return Err("expected NAME or NAME@VERSION; a name has letters, digits, `_`, `-` and `.`".into());
    }
    Ok(text.to_owned())
}

/// `unix:/path` or a path; nothing means `$SPIFFE_ENDPOINT_SOCKET`.
fn parse_unix(text: &str) -> Result<PathBuf, String> {
    let text = match text {
        "" => std::env::var_os("SPIFFE_ENDPOINT_SOCKET")
            .and_then(|value| value.into_string().ok())
            .ok_or("no path is given and SPIFFE_ENDPOINT_SOCKET is not set")?,
        text => text.to_owned(),
    };
    let path = text.strip_prefix("unix:").unwrap_or(&text);
    let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
    if path.starts_with('/') { Ok(PathBuf::from(path)) } else { Err("expected unix:/PATH".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_in_every_spelling() {
        let plain = "ab".repeat(32);
        let colons = ["AB"; 32].join(":");
        for text in [plain.clone(), colons, format!("sha256:{plain}")] {
            assert_eq!(parse_fingerprint(&text), Ok([0xab; 32]), "{text}");
        }
        assert!(parse_fingerprint("ab").is_err() && parse_fingerprint(&"x".repeat(64)).is_err());
    }

    #[test]
    fn capabilities_and_sockets() {
        assert_eq!(parse_capability("nlu@1.2.0"), Ok("nlu@1.2.0".into()));
        for bad in ["", "a b", "a@", "@1"] {
            assert!(parse_capability(bad).is_err(), "{bad}");
        }
        for good in ["unix:/run/x", "unix:///run/x", "/run/x"] {
            assert_eq!(parse_unix(good), Ok(PathBuf::from("/run/x")), "{good}");
        }
        assert!(parse_unix("tcp:1.2.3.4:5").is_err());
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret: Secret = "hush".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "(secret)");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, " hush \n").unwrap();
        assert_eq!(Secret::read(&path), Ok(secret));
        std::fs::write(&path, "\n").unwrap();
        assert!(Secret::read(&path).is_err());
    }
}
