//! What a demo agent answers. It knows nothing of the mesh: it is a plain HTTP server on loopback.

mod research;
mod stream;
mod websocket;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::job::Whoami;

/// The body of every answer: whole or streamed.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The response headers that name the process, so that an event stream can say it too.
pub const AGENT_HEADER: &str = "demo-agent";
/// The number of a booking.
pub const BOOKING_HEADER: &str = "demo-booking";
/// See [`AGENT_HEADER`].
pub const VERSION_HEADER: &str = "demo-version";

/// What an agent needs to answer.
#[derive(Debug, Clone)]
pub struct Serving {
    /// What it says of itself.
    pub who: Whoami,
    /// Where it finds the address of its sidecar, for calls of its own.
    pub sidecar_file: Option<PathBuf>,
}

/// Serves until the process ends.
///
/// # Errors
/// When the listener itself fails.
pub async fn serve(listener: TcpListener, serving: Serving) -> std::io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let serving = serving.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let serving = serving.clone();
                async move { Ok::<_, Infallible>(answer(request, &serving).await) }
            });
            // A connection that breaks is the caller's business; the next one is served all the same.
            let _ =
                http1::Builder::new().serve_connection(TokioIo::new(socket), service).with_upgrades().await;
        });
    }
}

/// Binds to loopback and says where.
///
/// # Errors
/// When the address is taken.
pub async fn bind(listen: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn answer(mut request: Request<Incoming>, serving: &Serving) -> Response<Body> {
    let who = &serving.who;
    let mut response = match request.uri().path() {
        "/stream" => stream::tokens(request.uri().query().unwrap_or_default()),
        "/ws" => websocket::accept(&mut request),
        "/book" => book(),
        "/research" => {
            research::ask(serving.sidecar_file.as_deref(), request.uri().query().unwrap_or_default()).await
        }
        _ => understand(request, who).await,
    };
    for (name, value) in [(AGENT_HEADER, &who.agent), (VERSION_HEADER, &who.version)] {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Books something, which is not to be done twice: each booking has the next number.
fn book() -> Response<Body> {
    static BOOKINGS: AtomicU32 = AtomicU32::new(0);
    let number = BOOKINGS.fetch_add(1, Ordering::Relaxed) + 1;
    let mut response = plain(StatusCode::CREATED, &format!("booked, number {number}"));
    response.headers_mut().insert(BOOKING_HEADER, number.into());
    response
}

/// A very small natural language agent: it looks for words.
async fn understand(request: Request<Incoming>, who: &Whoami) -> Response<Body> {
    let text = match http_body_util::Limited::new(request.into_body(), 64 * 1024).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).to_lowercase(),
        Err(_) => return plain(StatusCode::PAYLOAD_TOO_LARGE, "at most 64 KiB of text"),
    };
    let intent = if text.contains("refund") || text.contains("money") {
        "refund"
    } else if text.contains('?') {
        "question"
    } else {
        "statement"
    };
    let json = serde_json::json!({"agent": who.agent, "version": who.version, "intent": intent});
    let mut response = plain(StatusCode::OK, &json.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))).boxed_unsync());
    *response.status_mut() = status;
    response
}
