//! `/research`: the agent asks another one through its sidecar, for `/` or what `?ask=/PATH` says. It is as most agents are: of what it was sent it passes
//! nothing on, no trace header either.

use std::path::Path;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Body;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// What the other agent, or a sidecar on the way, said; 502 when nobody did.
pub(super) async fn ask(sidecar_file: Option<&Path>, query: &str) -> Response<Body> {
    let path = query.strip_prefix("ask=").unwrap_or("/");
    let asked = match sidecar_file {
        Some(file) => other(file, path).await,
        None => Err("no --sidecar-file".into()),
    };
    let (status, text) = match asked {
        Ok(said) => said,
        Err(error) => (StatusCode::BAD_GATEWAY, Bytes::from(format!("{error}\n"))),
    };
    let mut response = Response::new(Full::new(text).boxed_unsync());
    *response.status_mut() = status;
    response
}

async fn other(sidecar_file: &Path, path: &str) -> Result<(StatusCode, Bytes), AnyError> {
    let sidecar = std::fs::read_to_string(sidecar_file)?;
    let socket = TcpStream::connect(sidecar.trim()).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "agent-communication")
        .header("communication-pattern", "streaming")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let said = answer.into_body().collect().await?.to_bytes();
    drop(sender);
    let _ = connection.await;
    Ok((status, said))
}
