//! The upstream of every benchmark: one thread, HTTP/1.1 only, as cheap as the kernel allows.
//!
//! * `GET /b/N`: a body of N bytes, written in pieces as large as the socket takes
//! * `GET /events?i=MS`: an endless event stream, one 200-byte event every MS milliseconds, each
//!   stamped with `CLOCK_MONOTONIC` just before its `write`
//! * `GET /count`: how many other requests came, as text
//! * anything else: 1 KiB, with the port in `x-endpoint`; its query may ask for trouble ([`behave`])
//!
//! Bodies of requests (Content-Length only) are read and dropped.

mod behave;
mod events;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use memchr::memmem;

use crate::poller::{Poller, Ready};
use behave::{Behaviour, Job, Jobs};
use events::{EventStream, Events};
pub use events::{MARK, STAMP_DIGITS};

/// The size of the default answer's body.
const SMALL_BODY: usize = 1024;
/// The longest request head that is accepted: our own clients send 150 bytes, proxies add some.
const MAX_HEAD: usize = 16 * 1024;

struct Listener {
    socket: TcpListener,
    answer: Vec<u8>,
    /// It listens on the first port.
    first: bool,
}

/// One accepted connection.
struct Conn {
    stream: TcpStream,
    /// Which listener it came from.
    listener: usize,
    /// The beginning of a request whose rest has not come yet.
    partial: Vec<u8>,
    /// Bytes of a request body still to be dropped.
    skip: usize,
    /// Bytes that the socket did not take yet.
    unsent: Vec<u8>,
    /// Bytes of zeros that follow `unsent`.
    zeros: usize,
    waits_for_room: bool,
    events: Option<EventStream>,
    /// The request that is being worked on.
    job: u64,
}

/// Everything that the loop owns.
struct Upstream {
    poller: Poller,
    listeners: Vec<Option<Listener>>,
    conns: Vec<Option<Box<Conn>>>,
    events: Events,
    jobs: Jobs,
    /// Requests so far.
    count: u64,
    buffer: Vec<u8>,
    zeros: Vec<u8>,
}

/// Serves on 127.0.0.1, `first_port` and the `count - 1` ports after it, until killed.
///
/// # Errors
/// When a port is taken or the kernel refuses a descriptor.
pub fn serve(first_port: u16, count: u16) -> io::Result<()> {
    let mut upstream = Upstream {
        poller: Poller::new()?,
        listeners: Vec::new(),
        conns: Vec::new(),
        events: Events::default(),
        jobs: Jobs::default(),
        count: 0,
        buffer: vec![0; 64 * 1024],
        zeros: vec![b'0'; 1 << 20],
    };
    for port in first_port..first_port + count {
        upstream.listen(port, port == first_port)?;
    }
    println!("ready");
    let mut ready: Vec<Ready> = Vec::new();
    loop {
        ready.clear();
        let waits = [upstream.events.wait_ns(), upstream.jobs.wait_ns()];
        upstream.poller.wait(waits.into_iter().flatten().min(), &mut ready)?;
        for event in &ready {
            upstream.turn(*event);
        }
        upstream.send_due_events();
        upstream.answer_done();
    }
}

fn put<T>(slots: &mut Vec<Option<T>>, at: usize, value: T) {
    if slots.len() <= at {
        slots.resize_with(at + 1, || None);
    }
    slots[at] = Some(value);
}

impl Upstream {
    fn listen(&mut self, port: u16, first: bool) -> io::Result<()> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|e| io::Error::new(e.kind(), format!("upstream port {port}: {e}")))?;
        rustix::net::listen(&socket, 4096)?;
        socket.set_nonblocking(true)?;
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-endpoint: {port}\r\ncontent-length: {SMALL_BODY}\r\n\r\n"
        )
        .into_bytes();
        answer.resize(answer.len() + SMALL_BODY, b'x');
        self.poller.add(&socket)?;
        put(&mut self.listeners, socket.as_raw_fd() as usize, Listener { socket, answer, first });
        Ok(())
    }

    /// Handles one descriptor that is ready. A connection that fails is closed; nothing else is.
    fn turn(&mut self, event: Ready) {
        if matches!(self.listeners.get(event.fd), Some(Some(_))) {
            return self.accept(event.fd);
        }
        let Some(conn) = self.conns.get_mut(event.fd).and_then(Option::as_mut) else { return };
        let mut result = Ok(());
        if event.writable {
            result = conn.flush(&self.poller, &self.zeros);
        }
        if event.readable && result.is_ok() {
            result = self.read(event.fd);
        }
        if result.is_err() {
            self.conns[event.fd] = None;
            self.jobs.gone(event.fd);
        }
    }

    fn accept(&mut self, listener: usize) {
        // A bound, so that a burst of new connections does not starve the ones that are there.
        for _ in 0..64 {
            let Some(Some(from)) = self.listeners.get(listener) else { return };
            let Ok((stream, _)) = from.socket.accept() else { return };
            let ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
            if ready.and_then(|()| self.poller.add(&stream)).is_err() {
                continue;
            }
            let conn = Conn {
                listener,
                partial: Vec::new(),
                skip: 0,
                unsent: Vec::new(),
                zeros: 0,
                waits_for_room: false,
                events: None,
                job: 0,
                stream,
            };
            put(&mut self.conns, conn.stream.as_raw_fd() as usize, Box::new(conn));
        }
    }

    fn read(&mut self, fd: usize) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(fd).and_then(Option::as_mut) else { return Ok(()) };
        let n = match (&conn.stream).read(&mut self.buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        };
        let joined;
        let mut input = &self.buffer[..n];
        if !conn.partial.is_empty() {
            conn.partial.extend_from_slice(input);
            joined = std::mem::take(&mut conn.partial);
            input = &joined;
        }
        loop {
            let dropped = conn.skip.min(input.len());
            conn.skip -= dropped;
            input = &input[dropped..];
            let Some(end) = memmem::find(input, b"\r\n\r\n") else { break };
            let (head, rest) = input.split_at(end + 4);
            conn.skip = body_length(head);
            input = rest;
            let Some(Some(listener)) = self.listeners.get(conn.listener) else { break };
            let target = target(head);
            if target == b"/count" {
                let text = self.count.to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                conn.send(head.as_bytes(), &self.poller, &self.zeros)?;
                continue;
            }
            self.count += 1;
            let behaviour = Behaviour::of(target, listener.first);
            if behaviour != Behaviour::default() {
                conn.job = self.jobs.serial();
                self.jobs.begin(conn.listener, Job { fd, serial: conn.job, behaviour });
                continue;
            }
            answer(conn, target, &listener.answer, &self.poller, &self.zeros)?;
            if let Some(stream) = &conn.events {
                self.events.schedule(fd, stream);
            }
        }
        if input.len() > MAX_HEAD {
            return Err(ErrorKind::InvalidData.into());
        }
        conn.partial = input.to_vec();
        Ok(())
    }

    /// Answers the requests whose work is done.
    fn answer_done(&mut self) {
        for _ in 0..256 {
            let Some(job) = self.jobs.done() else { return };
            let Some(conn) = self.conns.get_mut(job.fd).and_then(Option::as_mut) else { continue };
            let Some(Some(listener)) = self.listeners.get(conn.listener) else { continue };
            if conn.job != job.serial {
                continue;
            }
            let sent = match job.behaviour.status {
                None => conn.send(&listener.answer, &self.poller, &self.zeros),
                Some(status) => {
                    let head = format!("HTTP/1.1 {status} Broken\r\ncontent-length: 0\r\n\r\n");
                    conn.send(head.as_bytes(), &self.poller, &self.zeros)
                }
            };
            if sent.is_err() {
                self.conns[job.fd] = None;
                self.jobs.gone(job.fd);
            }
        }
    }

    fn send_due_events(&mut self) {
        // A bound, so that requests are read too when there are more events than one core can send.
        for _ in 0..256 {
            let Some((fd, due)) = self.events.next_due() else { return };
            let Some(conn) = self.conns.get_mut(fd).and_then(Option::as_mut) else { continue };
            // The descriptor may belong to another connection by now.
            let Some(stream) = conn.events.as_mut().filter(|s| s.due == due) else { continue };
            let event = self.events.stamped();
            stream.due += stream.interval_ns;
            let again = (fd, stream.due);
            if conn.send(event, &self.poller, &self.zeros).is_err() {
                self.conns[fd] = None;
            } else {
                self.events.push(again);
            }
        }
    }
}

/// The request target: what stands between the first two spaces.
fn target(head: &[u8]) -> &[u8] {
    let mut words = head.splitn(3, |b| *b == b' ');
    words.nth(1).unwrap_or_default()
}

/// The Content-Length of a POST or PUT, 0 for all else.
fn body_length(head: &[u8]) -> usize {
    if head.first() != Some(&b'P') {
        return 0;
    }
    let name = b"content-length:";
    head.split(|b| *b == b'\n')
        .find(|line| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name))
        .and_then(|line| std::str::from_utf8(&line[name.len()..]).ok())
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

fn answer(conn: &mut Conn, target: &[u8], small: &[u8], poller: &Poller, zeros: &[u8]) -> io::Result<()> {
    if let Some(size) = target.strip_prefix(b"/b/") {
        let size = std::str::from_utf8(size).ok().and_then(|s| s.parse().ok()).unwrap_or(0);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {size}\r\n\r\n"
        );
        conn.zeros = size;
        return conn.send(head.as_bytes(), poller, zeros);
    }
    if target.starts_with(b"/events") {
        conn.events = Some(EventStream::from_target(target));
        return conn.send(events::HEAD, poller, zeros);
    }
    conn.send(small, poller, zeros)
}

impl Conn {
    /// Sends `bytes`, then what `zeros` asks for; keeps what the socket does not take.
    fn send(&mut self, bytes: &[u8], poller: &Poller, zeros: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = match (&self.stream).write(bytes) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
            Err(e) => return Err(e),
        };
        if sent == bytes.len() && self.zeros == 0 {
            return Ok(());
        }
        self.unsent.extend_from_slice(&bytes[sent..]);
        self.flush(poller, zeros)
    }

    /// Writes until all is out or the socket is full, and asks to be told of room in that case.
    fn flush(&mut self, poller: &Poller, zeros: &[u8]) -> io::Result<()> {
        let full = loop {
            let (piece, from_unsent) = match self.unsent.is_empty() {
                false => (&self.unsent[..], true),
                true if self.zeros > 0 => (&zeros[..self.zeros.min(zeros.len())], false),
                true => break false,
            };
            match (&self.stream).write(piece) {
                Ok(n) if from_unsent => drop(self.unsent.drain(..n)),
                Ok(n) => self.zeros -= n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break true,
                Err(e) => return Err(e),
            }
        };
        if full != self.waits_for_room {
            self.waits_for_room = full;
            poller.want_output(&self.stream, full)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_and_a_length_are_read() {
        let head = b"POST /b/5 HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(target(head), b"/b/5");
        assert_eq!(body_length(head), 12);
        assert_eq!(body_length(b"GET / HTTP/1.1\r\ncontent-length: 9\r\n\r\n"), 0);
    }
}
