//! An HTTP/1 origin that records every byte it received, connection by connection, and answers from a script.
//!
//! It reads with [`crate::strict`]; what that parser finds ambiguous ends the connection and stays in the record, so a
//! test can demand that the proxy never sent such a thing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::strict::{self, Message, Parsed, View};

/// One step of an answer.
#[derive(Debug, Clone)]
pub enum Step {
    /// Writes these bytes as they are.
    Send(Bytes),
    /// Waits.
    Pause(Duration),
    /// Waits until the test adds a permit, and takes it.
    Gate(Arc<Semaphore>),
    /// Writes one byte at a time, each in a packet of its own.
    Trickle(Bytes),
    /// Sends back whatever arrives from here on, until the end of the connection.
    Echo,
    /// Closes the connection in order (FIN).
    Close,
    /// Resets the connection (RST).
    Reset,
    /// Stops reading and writing, and keeps the connection open.
    Hang,
}

/// Bytes to send, as a step.
pub fn send(bytes: impl AsRef<[u8]>) -> Step {
    Step::Send(Bytes::copy_from_slice(bytes.as_ref()))
}

/// `200 OK` with a body and its length.
pub fn ok(body: impl AsRef<[u8]>) -> Vec<Step> {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    vec![send(bytes)]
}

/// When a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// As soon as its head is there; what follows is read afterwards.
    Head,
    /// When its content is there too.
    Whole,
}

/// What to answer to a request: `n` counts the requests of the connection from 0.
pub type Script = Arc<dyn Fn(&Message, usize) -> Vec<Step> + Send + Sync>;

type Record = Arc<Mutex<Vec<Vec<u8>>>>;

/// A running origin. It ends when this is dropped.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    record: Record,
    task: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    /// Starts an origin on a free port of 127.0.0.1 that answers whole requests.
    pub async fn start(script: impl Fn(&Message, usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::start_when(When::Whole, script).await
    }

    /// Starts an origin that answers with `200` and the body `seen METHOD TARGET`.
    pub async fn plain() -> Self {
        Self::start(|m, _| ok(format!("seen {} {}", m.method(), m.target()))).await
    }

    /// Starts an origin that always gives the same bytes, then does `then`.
    pub async fn fixed(bytes: impl AsRef<[u8]>, then: Vec<Step>) -> Self {
        let mut steps = vec![send(bytes)];
        steps.extend(then);
        Self::start(move |_, _| steps.clone()).await
    }

    /// Starts an origin on a free port of 127.0.0.1.
    pub async fn start_when(
        when: When,
        script: impl Fn(&Message, usize) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let record = Record::default();
        let task = tokio::spawn(accept(listener, record.clone(), when, Arc::new(script)));
        Self { addr, record, task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The bytes received, connection by connection in the order of their acceptance.
    pub fn connections(&self) -> Vec<Vec<u8>> {
        lock(&self.record).clone()
    }

    /// What the strict parser reads in each connection.
    pub fn views(&self) -> Vec<View> {
        self.connections().iter().map(|bytes| strict::requests(bytes)).collect()
    }

    /// All the requests of all connections.
    pub fn requests(&self) -> Vec<Message> {
        self.views().into_iter().flat_map(|v| v.requests).collect()
    }

    /// Why what arrived can be read in two ways, if it can.
    pub fn ambiguity(&self) -> Option<String> {
        self.views().into_iter().find_map(|v| v.ambiguous)
    }

    /// Forgets the bytes of connections so far (their numbering stays).
    pub fn forget(&self) {
        lock(&self.record).iter_mut().for_each(Vec::clear);
    }
}

fn lock(record: &Record) -> MutexGuard<'_, Vec<Vec<u8>>> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, record: Record, when: When, script: Script) {
    let mut serving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let index = {
            let mut all = lock(&record);
            all.push(Vec::new());
            all.len() - 1
        };
        let connection = Connection { stream, record: record.clone(), index, pending: Vec::new() };
        serving.spawn(connection.serve(when, script.clone()));
        while serving.try_join_next().is_some() {}
    }
}

struct Connection {
    stream: TcpStream,
    record: Record,
    index: usize,
    /// What was received and not yet answered.
    pending: Vec<u8>,
}

impl Connection {
    /// Reads some bytes into the record; false at the end of the connection.
    async fn fill(&mut self) -> bool {
        let mut chunk = vec![0; 64 * 1024];
        match self.stream.read(&mut chunk).await {
            Ok(n) if n > 0 => {
                lock(&self.record)[self.index].extend_from_slice(&chunk[..n]);
                self.pending.extend_from_slice(&chunk[..n]);
                true
            }
            _ => false,
        }
    }

    async fn serve(mut self, when: When, script: Script) {
        let (mut count, mut answered) = (0, false);
        loop {
            let ready = match strict::request(&self.pending) {
                Ok(Parsed::Nothing) => None,
                Ok(Parsed::Head(m)) => (when == When::Head && !answered).then_some((m, None)),
                Ok(Parsed::Whole(m, used)) => Some((m, Some(used))),
                Err(_) => {
                    let _ =
                        self.stream.write_all(b"HTTP/1.1 400 Ambiguous\r\nContent-Length: 0\r\n\r\n").await;
                    return;
                }
            };
            let Some((message, used)) = ready else {
                if !self.fill().await {
                    return;
                }
                continue;
            };
            if !answered {
                for step in script(&message, count) {
                    if !self.run(step).await {
                        return;
                    }
                }
            }
            answered = used.is_none();
            if let Some(used) = used {
                self.pending.drain(..used);
                count += 1;
            }
        }
    }

    /// Does one step; false when the connection is over.
    async fn run(&mut self, step: Step) -> bool {
        match step {
            Step::Send(bytes) => self.stream.write_all(&bytes).await.is_ok(),
            Step::Pause(time) => {
                tokio::time::sleep(time).await;
                true
            }
            Step::Gate(gate) => gate.acquire().await.map(|p| p.forget()).is_ok(),
            Step::Trickle(bytes) => {
                for byte in bytes {
                    if self.stream.write_all(&[byte]).await.is_err() {
                        return false;
                    }
                    tokio::task::yield_now().await;
                }
                true
            }
            Step::Echo => {
                self.echo().await;
                false
            }
            Step::Close => {
                let _ = self.stream.shutdown().await;
                // What was not read would turn the FIN into a reset and lose the answer.
                while self.fill().await {}
                false
            }
            Step::Reset => {
                let _ = self.stream.set_zero_linger();
                false
            }
            Step::Hang => {
                std::future::pending::<()>().await;
                false
            }
        }
    }

    async fn echo(&mut self) {
        // What came together with the upgrading request: everything after its head.
        let head = self.pending.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
        let mut surplus = self.pending.split_off(head);
        loop {
            if !surplus.is_empty() && self.stream.write_all(&surplus).await.is_err() {
                return;
            }
            self.pending.clear();
            if !self.fill().await {
                let _ = self.stream.shutdown().await;
                return;
            }
            surplus = std::mem::take(&mut self.pending);
        }
    }
}
