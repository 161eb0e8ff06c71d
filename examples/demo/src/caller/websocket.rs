//! A WebSocket conversation through the sidecar.

use std::net::SocketAddr;
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, header};

use super::{AnyError, since};
use crate::job::{Report, Target};

/// Says each text once the one before came back, then closes and waits for the other side's close.
pub(crate) async fn converse(
    outbound: SocketAddr,
    target: &Target,
    say: &[String],
) -> Result<Report, AnyError> {
    let mut request = format!("ws://{}{}", target.host, target.path).into_client_request()?;
    request.headers_mut().insert("x-request-id", HeaderValue::from_str(&target.id)?);
    for (name, value) in &target.headers {
        request.headers_mut().insert(HeaderName::try_from(name)?, HeaderValue::from_str(value)?);
    }
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(&target.host)?);
    let socket = TcpStream::connect(outbound).await?;
    socket.set_nodelay(true)?;
    let (mut socket, response) = tokio_tungstenite::client_async(request, socket).await?;
    let mut round_trips = Vec::new();
    for text in say {
        let begin = Instant::now();
        socket.send(Message::text(text)).await?;
        let echo = socket.next().await.ok_or("the WebSocket ended early")??;
        if echo.to_text()? != text {
            return Err(format!("said {text:?} and heard {echo:?}").into());
        }
        round_trips.push(since(begin));
    }
    socket.close(None).await?;
    let clean_close = matches!(socket.next().await, Some(Ok(Message::Close(_))));
    Ok(Report::Echo { status: response.status().as_u16(), round_trips, clean_close })
}
