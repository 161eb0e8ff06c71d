//! A simulated sidecar: it joins, says hello, takes each update as served, and lives.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use pilotfish_config::wire::{
    Heartbeat, Hello, Join, Joined, State, Status, ToControl, ToSidecar, Versions, frame,
};
use pilotfish_identity::{
    Bundles, Credentials, Identity as Known, JoinToken, KeyAndRequest, LiveIdentity, SpiffeId, TrustDomain,
    pinned_client_config, tls,
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;

/// The mesh of a control plane that was told nothing else.
const DOMAIN: &str = "cluster.local";
/// What the control plane may send before it is read.
const WINDOW: u32 = 1 << 20;

/// What sidecars saw, together.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Bytes of frames.
    pub(super) bytes: AtomicU64,
    /// Heartbeats that were sent.
    pub(super) beats: AtomicU64,
    /// Streams that ended although nobody ended them.
    pub(super) ended: AtomicU64,
}

/// One identity, for all instances of an agent: one TLS configuration.
#[derive(Clone)]
pub(super) struct Identity {
    control: SocketAddr,
    config: Arc<ClientConfig>,
    namespace: String,
    agent: String,
}

impl Identity {
    /// Joins with a token.
    pub(super) async fn join(
        control: SocketAddr,
        token: &str,
        namespace: &str,
        agent: &str,
    ) -> io::Result<Identity> {
        let parsed = JoinToken::parse(token).map_err(other)?;
        let domain = TrustDomain::parse(DOMAIN).map_err(other)?;
        let id = SpiffeId::agent(&domain, namespace, agent).map_err(other)?;
        let request = KeyAndRequest::new(&id).map_err(other)?;
        let config = pinned_client_config(parsed.root, &[b"h2"]).map_err(other)?;
        let join = Join {
            token: token.to_owned(),
            agent: agent.to_owned(),
            namespace: namespace.to_owned(),
            csr: request.csr_pem.clone(),
            node: false,
        };
        let joined: Joined = post(control, config, serde_json::to_vec(&join)?.into()).await?;
        let credentials = Credentials::from_pem(&joined.chain, &request.key_pem).map_err(other)?;
        let bundles = Bundles::from_wire(&joined.bundles).map_err(other)?;
        let live = LiveIdentity::new(Known {
            credentials: Some(Arc::new(credentials)),
            bundles: Arc::new(bundles),
            ..Known::default()
        });
        let config = tls::client_config(live, &[b"h2"]).map_err(other)?;
        Ok(Identity { control, config, namespace: namespace.to_owned(), agent: agent.to_owned() })
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

async fn connect(control: SocketAddr, config: Arc<ClientConfig>) -> io::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(control).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(config).connect(tls::any_name(), stream).await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
    let (requests, connection) = builder.handshake(stream).await.map_err(other)?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    requests.ready().await.map_err(other)
}

fn head(path: &str) -> io::Result<http::Request<()>> {
    http::Request::post(format!("https://control{path}"))
        .header("content-type", "application/json")
        .body(())
        .map_err(other)
}

async fn post(control: SocketAddr, config: Arc<ClientConfig>, body: Bytes) -> io::Result<Joined> {
    let mut requests = connect(control, config).await?;
    let (answer, mut outgoing) = requests.send_request(head("/v1/join")?, false).map_err(other)?;
    outgoing.send_data(body, true).map_err(other)?;
    let answer = answer.await.map_err(other)?;
    let status = answer.status();
    let mut incoming = answer.into_body();
    let mut said = Vec::new();
    while let Some(data) = incoming.data().await {
        said.extend_from_slice(&data.map_err(other)?);
    }
    if !status.is_success() {
        return Err(io::Error::other(format!("join: {status}: {}", String::from_utf8_lossy(&said))));
    }
    Ok(serde_json::from_slice(&said)?)
}

/// An open stream.
pub(super) struct Sidecar {
    outgoing: SendStream<Bytes>,
    incoming: RecvStream,
    buffer: BytesMut,
    every: Duration,
    seen: Arc<Seen>,
    /// The connection lives as long as this.
    _requests: SendRequest<Bytes>,
}

impl Sidecar {
    /// Connects, and returns when the first update is there.
    pub(super) async fn open(identity: &Identity, number: usize, seen: Arc<Seen>) -> io::Result<Sidecar> {
        let mut requests = connect(identity.control, identity.config.clone()).await?;
        let (answer, mut outgoing) = requests.send_request(head("/v1/stream")?, false).map_err(other)?;
        send(&mut outgoing, &ToControl::Hello(Box::new(hello(identity, number)))).await?;
        let answer = answer.await.map_err(other)?;
        if !answer.status().is_success() {
            return Err(io::Error::other(format!("stream: {}", answer.status())));
        }
        let mut sidecar = Sidecar {
            outgoing,
            incoming: answer.into_body(),
            buffer: BytesMut::new(),
            every: Duration::from_secs(3),
            seen,
            _requests: requests,
        };
        while !sidecar.receive().await? {}
        Ok(sidecar)
    }

    /// The next whole frame.
    fn frame(&mut self) -> Option<Bytes> {
        let length = u32::from_be_bytes(*self.buffer.first_chunk::<4>()?) as usize;
        if self.buffer.len() < 4 + length {
            return None;
        }
        Some(self.buffer.split_to(4 + length).freeze().slice(4..))
    }

    /// Lives until it is dropped.
    pub(super) async fn live(mut self) {
        let seen = self.seen.clone();
        if let Err(error) = self.beat().await {
            eprintln!("         a stream ended: {error}");
            seen.ended.fetch_add(1, Relaxed);
        }
    }

    async fn beat(&mut self) -> io::Result<()> {
        // Spread over the time between two.
        let mut due = Instant::now() + self.every.mul_f64(fastrand::f64());
        loop {
            tokio::select! {
                received = self.receive() => { received?; }
                () = sleep_until(due) => {
                    due += self.every;
                    let beat = Heartbeat { idle_ms: None, usage: None,
                        status: Status::Ready,
                        detail: None,
                        in_flight: 0,
                        reports: Vec::new(),
                        certificate_expires: None,
                        limits: Vec::new(),
                        edges: Vec::new(),
                    };
                    send(&mut self.outgoing, &ToControl::Heartbeat(beat)).await?;
                    self.seen.beats.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// Takes in what comes next; gives whether an update was among it, which counts as served at once.
    async fn receive(&mut self) -> io::Result<bool> {
        let ended = || io::Error::other("the control plane ended it");
        let data = self.incoming.data().await.ok_or_else(ended)?.map_err(other)?;
        self.incoming.flow_control().release_capacity(data.len()).map_err(other)?;
        self.seen.bytes.fetch_add(data.len() as u64, Relaxed);
        self.buffer.extend_from_slice(&data);
        let mut served = None;
        while let Some(frame) = self.frame() {
            // Only its version: reading documents is the real sidecar's work, which is measured elsewhere.
            match version(&frame) {
                Some(version) => served = Some(version),
                None => match serde_json::from_slice(&frame)? {
                    ToSidecar::Welcome(welcome) => self.every = Duration::from_millis(welcome.heartbeat_ms),
                    ToSidecar::Refused(refused) => return Err(io::Error::other(refused.reason)),
                    _ => {}
                },
            }
        }
        if let Some(version) = served {
            let state = State { accepted: version, serving: version, refused: None };
            send(&mut self.outgoing, &ToControl::State(state)).await?;
        }
        Ok(served.is_some())
    }
}

/// The version of an update, which begins with its type and version.
fn version(frame: &[u8]) -> Option<u64> {
    let rest = frame.strip_prefix(br#"{"type":"update","version":"#)?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

fn hello(identity: &Identity, number: usize) -> Hello {
    let labels = [("app", identity.agent.as_str()), ("version", "v1")];
    let ip = [10, (number >> 16) as u8, (number >> 8) as u8, number as u8];
    Hello {
        capacity: 0,
        versions: Versions::own(),
        agent: identity.agent.clone(),
        namespace: identity.namespace.clone(),
        instance: format!("{:032x}", fastrand::u128(..)),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        locality: Some("region-1/zone-a".into()),
        address: Some(SocketAddr::from((ip, 15006))),
        weight: 1,
        capabilities: vec!["natural_language_understanding@1.2.0".into(), "summarisation".into()],
        status: Status::Ready,
        resume: None,
        certificate_expires: None,
        dedup_epoch: None,
    }
}

async fn send(outgoing: &mut SendStream<Bytes>, message: &ToControl) -> io::Result<()> {
    let mut bytes = Bytes::from(frame(message).map_err(other)?);
    while !bytes.is_empty() {
        outgoing.reserve_capacity(bytes.len());
        let room = poll_fn(|cx| outgoing.poll_capacity(cx)).await;
        let room = room.ok_or_else(|| io::Error::other("it takes no more"))?.map_err(other)?;
        outgoing.send_data(bytes.split_to(room.min(bytes.len())), false).map_err(other)?;
    }
    Ok(())
}
