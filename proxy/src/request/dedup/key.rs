//! What a call says of its repetition, and the scope within which its key counts.

use aws_lc_rs::digest::{Context, SHA256};
use http::Method;
use pilotfish_filters::call::Call;
use pilotfish_filters::dedup;
use pilotfish_filters::dedup::window::Id;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::{Known, RequestHead};
use crate::listen::Direction;
use crate::request::ctx::Ctx;

/// Which window the try is for, in a request; which window there is, in an answer. Between sidecars only.
pub const EPOCH: &str = "x-pilotfish-dedup-epoch";
/// The key of a call that has it elsewhere (A2A's `messageId`). Between sidecars only.
pub const KEY: &str = "x-pilotfish-idempotency-key";

/// What a call with a key says.
#[derive(Debug)]
pub struct Asked {
    /// The key, marked by where it was.
    pub key: Box<str>,
    /// The window that its caller's sidecar means.
    pub epoch: Option<Box<[u8]>>,
}

/// Takes what sidecars say to each other out of the head; nothing of it was said by others ([`crate::request::identify`]).
/// `None`: a call without a key, or one that may be done twice.
///
/// # Errors
/// `bad-request`: what the caller sends is no key.
pub fn take(head: &mut RequestHead) -> Result<Option<Asked>, Deny> {
    const OF_SIDECARS: u32 = Known::MessageKey.bit() | Known::DedupEpoch.bit();
    if !head.headers.may_have(Known::IdempotencyKey.bit() | OF_SIDECARS) {
        return Ok(None);
    }
    let own = head.headers.known(Known::IdempotencyKey).next().is_some();
    let of_message: Option<Box<[u8]>> = head.headers.known(Known::MessageKey).next().map(Box::from);
    let epoch = head.headers.known(Known::DedupEpoch).next().map(Box::from);
    head.headers.remove_known(OF_SIDECARS);
    if !has_effect(head) || !(own || of_message.is_some()) {
        return Ok(None);
    }
    let key = match of_message.filter(|_| !own) {
        Some(id) => dedup::key(&id).map(|id| of_id(&id)),
        None => header(head)?,
    };
    let no_key = || {
        let longest = dedup::LONGEST_KEY;
        Deny::with(Reason::BadRequest, format!("a key is 1 to {longest} printable ASCII characters"))
    };
    Ok(Some(Asked { key: key.ok_or_else(no_key)?, epoch }))
}

/// The key of a call that the agent sends: its header, else the id of its message. `None`: it has none, or what is none; the
/// receiving sidecar tells the agent of the latter.
pub fn of_call(head: &RequestHead, call: &Call) -> Option<Box<str>> {
    if !head.headers.may_have(Known::IdempotencyKey.bit()) {
        let id = message_id(call).filter(|_| has_effect(head))?;
        return Some(of_id(id));
    }
    if has_effect(head) { header(head).ok().flatten() } else { None }
}

/// The id of an A2A message, when it can be a key.
pub fn message_id(call: &Call) -> Option<&str> {
    call.message_id.as_deref().filter(|id| dedup::key(id.as_bytes()).as_deref() == Some(*id))
}

/// Whether it is the id of a message.
pub fn is_message(key: &str) -> bool {
    key.starts_with("message ")
}

/// Whether doing the call twice could matter.
fn has_effect(head: &RequestHead) -> bool {
    !head.method.is_safe() && head.method != Method::CONNECT && head.upgrade().is_none()
}

/// A message's id and a header's key are not the same, even when they look the same.
fn of_id(id: &str) -> Box<str> {
    format!("message {id}").into()
}

/// The caller's own key (draft-ietf-httpapi-idempotency-key-header), of which there may be one only.
fn header(head: &RequestHead) -> Result<Option<Box<str>>, Deny> {
    let mut values = head.headers.known(Known::IdempotencyKey);
    let (first, second) = (values.next().unwrap_or_default(), values.next());
    if second.is_some() {
        return Err(Deny::with(Reason::BadRequest, "more than one idempotency-key"));
    }
    Ok(dedup::key(first).map(|key| format!("header {key}").into()))
}

/// The digest of scope and key. A caller is who it proved to be; without a proof all of one address are one.
pub fn id(ctx: &Ctx<'_>, head: &RequestHead, key: &str) -> Id {
    let caller = match (ctx.mesh, ctx.direction) {
        (Some(mesh), _) => mesh.peer.id.to_string(),
        // The sidecar's own agent, whichever way it connects.
        (None, Direction::Outbound) => String::new(),
        (None, Direction::Inbound) => ctx.peer.ip().to_canonical().to_string(),
    };
    let mut digest = Context::new(&SHA256);
    let authority = head.authority().to_ascii_lowercase();
    for part in [&caller, head.method.as_str(), &authority, head.path_and_query(), key] {
        // The length first, so that no two scopes give the same bytes.
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    bytes(digest)
}

/// A finished SHA-256.
pub fn bytes(digest: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.finish().as_ref());
    bytes
}
