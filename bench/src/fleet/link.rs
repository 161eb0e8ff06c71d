//! What simulated sidecars and nodes share: a join, and a stream of frames over mutual TLS and HTTP/2.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use pilotfish_config::wire::{Join, Joined, frame};
use pilotfish_identity::{
    Bundles, Credentials, Identity as Known, JoinToken, KeyAndRequest, LiveIdentity, SpiffeId, TrustDomain,
    pinned_client_config, tls,
};
use rustls::ClientConfig;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The mesh of a control plane that was told nothing else.
const DOMAIN: &str = "cluster.local";
/// What the control plane may send before it is read.
const WINDOW: u32 = 1 << 20;

/// One identity, for all instances of an agent: one TLS configuration.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) control: SocketAddr,
    pub(super) config: Arc<ClientConfig>,
    /// Empty for a node.
    pub(super) namespace: String,
    /// Or the node.
    pub(super) agent: String,
}

impl Identity {
    /// Joins with a token; without a namespace as a node.
    pub(super) async fn join(
        control: SocketAddr,
        token: &str,
        namespace: &str,
        agent: &str,
    ) -> io::Result<Identity> {
        let node = namespace.is_empty();
        let parsed = JoinToken::parse(token).map_err(other)?;
        let domain = TrustDomain::parse(DOMAIN).map_err(other)?;
        let id =
            if node { SpiffeId::node(&domain, agent) } else { SpiffeId::agent(&domain, namespace, agent) };
        let id = id.map_err(other)?;
        let request = KeyAndRequest::new(&id).map_err(other)?;
        let config = pinned_client_config(parsed.root, &[b"h2"]).map_err(other)?;
        let join = Join {
            token: token.to_owned(),
            agent: agent.to_owned(),
            namespace: namespace.to_owned(),
            csr: request.csr_pem.clone(),
            node,
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

/// An open stream of frames.
pub(super) struct Link {
    outgoing: SendStream<Bytes>,
    incoming: RecvStream,
    buffer: BytesMut,
    /// The connection lives as long as this.
    _requests: SendRequest<Bytes>,
}

impl Link {
    /// Opens a stream, with its first message.
    pub(super) async fn open<T: Serialize>(identity: &Identity, path: &str, hello: &T) -> io::Result<Link> {
        let mut requests = connect(identity.control, identity.config.clone()).await?;
        let (answer, mut outgoing) = requests.send_request(head(path)?, false).map_err(other)?;
        send(&mut outgoing, hello).await?;
        let answer = answer.await.map_err(other)?;
        if !answer.status().is_success() {
            return Err(io::Error::other(format!("stream: {}", answer.status())));
        }
        let incoming = answer.into_body();
        Ok(Link { outgoing, incoming, buffer: BytesMut::new(), _requests: requests })
    }

    /// Sends a message.
    pub(super) async fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        send(&mut self.outgoing, message).await
    }

    /// Waits for more bytes; gives how many came. Cancelling it loses nothing.
    pub(super) async fn receive(&mut self) -> io::Result<usize> {
        let ended = || io::Error::other("the control plane ended it");
        let data = self.incoming.data().await.ok_or_else(ended)?.map_err(other)?;
        self.incoming.flow_control().release_capacity(data.len()).map_err(other)?;
        self.buffer.extend_from_slice(&data);
        Ok(data.len())
    }

    /// The next whole frame among what came.
    pub(super) fn frame(&mut self) -> Option<Bytes> {
        let length = u32::from_be_bytes(*self.buffer.first_chunk::<4>()?) as usize;
        if self.buffer.len() < 4 + length {
            return None;
        }
        Some(self.buffer.split_to(4 + length).freeze().slice(4..))
    }
}

async fn send<T: Serialize>(outgoing: &mut SendStream<Bytes>, message: &T) -> io::Result<()> {
    let mut bytes = Bytes::from(frame(message).map_err(other)?);
    while !bytes.is_empty() {
        outgoing.reserve_capacity(bytes.len());
        let room = poll_fn(|cx| outgoing.poll_capacity(cx)).await;
        let room = room.ok_or_else(|| io::Error::other("it takes no more"))?.map_err(other)?;
        outgoing.send_data(bytes.split_to(room.min(bytes.len())), false).map_err(other)?;
    }
    Ok(())
}
