//! A DNS server over UDP whose answers a test writes: names to IPv4 addresses with a TTL, or a failure.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What a name answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These addresses, for so many seconds. None of them: NOERROR without an answer.
    Addresses(Vec<Ipv4Addr>, u32),
    /// NXDOMAIN.
    NoName,
    /// SERVFAIL.
    Failure,
    /// No answer at all.
    Silence,
}

#[derive(Debug, Default)]
struct Zone {
    names: HashMap<String, Answer>,
    queries: HashMap<String, usize>,
}

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Dns {
    addr: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    task: JoinHandle<()>,
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Dns {
    /// Starts a server on a free port of 127.0.0.1. A name that was not [`Dns::set`] does not exist.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let addr = socket.local_addr().expect("an address");
        let zone = Arc::new(Mutex::new(Zone::default()));
        let task = tokio::spawn(serve(socket, zone.clone()));
        Self { addr, zone, task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sets what a name answers from now on.
    pub fn set(&self, name: &str, answer: Answer) {
        lock(&self.zone).names.insert(name.to_owned(), answer);
    }

    /// How often the IPv4 addresses of a name were asked for.
    pub fn queries(&self, name: &str) -> usize {
        lock(&self.zone).queries.get(name).copied().unwrap_or(0)
    }
}

fn lock(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut query = [0; 1500];
    while let Ok((n, peer)) = socket.recv_from(&mut query).await {
        let answer = answer(&query[..n], &mut lock(&zone));
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

/// The answer to a query with one question; `None` for silence.
fn answer(query: &[u8], zone: &mut Zone) -> Option<Vec<u8>> {
    const A: u16 = 1;
    let (name, end) = question(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    if kind == A {
        *zone.queries.entry(name.clone()).or_default() += 1;
    }
    let known = zone.names.get(&name).cloned().unwrap_or(Answer::NoName);
    let (code, addresses, ttl) = match known {
        Answer::Silence => return None,
        Answer::Addresses(addresses, ttl) => (0, if kind == A { addresses } else { Vec::new() }, ttl),
        Answer::NoName => (3, Vec::new(), 0),
        Answer::Failure => (2, Vec::new(), 0),
    };
    let mut out = query.get(..2)?.to_vec();
    let count = u16::try_from(addresses.len()).ok()?;
    out.extend_from_slice(&[0x81, 0x80 | code, 0, 1]);
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(query.get(12..end + 4)?);
    for address in addresses {
        out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&[0, 4]);
        out.extend_from_slice(&address.octets());
    }
    Some(out)
}

/// The name in lower case, and where it ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join(".").to_ascii_lowercase(), at));
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).into_owned());
        at += length;
    }
}
