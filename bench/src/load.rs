//! The load generator: one thread, blocking connects, then level-triggered epoll.
//!
//! Every mode prints one JSON object when it ends. The client of a benchmark must be cheaper than
//! what it measures: a request is one `write`, an answer is usually one `read`.

pub mod closed;
pub mod handshakes;
pub mod idle;
pub mod rate;
pub mod request;
pub mod response;
pub mod streams;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;

use serde_json::{Value, json};

use crate::clock::now_ns;
use crate::poller::{Poller, Ready};
use request::{Class, Requests};
use response::Response;

/// What went wrong, counted; a run with any of it is not a result.
#[derive(Default)]
pub struct Counts {
    /// Answers that came whole.
    pub done: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Connections that broke, could not be made, or gave what is no answer.
    pub errors: u64,
    /// Answers whose status was not 2xx.
    pub not_2xx: u64,
}

impl Counts {
    /// The members that every mode's JSON has.
    pub fn json(&self) -> Value {
        json!({ "done": self.done, "bytes": self.bytes, "errors": self.errors, "not_2xx": self.not_2xx })
    }
}

/// One keep-alive connection with at most one request in flight.
struct Conn {
    stream: TcpStream,
    response: Response,
    /// When the request in flight started, or was meant to; `None`: none is in flight.
    started: Option<u64>,
    /// How important that is.
    class: Class,
}

/// An answer that has come whole.
pub struct Answer {
    /// Which connection.
    pub conn: usize,
    /// When its last byte was read.
    pub at: u64,
    /// From the (intended) start to the last byte.
    pub took_ns: u64,
    /// Its status; 0: the connection broke.
    pub status: u16,
    /// How important the request was.
    pub class: Class,
}

/// A set of keep-alive connections to one port.
pub struct Client {
    port: u16,
    poller: Poller,
    conns: Vec<Option<Conn>>,
    /// Descriptor to connection.
    by_fd: Vec<usize>,
    ready: Vec<Ready>,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    requests: Requests,
    /// What happened so far.
    pub counts: Counts,
}

impl Client {
    /// Room for `conns` connections to 127.0.0.1:`port`; each is made by its first request.
    ///
    /// # Errors
    /// When the kernel refuses an epoll descriptor.
    pub fn new(port: u16, conns: usize, requests: Requests) -> io::Result<Self> {
        Ok(Self {
            port,
            poller: Poller::new()?,
            conns: std::iter::repeat_with(|| None).take(conns).collect(),
            by_fd: Vec::new(),
            ready: Vec::new(),
            buffer: vec![0; 256 * 1024],
            scratch: Vec::with_capacity(1024),
            requests,
            counts: Counts::default(),
        })
    }

    /// Opens `conns` connections to 127.0.0.1:`port`.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub fn connect(port: u16, conns: usize, requests: Requests) -> io::Result<Self> {
        let mut client = Self::new(port, conns, requests)?;
        for conn in 0..conns {
            client.dial(conn)?;
        }
        Ok(client)
    }

    fn dial(&mut self, conn: usize) -> io::Result<()> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.poller.add(&stream)?;
        let fd = stream.as_raw_fd() as usize;
        if self.by_fd.len() <= fd {
            self.by_fd.resize(fd + 1, usize::MAX);
        }
        self.by_fd[fd] = conn;
        let response = Response::new(self.requests.watch());
        self.conns[conn] = Some(Conn { stream, response, started: None, class: Class::Default });
        Ok(())
    }

    /// Sends the next request on a connection that has none in flight; `started` is where its latency counts from.
    pub fn send(&mut self, conn: usize, started: u64) {
        if self.conns[conn].is_none() && self.dial(conn).is_err() {
            self.counts.errors += 1;
            return;
        }
        self.scratch.clear();
        let class = self.requests.write_next(conn, &mut self.scratch);
        let Some(open) = self.conns[conn].as_mut() else { return };
        (open.started, open.class) = (Some(started), class);
        // A request is far smaller than an empty socket's buffer: a short write is an error.
        if !matches!((&open.stream).write(&self.scratch), Ok(n) if n == self.scratch.len()) {
            self.counts.errors += 1;
            self.conns[conn] = None;
        }
    }

    /// Waits at most `timeout_ns` and calls `on_answer` for each answer that has come whole. A connection that breaks
    /// with a request in flight is an error and an answer too, so that the caller's loop goes on.
    ///
    /// # Errors
    /// When epoll fails.
    pub fn poll(&mut self, timeout_ns: u64, mut on_answer: impl FnMut(&mut Self, Answer)) -> io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        self.poller.wait(Some(timeout_ns), &mut ready)?;
        for event in &ready {
            let conn = self.by_fd[event.fd];
            if let Some(answer) = self.read(conn) {
                on_answer(self, answer);
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn read(&mut self, conn: usize) -> Option<Answer> {
        let open = self.conns.get_mut(conn)?.as_mut()?;
        let read = (&open.stream).read(&mut self.buffer);
        let at = now_ns();
        let class = open.class;
        let answer =
            |started, status| Answer { conn, at, took_ns: at.saturating_sub(started), status, class };
        let complete = match read {
            Ok(0) => Err(()),
            Ok(n) => {
                self.counts.bytes += n as u64;
                open.response.feed(&self.buffer[..n])
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(_) => Err(()),
        };
        match complete {
            Ok(false) => None,
            Ok(true) => {
                let started = open.started.take();
                self.counts.done += 1;
                let status = open.response.status();
                self.counts.not_2xx += u64::from(status / 100 != 2);
                if open.response.closes() {
                    self.conns[conn] = None;
                }
                started.map(|started| answer(started, status))
            }
            Err(()) => {
                let started = open.started.take();
                self.conns[conn] = None;
                self.counts.errors += u64::from(started.is_some());
                started.map(|started| answer(started, 0))
            }
        }
    }

    /// The value of the watched header in a connection's last answer.
    pub fn watched(&self, conn: usize) -> &[u8] {
        self.conns[conn].as_ref().map_or(b"", |open| open.response.watched())
    }

    /// Whether a connection has no request in flight.
    pub fn is_idle(&self, conn: usize) -> bool {
        self.conns[conn].as_ref().is_none_or(|open| open.started.is_none())
    }

    /// How many connections the other side has not closed.
    pub fn still_open(&self) -> usize {
        let open = |conn: &&Conn| {
            let peeked = conn.stream.peek(&mut [0; 1]);
            peeked.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
        };
        self.conns.iter().flatten().filter(open).count()
    }
}
