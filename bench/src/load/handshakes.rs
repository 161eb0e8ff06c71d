//! New mutual TLS connections, one after the other on each of some threads: a full handshake, one request, the end.
//! No session is resumed.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};
use serde_json::{Value, json};

use super::Counts;

const REQUEST: &[u8] = b"GET /agents/1/run HTTP/1.1\r\nhost: app.bench.local\r\nconnection: close\r\n\r\n";

/// Connects over and over to 127.0.0.1:`port` with the certificates in `certs`.
///
/// # Errors
/// When the certificates cannot be read.
pub fn run(port: u16, threads: usize, secs: f64, certs: &Path) -> io::Result<Value> {
    let config = Arc::new(config(certs)?);
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(secs);
    let counts: Vec<Counts> = std::thread::scope(|scope| {
        let work = |config: Arc<ClientConfig>| move || keep_connecting(port, end, &config);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work(config.clone()))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut all = Counts::default();
    for count in counts {
        all.done += count.done;
        all.bytes += count.bytes;
        all.errors += count.errors;
        all.not_2xx += count.not_2xx;
    }
    let mut result = all.json();
    result["per_sec"] = json!(all.done as f64 / begin.elapsed().as_secs_f64());
    Ok(result)
}

fn config(certs: &Path) -> io::Result<ClientConfig> {
    let pem = |name: &str| certs.join(name);
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(pem("ca.pem")).map_err(io::Error::other)? {
        roots.add(root.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(pem("cert.pem")).map_err(io::Error::other)?.collect();
    let key = PrivateKeyDer::from_pem_file(pem("key.pem")).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.map_err(io::Error::other)?, key)
        .map_err(io::Error::other)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn keep_connecting(port: u16, end: Instant, config: &Arc<ClientConfig>) -> Counts {
    let mut counts = Counts::default();
    while Instant::now() < end {
        match once(port, config) {
            Ok(answer) => {
                counts.done += 1;
                counts.bytes += answer.len() as u64;
                counts.not_2xx += u64::from(!answer.starts_with(b"HTTP/1.1 2"));
            }
            Err(_) => counts.errors += 1,
        }
    }
    counts
}

fn once(port: u16, config: &Arc<ClientConfig>) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let name = ServerName::try_from("app.bench.local").map_err(io::Error::other)?;
    let mut session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut stream = Stream::new(&mut session, &mut socket);
    stream.write_all(REQUEST)?;
    let mut answer = Vec::with_capacity(2048);
    let read = stream.read_to_end(&mut answer);
    // An answer that came whole is an answer, however its connection ended.
    if !answer.starts_with(b"HTTP/1.1 ") {
        read?;
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let _ = socket.shutdown(Shutdown::Both);
    Ok(answer)
}
