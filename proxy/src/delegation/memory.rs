//! Chains that were verified and links that were signed, of one worker: a call finds both by comparing bytes.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use pilotfish_filters::authz::Claims;
use pilotfish_filters::delegation::Delegated;
use pilotfish_identity::{Credentials, Fingerprint, LiveIdentity};

use super::verify::{self, Verified, seconds, without_scheme};
use super::{LIFETIME, link};
use crate::tls::MeshPeer;

/// Places of each kind. What falls on a place that is taken replaces what was there.
const PLACES: usize = 512;
/// The most bytes of headers that are remembered of each kind; then all are forgotten.
const MOST_BYTES: usize = 2 << 20;
/// How much of a header's end is hashed: the newest signature, which no other header has.
const TAIL: usize = 32;

/// What one worker remembers.
#[derive(Debug, Default)]
pub struct Memory {
    verified: Places<Known>,
    signed: Places<Own>,
    begun: Places<Begun>,
}

/// A header that was verified.
#[derive(Debug)]
struct Known {
    text: Box<[u8]>,
    caller: Fingerprint,
    /// [`LiveIdentity::version`] by which it was.
    version: u64,
    verified: Verified,
}

/// A header that was signed.
#[derive(Debug)]
struct Own {
    acting: Option<Arc<Delegated>>,
    called: Box<str>,
    by: Arc<Credentials>,
    text: Rc<str>,
    /// Until when it is used, seconds since 1970: half its life.
    until: u64,
}

/// What a call that brought a token hands down.
#[derive(Debug)]
struct Begun {
    claims: Arc<Claims>,
    base: Option<Arc<Delegated>>,
    onward: Arc<Delegated>,
}

impl Memory {
    /// What a header proves that `caller` sent to `own`.
    ///
    /// # Errors
    /// As [`verify::verify`].
    pub fn verify(
        &self,
        text: &[u8],
        caller: &MeshPeer,
        own: &Credentials,
        live: &LiveIdentity,
    ) -> Result<Verified, Cow<'static, str>> {
        let (now, version) = (seconds(live.now()), live.version());
        let place = place(text.get(text.len().saturating_sub(TAIL)..));
        let leaf = &caller.peer.leaf;
        let found = self.verified.get(place, |known| {
            let same = known.version == version && known.caller == *leaf && *known.text == *text;
            (same && now < known.verified.until).then(|| known.verified.clone())
        });
        if let Some(found) = found {
            return Ok(found);
        }
        let verified = verify::verify(text, &caller.peer, without_scheme(&own.id), live, now)?;
        let known = Known { text: text.into(), caller: *leaf, version, verified: verified.clone() };
        self.verified.put(place, known, text.len() + verified.onward.links.len());
        Ok(verified)
    }

    /// The header for a call to `called` by `own`, for whom `acting` says. `None`: the key signs no statements.
    pub fn sign(
        &self,
        own: &Arc<Credentials>,
        called: &MeshPeer,
        acting: Option<&Arc<Delegated>>,
        live: &LiveIdentity,
    ) -> Option<Rc<str>> {
        let now = seconds(live.now());
        let id = without_scheme(&called.peer.id);
        let place = place((key_of(acting), id));
        let found = self.signed.get(place, |known| {
            let acts = match (&known.acting, acting) {
                (None, None) => true,
                (Some(known), Some(acting)) => Arc::ptr_eq(known, acting) || known == acting,
                _ => false,
            };
            let same = acts && *known.called == *id && Arc::ptr_eq(&known.by, own);
            (same && now < known.until).then(|| Rc::clone(&known.text))
        });
        if found.is_some() {
            return found;
        }
        let text: Rc<str> = link::write(own, id, acting.map(|acting| &**acting), now)?.into();
        let (called, until) = (id.into(), now + LIFETIME / 2);
        let kept = acting.map_or(0, |acting| acting.links.len());
        let own = Own { acting: acting.cloned(), called, by: Arc::clone(own), text: Rc::clone(&text), until };
        self.signed.put(place, own, text.len() + kept);
        Some(text)
    }

    /// For whom the own agent acts while it serves a call that brought a token.
    pub fn begin(&self, claims: &Arc<Claims>, base: Option<&Arc<Delegated>>) -> Arc<Delegated> {
        let place = place((&claims.principal, key_of(base)));
        let found = self.begun.get(place, |known| {
            let same = match (&known.base, base) {
                (None, None) => true,
                (Some(known), Some(base)) => Arc::ptr_eq(known, base),
                _ => false,
            };
            (same && Arc::ptr_eq(&known.claims, claims)).then(|| Arc::clone(&known.onward))
        });
        if let Some(found) = found {
            return found;
        }
        let onward = Delegated {
            origin: claims.principal.clone(),
            ..base.map_or_else(Delegated::default, |base| Delegated::clone(base))
        };
        let onward = Arc::new(onward);
        let begun = Begun { claims: Arc::clone(claims), base: base.cloned(), onward: Arc::clone(&onward) };
        self.begun.put(place, begun, 2 * onward.links.len() + 4096);
        onward
    }
}

/// What tells those apart that are acted for, nearly always.
fn key_of(acting: Option<&Arc<Delegated>>) -> Option<(&[u8], &str, &str)> {
    let acting = acting?;
    let links = acting.links.as_bytes();
    let tail = links.get(links.len().saturating_sub(TAIL)..).unwrap_or_default();
    Some((tail, &acting.origin, acting.agents.last().map_or("", |last| &last.id)))
}

fn place(key: impl Hash) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as usize % PLACES
}

/// One of each place; no more than it is worth.
#[derive(Debug)]
struct Places<T> {
    all: RefCell<Vec<Option<Box<T>>>>,
    bytes: Cell<usize>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Places { all: RefCell::default(), bytes: Cell::new(0) }
    }
}

impl<T> Places<T> {
    fn get<R>(&self, place: usize, look: impl FnOnce(&T) -> Option<R>) -> Option<R> {
        self.all.borrow().get(place)?.as_deref().and_then(look)
    }

    fn put(&self, place: usize, what: T, bytes: usize) {
        let mut all = self.all.borrow_mut();
        if self.bytes.get() + bytes > MOST_BYTES {
            all.clear();
            self.bytes.set(0);
        }
        if all.is_empty() {
            all.resize_with(PLACES, || None);
        }
        if let Some(slot) = all.get_mut(place) {
            *slot = Some(Box::new(what));
            self.bytes.set(self.bytes.get() + bytes);
        }
    }
}
