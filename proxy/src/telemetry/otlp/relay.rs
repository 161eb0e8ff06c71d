//! A receiver for the agent's own spans on the loopback, OTLP over HTTP, when it is the control plane that keeps traces: they go
//! on to it with the sidecar's identity, which the agent does not have. Whoever sends has to show the agent's secret.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::bootstrap::{Secret, otlp};
use crate::request::local_secret;
use crate::server::Shared;
use crate::telemetry::otlp::lane::{Counts, Lane};
use crate::telemetry::otlp::send::Sender;
use crate::telemetry::otlp::target::{Signal, Target};

/// The longest message: what gRPC servers take.
const LONGEST: usize = 4 << 20;
/// Connections at a time; more wait. Each has one request, so this bounds the bodies too.
const AT_A_TIME: usize = 8;
/// From accept to answer.
const WHOLE: Duration = Duration::from_secs(10);
/// What is answered to anything else.
const ONLY_TRACES: &str = "only traces are taken here (/v1/traces, http/protobuf, no compression); set OTEL_METRICS_EXPORTER and \
                           OTEL_LOGS_EXPORTER to `none`, or give them another endpoint\n";

/// A receiver that listens.
#[derive(Debug)]
pub struct Relay {
    listener: std::net::TcpListener,
    /// Where.
    pub address: SocketAddr,
}

impl Relay {
    /// Opens one, on this port if it can be had; `None`: this sidecar's agent has somewhere else to send to, or nowhere.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(shared: &Shared, port: u16) -> io::Result<Option<Relay>> {
        let settings = &shared.settings;
        let said = settings.telemetry.otlp.endpoint.is_some()
            || ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
                .iter()
                .any(|name| otlp::environment(name).is_some());
        if said || settings.control.addresses.is_empty() || shared.local_secret.is_none() {
            return Ok(None);
        }
        let on = |port| std::net::TcpListener::bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        let listener = on(port).or_else(|_| on(0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Some(Relay { listener, address }))
    }

    /// Receives from now on, in tasks of this runtime.
    ///
    /// # Errors
    /// The listener cannot be registered with the runtime.
    pub fn start(self, shared: &Arc<Shared>) -> io::Result<()> {
        let Some(secret) = shared.local_secret.clone() else { return Ok(()) };
        let listener = TcpListener::from_std(self.listener)?;
        let sender = Sender::new(shared.clone(), Target::Control);
        let lane = Lane::start("control plane", Signal::Traces, sender, Arc::<Counts>::default());
        let ends = Arc::new((lane, secret));
        tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(AT_A_TIME));
            while let Ok(place) = places.clone().acquire_owned().await {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let ends = ends.clone();
                tokio::spawn(async move {
                    let service =
                        service_fn(async |request| Ok::<_, Infallible>(answer(request, &ends).await));
                    let serving = http1::Builder::new()
                        .keep_alive(false)
                        .serve_connection(TokioIo::new(stream), service);
                    let _ = tokio::time::timeout(WHOLE, serving).await;
                    drop(place);
                });
            }
        });
        Ok(())
    }
}

async fn answer(request: Request<Incoming>, ends: &(Lane, Secret)) -> Response<Full<Bytes>> {
    let (lane, secret) = ends;
    let result = take(request, secret).await.and_then(|message| {
        if lane.push(message, 1) { Ok(()) } else { Err((StatusCode::SERVICE_UNAVAILABLE, "later\n")) }
    });
    let (status, text) = result.err().unwrap_or((StatusCode::OK, ""));
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    // An empty message: all of it is taken.
    let kind = if text.is_empty() { "application/x-protobuf" } else { "text/plain; charset=utf-8" };
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

async fn take(request: Request<Incoming>, secret: &Secret) -> Result<Bytes, (StatusCode, &'static str)> {
    let headers = request.headers();
    let shown = headers.get_all(header::AUTHORIZATION);
    if !shown.iter().any(|value| local_secret::shows(value.as_bytes(), secret.expose())) {
        return Err((
            StatusCode::UNAUTHORIZED,
            "the agent's secret is asked for: OTEL_EXPORTER_OTLP_HEADERS has it\n",
        ));
    }
    if request.uri().path() != "/v1/traces" {
        return Err((StatusCode::NOT_FOUND, ONLY_TRACES));
    }
    if request.method() != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "use POST\n"));
    }
    let is = |name: header::HeaderName, wanted: &str| {
        headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    let plain = !headers.contains_key(header::CONTENT_ENCODING) || is(header::CONTENT_ENCODING, "identity");
    if !plain || !is(header::CONTENT_TYPE, "application/x-protobuf") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, ONLY_TRACES));
    }
    let body = Limited::new(request.into_body(), LONGEST).collect().await;
    body.map(|body| body.to_bytes()).map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, "4 MiB at most\n"))
}
