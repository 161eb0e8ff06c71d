//! A well-behaved agent over hyper: HTTP/1.1 and HTTP/2 with prior knowledge on one port, and its name in every answer.
//!
//! | path | answer |
//! |---|---|
//! | `/status/CODE` | that status, with the body `CODE` |
//! | `/delay/MS` | echo after that time |
//! | `/bytes/N` | N bytes (32 MiB at most) with a length |
//! | `/stream/N/MS` | N server-sent events `data: i`, that many milliseconds apart |
//! | `/trailers` | a body in chunks, then the trailer `x-trailer: end` |
//! | `/upgrade` | 101 to any `Upgrade`, then an echo of bytes |
//! | anything else | echo: JSON with `agent`, `method`, `path`, `query`, `version`, `authority`, `headers`, `body_len`, `body` |

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::channel::Channel;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// What `/bytes/N` is cut from, so that a hundred large answers cost the test no memory.
static MANY: LazyLock<Bytes> = LazyLock::new(|| vec![b'x'; 32 << 20].into());

type Body = BoxBody<Bytes, Infallible>;

/// A running agent. It ends when this is dropped.
#[derive(Debug)]
pub struct Agent {
    name: String,
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    requests: AtomicUsize,
    open: AtomicUsize,
    most: AtomicUsize,
    connections: AtomicUsize,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    /// Starts an agent on a free port of 127.0.0.1.
    pub async fn start(name: &str) -> Self {
        Self::start_on(name, "127.0.0.1:0").await
    }

    /// Starts an agent on this address.
    pub async fn start_on(name: &str, addr: &str) -> Self {
        Self::listening(name, TcpListener::bind(addr).await.expect("a free port"))
    }

    /// Starts an agent with this listener.
    pub fn listening(name: &str, listener: TcpListener) -> Self {
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(serve(listener, name.to_owned(), shared.clone()));
        Self { name: name.to_owned(), addr, shared, task }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// How many requests it has begun to serve.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many requests are open now, streams included.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// How many requests were open at once at most.
    pub fn most_at_once(&self) -> usize {
        self.shared.most.load(Ordering::Relaxed)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, name: String, shared: Arc<Shared>) {
    let name: Arc<str> = name.into();
    let mut serving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let (name, shared) = (name.clone(), shared.clone());
        serving.spawn(async move {
            let service = service_fn(move |request| answer(request, name.clone(), shared.clone()));
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        });
        while serving.try_join_next().is_some() {}
    }
}

/// One open request, counted for as long as it lives.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        shared.requests.fetch_add(1, Ordering::Relaxed);
        let now = shared.open.fetch_add(1, Ordering::Relaxed) + 1;
        shared.most.fetch_max(now, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(
    request: Request<Incoming>,
    name: Arc<str>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    let open = Open::new(shared);
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let number = |i: usize| parts.get(i).and_then(|p| p.parse::<u64>().ok()).unwrap_or(0);
    let mut response = match parts[0] {
        "status" => {
            let status = u16::try_from(number(1)).ok().and_then(|s| StatusCode::from_u16(s).ok());
            let mut response = full(number(1).to_string());
            *response.status_mut() = status.unwrap_or(StatusCode::BAD_REQUEST);
            response
        }
        "bytes" => full(MANY.slice(..usize::try_from(number(1)).unwrap_or(0).min(MANY.len()))),
        "stream" => events(number(1), Duration::from_millis(number(2)), open),
        "trailers" => trailers(),
        "upgrade" => upgrade(request),
        first => {
            if first == "delay" {
                tokio::time::sleep(Duration::from_millis(number(1))).await;
            }
            echo(request, &name).await
        }
    };
    if let Ok(value) = HeaderValue::from_str(&name) {
        response.headers_mut().insert("x-agent", value);
    }
    Ok(response)
}

fn full(body: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(body.into()).boxed())
}

async fn echo(request: Request<Incoming>, name: &str) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let mut headers = Map::new();
    for (name, value) in &head.headers {
        let value = Value::from(String::from_utf8_lossy(value.as_bytes()));
        match headers.entry(name.as_str()).or_insert_with(|| json!([])) {
            Value::Array(all) => all.push(value),
            _ => unreachable!("only arrays are inserted"),
        }
    }
    let text = json!({
        "agent": name,
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "version": format!("{:?}", head.version),
        "authority": head.uri.authority().map(|a| a.as_str()),
        "headers": headers,
        "body_len": body.len(),
        "body": String::from_utf8_lossy(&body[..body.len().min(4096)]),
    });
    let mut response = full(text.to_string());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

fn events(count: u64, gap: Duration, open: Open) -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        let _open = open;
        for i in 0..count {
            if i > 0 {
                tokio::time::sleep(gap).await;
            }
            if sender.send_data(Bytes::from(format!("data: {i}\n\n"))).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
    response
}

fn trailers() -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(2);
    tokio::spawn(async move {
        let _ = sender.send_data(Bytes::from_static(b"body")).await;
        let mut map = HeaderMap::new();
        map.insert("x-trailer", HeaderValue::from_static("end"));
        let _ = sender.send_trailers(map).await;
    });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-trailer"));
    response
}

fn upgrade(request: Request<Incoming>) -> Response<Body> {
    let Some(protocol) = request.headers().get("upgrade").cloned() else {
        let mut response = full("no Upgrade header");
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let mut io = TokioIo::new(upgraded);
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(n) = io.read(&mut buffer).await {
            if n == 0 || io.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    });
    let mut response = full("");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("upgrade", protocol);
    response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1;

    #[tokio::test]
    async fn answers_by_path() {
        let agent = Agent::start("a1").await;
        let echo = h1::get(agent.addr(), "x.test", "/p?q=1", &["A: b"]).await.unwrap();
        let json = echo.json();
        assert_eq!((json["agent"].as_str(), json["query"].as_str()), (Some("a1"), Some("q=1")));
        assert_eq!(json["headers"]["a"][0], "b");
        assert_eq!(h1::get(agent.addr(), "x", "/status/418", &[]).await.unwrap().status(), 418);
        assert_eq!(h1::get(agent.addr(), "x", "/bytes/1000", &[]).await.unwrap().message.body.len(), 1000);
        let stream = h1::get(agent.addr(), "x", "/stream/3/1", &[]).await.unwrap();
        assert_eq!(stream.text(), "data: 0\n\ndata: 1\n\ndata: 2\n\n");
        let trailers = h1::get(agent.addr(), "x", "/trailers", &["TE: trailers"]).await.unwrap();
        assert_eq!(trailers.message.trailers, [("x-trailer".to_owned(), "end".to_owned())]);
        assert_eq!(agent.requests(), 5);
    }

    #[tokio::test]
    async fn upgrades() {
        let agent = Agent::start("a1").await;
        let mut client = h1::H1::connect(agent.addr()).await;
        let switched = client.get("x", "/upgrade", &["Upgrade: raw", "Connection: upgrade"]).await.unwrap();
        assert_eq!(switched.status(), 101);
        client.send("hello").await;
        assert_eq!(client.read_until(|b| b.len() >= 5).await, b"hello");
    }
}
