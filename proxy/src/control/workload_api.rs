//! An identity from a SPIFFE Workload API (SPIRE's agent, say): gRPC over a Unix socket, one stream that sends a new
//! identity whenever there is one (SPIFFE Workload API specification, section 4 and 6).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use pilotfish_client::Backoff;
use pilotfish_identity::{Bundles, Credentials, Identity, LiveIdentity, SpiffeId, TrustDomain};
use prost::Message;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::telemetry::log;

/// The longest message: a chain, a key, and the bundles of federated domains.
const LONGEST: usize = 4 << 20;
/// For the connection and the answer's head; the API may make a caller wait for its registration after that.
const CONNECT: Duration = Duration::from_secs(5);
/// Between tries while the socket is away.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// `X509SVIDRequest`.
#[derive(Clone, PartialEq, Message)]
struct X509SvidRequest {}

/// `X509SVIDResponse`.
#[derive(Clone, PartialEq, Message)]
struct X509SvidResponse {
    /// Identities; the first is the default one.
    #[prost(message, repeated, tag = "1")]
    svids: Vec<X509Svid>,
    /// Bundles of other trust domains: concatenated DER by SPIFFE ID of the domain.
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: std::collections::HashMap<String, Vec<u8>>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, Message)]
struct X509Svid {
    /// Whose it is.
    #[prost(string, tag = "1")]
    spiffe_id: String,
    /// The chain, leaf first, DER after DER.
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    /// The private key, PKCS #8 as DER.
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    /// Roots of its trust domain, DER after DER.
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

/// Follows the API at `socket` for the life of the process. `first` is told when there is an identity.
pub async fn follow(socket: PathBuf, live: Arc<LiveIdentity>, first: watch::Sender<bool>) {
    let (mut rng, mut backoff) = (fastrand::Rng::new(), Backoff::new(AGAIN.0, AGAIN.1));
    loop {
        let mut took = false;
        let ended = stream(&socket, |message| {
            let id = take(&live, message)?;
            took = true;
            first.send_replace(true);
            log::info!("identity taken from the Workload API", id = id);
            Ok(())
        })
        .await;
        if took {
            backoff.reset();
        }
        let why = ended.err().unwrap_or_else(|| "it ended the stream".to_owned());
        log::warn!("no identity from the Workload API, trying again", socket = socket.display(), why = why);
        tokio::time::sleep(backoff.next(&mut rng)).await;
    }
}

/// One stream to its end.
async fn stream(
    socket: &std::path::Path,
    mut take: impl FnMut(X509SvidResponse) -> Result<(), String>,
) -> Result<(), String> {
    let broken = |error: h2::Error| error.to_string();
    let connecting = async {
        let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        h2::client::handshake(stream).await.map_err(broken)
    };
    let (requests, connection) =
        tokio::time::timeout(CONNECT, connecting).await.map_err(|_| "no connection".to_owned())??;
    let driver = Driver(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let request = http::Request::post("http://localhost/SpiffeWorkloadAPI/FetchX509SVID")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        // Without it the API answers nobody: a request forged by a browser or by way of a proxy cannot have it.
        .header("workload.spiffe.io", "true")
        .body(())
        .map_err(|error| error.to_string())?;
    let mut requests = requests.ready().await.map_err(broken)?;
    let (answer, mut send) = requests.send_request(request, false).map_err(broken)?;
    send.send_data(crate::health::grpc::frame(&X509SvidRequest {}), true).map_err(broken)?;
    let answer = answer.await.map_err(broken)?;
    if let Some(status) = grpc_status(answer.headers()) {
        return Err(status);
    }
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(broken)?;
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
        while let Some(message) = next(&mut bytes)? {
            take(message)?;
        }
    }
    let trailers = body.trailers().await.map_err(broken)?;
    drop(driver);
    trailers.as_ref().and_then(grpc_status).map_or(Ok(()), Err)
}

/// Ends the connection with the stream.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "" | "0" => None,
        // PermissionDenied: the workload is not registered (section 5.1).
        "7" => Some(format!("this workload is not registered there: {}", text("grpc-message"))),
        status => Some(format!("grpc-status {status}: {}", text("grpc-message"))),
    }
}

/// The next whole message.
fn next(bytes: &mut Vec<u8>) -> Result<Option<X509SvidResponse>, String> {
    let Some((head, rest)) = bytes.split_first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || length > LONGEST {
        return Err("a message is compressed or too long".into());
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let message = X509SvidResponse::decode(body).map_err(|error| error.to_string())?;
    bytes.drain(..5 + length);
    Ok(Some(message))
}

/// Puts the first identity in force, if it is one.
fn take(live: &LiveIdentity, message: X509SvidResponse) -> Result<SpiffeId, String> {
    let svid = message.svids.into_iter().next().ok_or("it sent no identity")?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.x509_svid_key));
    let credentials = Credentials::new(ders(&svid.x509_svid)?, key).map_err(|error| error.to_string())?;
    let id = credentials.id.clone();
    if id.as_str() != svid.spiffe_id {
        return Err(format!("the certificate is of {id}, not of {}", svid.spiffe_id));
    }
    let mut texts = BTreeMap::from([(id.trust_domain().clone(), pem(&svid.bundle)?)]);
    for (domain, bundle) in message.federated_bundles {
        let name = domain.strip_prefix("spiffe://").unwrap_or(&domain).trim_end_matches('/');
        let name = TrustDomain::parse(name).map_err(|error| error.to_string())?;
        texts.entry(name).or_insert(pem(&bundle)?);
    }
    let bundles = Bundles::from_pem(&texts).map_err(|error| error.to_string())?;
    credentials.self_check(&bundles, live.now()).map_err(|why| why.to_string())?;
    let (credentials, bundles) = (Arc::new(credentials), Arc::new(bundles));
    live.update(|identity: &mut Identity| {
        identity.credentials = Some(Arc::clone(&credentials));
        identity.bundles = Arc::clone(&bundles);
    });
    Ok(id)
}

/// Certificates that follow each other without anything between them.
fn ders(mut bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = length_of(bytes).filter(|length| *length <= bytes.len());
        let (one, rest) = bytes.split_at(length.ok_or("certificates that are no DER")?);
        all.push(CertificateDer::from(one.to_vec()));
        bytes = rest;
    }
    Ok(all)
}

/// The length of the DER sequence that begins here, its head included.
fn length_of(bytes: &[u8]) -> Option<usize> {
    let (tag, first) = (*bytes.first()?, *bytes.get(1)?);
    if tag != 0x30 {
        return None;
    }
    if first < 0x80 {
        return Some(2 + usize::from(first));
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 {
        return None;
    }
    let digits = bytes.get(2..2 + count)?;
    let length = digits.iter().fold(0_usize, |sum, digit| (sum << 8) | usize::from(*digit));
    length.checked_add(2 + count)
}

fn pem(ders: &[u8]) -> Result<String, String> {
    let mut text = String::new();
    for der in self::ders(ders)? {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in BASE64.encode(&der).as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_parted_by_their_lengths() {
        let long = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        let both = [&[0x30, 2, 1, 2][..], &long].concat();
        let parted: Vec<usize> = ders(&both).unwrap().iter().map(|der| der.len()).collect();
        assert_eq!(parted, [4, 260]);
        for bad in [
            &[0x31, 0][..],
            &[0x30],
            &[0x30, 5, 1],
            &[0x30, 0x80],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x30, 0x84, 255, 255, 255, 255],
        ] {
            assert!(ders(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn messages_are_cut_out_and_bad_ones_refused() {
        let frame = crate::health::grpc::frame(&X509SvidResponse {
            svids: vec![X509Svid::default()],
            ..Default::default()
        });
        let mut bytes = [&frame[..], &frame[..4]].concat();
        assert_eq!(next(&mut bytes).unwrap().unwrap().svids.len(), 1);
        assert_eq!(next(&mut bytes), Ok(None));
        assert!(next(&mut vec![1, 0, 0, 0, 0]).is_err() && next(&mut vec![0, 255, 0, 0, 0]).is_err());
        let live = LiveIdentity::new(Identity::default());
        assert!(take(&live, X509SvidResponse::default()).is_err());
        let empty = X509SvidResponse { svids: vec![X509Svid::default()], ..Default::default() };
        assert!(take(&live, empty).is_err() && live.load().credentials.is_none());
    }
}
