//! Which store a control plane uses: a file in its data folder, or what `--store` names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::redb::RedbStore;
use super::{Store, StoreError};

/// The store's file in a data folder.
pub const FILE: &str = "store.redb";

/// Files (PEM) for TLS to a store on other machines.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Certificates that the store's certificate has to come from.
    pub ca: Option<PathBuf>,
    /// The client's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Opens the store at `url` (`etcd://HOST:PORT[,HOST:PORT...]`, or `https://` likewise), by default the file in `data`.
///
/// # Errors
/// The file cannot be used ([`RedbStore::open`]); the URL is none, would send secrets in plain text over a network, or
/// nobody answers there.
pub async fn open(url: Option<&str>, data: &Path, tls: &Tls) -> Result<Arc<dyn Store>, StoreError> {
    let Some(url) = url else {
        let path = data.join(FILE);
        let opened = tokio::task::spawn_blocking(move || RedbStore::open(&path)).await;
        let opened =
            opened.map_err(|error| StoreError::Unavailable { why: error.to_string(), unsure: false })??;
        return Ok(Arc::new(opened));
    };
    shared(url, tls).await
}

#[cfg(feature = "etcd")]
async fn shared(url: &str, tls: &Tls) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(super::etcd::EtcdStore::connect(url, tls).await?))
}

#[cfg(not(feature = "etcd"))]
async fn shared(_: &str, _: &Tls) -> Result<Arc<dyn Store>, StoreError> {
    let why = "this build has no etcd (it was made without the feature `etcd`); leave --store out".into();
    Err(StoreError::Unavailable { why, unsure: false })
}
