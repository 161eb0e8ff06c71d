//! A raw HTTP/2 client: frames and header blocks are written by hand, so they may be wrong in any way.

pub mod hpack;
pub mod origin;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use hpack::Decoder;

/// The client preface (RFC 9113 section 3.4), without the SETTINGS that must follow.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types.
#[allow(missing_docs)]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags; ACK is END_STREAM's bit.
#[allow(missing_docs)]
pub mod flag {
    pub const NONE: u8 = 0;
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 32;
}

/// Error codes (RFC 9113 section 7).
#[allow(missing_docs)]
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// The stream, 0 for the connection.
    pub stream: u32,
    /// What follows the nine bytes of the frame's head.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// Its bytes, with the length that it has.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_claiming(self.payload.len())
    }

    /// Its bytes, with a length of one's own choice.
    pub fn bytes_claiming(&self, length: usize) -> Vec<u8> {
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let mut out = vec![length[1], length[2], length[3], self.kind, self.flags];
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&self.payload);
        out
    }

    /// The frame at the beginning of `bytes`, and how many bytes it takes; `None` when it is not all there.
    pub fn read(bytes: &[u8]) -> Option<(Frame, usize)> {
        let (head, rest) = bytes.split_at_checked(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let payload = rest.get(..length)?;
        Some((Frame::new(head[3], head[4], stream, payload), 9 + length))
    }

    /// The error code of RST_STREAM or GOAWAY.
    pub fn error(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        self.payload.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
    }
}

/// SETTINGS with these (identifier, value) pairs.
pub fn settings(pairs: &[(u16, u32)]) -> Frame {
    let payload: Vec<u8> = pairs
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
        .collect();
    Frame::new(kind::SETTINGS, flag::NONE, 0, payload)
}

/// HEADERS with END_HEADERS, and END_STREAM if `end`.
pub fn headers(stream: u32, block: impl Into<Vec<u8>>, end: bool) -> Frame {
    Frame::new(kind::HEADERS, flag::END_HEADERS | u8::from(end), stream, block)
}

/// DATA, with END_STREAM if `end`.
pub fn data(stream: u32, payload: impl Into<Vec<u8>>, end: bool) -> Frame {
    Frame::new(kind::DATA, u8::from(end), stream, payload)
}

/// WINDOW_UPDATE.
pub fn window(stream: u32, by: u32) -> Frame {
    Frame::new(kind::WINDOW_UPDATE, flag::NONE, stream, by.to_be_bytes())
}

/// RST_STREAM.
pub fn reset(stream: u32, code: u32) -> Frame {
    Frame::new(kind::RST_STREAM, flag::NONE, stream, code.to_be_bytes())
}

/// The header block of a request, with further fields.
pub fn request(method: &str, authority: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields =
        vec![(":method", method), (":scheme", "http"), (":authority", authority), (":path", path)];
    fields.extend_from_slice(more);
    hpack::block(&fields)
}

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The final status.
    pub status: u16,
    /// The final header fields, pseudo-headers included.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
    /// The trailer fields.
    pub trailers: Vec<(String, String)>,
    /// The statuses of 1xx answers before it.
    pub interim: Vec<u16>,
}

impl Answer {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|h| h.0 == name).map(|h| h.1.as_str())
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With a whole answer.
    Answer(Answer),
    /// With RST_STREAM and this code (what had arrived is dropped).
    Reset(u32),
    /// With the connection: GOAWAY and this code.
    GoAway(u32),
    /// With the connection, without GOAWAY.
    Closed,
    /// Not at all, in the time given; what had arrived.
    Silent(Answer),
}

#[derive(Debug, Default)]
struct Reading {
    answer: Answer,
    end: Option<Outcome>,
}

/// A client connection.
#[derive(Debug)]
pub struct H2 {
    stream: TcpStream,
    buffer: Vec<u8>,
    decoder: Decoder,
    reading: HashMap<u32, Reading>,
    block: Vec<u8>,
    goaway: Option<u32>,
    closed: bool,
    /// Whether SETTINGS and PING are acknowledged, and DATA credited back, without being asked (the default).
    pub polite: bool,
    /// Every frame received, in order, without DATA payloads.
    pub seen: Vec<Frame>,
}

impl H2 {
    /// Connects and sends nothing.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap_or_else(|e| panic!("connect {addr}: {e}"));
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            buffer: Vec::new(),
            decoder: Decoder::default(),
            reading: HashMap::new(),
            block: Vec::new(),
            goaway: None,
            closed: false,
            polite: true,
            seen: Vec::new(),
        }
    }

    /// Connects, sends the preface with these settings and waits for both SETTINGS of the server.
    pub async fn open(addr: SocketAddr, pairs: &[(u16, u32)]) -> Self {
        let mut client = Self::connect(addr).await;
        client.send_raw([PREFACE, &settings(pairs).bytes()].concat()).await;
        client.pump(Duration::from_secs(5), |c| c.acknowledged()).await;
        client
    }

    /// Whether the server has acknowledged a SETTINGS of ours.
    pub fn acknowledged(&self) -> bool {
        self.seen.iter().any(|f| f.kind == kind::SETTINGS && f.flags & flag::ACK != 0)
    }

    /// Sends bytes; false when the other side has closed, or has not read for five seconds.
    pub async fn send_raw(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = timeout_at(Instant::now() + Duration::from_secs(5), self.stream.write_all(bytes.as_ref()));
        matches!(sent.await, Ok(Ok(())))
    }

    /// Sends a frame; false when the other side has closed.
    pub async fn send(&mut self, frame: &Frame) -> bool {
        self.send_raw(frame.bytes()).await
    }

    /// Sends a request without content and waits for its end.
    pub async fn get(&mut self, stream: u32, authority: &str, path: &str, more: &[(&str, &str)]) -> Outcome {
        self.send(&headers(stream, request("GET", authority, path, more), true)).await;
        self.outcome(stream, Duration::from_secs(8)).await
    }

    /// Waits for the end of a stream.
    pub async fn outcome(&mut self, stream: u32, time: Duration) -> Outcome {
        self.pump(time, |c| c.reading.get(&stream).is_some_and(|r| r.end.is_some()) || c.goaway_error())
            .await;
        let reading = self.reading.remove(&stream).unwrap_or_default();
        match (reading.end, self.goaway, self.closed) {
            (Some(end), ..) => end,
            (None, Some(code), _) => Outcome::GoAway(code),
            (None, None, true) => Outcome::Closed,
            (None, None, false) => Outcome::Silent(reading.answer),
        }
    }

    /// Waits for the end of the connection: GOAWAY with an error, or just closed, or `Silent` when it stays.
    pub async fn connection_end(&mut self, time: Duration) -> Outcome {
        self.pump(time, H2::goaway_error).await;
        match (self.goaway, self.closed) {
            (Some(code), _) => Outcome::GoAway(code),
            (None, true) => Outcome::Closed,
            (None, false) => Outcome::Silent(Answer::default()),
        }
    }

    /// What has arrived of a stream's answer so far.
    pub fn so_far(&self, stream: u32) -> Answer {
        self.reading.get(&stream).map(|r| r.answer.clone()).unwrap_or_default()
    }

    fn goaway_error(&self) -> bool {
        self.goaway.is_some_and(|c| c != code::NO_ERROR)
    }

    /// The last GOAWAY's code.
    pub fn goaway(&self) -> Option<u32> {
        self.goaway
    }

    /// Whether the connection is over.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Reads frames until `done`, the end of the connection or of the time.
    pub async fn pump(&mut self, time: Duration, done: impl Fn(&H2) -> bool) {
        let until = Instant::now() + time;
        while !done(self) && !self.closed {
            let Ok(frame) = timeout_at(until, self.next()).await else { return };
            let Some(frame) = frame else {
                self.closed = true;
                return;
            };
            self.take(frame).await;
        }
    }

    /// The next frame as it comes; `None` at the end. Safe to cancel.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, used)) = Frame::read(&self.buffer) {
                self.buffer.drain(..used);
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(n) if n > 0 => {}
                _ => return None,
            }
        }
    }

    async fn take(&mut self, frame: Frame) {
        match frame.kind {
            kind::SETTINGS if frame.flags & flag::ACK == 0 && self.polite => {
                self.send(&Frame::new(kind::SETTINGS, flag::ACK, 0, [])).await;
            }
            kind::PING if frame.flags & flag::ACK == 0 && self.polite => {
                self.send(&Frame::new(kind::PING, flag::ACK, 0, &frame.payload[..])).await;
            }
            kind::GOAWAY => self.goaway = Some(frame.error()),
            kind::RST_STREAM => self.end(frame.stream, Outcome::Reset(frame.error())),
            kind::HEADERS | kind::CONTINUATION => self.take_headers(&frame),
            kind::DATA => {
                let size = u32::try_from(frame.payload.len()).unwrap_or(0);
                if self.polite && size > 0 {
                    let both = [window(0, size).bytes(), window(frame.stream, size).bytes()].concat();
                    self.send_raw(both).await;
                }
                self.reading.entry(frame.stream).or_default().answer.body.extend_from_slice(&frame.payload);
                self.end_stream(&frame);
            }
            _ => {}
        }
        let payload = if frame.kind == kind::DATA { Vec::new() } else { frame.payload };
        self.seen.push(Frame { payload, ..frame });
    }

    fn take_headers(&mut self, frame: &Frame) {
        self.block.extend_from_slice(&frame.payload);
        if frame.flags & flag::END_HEADERS != 0 {
            let block = std::mem::take(&mut self.block);
            let fields = self.decoder.decode(&block).unwrap_or_else(|e| panic!("the server's HPACK: {e}"));
            let answer = &mut self.reading.entry(frame.stream).or_default().answer;
            let status = fields.iter().find(|f| f.0 == ":status").and_then(|f| f.1.parse().ok());
            match status {
                Some(status) if status < 200 => answer.interim.push(status),
                Some(status) => (answer.status, answer.headers) = (status, fields),
                None => answer.trailers = fields,
            }
        }
        if frame.kind == kind::HEADERS {
            self.end_stream(frame);
        }
    }

    fn end_stream(&mut self, frame: &Frame) {
        if frame.flags & flag::END_STREAM != 0 {
            let answer = self.so_far(frame.stream);
            self.end(frame.stream, Outcome::Answer(answer));
        }
    }

    fn end(&mut self, stream: u32, outcome: Outcome) {
        self.reading.entry(stream).or_default().end.get_or_insert(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Agent;

    #[tokio::test]
    async fn talks_to_a_good_server() {
        let agent = Agent::start("a2").await;
        let mut client = H2::open(agent.addr(), &[]).await;
        let Outcome::Answer(answer) = client.get(1, "x.test", "/p", &[("a", "b")]).await else {
            panic!("no answer")
        };
        assert_eq!((answer.status, answer.header("x-agent")), (200, Some("a2")));
        assert!(answer.text().contains("HTTP/2.0"));
        let Outcome::Answer(answer) = client.get(3, "x.test", "/bytes/300000", &[]).await else {
            panic!("no answer")
        };
        assert_eq!(answer.body.len(), 300_000);
        let Outcome::Answer(answer) = client.get(5, "x.test", "/trailers", &[("te", "trailers")]).await
        else {
            panic!("no answer")
        };
        assert_eq!(answer.trailers, [("x-trailer".to_owned(), "end".to_owned())]);
    }

    #[tokio::test]
    async fn provokes_errors() {
        let agent = Agent::start("a2").await;
        let mut client = H2::open(agent.addr(), &[]).await;
        client.send(&Frame::new(kind::PING, flag::NONE, 0, [0; 7])).await;
        let end = client.connection_end(Duration::from_secs(5)).await;
        // The RFC wants FRAME_SIZE_ERROR; hyper says PROTOCOL_ERROR.
        assert!(matches!(end, Outcome::GoAway(code::FRAME_SIZE_ERROR | code::PROTOCOL_ERROR)), "{end:?}");
        let mut client = H2::open(agent.addr(), &[]).await;
        let bad = request("GET", "x", "/", &[("connection", "close")]);
        client.send(&headers(1, bad, true)).await;
        let end = client.outcome(1, Duration::from_secs(5)).await;
        assert_eq!(end, Outcome::Reset(code::PROTOCOL_ERROR));
    }
}
