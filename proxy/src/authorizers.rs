//! External authorizers: how they are asked, how many at a time, and answers that hold for a while.

mod by_grpc;
mod by_http;
mod kept;
mod metadata;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use pilotfish_filters::authorizer::{Authorizer, Protocol, may_set};
use pilotfish_filters::clock::Micros;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::ask::{self, Question};
use crate::http::RequestHead;
use crate::server::Shared;
use crate::telemetry::log;
use kept::Kept;

/// Questions to authorizers under way at a time; further ones wait in line, as long as one may take. Half of what the sidecar may
/// ask at a time, so that a slow authorizer leaves room for key sets and tokens.
const AT_ONCE: usize = 32;
/// Longest answer, bytes.
const LONGEST: usize = 128 * 1024;
/// What headers that an answer sets may have together, bytes; a sidecar reads heads of 64 KiB.
const LONGEST_HEADERS: usize = 32 * 1024;
/// How often it is told that an authorizer cannot be asked.
const TELL: Duration = Duration::from_secs(10);

/// Those in use.
#[derive(Debug)]
pub struct Authorizers {
    places: Semaphore,
    /// Behind a lock, which only calls take that a CUSTOM policy of an authorizer with a cache is for.
    kept: Mutex<Kept>,
    told: AtomicU64,
}

impl Default for Authorizers {
    fn default() -> Self {
        Authorizers { places: Semaphore::const_new(AT_ONCE), kept: Mutex::default(), told: AtomicU64::new(0) }
    }
}

/// The beginning of a call's body.
#[derive(Debug, Default)]
pub struct Beginning {
    /// So much of it as an authorizer may want.
    pub bytes: Vec<u8>,
    /// Whether that is all of it.
    pub whole: bool,
}

/// What is asked about.
pub struct Check<'a> {
    /// The call.
    pub head: &'a RequestHead,
    /// The part of its body that goes along.
    pub body: &'a [u8],
    /// The caller's address.
    pub source: SocketAddr,
    /// Its SPIFFE ID.
    pub principal: Option<&'a str>,
    /// The agent's address.
    pub destination: Option<SocketAddr>,
    /// Its own SPIFFE ID.
    pub own: Option<&'a str>,
    /// The server name of the connection.
    pub sni: Option<&'a str>,
    /// The call's number in logs.
    pub id: Option<&'a str>,
}

/// A header field.
pub type Field = (Box<str>, Box<[u8]>);

/// What an authorizer answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The call goes on.
    Allowed(Allowed),
    /// It does not.
    Refused(Refused),
}

/// What is changed in a call that is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// In the call.
    pub to_upstream: Vec<Edit>,
    /// Taken from the call.
    pub remove: Vec<Box<str>>,
    /// In the answer.
    pub to_downstream: Vec<Edit>,
    /// Parameters of the call's query, in place of those that have the name.
    pub query_set: Vec<(Box<str>, Box<str>)>,
    /// Parameters that are taken from it.
    pub query_remove: Vec<Box<str>>,
    /// What it says besides, for policies' conditions (`experimental.envoy.filters.http.ext_authz[...]`).
    pub metadata: Option<Arc<Value>>,
}

/// One change of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Its name.
    pub name: Box<str>,
    /// The value.
    pub value: Box<[u8]>,
    /// What happens to what is there.
    pub how: How,
}

/// What happens to a value that is there (Envoy's `HeaderAppendAction`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It stays, and the new one comes behind it.
    Append,
    /// It stays, and the new one is dropped.
    AddIfAbsent,
    /// It is replaced; without one the new one is added.
    Overwrite,
    /// It is replaced; without one nothing happens.
    OverwriteIfThere,
    /// It is taken away.
    Remove,
}

/// What the caller gets of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<Field>,
    /// The body.
    pub body: Bytes,
}

impl Authorizers {
    /// An answer that still holds.
    pub fn kept(&self, key: &[u8], now: Micros) -> Option<Answer> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(key, now)
    }

    /// Remembers an answer.
    pub fn keep(&self, key: Box<[u8]>, answer: &Answer, until: Micros) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).put(key, answer, until);
    }

    /// Tells, now and then, that an authorizer cannot be asked.
    pub fn tell(&self, authorizer: &Authorizer, why: &str, now: Micros) {
        let last = self.told.load(Relaxed);
        let early = last != 0 && now.since(Micros(last)) < TELL;
        if early || self.told.compare_exchange(last, now.0.max(1), Relaxed, Relaxed).is_err() {
            return;
        }
        let then = if authorizer.fail_open { "calls go on without it" } else { "calls are refused" };
        log::warn!("an authorizer cannot be asked", authorizer = authorizer.name, why = why, then = then);
    }
}

/// Asks one.
///
/// # Errors
/// It cannot be asked, or its answer is none.
pub async fn ask(shared: &Arc<Shared>, authorizer: &Authorizer, check: &Check<'_>) -> Result<Answer, String> {
    let request = match &authorizer.protocol {
        Protocol::Grpc { context } => by_grpc::question(&authorizer.origin, context, authorizer.body, check)?,
        Protocol::Http(http) => by_http::question(&authorizer.origin, http, check)?,
    };
    let asking = async {
        let _place = shared.authorizers.places.acquire().await.map_err(|error| error.to_string())?;
        ask::ask(shared, question(authorizer, request)).await
    };
    let answer = tokio::time::timeout(authorizer.timeout, asking).await;
    let answer = answer.map_err(|_| format!("no answer within {:?}", authorizer.timeout))??;
    let answer = match &authorizer.protocol {
        Protocol::Grpc { .. } => by_grpc::answer(&answer)?,
        Protocol::Http(http) => by_http::answer(http, &answer)?,
    };
    checked(answer)
}

fn question(authorizer: &Authorizer, request: Request<Bytes>) -> Question {
    let tls = &authorizer.tls;
    let both = |(chain, key): &(String, String)| (PathBuf::from(chain), PathBuf::from(key));
    Question {
        h2: matches!(authorizer.protocol, Protocol::Grpc { .. }),
        roots: tls.ca_certificates.as_ref().map(PathBuf::from),
        client: tls.client.as_ref().map(both),
        refusals: matches!(authorizer.protocol, Protocol::Http(_)),
        ..Question::new(request, authorizer.timeout, LONGEST)
    }
}

/// Leaves out what no authorizer may set. A refusal stays one, whatever is wrong with it.
fn checked(answer: Answer) -> Result<Answer, String> {
    let mut size = 0;
    let mut fits = |name: &str, value: &[u8]| {
        size += name.len() + value.len();
        size <= LONGEST_HEADERS
    };
    match answer {
        Answer::Allowed(mut allowed) => {
            let edits = || allowed.to_upstream.iter().chain(&allowed.to_downstream);
            if let Some(edit) = edits().find(|edit| !is_name(&edit.name) || !is_value(&edit.value)) {
                let name: String = edit.name.chars().filter(|c| c.is_ascii_graphic()).take(40).collect();
                return Err(format!("its answer sets the header {name:?}, which cannot be sent so"));
            }
            let mut all = edits().all(|edit| fits(&edit.name, &edit.value));
            all &= allowed.remove.iter().all(|name| fits(name, b""));
            all &= allowed.query_set.iter().all(|(name, value)| fits(name, value.as_bytes()));
            all &= allowed.query_remove.iter().all(|name| fits(name, b""));
            if !all {
                return Err(format!("its answer changes more than {LONGEST_HEADERS} bytes"));
            }
            allowed.to_upstream.retain(|edit| may_set(&edit.name));
            allowed.to_downstream.retain(|edit| may_set(&edit.name));
            allowed.remove.retain(|name| may_set(name));
            Ok(Answer::Allowed(allowed))
        }
        Answer::Refused(mut refused) => {
            refused.headers.retain(|(name, value)| {
                may_set(name) && is_name(name) && is_value(value) && fits(name, value)
            });
            Ok(Answer::Refused(refused))
        }
    }
}

/// Whether it is a header's name (RFC 9110 section 5.6.2), or a pseudo header's, which nobody may set anyway.
fn is_name(name: &str) -> bool {
    let name = name.strip_prefix(':').unwrap_or(name);
    http::HeaderName::from_bytes(name.as_bytes()).is_ok()
}

/// Whether it is a header's value: nothing that would end it.
fn is_value(value: &[u8]) -> bool {
    http::HeaderValue::from_bytes(value).is_ok()
}

#[cfg(test)]
mod tests;
