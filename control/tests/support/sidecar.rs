//! What a sidecar does towards the control plane: join, renew, hold a stream.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use pilotfish_config::wire::{
    self, Frames, Hello, Join, Joined, Renew, Status, ToControl, ToSidecar, Versions,
};
use pilotfish_control::api::types::{NewToken, Token};
use pilotfish_identity::{KeyAndRequest, SpiffeId, TrustDomain};
use pilotfish_testkit::ca::Issued;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Http, Reply, Serve};

/// A key and what asks for its certificate.
pub fn request(namespace: &str, agent: &str) -> KeyAndRequest {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    KeyAndRequest::new(&SpiffeId::agent(&domain, namespace, agent).unwrap()).unwrap()
}

/// A join token, made over the Unix socket.
pub async fn token(serve: &Serve, namespace: &str, agent: &str) -> String {
    let wanted =
        NewToken { agent: agent.into(), namespace: namespace.into(), ttl_seconds: 60, uses: 1, node: false };
    Http::socket(serve).await.post("/v1/tokens", &wanted).await.ok::<Token>().token
}

/// Joins by a token: the answer, and the identity when it was good.
pub async fn join(serve: &Serve, token: &str, namespace: &str, agent: &str) -> (Reply, Option<Issued>) {
    join_at(serve.listen, token, namespace, agent).await
}

/// Joins at an address.
pub async fn join_at(
    listen: SocketAddr,
    token: &str,
    namespace: &str,
    agent: &str,
) -> (Reply, Option<Issued>) {
    let own = request("of", "the-key");
    let join = Join {
        token: token.into(),
        agent: agent.into(),
        namespace: namespace.into(),
        csr: own.csr_pem.clone(),
        node: false,
    };
    let reply = Http::try_tls(listen, None).await.unwrap().post("/v1/join", &join).await;
    let issued = (reply.status == 200)
        .then(|| Issued { chain: reply.json::<Joined>().chain, key: own.key_pem.to_string() });
    (reply, issued)
}

/// A sidecar's identity.
pub async fn joined(serve: &Serve, namespace: &str, agent: &str) -> Issued {
    let token = token(serve, namespace, agent).await;
    let (reply, issued) = join(serve, &token, namespace, agent).await;
    issued.unwrap_or_else(|| panic!("not joined: {}", reply.text()))
}

/// Asks for a new certificate with the current one.
pub async fn renew(http: &mut Http, namespace: &str, agent: &str) -> Reply {
    http.post("/v1/renew", &Renew { csr: request(namespace, agent).csr_pem }).await
}

/// A hello of an agent with one instance.
pub fn hello(namespace: &str, agent: &str) -> Hello {
    Hello {
        reading: Default::default(),
        capacity: 0,
        versions: Versions::own(),
        agent: agent.into(),
        namespace: namespace.into(),
        instance: "0123456789abcdef0123456789abcdef".into(),
        labels: BTreeMap::new(),
        locality: None,
        address: Some("127.0.0.1:15006".parse().unwrap()),
        weight: 1,
        capabilities: Vec::new(),
        status: Status::Ready,
        resume: None,
        certificate_expires: None,
        dedup_epoch: None,
        signs_chains: true,
    }
}

/// An open stream, on which messages of type `M` come.
pub struct Stream<M = ToSidecar> {
    // Dropping it would close the connection.
    _http: Http,
    sender: Option<Sender<Bytes>>,
    body: Incoming,
    frames: Frames<M>,
}

impl Stream {
    /// Opens one.
    pub async fn open(http: Http) -> Stream {
        Stream::open_at(http, "/v1/stream").await
    }

    /// Opens one, says hello, and is welcomed.
    pub async fn welcomed(serve: &Serve, own: &Issued, hello: Hello) -> Stream {
        let mut stream = Stream::open(Http::tls(serve, Some(own)).await).await;
        stream.say(&ToControl::Hello(Box::new(hello))).await;
        match stream.next().await {
            Some(ToSidecar::Welcome(_)) => stream,
            other => panic!("no welcome but {other:?}"),
        }
    }
}

impl<M: DeserializeOwned> Stream<M> {
    /// Opens one at a path.
    pub async fn open_at(mut http: Http, path: &str) -> Stream<M> {
        let (sender, body) = Channel::new(8);
        let answer = http.send(Method::POST, path, body.boxed()).await.unwrap();
        assert_eq!(answer.status(), 200);
        Stream {
            _http: http,
            sender: Some(sender),
            body: answer.into_body(),
            frames: Frames::new(wire::LONGEST_TO_SIDECAR),
        }
    }

    /// Sends a message.
    pub async fn say(&mut self, message: &impl Serialize) {
        self.raw(wire::frame(message).unwrap()).await;
    }

    /// Sends bytes; they may go nowhere when the stream has ended.
    pub async fn raw(&mut self, bytes: impl Into<Bytes>) {
        if let Some(sender) = &mut self.sender {
            let _ = sender.send_data(bytes.into()).await;
        }
    }

    /// Ends the own direction.
    pub fn finish(&mut self) {
        self.sender = None;
    }

    /// The next message; none at the end, also of the connection.
    pub async fn next(&mut self) -> Option<M> {
        let next = tokio::time::timeout(Duration::from_secs(30), self.patient()).await;
        next.expect("neither a message nor the end")
    }

    /// The next message, however long it takes; none at the end.
    pub async fn patient(&mut self) -> Option<M> {
        loop {
            if let Some(message) = self.frames.next().unwrap() {
                return Some(message);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.frames.push(&frame.into_data().unwrap_or_default()),
                _ => return None,
            }
        }
    }

    /// Waits for a message that fits.
    pub async fn until(&mut self, fits: impl Fn(&M) -> bool) -> M {
        loop {
            match self.next().await {
                Some(message) if fits(&message) => return message,
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    }
}
