//! Upstreams by script, each with a record of the calls that arrived.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pilotfish_testkit::h2::origin::H2Origin;
use pilotfish_testkit::{Nobody, Origin};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::rows::{Row, Script};

/// One that runs until this is dropped.
pub enum Upstream {
    /// A port that is taken and where nobody listens.
    Nobody(Nobody),
    /// Takes connections and ends them unread.
    Deaf(SocketAddr, Arc<AtomicUsize>, JoinHandle<()>),
    H1(Origin),
    /// With the ids of the requests that came.
    H2(H2Origin, Arc<Mutex<Vec<String>>>),
}

impl Upstream {
    pub async fn start(row: &Row) -> Self {
        match row.script {
            Script::Refuse => Upstream::Nobody(Nobody::new()),
            Script::Deaf { reset } => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let (addr, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
                let counted = count.clone();
                let task = tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        counted.fetch_add(1, Ordering::Relaxed);
                        if reset {
                            // Earlier, the connection would not even have been made.
                            let _ = stream.peek(&mut [0]).await;
                            let _ = stream.set_zero_linger();
                        }
                    }
                });
                Upstream::Deaf(addr, count, task)
            }
            Script::H1(steps) => Upstream::H1(Origin::start(move |_, _| steps()).await),
            Script::H2(steps) => {
                let seen = Arc::new(Mutex::new(Vec::new()));
                let ids = seen.clone();
                let origin = H2Origin::start(&[], move |stream, fields, _| {
                    let id = fields.iter().find(|(name, _)| name == "x-request-id");
                    ids.lock().unwrap().extend(id.map(|(_, id)| id.clone()));
                    steps(stream)
                });
                Upstream::H2(origin.await, seen)
            }
        }
    }

    pub fn port(&self) -> u16 {
        match self {
            Upstream::Nobody(nobody) => nobody.port(),
            Upstream::Deaf(addr, ..) => addr.port(),
            Upstream::H1(origin) => origin.port(),
            Upstream::H2(origin, _) => origin.port(),
        }
    }

    /// How often the call with this id arrived. One that is deaf has this one call, and cannot tell more than that someone came.
    pub fn arrivals(&self, id: &str) -> usize {
        match self {
            Upstream::Nobody(_) => 0,
            Upstream::Deaf(_, count, _) => count.load(Ordering::Relaxed),
            Upstream::H1(origin) => {
                let requests = origin.requests();
                requests.iter().filter(|m| m.header("x-request-id").as_deref() == Some(id)).count()
            }
            Upstream::H2(_, seen) => seen.lock().unwrap().iter().filter(|own| *own == id).count(),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Upstream::Deaf(_, _, task) = self {
            task.abort();
        }
    }
}
