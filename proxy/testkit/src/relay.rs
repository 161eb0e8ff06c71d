//! An agent that asks another one, through its sidecar, for each call that it gets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::h1::H1;

/// What it does with headers that it is to pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// It passes those of traces on.
    Forwards,
    /// It passes on which call it serves, and nothing else.
    Tells,
    /// It passes nothing on.
    Drops,
}

/// The agent. Asked for `/held/...` it waits for [`Relay::release`] before it asks the other for `/...`.
#[derive(Debug, Clone)]
pub struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    host: String,
    manners: Manners,
    outbound: OnceLock<SocketAddr>,
    heads: Mutex<Vec<String>>,
    gate: Semaphore,
}

impl Relay {
    /// One that asks this host.
    pub async fn start(host: &str, manners: Manners) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Shared {
            host: host.into(),
            manners,
            outbound: OnceLock::new(),
            heads: Mutex::default(),
            gate: Semaphore::new(0),
        };
        let shared = Arc::new(shared);
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, serving.clone()));
            }
        });
        Relay { addr, shared }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its sidecar's outbound port.
    pub fn asks_through(&self, outbound: SocketAddr) {
        self.shared.outbound.set(outbound).unwrap();
    }

    /// Lets this many of the calls go on that wait, or will.
    pub fn release(&self, calls: usize) {
        self.shared.gate.add_permits(calls);
    }

    /// The heads that it got.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }
}

/// GETs without bodies, one after the other.
async fn answer(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else {
            match stream.read_buf(&mut bytes).await {
                Ok(n) if n > 0 => continue,
                _ => return,
            }
        };
        let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
        shared.heads.lock().unwrap().push(head.clone());
        let mut path = head.split(' ').nth(1).unwrap().to_owned();
        if let Some(rest) = path.strip_prefix("/held") {
            shared.gate.acquire().await.unwrap().forget();
            path = rest.to_owned();
        }
        let passes = |line: &&str| {
            let name = line.split(':').next().unwrap_or_default();
            match shared.manners {
                Manners::Forwards => {
                    ["traceparent", "tracestate", "baggage", "agent-workflow"].contains(&name)
                }
                Manners::Tells => name == "x-pilotfish-call",
                Manners::Drops => false,
            }
        };
        let passed: Vec<&str> = head.lines().filter(passes).collect();
        let outbound = *shared.outbound.get().unwrap();
        let mut client = H1::connect(outbound).await.patience(Duration::from_secs(20));
        let Ok(answer) = client.get(&shared.host, &path, &passed).await else { return };
        let body = answer.text();
        let text = format!("HTTP/1.1 {} x\r\ncontent-length: {}\r\n\r\n{body}", answer.status(), body.len());
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}
