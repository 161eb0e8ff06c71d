//! An open connection: requests, their answers, and whether the other end lives.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, RecvStream};
use http::HeaderMap;
use pilotfish_config::wire::Frames;
use pilotfish_identity::SpiffeId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::messages::Messages;
use crate::problem::{away, broke, refusal};
use crate::{Cut, Problem};

/// For a whole request and its answer, those of [`Messages`] apart.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest answer to a request.
const LONGEST_ANSWER: usize = 1 << 20;
/// What a control plane may send before it is read: an update of a usual size in one go.
const WINDOW: u32 = 1 << 20;
/// How long a connection that is not used any more may take to close in order.
const CLOSE: Duration = Duration::from_secs(1);
/// Between two pings, and for each answer: together, within 2 s a dead control plane is noticed.
const PING: (Duration, Duration) = (Duration::from_millis(1000), Duration::from_millis(900));
/// A control plane that takes nothing of a hello for so long is dead.
const TAKES_NOTHING: Duration = Duration::from_secs(5);
/// The media type of every message but those of OTLP.
const JSON: &str = "application/json";

/// An open connection. Dropping it closes it, and what came of it.
pub struct Connection {
    requests: SendRequest<Bytes>,
    ping: Option<PingPong>,
    /// This machine's address towards the control plane.
    pub local: IpAddr,
    /// Who is at the other end.
    pub peer: SpiffeId,
    /// Its driver sees when this is dropped.
    _open: oneshot::Sender<()>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The head.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Begins HTTP/2 on a stream whose other end has proven who it is. The second part drives the connection, and is to be
/// spawned.
///
/// # Errors
/// The stream broke.
pub async fn speak<T: AsyncRead + AsyncWrite + Unpin>(
    stream: T,
    local: IpAddr,
    peer: SpiffeId,
) -> Result<(Connection, impl Future<Output = ()>), Problem> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
    let (requests, mut connection) = builder.handshake(stream).await.map_err(|error| away(broke(&error)))?;
    let ping = connection.ping_pong();
    let (open, dropped) = oneshot::channel();
    let driver = async move {
        let closed = async {
            let _: Result<(), _> = dropped.await;
            // Nobody waits for a control plane that takes no goodbye.
            sleep(CLOSE).await;
        };
        tokio::select! {
            biased;
            // Whoever waits for an answer gets the error too.
            _ = connection => {}
            () = closed => {}
        }
    };
    Ok((Connection { requests, ping, local, peer, _open: open }, driver))
}

impl Connection {
    /// Sends a message and waits for its answer.
    ///
    /// # Errors
    /// The control plane is gone, or refuses.
    pub async fn post<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        path: &str,
        message: &Q,
    ) -> Result<A, Problem> {
        let body = serde_json::to_vec(message).map_err(away)?;
        let answer = self.post_bytes(path, JSON, body.into()).await?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body)
                .map_err(|error| Problem::Away(format!("its answer cannot be read: {error}"))),
            status => Err(refusal(status, &answer.body)),
        }
    }

    /// Sends a message of another media type and waits for the answer, whatever it says.
    ///
    /// # Errors
    /// The control plane is gone.
    pub async fn post_bytes(&mut self, path: &str, media: &str, body: Bytes) -> Result<Answer, Problem> {
        match timeout(ANSWER, self.exchange(path, media, body)).await {
            Ok(result) => result,
            Err(_) => Err(Problem::Away(format!("no answer within {ANSWER:?}"))),
        }
    }

    async fn exchange(&mut self, path: &str, media: &str, body: Bytes) -> Result<Answer, Problem> {
        let gone = |error: h2::Error| away(broke(&error));
        let mut requests = self.requests.clone().ready().await.map_err(gone)?;
        let (answer, mut send) = requests.send_request(head(path, media)?, false).map_err(gone)?;
        send.send_data(body, true).map_err(gone)?;
        let answer = answer.await.map_err(gone)?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = whole(answer.into_body()).await?;
        Ok(Answer { status, headers, body })
    }

    /// Opens a stream of messages both ways, by a first one; `longest`: of what comes, bytes. Takes as long as it takes.
    ///
    /// # Errors
    /// The control plane is gone, or refuses.
    pub async fn messages<M: DeserializeOwned>(
        &mut self,
        path: &str,
        hello: &impl Serialize,
        longest: usize,
    ) -> Result<Messages<M>, Problem> {
        let gone = |error: h2::Error| away(broke(&error));
        let mut requests = self.requests.clone().ready().await.map_err(gone)?;
        let (answer, mut outgoing) = requests.send_request(head(path, JSON)?, false).map_err(gone)?;
        // A refusal may come before the hello has gone, and then says more than that it was not taken.
        let hello = crate::messages::send(&mut outgoing, hello, TAKES_NOTHING);
        let (sent, answered) = tokio::join!(hello, answered(answer));
        let incoming = answered?;
        sent?;
        Ok(Messages { outgoing, incoming, frames: Frames::new(longest) })
    }

    /// A future that ends when the control plane does not answer pings any more: why. To be had once; a second one never ends.
    pub fn alive(&mut self) -> impl Future<Output = Cut> + use<> {
        let ping = self.ping.take();
        async {
            let Some(mut ping) = ping else { return std::future::pending().await };
            loop {
                sleep(PING.0).await;
                match timeout(PING.1, ping.ping(Ping::opaque())).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Cut::Away(broke(&error)),
                    Err(_) => return Cut::Away("it does not answer any more".into()),
                }
            }
        }
    }
}

/// A POST's head.
fn head(path: &str, media: &str) -> Result<http::Request<()>, Problem> {
    http::Request::post(format!("https://control{path}")).header("content-type", media).body(()).map_err(away)
}

/// The answer's body, when the answer is 200.
async fn answered(answer: ResponseFuture) -> Result<RecvStream, Problem> {
    let answer = answer.await.map_err(|error| away(broke(&error)))?;
    let status = answer.status().as_u16();
    match status {
        200 => Ok(answer.into_body()),
        // What it says is for people: it does not matter whether all of it came.
        _ => Err(refusal(status, &whole(answer.into_body()).await.unwrap_or_default())),
    }
}

async fn whole(mut incoming: RecvStream) -> Result<Bytes, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = incoming.data().await {
        let chunk = chunk.map_err(|error| away(broke(&error)))?;
        let _ = incoming.flow_control().release_capacity(chunk.len());
        if bytes.len() + chunk.len() > LONGEST_ANSWER {
            return Err(Problem::Away("its answer is too long".into()));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use pilotfish_identity::TrustDomain;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    async fn connection(stream: DuplexStream) -> Connection {
        let peer = SpiffeId::control(&TrustDomain::parse("mesh.test").unwrap(), "c1").unwrap();
        let (connection, driver) = speak(stream, IpAddr::from([127, 0, 0, 1]), peer).await.unwrap();
        tokio::spawn(driver);
        connection
    }

    /// Answers each request so, without a look at its body.
    async fn answers(stream: DuplexStream, status: u16, body: Bytes) {
        let mut server = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_request, mut respond))) = server.accept().await {
            let head = http::Response::builder().status(status).body(()).unwrap();
            let mut send = respond.send_response(head, false).unwrap();
            send.send_data(body.clone(), true).unwrap();
        }
    }

    #[tokio::test]
    async fn a_refusal_says_why_also_to_a_hello_that_is_not_taken() {
        let (own, other) = duplex(1 << 16);
        let server = tokio::spawn(answers(other, 403, Bytes::from_static(br#"{"error":"you are revoked"}"#)));
        let mut connection = connection(own).await;
        // Longer than the window that the other end opens.
        let hello = "x".repeat(1 << 20);
        let refused = connection.messages::<String>("/v1/stream", &hello, 100).await;
        assert_eq!(refused.unwrap_err(), Problem::Refused("you are revoked".into()));
        drop(connection);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_is_read_up_to_its_longest() {
        for (length, good) in [(LONGEST_ANSWER - 2, true), (LONGEST_ANSWER, false)] {
            let (own, other) = duplex(1 << 16);
            tokio::spawn(answers(other, 200, format!("\"{}\"", "x".repeat(length)).into()));
            let answer = connection(own).await.post::<_, String>("/v1/x", &()).await;
            assert_eq!(answer.is_ok(), good, "{length}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_connection_closes_also_when_nothing_is_taken() {
        let (own, mut other) = duplex(32);
        let connection = connection(own).await;
        drop(connection);
        other.write_all(b"x").await.unwrap();
        // Nothing is read there, so not even the goodbye goes through.
        sleep(CLOSE * 2).await;
        assert!(other.write_all(b"x").await.is_err());
    }
}
