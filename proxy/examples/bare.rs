//! The engine with nothing around it: every request goes to one upstream. For measuring what the engine itself costs.
//!
//! `bare LISTEN UPSTREAM [h2]`, for instance `bare 127.0.0.1:18000 127.0.0.1:18100`; `h2` speaks HTTP/2 to the upstream.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pilotfish_proxy::http::h1::client::ClientConn;
use pilotfish_proxy::http::h2;
use pilotfish_proxy::http::{
    Bad, Closing, ConnContext, Downstream, Error, Handler, Io, Limits, Pump, RequestHead, ResponseHead,
    Upstream, exchange, relay, serve, tunnel,
};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Forward {
    to: SocketAddr,
    limits: Rc<Limits>,
    idle: RefCell<Vec<ClientConn>>,
    h2: Option<RefCell<Vec<h2::client::ClientConn>>>,
}

impl Forward {
    async fn upstream(&self) -> Option<Upstream> {
        let Some(conns) = &self.h2 else { return self.connect().await.map(Upstream::from) };
        conns.borrow_mut().retain(|conn| !conn.is_closed());
        if let Some(conn) = conns.borrow().iter().find(|conn| conn.can_open()) {
            return Some(conn.begin().into());
        }
        let stream = TcpStream::connect(self.to).await.ok()?;
        let conn = h2::client::ClientConn::handshake(Io::tcp(stream), self.limits.clone(), None, || {})
            .await
            .ok()?;
        let exchange = conn.begin();
        conns.borrow_mut().push(conn);
        Some(exchange.into())
    }

    async fn connect(&self) -> Option<ClientConn> {
        loop {
            let Some(mut conn) = self.idle.borrow_mut().pop() else { break };
            if conn.is_idle_healthy() {
                return Some(conn);
            }
        }
        let stream = TcpStream::connect(self.to).await.ok()?;
        Some(ClientConn::new(Io::tcp(stream), self.limits.clone()))
    }

    async fn forward(
        &self,
        mut head: RequestHead,
        down: &mut Downstream<'_>,
    ) -> Result<Option<Upstream>, Error> {
        let mut up = self.upstream().await.ok_or(Error::UpstreamClosed)?;
        head.headers.append("x-forwarded-proto", b"http");
        up.request(&head, down.framing());
        let (mut upload, mut download) = (Pump::new(), Pump::new());
        let answer = exchange(down, &mut up, &mut upload, Duration::from_secs(1)).await?;
        down.respond(&answer, up.framing());
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Some(up));
        }
        relay(down, &mut up, &mut upload, &mut download, None).await?;
        if let Some(conn) = up.reusable() {
            self.idle.borrow_mut().push(conn);
        }
        Ok(None)
    }
}

impl Handler for Forward {
    async fn handle(&self, _conn: &ConnContext, head: RequestHead, mut down: Downstream<'_>) {
        match self.forward(head, &mut down).await {
            Ok(None) => {}
            Ok(Some(up)) => {
                if let (Some(a), Some(b)) = (down.take_tunnel(), up.into_tunnel()) {
                    tunnel(a, b, self.limits.tunnel_idle).await;
                }
            }
            Err(error) if !down.has_answered() => {
                let status = StatusCode::from_u16(error.reason().status()).unwrap_or(StatusCode::BAD_GATEWAY);
                let _ = down.send(&ResponseHead::new(status), Bytes::from(error.to_string())).await;
            }
            Err(_) => {}
        }
    }

    fn refuse(&self, _conn: &ConnContext, bad: Bad) -> (ResponseHead, Bytes) {
        let status = StatusCode::from_u16(bad.reason().status()).unwrap_or(StatusCode::BAD_REQUEST);
        (ResponseHead::new(status), Bytes::from_static(bad.what.as_bytes()))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let listen: SocketAddr = args.next().ok_or("bare LISTEN UPSTREAM")?.parse()?;
    let to: SocketAddr = args.next().ok_or("bare LISTEN UPSTREAM")?.parse()?;
    let h2 = (args.next().as_deref() == Some("h2")).then(RefCell::default);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        let limits = Rc::new(Limits::default());
        let handler = Rc::new(Forward { to, limits: limits.clone(), idle: RefCell::default(), h2 });
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::task::spawn_local(serve(Io::tcp(stream), limits.clone(), handler.clone(), Closing::new()));
        }
    })
}
