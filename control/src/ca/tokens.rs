//! Join tokens: what a sidecar shows once to get its first certificate.
//!
//! The store has `token/<id>` with the secret's SHA-256, never the secret: 256 random bits need no slower hash. A use is
//! spent by compare-and-set, so that of two control planes only one gives an identity for it.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use pilotfish_identity::{Fingerprint, JoinToken, SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Authority, Clock};
use crate::api::types::{NewToken, Token};
use crate::store::{Batch, Entry, Expect, Store, StoreError};

/// Where tokens are in the store.
const PREFIX: &str = "token/";
/// A token lives at most this long.
const LONGEST: u64 = 30 * 24 * 3600;
/// A token may be used at most this often: a fleet of one agent, started from one template.
const MOST_USES: u32 = 100_000;
/// How often a use is tried when other uses of the same token win.
const RACES: usize = 64;
/// Removals in one batch.
const BATCH: usize = 100;

/// Why no token was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotMade {
    /// What was asked for makes no sense.
    Invalid(String),
    /// The store did not take it.
    Store(StoreError),
}

impl fmt::Display for NotMade {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotMade::Invalid(why) => out.write_str(why),
            NotMade::Store(error) => write!(out, "{error}"),
        }
    }
}

impl std::error::Error for NotMade {}

/// Why a token gives no identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSpent {
    /// It is wrong, spent, expired or another agent's: which of them, the bearer is never told. The word is for the log.
    Refused(&'static str),
    /// It cannot be said now. It may be spent all the same when the store is not sure.
    Store(StoreError),
}

impl fmt::Display for NotSpent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotSpent::Refused(_) => out.write_str(
                "the join token is not valid for this name: make one with `pilotfish token create --agent NAME \
                 --namespace NS`, or `--node NAME` for a node",
            ),
            NotSpent::Store(error) => write!(out, "{error}"),
        }
    }
}

impl std::error::Error for NotSpent {}

/// Whose identity a token is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// An agent's.
    Agent {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        agent: &'a str,
    },
    /// The node's of this name.
    Node(&'a str),
}

/// What the store has of a token.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// SHA-256 of the secret, lower-case hexadecimal.
    hash: String,
    agent: String,
    namespace: String,
    /// For a node, whose name is in `agent`.
    #[serde(default)]
    node: bool,
    /// Seconds since 1970.
    expires: u64,
    uses_left: u32,
}

/// Makes and spends join tokens.
pub struct Tokens {
    store: Arc<dyn Store>,
    domain: TrustDomain,
    root: Fingerprint,
    clock: Clock,
}

impl Tokens {
    /// Tokens that lead to an authority.
    pub fn new(store: Arc<dyn Store>, authority: &Authority) -> Tokens {
        let (domain, clock) = (authority.domain().clone(), authority.clock.clone());
        Tokens { store, domain, root: authority.root(), clock }
    }

    /// Makes a token for one agent of one namespace, or for one node.
    ///
    /// # Errors
    /// A name that cannot be part of a SPIFFE ID, a life or a number of uses out of bounds; the store.
    pub async fn create(&self, wanted: &NewToken) -> Result<Token, NotMade> {
        let invalid = |why: String| Err(NotMade::Invalid(why));
        let id = match wanted.node {
            true if !wanted.namespace.is_empty() => return invalid("a node is of no namespace".into()),
            true => SpiffeId::node(&self.domain, &wanted.agent),
            false => SpiffeId::agent(&self.domain, &wanted.namespace, &wanted.agent),
        };
        if let Err(error) = id {
            return invalid(error.to_string());
        }
        if !(1..=LONGEST).contains(&wanted.ttl_seconds) {
            return invalid("a token lives for 1 second to 30 days".into());
        }
        if !(1..=MOST_USES).contains(&wanted.uses) {
            return invalid(format!("a token may be used 1 to {MOST_USES} times"));
        }
        let token = self.random()?;
        let kept = Kept {
            hash: hash(token.secret.as_ref()),
            agent: wanted.agent.clone(),
            namespace: wanted.namespace.clone(),
            node: wanted.node,
            expires: self.now() + wanted.ttl_seconds,
            uses_left: wanted.uses,
        };
        let key = key(&token.id);
        let batch = Batch {
            expect: vec![(key.clone(), Expect::Absent)],
            put: vec![(key, encode(&kept).map_err(NotMade::Store)?)],
            delete: Vec::new(),
        };
        self.store.batch(batch).await.map_err(NotMade::Store)?;
        Ok(Token { token: token.to_text().as_str().to_owned(), expires: kept.expires })
    }

    fn random(&self) -> Result<JoinToken, NotMade> {
        let mut token = JoinToken { id: [0; 8], secret: Zeroizing::new([0; 32]), root: self.root };
        let random = SystemRandom::new();
        let filled = random.fill(&mut token.id).and_then(|()| random.fill(token.secret.as_mut()));
        filled.map_err(|_| NotMade::Invalid("the system gives no randomness".into()))?;
        Ok(token)
    }

    /// Spends one use of a token. Only then may an identity be given; whatever can fail before, has to be tried before.
    ///
    /// # Errors
    /// The same [`NotSpent::Refused`] for every token that is not good, or the store is not available.
    pub async fn spend(&self, text: &str, whose: Bearer<'_>) -> Result<(), NotSpent> {
        let token = JoinToken::parse(text).ok();
        // A text that is no token takes the same way: its id is nobody's.
        let id = token.as_ref().map_or([0; 8], |token| token.id);
        let secret = token.map_or_else(|| Zeroizing::new([0; 32]), |token| token.secret);
        for _ in 0..RACES {
            let found = self.store.get(&key(&id)).await.map_err(NotSpent::Store)?;
            let (entry, kept) = self.judge(found, &secret, whose)?;
            match self.store.batch(used(entry, kept).map_err(NotSpent::Store)?).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(NotSpent::Store(error)),
            }
        }
        let why = "too many joins by the same token at once".to_owned();
        Err(NotSpent::Store(StoreError::Unavailable { why, unsure: false }))
    }

    /// Everything is looked at, whatever was found wrong before.
    fn judge(
        &self,
        found: Option<Entry>,
        secret: &Zeroizing<[u8; 32]>,
        whose: Bearer<'_>,
    ) -> Result<(Entry, Kept), NotSpent> {
        let nobody = Kept {
            hash: "0".repeat(64),
            agent: String::new(),
            namespace: String::new(),
            node: false,
            expires: 0,
            uses_left: 0,
        };
        let read = found.as_ref().and_then(|entry| serde_json::from_slice::<Kept>(&entry.value).ok());
        let kept = read.unwrap_or(nobody);
        let secret_fits = fits(&kept.hash, secret.as_ref());
        let of = match kept.node {
            true => Bearer::Node(&kept.agent),
            false => Bearer::Agent { namespace: &kept.namespace, agent: &kept.agent },
        };
        let bearer_fits = of == whose;
        let in_time = self.now() < kept.expires;
        match (found, secret_fits, bearer_fits, in_time && kept.uses_left > 0) {
            (Some(entry), true, true, true) => Ok((entry, kept)),
            (None, ..) => Err(NotSpent::Refused("unknown-or-spent")),
            (_, false, ..) => Err(NotSpent::Refused("wrong-secret")),
            (_, _, false, _) => Err(NotSpent::Refused("for-another-name")),
            (_, _, _, false) => Err(NotSpent::Refused("expired")),
        }
    }

    /// How often the token of this id (lower-case hexadecimal) may still be used; one that has expired, never.
    ///
    /// # Errors
    /// The store is not available.
    pub async fn left(&self, id: &str) -> Result<u32, StoreError> {
        let found = self.store.get(&format!("{PREFIX}{id}")).await?;
        let kept = found.and_then(|entry| serde_json::from_slice::<Kept>(&entry.value).ok());
        Ok(kept.filter(|kept| self.now() < kept.expires).map_or(0, |kept| kept.uses_left))
    }

    /// Removes tokens that have expired; to be called now and then. Gives their number.
    ///
    /// # Errors
    /// The store is not available.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let now = self.now();
        let listed = self.store.list(PREFIX).await?;
        let ended = |entry: &Entry| {
            serde_json::from_slice::<Kept>(&entry.value).map_or(true, |kept| kept.expires <= now)
        };
        let keys: Vec<_> = listed.entries.into_iter().filter(ended).map(|entry| entry.key).collect();
        for some in keys.chunks(BATCH) {
            self.store.batch(Batch { delete: some.to_vec(), ..Batch::default() }).await?;
        }
        Ok(keys.len())
    }

    /// Seconds since 1970.
    fn now(&self) -> u64 {
        (self.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Tokens({})", self.domain)
    }
}

fn key(id: &[u8; 8]) -> String {
    format!("{PREFIX}{}", HEXLOWER.encode(id))
}

fn hash(secret: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, secret).as_ref())
}

/// In constant time, as far as the secret is concerned.
fn fits(kept: &str, secret: &[u8]) -> bool {
    let kept = HEXLOWER_PERMISSIVE.decode(kept.as_bytes()).unwrap_or_default();
    verify_slices_are_equal(&kept, digest(&SHA256, secret).as_ref()).is_ok()
}

fn encode(kept: &Kept) -> Result<bytes::Bytes, StoreError> {
    serde_json::to_vec(kept).map(Into::into).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// One use less; the last one removes the token.
fn used(entry: Entry, mut kept: Kept) -> Result<Batch, StoreError> {
    kept.uses_left -= 1;
    let mut batch =
        Batch { expect: vec![(entry.key.clone(), Expect::At(entry.revision))], ..Batch::default() };
    if kept.uses_left == 0 {
        batch.delete.push(entry.key);
    } else {
        batch.put.push((entry.key, encode(&kept)?));
    }
    Ok(batch)
}
