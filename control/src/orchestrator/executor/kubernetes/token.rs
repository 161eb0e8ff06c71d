//! Join tokens of pods: one Secret for each group, whose token is good for as many pods as the group may start in a day.

use std::time::{Duration, SystemTime};

use pilotfish_identity::JoinToken;

use data_encoding::HEXLOWER;
use serde_json::Value;

use super::api::annotation;
use super::{EXPIRES, TOKEN};
use crate::api::types::NewToken;
use crate::ca::tokens::Tokens;
use crate::placement::world::Group;

/// A token lives so long, and is replaced after half of it: what leaks from a backup of the cluster is soon worth nothing.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Pods that a group may start with one token, for each replica: roll-outs, evictions, nodes that go.
const EACH: u32 = 10;
/// And for the group: a small one is scaled up.
const FURTHER: u32 = 100;
/// Tokens have no more uses than this ([`Tokens::create`]).
const MOST: u32 = 100_000;

/// A token that a pod can join with.
pub struct Fresh {
    /// The secret.
    pub text: String,
    /// Its id, which is none.
    pub id: String,
    /// Seconds since 1970.
    pub expires: u64,
}

/// Whether the Secret has a token that is good for a while, and for every replica.
///
/// # Errors
/// The store is not available.
pub async fn is_good(tokens: &Tokens, secret: &Value, replicas: u32) -> Result<bool, String> {
    let expires = annotation(secret, EXPIRES).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let Some(id) = annotation(secret, TOKEN) else { return Ok(false) };
    let left = tokens.left(id).await.map_err(|error| error.to_string())?;
    Ok(expires > now() + LIFE.as_secs() / 2
        && left >= replicas.saturating_mul(2).saturating_add(EACH).min(MOST / 2))
}

/// Makes one.
///
/// # Errors
/// The store is not available, or the agent's name is none that an identity can have.
pub async fn make(tokens: &Tokens, group: &Group, replicas: u32) -> Result<Fresh, String> {
    let wanted = NewToken {
        agent: group.agent.clone(),
        namespace: group.namespace.clone(),
        ttl_seconds: LIFE.as_secs(),
        uses: replicas.saturating_mul(EACH).saturating_add(FURTHER).min(MOST),
        node: false,
    };
    let made = tokens.create(&wanted).await.map_err(|error| error.to_string())?;
    let parsed = JoinToken::parse(&made.token).map_err(|error| error.to_string())?;
    Ok(Fresh { id: HEXLOWER.encode(&parsed.id), text: made.token, expires: made.expires })
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
