//! An authority, identities in files, and raw TLS ends.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_testkit::Sidecar;
use pilotfish_testkit::ca::{Ca, Files, Issued, Leaf};
use pilotfish_testkit::sidecar::Builder;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::sidecar;

/// The trust domain of the tests.
pub const DOMAIN: &str = "mesh.test";
/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An authority and a folder for files.
pub struct Mesh {
    pub ca: Ca,
    pub folder: TempDir,
}

impl Mesh {
    pub fn new() -> Mesh {
        Mesh { ca: Ca::new(DOMAIN), folder: tempfile::tempdir().unwrap() }
    }

    /// A good leaf for an agent of the namespace `default`.
    pub fn issue(&self, agent: &str) -> Issued {
        self.ca.issue(&Leaf::agent(DOMAIN, "default", agent))
    }

    /// A sidecar with the identity of this agent.
    pub fn sidecar(&self, agent: &str) -> Builder {
        self.sidecar_as(agent, &self.issue(agent))
    }

    /// A sidecar of this agent, with any identity.
    pub fn sidecar_as(&self, agent: &str, issued: &Issued) -> Builder {
        let folder = self.folder.path().join(agent);
        std::fs::create_dir_all(&folder).unwrap();
        let bundle = self.ca.write_bundle(&folder);
        with_identity(sidecar().agent(agent), &issued.write(&folder, "own"), &bundle)
    }

    /// A client with this certificate, or none; it takes any server.
    pub fn client(&self, own: Option<&Issued>) -> Arc<ClientConfig> {
        self.ca.client(own, &[b"http/1.1"])
    }
}

pub fn with_identity(builder: Builder, files: &Files, bundle: &Path) -> Builder {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (chain, key, bundle) = (text(&files.chain), text(&files.key), text(bundle));
    builder.args(&["--identity-cert", &chain, "--identity-key", &key, "--trust-bundle", &bundle])
}

/// A ServiceEntry: `host` is the sidecar of `agent`, whose inbound port is this.
pub fn mesh_service(host: &str, agent: &str, inbound: SocketAddr) -> String {
    mesh_service_with(
        host,
        &format!("labels: {{ pilotfish.dev/agent: {agent}, pilotfish.dev/mesh: \"true\" }}"),
        inbound,
    )
}

/// A ServiceEntry with one endpoint and these further lines of it.
pub fn mesh_service_with(host: &str, lines: &str, inbound: SocketAddr) -> String {
    let name = host.replace('.', "-");
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: {name}\nspec:\n  hosts: [{host}]\n  \
         ports:\n  - {{ number: 80, name: web, protocol: HTTP }}\n  resolution: STATIC\n  endpoints:\n  - address: 127.0.0.1\n    \
         ports: {{ web: {} }}\n    {lines}\n---\n",
        inbound.port()
    )
}

/// Opens TLS; the handshake's error as text.
pub async fn open(to: SocketAddr, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| error.to_string())
}

/// One request and everything that comes back until the connection ends; an error of TLS as text.
pub async fn ask(to: SocketAddr, config: Arc<ClientConfig>, request: &str) -> Result<String, String> {
    let mut stream = open(to, config).await?;
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    match read {
        Err(_) => Err(format!("nothing more came after {:?}", String::from_utf8_lossy(&answer))),
        Ok(Err(error)) if answer.is_empty() => Err(error.to_string()),
        Ok(_) => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// A plain GET that closes.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x.test\r\nconnection: close\r\n\r\n")
}

/// Waits until a metric's sample is what it should be: the peer may know of something before it is counted.
pub async fn counted(sidecar: &Sidecar, sample: &str, wanted: u64) {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let value = metric(sidecar, sample).await;
        if value == wanted {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "{sample} is {value}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The value of a metric's sample; 0 when it is not there.
pub async fn metric(sidecar: &Sidecar, sample: &str) -> u64 {
    let page = pilotfish_testkit::h1::get(sidecar.admin, "admin", "/metrics", &[]).await.unwrap().text();
    let line = page.lines().find_map(|line| line.strip_prefix(sample));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
