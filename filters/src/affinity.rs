//! Which conversation a request belongs to, as a stable number: the same on every sidecar and after every reload.
//!
//! The number chooses an endpoint of a consistent-hash cluster and, mixed once more, among weighted destinations,
//! so that a conversation stays in one subset.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::balance::hash;
use crate::call::{Call, Caller, Head};
use crate::route::block::query_parameter;

/// What of a request says which conversation it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashPolicy {
    /// A header, by its lower-case name.
    Header(Box<str>),
    /// A cookie, issued when it is absent and has a life time.
    Cookie(CookiePolicy),
    /// The caller's address. Behind loopback every caller has the same, so there it is the sidecar's own identity,
    /// as a sidecar in Istio sees its pod's address.
    SourceIp {
        /// What stands for a loopback address: a hash of the agent's namespace and name.
        own: u64,
    },
    /// A query parameter, as sent.
    QueryParameter(Box<str>),
    /// A2A `contextId`.
    ContextId,
    /// The session: `Mcp-Session-Id` and its like, else A2A `contextId`.
    Session,
    /// OpenAI `user`.
    User,
}

/// An attribute of a cookie: its name, and a value when it has one.
pub type CookieAttribute = (Box<str>, Option<Box<str>>);

/// A cookie that carries affinity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookiePolicy {
    /// Its name.
    pub name: Box<str>,
    /// `Path` of an issued cookie.
    pub path: Option<Box<str>>,
    /// Life time of an issued cookie; zero is a session cookie; `None` issues none (as Envoy does).
    pub ttl: Option<Duration>,
    /// Further attributes of an issued cookie, `SameSite=Lax` or `Secure`.
    pub attributes: Box<[CookieAttribute]>,
}

/// The policies of a rule. Several are combined as Envoy does: all that are present count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// Never empty; distinct.
    pub policies: Box<[HashPolicy]>,
}

/// What was found in a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Key {
    /// The conversation's number; `None` when the request says nothing.
    pub hash: Option<u64>,
    /// A cookie that was just made up: the response must carry this `Set-Cookie` value.
    pub set_cookie: Option<Box<str>>,
}

impl Affinity {
    /// Whether a policy reads what only the body says.
    pub fn needs_body(&self) -> bool {
        self.policies
            .iter()
            .any(|policy| matches!(policy, HashPolicy::ContextId | HashPolicy::User | HashPolicy::Session))
    }
}

/// The key of a request under a rule's affinity. `rng` makes up the value of a cookie that has to be issued.
pub fn key<H: Head>(
    affinity: &Affinity,
    head: &H,
    call: &Call,
    caller: &Caller,
    rng: &mut fastrand::Rng,
) -> Key {
    let mut key = Key::default();
    for policy in &affinity.policies {
        let hash = match policy {
            HashPolicy::Cookie(cookie) => cookie_hash(cookie, head, rng, &mut key.set_cookie),
            policy => stated(policy, head, call, caller),
        };
        key.hash = match (key.hash, hash) {
            // Envoy's combination, so that the order of policies counts.
            (Some(before), Some(hash)) => Some(before.rotate_left(1) ^ hash),
            (before, hash) => hash.or(before),
        };
    }
    key
}

/// The number by which a conversation chooses among weighted destinations: independent of its choice of endpoint.
pub fn split_hash(key: u64) -> u64 {
    hash::mix(key ^ SPLIT)
}

/// Makes the choice of a destination independent of the balancer's, which hashes the bare key.
const SPLIT: u64 = 0x7fb5_d329_728e_a185;

/// Hashes a key: the same in every process and on every machine, so that all sidecars agree.
///
/// Eight bytes a step by a folded 128-bit multiplication (the scheme of wyhash). Not meant to withstand someone who
/// looks for collisions: those could only make their own calls meet on one endpoint.
pub fn hash_bytes(data: &[u8]) -> u64 {
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
    let chunks = data.chunks_exact(8);
    let last = word(chunks.remainder());
    let hash =
        chunks.fold(fold(data.len() as u64 ^ SEED, PRIME), |hash, chunk| fold(hash ^ word(chunk), PRIME));
    hash::mix(fold(hash ^ last, SEED))
}

const SEED: u64 = 0x2d35_8dcc_aa6c_78a5;
const PRIME: u64 = 0x8bb8_4b93_962e_acc9;

/// The hash of what the request itself states.
fn stated<H: Head>(policy: &HashPolicy, head: &H, call: &Call, caller: &Caller) -> Option<u64> {
    let text = |value: &Option<Box<str>>| value.as_deref().map(|v| hash_bytes(v.as_bytes()));
    match policy {
        HashPolicy::Header(name) => head.header(name).map(|value| hash_bytes(&value)),
        HashPolicy::Cookie(_) => None,
        HashPolicy::SourceIp { own } if caller.ip.is_loopback() => Some(*own),
        HashPolicy::SourceIp { .. } => Some(match caller.ip {
            IpAddr::V4(ip) => hash_bytes(&ip.octets()),
            IpAddr::V6(ip) => hash_bytes(&ip.octets()),
        }),
        HashPolicy::QueryParameter(name) => {
            query_parameter(head.query(), name).map(|value| hash_bytes(value.as_bytes()))
        }
        HashPolicy::ContextId => text(&call.context_id),
        HashPolicy::Session => text(&call.session).or_else(|| text(&call.context_id)),
        HashPolicy::User => text(&call.user),
    }
}

fn cookie_hash<H: Head>(
    policy: &CookiePolicy,
    head: &H,
    rng: &mut fastrand::Rng,
    set_cookie: &mut Option<Box<str>>,
) -> Option<u64> {
    let sent = head.header("cookie").and_then(|cookies| Some(hash_bytes(cookie(&cookies, &policy.name)?)));
    if sent.is_some() {
        return sent;
    }
    let ttl = policy.ttl?;
    let value = format!("{:016x}", rng.u64(..));
    let hash = hash_bytes(value.as_bytes());
    *set_cookie = Some(set_cookie_text(policy, &value, ttl).into());
    Some(hash)
}

/// The value of a cookie, unquoted. Header lines are joined by `,` (see [`Head::header`]), cookies by `;`.
fn cookie<'c>(cookies: &'c [u8], name: &str) -> Option<&'c [u8]> {
    let value = cookies.split(|b| matches!(b, b';' | b',')).find_map(|pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    })?;
    Some(value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value))
        .filter(|v| !v.is_empty())
}

fn set_cookie_text(policy: &CookiePolicy, value: &str, ttl: Duration) -> String {
    let mut text = format!("{}=\"{value}\"", policy.name);
    if !ttl.is_zero() {
        let _ = write!(text, "; Max-Age={}", ttl.as_secs().max(1));
    }
    if let Some(path) = &policy.path {
        let _ = write!(text, "; Path={path}");
    }
    for (name, value) in &policy.attributes {
        let _ = match value {
            Some(value) => write!(text, "; {name}={value}"),
            None => write!(text, "; {name}"),
        };
    }
    text.push_str("; HttpOnly");
    text
}

/// Feeds arbitrary bytes to the reader of cookies: it must never panic, and what it finds must stand in the header.
pub fn fuzz(data: &[u8]) {
    if let Some(value) = cookie(data, "sid") {
        assert!(!value.is_empty() && data.windows(value.len()).any(|window| window == value));
    }
    if let Ok(query) = std::str::from_utf8(data) {
        let _ = query_parameter(Some(query), "sid");
    }
}

#[cfg(test)]
mod tests;
