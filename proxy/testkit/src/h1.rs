//! A raw HTTP/1 client: sends the bytes it is given, with pauses if wanted, and reads answers strictly.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::strict::{self, Message, Parsed};

/// How long a read waits by default before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// The connection ended before any byte of an answer.
    Closed,
    /// The connection ended within an answer, of which this much arrived (an empty message: not even the head).
    Partial(Box<Message>),
    /// Nothing came in time; what had arrived is given.
    Silent(Vec<u8>),
    /// The answer can be read in two ways.
    Ambiguous(String),
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gone::Closed => f.write_str("closed without an answer"),
            Gone::Partial(m) => write!(f, "answer cut short: {:?} with {} bytes", m.start, m.body.len()),
            Gone::Silent(b) => write!(f, "no answer in time, had {:?}", String::from_utf8_lossy(b)),
            Gone::Ambiguous(why) => write!(f, "ambiguous answer: {why}"),
        }
    }
}

/// A whole answer, and the 1xx before it.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The final message.
    pub message: Message,
    /// Interim messages in order.
    pub interim: Vec<Message>,
}

impl Answer {
    /// The final status.
    pub fn status(&self) -> u16 {
        self.message.status()
    }

    /// All values of a header joined by `, `.
    pub fn header(&self, name: &str) -> Option<String> {
        self.message.header(name)
    }

    /// The content as text (what is not UTF-8 is replaced).
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.message.body).into_owned()
    }

    /// The content as JSON; `null` when it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.message.body).unwrap_or_default()
    }

    /// The `pilotfish-reason` header, empty when absent.
    pub fn reason(&self) -> String {
        self.header("pilotfish-reason").unwrap_or_default()
    }
}

/// A client connection.
#[derive(Debug)]
pub struct H1 {
    stream: TcpStream,
    buffer: Vec<u8>,
    eof: bool,
    patience: Duration,
}

impl H1 {
    /// Connects; fails the test when nobody listens.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap_or_else(|e| panic!("connect {addr}: {e}"));
        let _ = stream.set_nodelay(true);
        Self { stream, buffer: Vec::new(), eof: false, patience: PATIENCE }
    }

    /// Sets how long a read waits.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The stream itself, for what has no method here.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends bytes; false when the other side has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Sends parts, each in a packet of its own with a pause before the next.
    pub async fn send_slowly<B: AsRef<[u8]>>(&mut self, parts: &[B], pause: Duration) -> bool {
        for part in parts {
            if !self.send(part).await {
                return false;
            }
            tokio::time::sleep(pause).await;
        }
        true
    }

    /// Closes our side of the connection (FIN) and goes on reading.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Resets the connection (RST).
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }

    /// Reads some bytes; false at the end of the connection. An error reads as the end.
    async fn fill(&mut self) -> bool {
        let mut chunk = vec![0; 64 * 1024];
        match self.stream.read(&mut chunk).await {
            Ok(n) if n > 0 => {
                self.buffer.extend_from_slice(&chunk[..n]);
                true
            }
            _ => {
                self.eof = true;
                false
            }
        }
    }

    /// Reads the answer to a request with this method, with the 1xx before it.
    ///
    /// # Errors
    /// Says how the connection ended instead.
    pub async fn answer(&mut self, to: &str) -> Result<Answer, Gone> {
        match timeout(self.patience, self.read_answer(to)).await {
            Ok(answer) => answer,
            Err(_) => Err(Gone::Silent(self.buffer.clone())),
        }
    }

    async fn read_answer(&mut self, to: &str) -> Result<Answer, Gone> {
        let mut interim = Vec::new();
        loop {
            match strict::response(&self.buffer, to, self.eof).map_err(Gone::Ambiguous)? {
                Parsed::Whole(message, used) => {
                    self.buffer.drain(..used);
                    if (100..200).contains(&message.status()) && message.status() != 101 {
                        interim.push(message);
                        continue;
                    }
                    return Ok(Answer { message, interim });
                }
                Parsed::Head(message) if self.eof => return Err(Gone::Partial(Box::new(message))),
                Parsed::Nothing if self.eof && self.buffer.is_empty() => return Err(Gone::Closed),
                Parsed::Nothing if self.eof => return Err(Gone::Partial(Box::default())),
                _ => {}
            }
            self.fill().await;
        }
    }

    /// Reads only the head of an answer and leaves the content; `None` when there is none in time.
    pub async fn head(&mut self) -> Option<Message> {
        let patience = self.patience;
        let read = async {
            loop {
                if let Ok(Parsed::Head(m) | Parsed::Whole(m, _)) =
                    strict::response(&self.buffer, "HEAD", false)
                {
                    let at = self.buffer.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0) + 4;
                    self.buffer.drain(..at);
                    if m.status() >= 200 || m.status() == 101 {
                        return Some(m);
                    }
                } else if !self.fill().await {
                    return None;
                }
            }
        };
        timeout(patience, read).await.ok().flatten()
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// Says how the connection ended instead.
    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> Result<Answer, Gone> {
        let request = request.as_ref();
        let method =
            String::from_utf8_lossy(request.split(|b| *b == b' ').next().unwrap_or(b"")).into_owned();
        self.send(request).await;
        self.answer(&method).await
    }

    /// `GET` with a Host and further header lines (each `Name: value`), and its answer.
    ///
    /// # Errors
    /// Says how the connection ended instead.
    pub async fn get(&mut self, host: &str, target: &str, headers: &[&str]) -> Result<Answer, Gone> {
        let lines: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")).await
    }

    /// Reads raw bytes until `enough` says so; what was read so far when time or the connection is over.
    pub async fn read_until(&mut self, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let patience = self.patience;
        let _ = timeout(patience, async { while !enough(&self.buffer) && self.fill().await {} }).await;
        std::mem::take(&mut self.buffer)
    }

    /// Bytes that have arrived and are not yet part of an answer.
    pub fn surplus(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether the other side ends the connection within this time; bytes that come before are kept.
    pub async fn closed_within(&mut self, time: Duration) -> bool {
        timeout(time, async { while self.fill().await {} }).await.is_ok()
    }
}

/// One `GET` on a connection of its own.
///
/// # Errors
/// Says how the connection ended instead.
pub async fn get(addr: SocketAddr, host: &str, target: &str, headers: &[&str]) -> Result<Answer, Gone> {
    H1::connect(addr).await.get(host, target, headers).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{Origin, Step, send};

    #[tokio::test]
    async fn asks_a_recording_origin() {
        let origin = Origin::plain().await;
        let mut client = H1::connect(origin.addr()).await;
        assert_eq!(client.get("x", "/a", &[]).await.unwrap().text(), "seen GET /a");
        assert_eq!(client.get("x", "/b", &["A: b"]).await.unwrap().text(), "seen GET /b");
        let seen = origin.requests();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[1].header("a").as_deref(), Some("b"));
        assert_eq!(origin.ambiguity(), None);
    }

    #[tokio::test]
    async fn tells_how_an_answer_ended() {
        let cut = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", vec![Step::Close]).await;
        let answer = get(cut.addr(), "x", "/", &[]).await;
        assert!(matches!(answer, Err(Gone::Partial(m)) if m.body == b"abc"));
        let none = Origin::start(|_, _| vec![Step::Close]).await;
        assert_eq!(get(none.addr(), "x", "/", &[]).await.unwrap_err(), Gone::Closed);
        let interim =
            "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let hints = Origin::fixed(interim, vec![]).await;
        let answer = get(hints.addr(), "x", "/", &[]).await.unwrap();
        assert_eq!((answer.interim.len(), answer.status()), (1, 200));
    }

    #[tokio::test]
    async fn an_origin_records_what_is_ambiguous() {
        let origin = Origin::plain().await;
        let mut client = H1::connect(origin.addr()).await;
        let answer = client.ask("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n").await.unwrap();
        assert_eq!(answer.status(), 400);
        assert!(origin.ambiguity().is_some());
    }

    #[tokio::test]
    async fn an_upgrade_echoes_the_surplus_too() {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
        let origin =
            Origin::start_when(crate::origin::When::Head, move |_, _| vec![send(switch), Step::Echo]).await;
        let mut client = H1::connect(origin.addr()).await;
        let ask = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nearly";
        assert_eq!(client.ask(ask).await.unwrap().status(), 101);
        assert_eq!(client.read_until(|b| b.len() >= 5).await, b"early");
    }
}
