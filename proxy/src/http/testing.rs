//! For the engine's own tests: the engine over real sockets, and peers that a test plays byte by byte.

use std::cell::RefCell;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::closing::Closing;
use super::downstream::Downstream;
use super::error::{Bad, Error};
use super::h1::client::ClientConn;
use super::h2;
use super::head::{RequestHead, ResponseHead};
use super::io::Io;
use super::limits::Limits;
use super::relay::{Pump, exchange, relay};
use super::serve::{ConnContext, Handler, serve};
use super::tunnel::tunnel;
use super::upstream::Upstream;

/// Forwards to one address; keeps one idle connection; writes down how each exchange ended.
pub(crate) struct Forward {
    pub(crate) to: SocketAddr,
    pub(crate) limits: Rc<Limits>,
    pub(crate) idle: RefCell<Vec<ClientConn>>,
    /// Speak HTTP/2 to the upstream, on this connection once it is made.
    pub(crate) h2: Option<RefCell<Option<h2::client::ClientConn>>>,
    pub(crate) ends: mpsc::Sender<String>,
}

impl Forward {
    async fn upstream(&self) -> Result<Upstream, Error> {
        if let Some(shared) = &self.h2 {
            let open = shared.borrow().as_ref().filter(|conn| conn.can_open()).map(|conn| conn.begin());
            if let Some(exchange) = open {
                return Ok(exchange.into());
            }
            let stream = tokio::net::TcpStream::connect(self.to).await.map_err(|_| Error::UpstreamClosed)?;
            let conn =
                h2::client::ClientConn::handshake(Io::tcp(stream), self.limits.clone(), None, || {}).await?;
            let exchange = conn.begin();
            shared.replace(Some(conn));
            return Ok(exchange.into());
        }
        while let Some(mut conn) = { self.idle.borrow_mut().pop() } {
            if conn.is_idle_healthy() {
                return Ok(conn.into());
            }
        }
        let stream = tokio::net::TcpStream::connect(self.to).await.map_err(|_| Error::UpstreamClosed)?;
        Ok(ClientConn::new(Io::tcp(stream), self.limits.clone()).into())
    }

    async fn forward(&self, head: RequestHead, down: &mut Downstream<'_>) -> Result<Option<Upstream>, Error> {
        let mut up = self.upstream().await?;
        up.request(&head, down.framing());
        let (mut upload, mut download) = (Pump::new(), Pump::new());
        let answer = exchange(down, &mut up, &mut upload, self.limits.continue_wait).await?;
        down.respond(&answer, up.framing());
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Some(up));
        }
        relay(down, &mut up, &mut upload, &mut download, None).await?;
        self.idle.borrow_mut().extend(up.reusable());
        Ok(None)
    }
}

impl Handler for Forward {
    async fn handle<'a>(&'a self, _: &'a ConnContext, head: RequestHead, mut down: Downstream<'a>) {
        let end = self.forward(head, &mut down).await;
        let _ = self.ends.send(format!("{:?}", end.as_ref().map(|up| up.is_some())));
        match end {
            Ok(Some(up)) => {
                if let (Some(a), Some(b)) = (down.take_tunnel(), up.into_tunnel()) {
                    tunnel(a, b, Duration::from_secs(60)).await;
                }
            }
            Err(error) if !down.has_answered() => {
                let status = StatusCode::from_u16(error.reason().status()).unwrap_or(StatusCode::BAD_GATEWAY);
                let _ = down.send(&ResponseHead::new(status), Bytes::new()).await;
            }
            _ => {}
        }
    }

    fn refuse(&self, _: &ConnContext, bad: Bad) -> (ResponseHead, Bytes) {
        let status = StatusCode::from_u16(bad.reason().status()).unwrap();
        (ResponseHead::new(status), Bytes::from_static(bad.what.as_bytes()))
    }
}

/// The engine in a thread of its own, in front of an upstream that a test plays itself.
pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
    pub(crate) upstream: TcpListener,
    ends: mpsc::Receiver<String>,
    pub(crate) close: Option<tokio::sync::oneshot::Sender<()>>,
}

/// An engine that speaks HTTP/1 to its upstream.
pub(crate) fn engine(limits: Limits) -> Engine {
    start(limits, false)
}

/// An engine that speaks HTTP/2 to its upstream.
pub(crate) fn engine_to_h2(limits: Limits) -> Engine {
    start(limits, true)
}

fn start(limits: Limits, h2: bool) -> Engine {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = upstream.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    let (ends, seen) = mpsc::channel();
    let (close, closed) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        on_worker(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let limits = Rc::new(limits);
            let handler = Rc::new(Forward {
                to,
                limits: limits.clone(),
                idle: RefCell::default(),
                h2: h2.then(RefCell::default),
                ends,
            });
            let closing = Closing::new();
            let signal = closing.clone();
            tokio::task::spawn_local(async move {
                if closed.await.is_ok() {
                    signal.start();
                }
            });
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(
                    Io::tcp(stream),
                    limits.clone(),
                    handler.clone(),
                    closing.clone(),
                ));
            }
        });
    });
    let address = told.recv().unwrap();
    Engine { address, upstream, ends: seen, close: Some(close) }
}

/// Runs a future as a worker does.
pub(crate) fn on_worker<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap().block_on(future)
}

impl Engine {
    /// A client of the engine.
    pub(crate) fn client(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).unwrap())
    }

    /// The engine's next connection to its upstream.
    pub(crate) fn accept(&self) -> Peer {
        Peer::new(self.upstream.accept().unwrap().0)
    }

    /// How the next exchange ended.
    pub(crate) fn end(&self) -> String {
        self.ends.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

/// One end of a connection, blocking, with a time-out so that no test hangs.
pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer(stream)
    }

    pub(crate) fn send(&mut self, text: &str) -> &mut Peer {
        self.0.write_all(text.as_bytes()).unwrap();
        self
    }

    /// Reads exactly what is expected.
    pub(crate) fn expect(&mut self, text: &str) -> &mut Peer {
        let mut got = vec![0; text.len()];
        let mut filled = 0;
        while filled < got.len() {
            match self.0.read(&mut got[filled..]) {
                Ok(n) if n > 0 => filled += n,
                other => panic!("{other:?} after {:?} of {text:?}", String::from_utf8_lossy(&got[..filled])),
            }
        }
        assert_eq!(String::from_utf8_lossy(&got), text);
        self
    }

    /// Reads so many bytes.
    pub(crate) fn take(&mut self, n: usize) -> String {
        let mut got = vec![0; n];
        self.0.read_exact(&mut got).unwrap();
        String::from_utf8_lossy(&got).into_owned()
    }

    /// The connection ends here, and nothing came before.
    pub(crate) fn expect_end(&mut self) {
        let mut rest = String::new();
        let end = self.0.read_to_string(&mut rest);
        assert_eq!((end.map_err(|error| error.kind()), rest.as_str()), (Ok(0), ""));
    }

    /// Everything until the end, however it comes.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }
}
