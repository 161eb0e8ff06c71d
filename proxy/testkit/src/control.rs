//! A scripted control plane: TLS and HTTP/2 like the real one, but it says what the test says, well or badly, and
//! records what it received. Messages are JSON values, so that nothing of the sidecar's own code judges itself.
//!
//! ```ignore
//! let control = Control::start("mesh.test").await;
//! let sidecar = support::sidecar().control(&control).launch();   // joins by `control.token()`
//! let mut link = control.link().await;                           // its stream, with the hello
//! link.welcome().await;
//! link.update(1, json!({ "documents": [document(SERVICE)] })).await;
//! let sidecar = sidecar.ready().await;
//! assert_eq!(link.state(|state| state["serving"] == 1).await["accepted"], 1);
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::Nobody;
use crate::ca::{Ca, Leaf};

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(15);

/// A control plane of one trust domain, at one address. Dropping it closes everything.
pub struct Control {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its trust domain.
    pub domain: String,
    /// Its authority.
    pub ca: Arc<Ca>,
    /// Until it is killed.
    place: Option<Nobody>,
    state: Arc<State>,
    links: tokio::sync::Mutex<mpsc::UnboundedReceiver<Link>>,
    accepting: JoinHandle<()>,
}

struct State {
    ca: Arc<Ca>,
    domain: String,
    /// Uses that are left, by token.
    tokens: Mutex<HashMap<String, u32>>,
    joins: Mutex<Vec<Value>>,
    renewals: Mutex<Vec<Value>>,
    spans: Mutex<Vec<Vec<u8>>>,
    streams_refused: AtomicBool,
    leaf_seconds: AtomicI64,
    connections: Mutex<Vec<AbortHandle>>,
    links: mpsc::UnboundedSender<Link>,
}

/// One sidecar's stream.
pub struct Link {
    /// Its first message.
    pub hello: Value,
    incoming: RecvStream,
    outgoing: SendStream<Bytes>,
    buffer: Vec<u8>,
}

impl Control {
    /// A new trust domain with its authority, and a control plane of it.
    pub async fn start(domain: &str) -> Control {
        Control::of(domain, Arc::new(Ca::new(domain))).await
    }

    /// One more control plane of the same authority.
    pub async fn another(&self) -> Control {
        Control::of(&self.domain, self.ca.clone()).await
    }

    async fn of(domain: &str, ca: Arc<Ca>) -> Control {
        Control::at(Nobody::new(), domain, ca, &control_id(domain)).await
    }

    /// One at this place whose certificate names `id`.
    pub async fn at(place: Nobody, domain: &str, ca: Arc<Ca>, id: &str) -> Control {
        let address = place.addr();
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let (links, received) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            ca: ca.clone(),
            domain: domain.to_owned(),
            tokens: Mutex::default(),
            joins: Mutex::default(),
            renewals: Mutex::default(),
            spans: Mutex::default(),
            streams_refused: AtomicBool::new(false),
            leaf_seconds: AtomicI64::new(24 * 3600),
            connections: Mutex::default(),
            links,
        });
        let acceptor = TlsAcceptor::from(server_config(&ca, id));
        let accepting = tokio::spawn(accept(listener, acceptor, state.clone()));
        let links = tokio::sync::Mutex::new(received);
        Control { address, place: Some(place), domain: domain.to_owned(), ca, state, links, accepting }
    }

    /// For `--control`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A new join token, good once.
    pub fn token(&self) -> String {
        self.token_with_root(&sha256(&self.ca.root_der()))
    }

    /// A new join token that names another root.
    pub fn token_with_root(&self, root: &str) -> String {
        let number = self.state.tokens.lock().unwrap().len();
        let token = format!("pft1.{number:016x}.{number:A<43}.{root}");
        self.state.tokens.lock().unwrap().insert(token.clone(), 1);
        token
    }

    /// Certificates that it signs from now on live so long.
    pub fn sign_for(&self, seconds: i64) {
        self.state.leaf_seconds.store(seconds, Ordering::Relaxed);
    }

    /// Whether streams are answered with 403 from now on.
    pub fn refuse_streams(&self, refuse: bool) {
        self.state.streams_refused.store(refuse, Ordering::Relaxed);
    }

    /// Every message of spans so far.
    pub fn spans(&self) -> Vec<Vec<u8>> {
        self.state.spans.lock().unwrap().clone()
    }

    /// The join requests so far.
    pub fn joins(&self) -> Vec<Value> {
        self.state.joins.lock().unwrap().clone()
    }

    /// The renewals so far.
    pub fn renewals(&self) -> Vec<Value> {
        self.state.renewals.lock().unwrap().clone()
    }

    /// The next stream that a sidecar opens, with its hello.
    pub async fn link(&self) -> Link {
        let mut links = self.links.lock().await;
        let link = tokio::time::timeout(PATIENCE, links.recv()).await;
        link.expect("a sidecar opens its stream").expect("the control plane lives")
    }

    /// Stops reading and writing on all connections, which stay open: a process that hangs.
    pub fn hang(&self) {
        self.accepting.abort();
        for connection in self.state.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Ends, as by `kill -9`; another one can take its place when this returns.
    pub async fn kill(mut self) -> (Nobody, Arc<Ca>) {
        self.hang();
        let (place, ca) = (self.place.take().unwrap(), self.ca.clone());
        drop(self);
        tokio::task::yield_now().await;
        (place, ca)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.hang();
    }
}

/// The identity of a control plane.
pub fn control_id(domain: &str) -> String {
    format!("spiffe://{domain}/ns/pilotfish-system/control/test")
}

/// SHA-256 as hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn server_config(ca: &Ca, id: &str) -> Arc<ServerConfig> {
    let own = ca.issue(&Leaf::of(id));
    let mut chain = own.chain_der();
    chain.push(ca.root_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.root_der()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, own.key_der())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let connection = tokio::spawn(serve(stream, acceptor.clone(), state.clone()));
        state.connections.lock().unwrap().push(connection.abort_handle());
    }
}

async fn serve(socket: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) {
    let Ok(tls) = acceptor.accept(socket).await else { return };
    let has_certificate = tls.get_ref().1.peer_certificates().is_some();
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(tls).await else { return };
    while let Some(Ok((request, answer))) = connection.accept().await {
        let state = state.clone();
        let path = request.uri().path().to_owned();
        tokio::spawn(async move {
            match path.as_str() {
                "/v1/join" => join(request.into_body(), answer, &state).await,
                "/v1/renew" => renew(request.into_body(), answer, &state, has_certificate).await,
                "/v1/stream" => stream(request.into_body(), answer, &state, has_certificate).await,
                "/v1/otlp/traces" => {
                    let message = bytes(request.into_body()).await;
                    state.spans.lock().unwrap().push(message);
                    respond(answer, 200, &json!({}));
                }
                _ => respond(answer, 404, &json!({ "error": "no such path" })),
            }
        });
    }
}

fn respond(mut answer: SendResponse<Bytes>, status: u16, body: &Value) {
    let head = http::Response::builder().status(status).body(()).unwrap();
    if let Ok(mut send) = answer.send_response(head, false) {
        let _ = send.send_data(body.to_string().into(), true);
    }
}

async fn body(incoming: RecvStream) -> Value {
    serde_json::from_slice(&bytes(incoming).await).unwrap_or(Value::Null)
}

async fn bytes(mut incoming: RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = incoming.data().await {
        let _ = incoming.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

async fn join(incoming: RecvStream, answer: SendResponse<Bytes>, state: &State) {
    let join = body(incoming).await;
    state.joins.lock().unwrap().push(join.clone());
    let spent = {
        let mut tokens = state.tokens.lock().unwrap();
        let left = tokens.get_mut(join["token"].as_str().unwrap_or_default());
        left.is_some_and(|left| std::mem::replace(left, left.saturating_sub(1)) > 0)
    };
    if !spent {
        return respond(answer, 403, &json!({ "error": "this token is not valid" }));
    }
    respond(answer, 200, &joined(state, &join));
}

async fn renew(incoming: RecvStream, answer: SendResponse<Bytes>, state: &State, has_certificate: bool) {
    let mut renewal = body(incoming).await;
    state.renewals.lock().unwrap().push(renewal.clone());
    // The last one that joined is the one that renews, in these tests.
    let Some(last) = state.joins.lock().unwrap().last().cloned().filter(|_| has_certificate) else {
        return respond(answer, 403, &json!({ "error": "no certificate" }));
    };
    (renewal["agent"], renewal["namespace"]) = (last["agent"].clone(), last["namespace"].clone());
    respond(answer, 200, &joined(state, &renewal));
}

fn joined(state: &State, request: &Value) -> Value {
    let text = |key: &str| request[key].as_str().unwrap_or_default();
    let mut leaf = Leaf::agent(&state.domain, text("namespace"), text("agent"));
    leaf.ends = state.leaf_seconds.load(Ordering::Relaxed);
    if leaf.ends < 300 {
        leaf.starts = -1;
    }
    json!({
        "chain": state.ca.sign(text("csr"), &leaf),
        "bundles": { state.domain.clone(): state.ca.root_pem() },
        "id": leaf.uris[0],
        "expires": 0,
    })
}

async fn stream(incoming: RecvStream, mut answer: SendResponse<Bytes>, state: &State, has_certificate: bool) {
    if !has_certificate || state.streams_refused.load(Ordering::Relaxed) {
        return respond(answer, 403, &json!({ "error": "this sidecar is not known" }));
    }
    let head = http::Response::builder().status(200).body(()).unwrap();
    let Ok(outgoing) = answer.send_response(head, false) else { return };
    let mut link = Link { hello: Value::Null, incoming, outgoing, buffer: Vec::new() };
    if let Some(hello) = link.next().await {
        link.hello = hello;
        let _ = state.links.send(link);
    }
}

impl Link {
    /// The next message; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if self.buffer.len() >= 4 + length {
                    let message =
                        serde_json::from_slice(&self.buffer[4..4 + length]).expect("JSON in a frame");
                    self.buffer.drain(..4 + length);
                    return Some(message);
                }
            }
            let chunk = self.incoming.data().await?.ok()?;
            let _ = self.incoming.flow_control().release_capacity(chunk.len());
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// The next message of this type that fits; others are passed over.
    pub async fn wait(&mut self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Vec::new();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let message = self.next().await?;
                if message["type"] == kind && fits(&message) {
                    return Some(message);
                }
                seen.push(message);
            }
        });
        match found.await {
            Ok(Some(message)) => message,
            Ok(None) => panic!("the stream ended before such a {kind}; it had {seen:#?}"),
            Err(_) => panic!("there never came such a {kind}, only {seen:#?}"),
        }
    }

    /// The next state that fits.
    pub async fn state(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        self.wait("state", fits).await
    }

    /// Whether the stream ends within the time; messages before that are passed over.
    pub async fn ends(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, async { while self.next().await.is_some() {} }).await.is_ok()
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &Value) {
        let text = message.to_string();
        let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        self.send_bytes(&bytes).await;
    }

    /// Sends bytes that may be no message at all.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.outgoing.send_data(Bytes::copy_from_slice(bytes), false).expect("an open stream");
    }

    /// Ends what it sends, in order; it still listens.
    pub fn finish(&mut self) {
        let _ = self.outgoing.send_data(Bytes::new(), true);
    }

    /// Takes the hello, with heartbeats every 100 ms.
    pub async fn welcome(&mut self) {
        self.send(&json!({
            "type": "welcome",
            "versions": { "major": 1, "minor": 7, "build": "test" },
            "control": "test",
            "trust_domain": "mesh.test",
            "lease_ms": 300,
            "heartbeat_ms": 100,
            "news": "of a later minor version",
        }))
        .await;
    }

    /// Sends an update: a full one, unless `what` says otherwise.
    pub async fn update(&mut self, version: u64, what: Value) {
        let mut update =
            json!({ "type": "update", "version": version, "digest": format!("d{version}"), "full": true });
        update.as_object_mut().unwrap().extend(what.as_object().cloned().unwrap_or_default());
        self.send(&update).await;
    }
}

/// A document as it travels, from its parts.
pub fn document(kind: &str, api: &str, name: &str, spec: Value) -> Value {
    json!({
        "key": { "kind": kind, "namespace": "default", "name": name },
        "source": format!("{name}.yaml:1"),
        "body": {
            "apiVersion": api,
            "kind": kind,
            "metadata": { "name": name, "namespace": "default" },
            "spec": spec,
        },
    })
}
