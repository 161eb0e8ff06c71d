//! The first start on a store: it fixes the trust domain and makes the first administrator's token.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pilotfish_identity::TrustDomain;
use serde::{Deserialize, Serialize};

use super::Failure;
use super::administrators::{self, Administrator};
use crate::store::{Batch, Expect, Store, StoreError};

/// Where the mesh's constants are kept.
const KEY: &str = "mesh";

/// What the first start fixed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Mesh {
    trust_domain: String,
    /// Seconds since 1970.
    founded: u64,
}

/// The trust domain that a store's first start fixed; none before.
///
/// # Errors
/// The flag says another one, or the store does not answer.
pub(super) async fn trust_domain(
    store: &Arc<dyn Store>,
    flag: Option<&TrustDomain>,
) -> Result<Option<TrustDomain>, Failure> {
    let Some(mesh) = read(store).await? else { return Ok(None) };
    let kept =
        TrustDomain::parse(&mesh.trust_domain).map_err(|error| Failure(format!("the store's {error}")))?;
    match flag {
        Some(domain) if *domain != kept => Err(Failure(format!(
            "the trust domain of this store is {kept} and cannot become {domain}: every identity holds it; leave \
             --trust-domain away, or begin with an empty store"
        ))),
        _ => Ok(Some(kept)),
    }
}

/// Fixes the trust domain and keeps the hash of the first administrator's token, if nobody has yet; gives the token to
/// the one that did.
///
/// # Errors
/// The store does not take it, or another first start fixed another trust domain.
pub(super) async fn found(store: &Arc<dyn Store>, domain: &TrustDomain) -> Result<Option<String>, Failure> {
    if read(store).await?.is_some() {
        return Ok(None);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let token = administrators::token()?;
    let mesh = Mesh { trust_domain: domain.to_string(), founded: now };
    let first = Administrator { name: "admin".into(), created: now };
    let batch = Batch {
        expect: vec![(KEY.into(), Expect::Absent)],
        put: vec![(KEY.into(), text(&mesh)?), (administrators::key(&token), text(&first)?)],
        delete: Vec::new(),
    };
    match store.batch(batch).await {
        Ok(_) => Ok(Some(token)),
        // Another control plane was faster; it has the token, and must have meant the same mesh.
        Err(StoreError::Conflict) => trust_domain(store, Some(domain)).await.map(|_| None),
        Err(error) => Err(unusable(&error)),
    }
}

async fn read(store: &Arc<dyn Store>) -> Result<Option<Mesh>, Failure> {
    let Some(entry) = store.get(KEY).await.map_err(|error| unusable(&error))? else { return Ok(None) };
    let mesh = serde_json::from_slice(&entry.value);
    mesh.map(Some).map_err(|error| Failure(format!("the store's entry `{KEY}` cannot be read: {error}")))
}

fn text<T: Serialize>(value: &T) -> Result<Bytes, Failure> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| Failure(error.to_string()))
}

/// The sentence for a store that cannot be used at the start.
pub(super) fn unusable(error: &StoreError) -> Failure {
    Failure(format!("{error}; nothing is served without it"))
}
