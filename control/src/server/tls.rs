//! The TLS listener: who is at the other end, and which protocol they speak.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::auth::Peer;
use super::connection::{self, Protocol};
use super::listen::{Places, Stranger};
use super::{Control, Failure, HANDSHAKE, IDLE, IDLE_STRANGER, handle};

/// Until the authority is there: a certificate of nobody's.
pub(super) fn config(_control: &Control) -> Result<TlsAcceptor, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure(format!("no certificate: {error}"));
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".into()]).map_err(|error| failed(&error))?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(|error| failed(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(&error))?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(|error| failed(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves one connection: handshake, then requests.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    tls: TlsAcceptor,
    control: Arc<Control>,
    _places: Arc<Places>,
    stranger: Stranger,
) {
    let closing = control.closing.subscribe();
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else { return };
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let peer = Peer::Network(address, None);
    let idle = if matches!(peer, Peer::Network(_, None)) { IDLE_STRANGER } else { IDLE };
    let answer = move |request, activity| handle::answer(control.clone(), peer.clone(), request, activity);
    connection::serve(stream, protocol, idle, closing, answer).await;
    drop(stranger);
}
