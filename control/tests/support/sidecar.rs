//! What a sidecar does towards the control plane: join, renew, hold a stream.

use std::collections::BTreeMap;
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
    let own = request("of", "the-key");
    let join = Join {
        token: token.into(),
        agent: agent.into(),
        namespace: namespace.into(),
        csr: own.csr_pem.clone(),
        node: false,
    };
    let reply = Http::tls(serve, None).await.post("/v1/join", &join).await;
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
    }
}

/// An open stream.
pub struct Stream {
    // Dropping it would close the connection.
    _http: Http,
    sender: Option<Sender<Bytes>>,
    body: Incoming,
    frames: Frames<ToSidecar>,
}

impl Stream {
    /// Opens one.
    pub async fn open(mut http: Http) -> Stream {
        let (sender, body) = Channel::new(8);
        let answer = http.send(Method::POST, "/v1/stream", body.boxed()).await.unwrap();
        assert_eq!(answer.status(), 200);
        Stream {
            _http: http,
            sender: Some(sender),
            body: answer.into_body(),
            frames: Frames::new(wire::LONGEST_TO_SIDECAR),
        }
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

    /// Sends a message.
    pub async fn say(&mut self, message: &ToControl) {
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
    pub async fn next(&mut self) -> Option<ToSidecar> {
        let next = async {
            loop {
                if let Some(message) = self.frames.next().unwrap() {
                    return Some(message);
                }
                match self.body.frame().await {
                    Some(Ok(frame)) => self.frames.push(&frame.into_data().unwrap_or_default()),
                    _ => return None,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), next).await.expect("neither a message nor the end")
    }

    /// Waits for a message that fits.
    pub async fn until(&mut self, fits: impl Fn(&ToSidecar) -> bool) -> ToSidecar {
        loop {
            match self.next().await {
                Some(message) if fits(&message) => return message,
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    }
}
