//! `/research`: the agent asks another one through its sidecar. It is as most agents are: of what it was sent it passes
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

/// 200 with what the other agent said, or 502.
pub(super) async fn ask(sidecar_file: Option<&Path>) -> Response<Body> {
    let asked = match sidecar_file {
        Some(file) => other(file).await,
        None => Err("no --sidecar-file".into()),
    };
    let (status, text) = match asked {
        Ok(said) => (StatusCode::OK, said),
        Err(error) => (StatusCode::BAD_GATEWAY, Bytes::from(format!("{error}\n"))),
    };
    let mut response = Response::new(Full::new(text).boxed_unsync());
    *response.status_mut() = status;
    response
}

async fn other(sidecar_file: &Path) -> Result<Bytes, AnyError> {
    let sidecar = std::fs::read_to_string(sidecar_file)?;
    let socket = TcpStream::connect(sidecar.trim()).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", "agent-communication")
        .header("communication-pattern", "streaming")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let said = answer.into_body().collect().await?.to_bytes();
    drop(sender);
    let _ = connection.await;
    if status != StatusCode::OK {
        return Err(format!("the other agent answered {status}").into());
    }
    Ok(said)
}
