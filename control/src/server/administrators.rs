//! Administrators' tokens: shown once, kept in the store as hashes.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};

use super::Failure;
use crate::store::{Store, StoreError};

/// What an administrator's token begins with, so that people and scanners know it.
const PREFIX: &str = "pfadmin_";

/// What is kept of a token, under its hash.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Administrator {
    /// For history and log.
    pub(super) name: String,
    /// Seconds since 1970.
    pub(super) created: u64,
}

/// 256 random bits as text.
///
/// # Errors
/// The system gives no randomness.
pub(super) fn secret() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure("the system gives no randomness".into()))?;
    Ok(BASE64URL_NOPAD.encode(&bytes))
}

/// SHA-256 as text: with 256 random bits in a token nothing slower is needed.
pub(super) fn hash(text: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref())
}

/// A new token.
///
/// # Errors
/// The system gives no randomness.
pub(super) fn token() -> Result<String, Failure> {
    Ok(format!("{PREFIX}{}", secret()?))
}

/// Where the store keeps what is known of a token.
pub(super) fn key(token: &str) -> String {
    format!("admin/{}", hash(token))
}

/// The name of the administrator who has a token; `None` when nobody has it.
///
/// # Errors
/// The store does not answer.
pub(super) async fn named(store: &Arc<dyn Store>, token: &str) -> Result<Option<String>, StoreError> {
    if !token.starts_with(PREFIX) {
        return Ok(None);
    }
    let Some(entry) = store.get(&key(token)).await? else { return Ok(None) };
    let known: Administrator =
        serde_json::from_slice(&entry.value).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(Some(known.name))
}
