//! A SPIFFE Workload API that says what a test says: gRPC over a Unix socket, messages written by hand.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::SendStream;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::ca::{Ca, Issued};

/// A running Workload API. Dropping it ends it.
pub struct WorkloadApi {
    /// Its socket.
    pub path: PathBuf,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// What every stream gets next, and its number.
    message: Mutex<(u64, Vec<u8>)>,
    changed: Notify,
    /// Requests without the header that the API demands.
    refused: Mutex<usize>,
}

impl Drop for WorkloadApi {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl WorkloadApi {
    /// Listens in this folder.
    pub fn start(folder: &Path) -> WorkloadApi {
        let path = folder.join("workload.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(State::default());
        let accepting = tokio::spawn(accept(listener, state.clone()));
        WorkloadApi { path, state, accepting }
    }

    /// Gives this identity to whoever asks or has asked.
    pub fn give(&self, ca: &Ca, id: &str, issued: &Issued) {
        let PrivateKeyDer::Pkcs8(key) = issued.key_der() else { panic!("keys of the test kit are PKCS #8") };
        let chain: Vec<u8> = issued.chain_der().iter().flat_map(|der| der.to_vec()).collect();
        let svid = [
            field(1, id.as_bytes()),
            field(2, &chain),
            field(3, key.secret_pkcs8_der()),
            field(4, &ca.root_der()),
        ];
        self.send(field(1, &svid.concat()));
    }

    /// Gives these bytes as a message.
    pub fn send(&self, message: Vec<u8>) {
        let mut next = self.state.message.lock().unwrap();
        *next = (next.0 + 1, message);
        drop(next);
        self.state.changed.notify_waiters();
    }

    /// Requests that lacked the header `workload.spiffe.io: true`.
    pub fn refused(&self) -> usize {
        *self.state.refused.lock().unwrap()
    }
}

/// A field of bytes in protocol buffers' encoding.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

async fn accept(listener: UnixListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        tokio::spawn(async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut answer))) = connection.accept().await {
                let good = request.headers().get("workload.spiffe.io").is_some_and(|value| value == "true")
                    && request.uri().path() == "/SpiffeWorkloadAPI/FetchX509SVID";
                let head = http::Response::builder().status(200).header("content-type", "application/grpc");
                if !good {
                    *state.refused.lock().unwrap() += 1;
                    let head = head.header("grpc-status", "3").body(()).unwrap();
                    let _ = answer.send_response(head, true);
                    continue;
                }
                let Ok(send) = answer.send_response(head.body(()).unwrap(), false) else { continue };
                tokio::spawn(follow(send, state.clone()));
            }
        });
    }
}

async fn follow(mut send: SendStream<Bytes>, state: Arc<State>) {
    let mut sent = 0;
    loop {
        let changed = state.changed.notified();
        let (number, message) = state.message.lock().unwrap().clone();
        if number > sent {
            sent = number;
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            let framed = [&[0][..], &length, &message].concat();
            if send.send_data(framed.into(), false).is_err() {
                return;
            }
            continue;
        }
        changed.await;
    }
}
