//! A whole chain, as its receiver takes it or not.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use pilotfish_filters::authz::{Chain, Principal};
use pilotfish_filters::delegation::{Delegated, MOST_AGENTS};
use pilotfish_identity::{LiveIdentity, Peer, SpiffeId, Usage};

use super::link::{self, Link, Statement};
use super::{ACTED_FOR, LIFETIME, LONGEST, MOST_LINKS, SKEW};
use crate::tls::principal;

/// What a chain proves.
#[derive(Debug, Clone)]
pub struct Verified {
    /// For whom the caller acts; `None`: for itself.
    pub chain: Option<Arc<Chain>>,
    /// For whom the own agent acts while it serves this call.
    pub onward: Arc<Delegated>,
    /// Until when this may be remembered, seconds since 1970.
    pub until: u64,
}

/// Verifies a header that `caller` sent to `own` (a SPIFFE ID without `spiffe://`), at `now` (seconds since 1970).
///
/// # Errors
/// What is wrong with it, for a person; nothing that is in it is repeated.
pub fn verify(
    text: &[u8],
    caller: &Peer,
    own: &str,
    live: &LiveIdentity,
    now: u64,
) -> Result<Verified, Cow<'static, str>> {
    if text.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes").into());
    }
    let text = std::str::from_utf8(text).map_err(|_| "it cannot be read")?;
    let links = text.split('~').map(Link::read).collect::<Option<Vec<Link>>>().ok_or("it cannot be read")?;
    if links.len() > MOST_LINKS {
        return Err(format!("it has more than {MOST_LINKS} links").into());
    }
    let caller_id = without_scheme(&caller.id);
    let mut until = u64::MAX;
    let mut agents: Vec<Principal> = Vec::with_capacity(links.len());
    let mut begins: usize = 0;
    for (at, link) in links.iter().enumerate() {
        let next = links.get(at + 1).map(|next| &next.statement);
        let said = &link.statement;
        let shown_to = next.map_or(own, |next| next.caller.as_str());
        if said.called != shown_to {
            return Err("a link is for somebody else than the one who shows it".into());
        }
        let before = text.get(..begins.saturating_sub(1)).unwrap_or_default();
        if (at == 0) != said.before.is_empty() || (at > 0 && said.before != link::digest_of(before)) {
            return Err("a link does not follow the one before it".into());
        }
        check_times(said, next, now)?;
        if said.unproved.is_some() && at > 0 {
            return Err("only a first link may name agents that nobody signed for".into());
        }
        let signer = signer(link, next.is_none().then_some(caller), live)?;
        if without_scheme(&signer.id) != said.caller || (next.is_none() && said.caller != caller_id) {
            return Err("a link is signed by somebody else than it says".into());
        }
        if !signer.has_signed(&link.signed, &link.signature) {
            return Err("a link's signature is wrong".into());
        }
        let lasts = if next.is_none() { said.expires + SKEW } else { said.signed + ACTED_FOR + SKEW };
        until = until.min(lasts).min(seconds(signer.not_after));
        agents.extend(unproved(said)?);
        agents.push(principal(&signer.id));
        begins += text.get(begins..).and_then(|rest| rest.find('~')).map_or(0, |length| length + 1);
    }
    let Some(newest) = links.last() else { return Err("it has no links".into()) };
    let origin = links.iter().map(|link| link.statement.origin.as_str()).find(|origin| !origin.is_empty());
    let origin: Box<str> = origin.unwrap_or_default().into();
    let uncertain = links.iter().any(|link| link.statement.unproved.is_some());
    let mut kept = text.to_owned();
    if newest.certificates.is_none() {
        link::add_certificates(&mut kept, &caller.chain);
    }
    let signed = links.iter().map(|link| link.statement.signed).min().unwrap_or(now);
    let before = agents.len().saturating_sub(1);
    let chain = chain(&origin, agents.get(..before).unwrap_or_default(), uncertain).map(Arc::new);
    let links = kept.into();
    let onward =
        Delegated { origin, agents, links, signed, received: now, uncertain, ..Delegated::default() };
    Ok(Verified { chain, onward: Arc::new(onward), until })
}

/// For whom a caller acts; `None`: for itself.
pub fn chain(origin: &str, before: &[Principal], uncertain: bool) -> Option<Chain> {
    if origin.is_empty() && before.is_empty() && !uncertain {
        return None;
    }
    let first = || before.first().filter(|_| !uncertain).map_or("", |first| &*first.id);
    let origin = if origin.is_empty() { first() } else { origin };
    Some(Chain { origin: origin.into(), agents: before.to_vec(), uncertain })
}

/// A link is for the call at hand, or was when that call's receiver got it.
fn check_times(said: &Statement, next: Option<&Statement>, now: u64) -> Result<(), Cow<'static, str>> {
    let late = |at: u64, limit: u64| at > limit.saturating_add(SKEW);
    if late(said.signed, now) || late(said.expires, said.signed.saturating_add(LIFETIME)) {
        return Err("a link is from tomorrow, or lives too long".into());
    }
    let shown = next.map_or(now, |next| next.received);
    if late(shown, said.expires) || late(said.signed, shown) {
        return Err("a link has expired".into());
    }
    match next {
        Some(next) if late(next.received, next.signed) => Err("a link follows a call before it came".into()),
        Some(_) if late(now, said.signed.saturating_add(ACTED_FOR)) => Err("a link has expired".into()),
        _ => Ok(()),
    }
}

/// Who signed: by the certificates of the link, else who is at the other end of the connection.
fn signer<'a>(
    link: &Link,
    caller: Option<&'a Peer>,
    live: &LiveIdentity,
) -> Result<Cow<'a, Peer>, Cow<'static, str>> {
    match (&link.certificates, caller) {
        (Some(chain), _) => match live.verify(chain, Usage::Client) {
            Ok(peer) => Ok(Cow::Owned(peer)),
            Err(why) => Err(format!("a link's certificate is not taken: {why}").into()),
        },
        (None, Some(caller)) => Ok(Cow::Borrowed(caller)),
        (None, None) => Err("a link lacks its certificate".into()),
    }
}

fn unproved(said: &Statement) -> Result<Vec<Principal>, Cow<'static, str>> {
    let names = said.unproved.as_deref().unwrap_or_default();
    if names.len() > MOST_AGENTS {
        return Err("a link names too many agents".into());
    }
    let unknown = Delegated::unknown();
    let read = |name: &String| match SpiffeId::parse(&format!("spiffe://{name}")) {
        Ok(id) => Some(principal(&id)),
        Err(_) => (**name == *unknown.id).then(|| unknown.clone()),
    };
    names.iter().map(read).collect::<Option<_>>().ok_or_else(|| "a link names an agent that cannot be".into())
}

/// A SPIFFE ID as links have it.
pub fn without_scheme(id: &SpiffeId) -> &str {
    id.as_str().trim_start_matches("spiffe://")
}

/// Seconds since 1970.
pub fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
