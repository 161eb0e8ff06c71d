//! Callers over HTTP/2: many calls at once on one connection.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ::h2::client::{SendRequest, handshake};
use bytes::Bytes;
use http::Request;
use tokio::time::sleep;
use turmoil::net::TcpStream;

use crate::scenario::{Call, HOST, OUTBOUND};
use crate::world::{End, World};

/// The connection of a lane, made by the first call that needs it.
pub type Shared = Rc<RefCell<Option<SendRequest<Bytes>>>>;

async fn connect(shared: &Shared) -> io::Result<SendRequest<Bytes>> {
    let kept = shared.borrow().clone();
    if let Some(kept) = kept
        && let Ok(ready) = kept.ready().await
    {
        return Ok(ready);
    }
    let stream = TcpStream::connect(("a", OUTBOUND)).await?;
    let (send, conn) = handshake(stream).await.map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        // How it ended is told to each stream.
        let _ = conn.await;
    });
    *shared.borrow_mut() = Some(send.clone());
    send.ready().await.map_err(io::Error::other)
}

/// Sends a call, and gives its end.
///
/// # Errors
/// The connection's, or its stream's.
pub async fn ask(world: &World, call: &Call, shared: &Shared) -> io::Result<End> {
    let mut send = connect(shared).await?;
    let mut request = Request::builder()
        .method(call.method)
        .uri(format!("http://{HOST}/do"))
        .header("x-sim-call", call.id)
        .header("x-sim-body", call.body);
    if call.keyed {
        request = request.header("idempotency-key", format!("key-{}", call.id));
    }
    if !call.chunked && call.body > 0 {
        request = request.header("content-length", call.body);
    }
    let request = request.body(()).map_err(io::Error::other)?;
    let (answer, mut upload) = send.send_request(request, call.body == 0).map_err(io::Error::other)?;
    if call.body > 0 {
        let bytes = Bytes::from(vec![b'.'; call.body]);
        let size = if call.chunked { 1 + call.body / 3 } else { call.body };
        let mut sent = 0;
        while sent < call.body {
            if call.chunked {
                sleep(Duration::from_millis(fastrand::u64(..40))).await;
            }
            let end = call.body.min(sent + size);
            // A stream that was reset says so with the answer.
            if upload.send_data(bytes.slice(sent..end), end == call.body).is_err() {
                break;
            }
            sent = end;
        }
    }
    let (head, mut body) = answer.await.map_err(io::Error::other)?.into_parts();
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(io::Error::other)?;
        whole.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
    }
    let field = |name: &str| head.headers.get(name)?.to_str().ok().map(str::to_owned);
    let (status, reason) = (head.status.as_u16(), field("pilotfish-reason"));
    super::judge(world, call, status, &reason, (field("x-sim-call").and_then(|id| id.parse().ok()), &whole));
    Ok(End::Answered(status, reason))
}
