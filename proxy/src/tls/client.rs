//! TLS of the sidecar's own connections to services outside of the mesh: collectors, token endpoints, key sets, authorizers.

use std::sync::Arc;

use pilotfish_identity::tls::provider;
use rustls::ClientConfig;

use super::outside;

/// Files of TLS with a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// Whom to trust (PEM); the system's authorities without it.
    pub certificate: Option<String>,
    /// The own chain (PEM), ...
    pub client_certificate: Option<String>,
    /// ... and its key.
    pub client_key: Option<String>,
}

/// Which of [`TlsFiles`] is wrong, or none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFile {
    /// Whom to trust.
    Certificate,
    /// The own chain.
    ClientCertificate,
    /// Its key.
    ClientKey,
}

/// TLS with a service that speaks HTTP/2 (`h2`) or HTTP/1.1.
///
/// # Errors
/// A file cannot be read, or has not in it what it should have: which one, and why.
pub fn tls(files: &TlsFiles, h2: bool) -> Result<Arc<ClientConfig>, (Option<TlsFile>, String)> {
    let roots = match &files.certificate {
        Some(path) => {
            let text = std::fs::read(path).map_err(|error| error.to_string());
            let roots = text.and_then(|text| outside::roots(&text));
            Arc::new(roots.map_err(|why| (Some(TlsFile::Certificate), format!("{path}: {why}")))?)
        }
        None => outside::system_roots().clone().map_err(|why| (None, why))?,
    };
    let other = |error: rustls::Error| (None, error.to_string());
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(other)?.with_root_certificates(roots);
    let mut config = match (&files.client_certificate, &files.client_key) {
        (Some(chain), Some(key)) => {
            let chain = outside::chain(chain).map_err(|why| (Some(TlsFile::ClientCertificate), why))?;
            let key = outside::private_key(key).map_err(|why| (Some(TlsFile::ClientKey), why))?;
            let built = builder.with_client_auth_cert(chain, key);
            built.map_err(|error| (Some(TlsFile::ClientCertificate), error.to_string()))?
        }
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) => {
            return Err((Some(TlsFile::ClientCertificate), "it needs a client key too".into()));
        }
        (None, Some(_)) => {
            return Err((Some(TlsFile::ClientKey), "it needs a client certificate too".into()));
        }
    };
    config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Ok(Arc::new(config))
}
