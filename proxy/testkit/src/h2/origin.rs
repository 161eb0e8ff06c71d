//! A raw HTTP/2 origin: it answers each request with frames from a script, well or badly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::hpack::Decoder;
use super::{Frame, PREFACE, flag, kind, settings};
use crate::origin::Step;

/// The fields of a request.
pub type Fields = Vec<(String, String)>;
type Script = Arc<dyn Fn(u32, &Fields, usize) -> Vec<Step> + Send + Sync>;

/// A running origin. It ends when this is dropped.
#[derive(Debug)]
pub struct H2Origin {
    addr: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl H2Origin {
    /// Starts an origin that sends these SETTINGS, then what `script(stream, fields, n)` says to the n-th request of a
    /// connection, from 0. A request's content is read and dropped.
    pub async fn start(
        pairs: &[(u16, u32)],
        script: impl Fn(u32, &Fields, usize) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(accept(listener, counts.clone(), settings(pairs).bytes(), Arc::new(script)));
        Self { addr, counts, task }
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// How many requests have come.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, counts: Arc<Counts>, opening: Vec<u8>, script: Script) {
    let mut serving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        counts.connections.fetch_add(1, Ordering::Relaxed);
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            stream,
            buffer: Vec::new(),
            decoder: Decoder::default(),
            block: Vec::new(),
            counts: counts.clone(),
        };
        serving.spawn(connection.serve(opening.clone(), script.clone()));
        while serving.try_join_next().is_some() {}
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    decoder: Decoder,
    block: Vec<u8>,
    counts: Arc<Counts>,
}

impl Connection {
    async fn serve(mut self, opening: Vec<u8>, script: Script) -> Option<()> {
        while self.buffer.len() < PREFACE.len() {
            self.fill().await?;
        }
        self.buffer.drain(..PREFACE.len());
        self.stream.write_all(&opening).await.ok()?;
        let mut count = 0;
        loop {
            let frame = self.next().await?;
            let answer = match frame.kind {
                kind::SETTINGS if frame.flags & flag::ACK == 0 => {
                    Some(Frame::new(kind::SETTINGS, flag::ACK, 0, []))
                }
                kind::PING if frame.flags & flag::ACK == 0 => {
                    Some(Frame::new(kind::PING, flag::ACK, 0, &frame.payload[..]))
                }
                _ => None,
            };
            if let Some(answer) = answer {
                self.stream.write_all(&answer.bytes()).await.ok()?;
            }
            if let Some(fields) = self.fields(&frame) {
                self.counts.requests.fetch_add(1, Ordering::Relaxed);
                for step in script(frame.stream, &fields, count) {
                    self.run(step).await?;
                }
                count += 1;
            }
        }
    }

    /// The fields of a request whose header block is complete. Trailers have no `:method`, so they are none.
    fn fields(&mut self, frame: &Frame) -> Option<Fields> {
        if !matches!(frame.kind, kind::HEADERS | kind::CONTINUATION) {
            return None;
        }
        self.block.extend_from_slice(&frame.payload);
        if frame.flags & flag::END_HEADERS == 0 {
            return None;
        }
        let block = std::mem::take(&mut self.block);
        let fields = self.decoder.decode(&block).unwrap_or_else(|e| panic!("the proxy's HPACK: {e}"));
        fields.iter().any(|f| f.0 == ":method").then_some(fields)
    }

    async fn run(&mut self, step: Step) -> Option<()> {
        match step {
            Step::Send(bytes) | Step::Trickle(bytes) => self.stream.write_all(&bytes).await.ok(),
            Step::Pause(time) => {
                tokio::time::sleep(time).await;
                Some(())
            }
            Step::Gate(gate) => gate.acquire().await.map(|p| p.forget()).ok(),
            Step::Close => {
                let _ = self.stream.shutdown().await;
                while self.fill().await.is_some() {}
                None
            }
            Step::Reset => {
                let _ = self.stream.set_zero_linger();
                None
            }
            Step::Hang | Step::Echo => std::future::pending().await,
        }
    }

    async fn fill(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.buffer).await;
        matches!(read, Ok(n) if n > 0).then_some(())
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, used)) = Frame::read(&self.buffer) {
                self.buffer.drain(..used);
                return Some(frame);
            }
            self.fill().await?;
        }
    }
}
