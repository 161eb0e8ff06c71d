//! Administrators' tokens: shown once, kept as hashes.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use super::Failure;

/// What an administrator's token begins with, so that people and scanners know it.
const PREFIX: &str = "pfadmin_";

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

/// Who may administrate by token.
#[derive(Debug, Default)]
pub(super) struct Administrators {
    known: Mutex<Vec<String>>,
}

impl Administrators {
    /// One more token.
    pub(super) fn add(&self, token: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).push(hash(token));
    }

    /// The name of the administrator with this token.
    pub(super) async fn named(&self, token: &str) -> Option<String> {
        if !token.starts_with(PREFIX) {
            return None;
        }
        let hash = hash(token);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&hash).then(|| "admin".into())
    }
}
