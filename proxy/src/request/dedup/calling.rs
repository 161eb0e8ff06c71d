//! The calling side of a call with a key: each try says for which window it is, and goes only where the call may have been
//! begun before.

use std::net::SocketAddr;
use std::sync::Arc;

use pilotfish_filters::dedup::{Pin, Tried, Where};
use pilotfish_filters::endpoint::Endpoint;
use pilotfish_filters::plan::Plan;
use pilotfish_filters::retry::Keyed;
use pilotfish_filters::verdict::{Deny, Reason};

use super::{EPOCH, key, unknown};
use crate::http::{RequestHead, ResponseHead};
use crate::request::ctx::Ctx;
use crate::request::repeat::attempt::Unsent;
use crate::request::repeat::course::refused_unseen;
use crate::request::repeat::{Sent, Task};
use crate::request::respond::Failed;
use crate::request::select::{self, Selected, Wish};
use crate::worker::Worker;

/// A call with a key over its tries.
pub struct Calling {
    pin: Pin,
    /// The key in a message, which the receiving sidecar does not see.
    message: Option<Box<str>>,
    /// What the try under way is for.
    epoch: Option<Arc<str>>,
    /// Whether the last try was refused because its window was another.
    other_epoch: bool,
    /// The endpoint whose window is known since it refused a try that was for another; the call is sent there at once.
    adapted: Option<SocketAddr>,
}

/// What follows a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// What the retry policy says.
    Policy,
    /// Another try at once: nothing was done, and the window is known now.
    AtOnce,
    /// None: another would get the same answer.
    Never,
}

impl Calling {
    /// `None`: the call has no key.
    ///
    /// # Errors
    /// `dedup-full`: no more keys can be remembered.
    pub fn begin(
        worker: &Worker,
        task: &Task<'_, '_>,
        ctx: &Ctx<'_>,
        head: &RequestHead,
    ) -> Result<Option<Calling>, Deny> {
        let Some(key) = key::of_call(head, task.call) else { return Ok(None) };
        let (dedup, settings) = (&worker.shared.dedup, task.plan.own().dedup);
        let id = key::id(ctx, head, &key);
        let Some(pin) = dedup.pins.take(id, settings, worker.shared.clock.now()) else {
            let detail = format!("{} keys are remembered, and none may be forgotten yet", settings.keys);
            return Err(Deny::with(Reason::DedupFull, detail));
        };
        let message = key::message_id(task.call).filter(|_| key::is_message(&key)).map(Box::from);
        Ok(Some(Calling { pin, message, epoch: None, other_epoch: false, adapted: None }))
    }

    /// Begins a try at `endpoint`, which is a sidecar or not, and says so in the head. False: another call with the same key went
    /// elsewhere meanwhile, so an endpoint has to be chosen anew.
    pub fn choose(&mut self, endpoint: &Endpoint, is_mesh: bool, head: &mut RequestHead) -> bool {
        self.epoch = match self.pin.next() {
            Where::Only(at, epoch) if is_mesh && at == endpoint.addr => Some(epoch),
            Where::Only(at, _) if at == endpoint.addr => {
                // It was a sidecar, and is none any more.
                self.pin.gone();
                return false;
            }
            _ if is_mesh => endpoint.dedup_epoch(),
            _ => None,
        };
        if let Some(epoch) = &self.epoch
            && !self.pin.choose(endpoint.addr, epoch)
        {
            return false;
        }
        say(head, EPOCH, self.epoch.as_deref());
        say(head, key::KEY, self.message.as_deref().filter(|_| is_mesh));
        true
    }

    /// What is known of the endpoint of the try under way.
    pub fn keyed(&self) -> Keyed {
        if self.epoch.is_some() { Keyed::There } else { Keyed::No }
    }

    /// Ends a try.
    pub fn tried(&mut self, tried: &mut Result<Sent, Unsent>, endpoint: &Endpoint, is_mesh: bool) -> Then {
        self.other_epoch = false;
        let sent = match tried {
            Ok(sent) => sent,
            Err(unsent) => {
                let not_started = match unsent.happened() {
                    Some(happened) => happened.never_started(),
                    None => matches!(unsent, Unsent::Refused(_) | Unsent::NotConnected(_)),
                };
                self.pin.tried(if not_started { Tried::NotStarted } else { Tried::MayHaveStarted });
                return Then::Policy;
            }
        };
        if is_mesh && let Some(epoch) = take_epoch(&mut sent.head) {
            endpoint.stats.learn_epoch(&epoch);
        }
        let reason = sent.head.headers.get("pilotfish-reason").filter(|_| is_mesh);
        self.other_epoch = reason == Some(Reason::DedupEpoch.word().as_bytes());
        if self.other_epoch {
            self.pin.tried(Tried::OtherEpoch);
            let again = self.adapted.is_none() && !self.pin.is_bound();
            self.adapted = Some(endpoint.addr);
            return if again { Then::AtOnce } else { Then::Never };
        }
        if is_mesh && refused_unseen(&sent.head).is_some() {
            self.pin.tried(Tried::NotStarted);
            return Then::Policy;
        }
        self.pin.tried(Tried::MayHaveStarted);
        if self.epoch.is_some() { Then::Never } else { Then::Policy }
    }
}

/// The only endpoint that a call may go to, if that is so already.
///
/// # Errors
/// `outcome-unknown`: it may not be sent at all.
pub fn only(calling: &Option<Calling>) -> Result<Option<SocketAddr>, Deny> {
    let Some(calling) = calling else { return Ok(None) };
    match calling.pin.next() {
        Where::Anywhere => Ok(calling.adapted.filter(|_| calling.other_epoch)),
        Where::Only(endpoint, _) => Ok(Some(endpoint)),
        Where::Nowhere => Err(lost()),
    }
}

/// Chooses an endpoint, or finds the one where the call may have been begun.
///
/// # Errors
/// `outcome-unknown`: it is not there any more; those of [`select::select`].
pub fn select<'p>(
    worker: &Worker,
    plan: &'p Plan,
    wish: &Wish<'_>,
    calling: &mut Option<Calling>,
) -> Result<Selected<'p>, Deny> {
    let Some(endpoint) = only(calling)? else { return select::select(worker, plan, wish) };
    let bound = calling.as_ref().is_some_and(|calling| calling.pin.is_bound());
    if let Some(selected) = select::only(worker, plan, wish, endpoint) {
        // A limit or a breaker keeps it from being asked, for now.
        return selected.map_err(|deny| if bound { lost() } else { deny });
    }
    if let Some(calling) = calling {
        calling.pin.gone();
        if calling.pin.is_bound() {
            return Err(lost());
        }
    }
    select::select(worker, plan, wish)
}

/// What the caller is told of its last try, which brought no answer: that nobody knows, if that is so.
pub fn failed(calling: &Option<Calling>, unsent: Unsent) -> Failed {
    let bound = calling.as_ref().is_some_and(|calling| calling.pin.is_bound());
    if bound && unsent.happened().is_some() { lost().into() } else { unsent.into() }
}

/// Whether the answer to the last try is one for the caller.
///
/// # Errors
/// `outcome-unknown`: it says only that nobody knows.
pub fn answered(calling: &Option<Calling>) -> Result<(), Deny> {
    match calling {
        Some(calling) if calling.other_epoch && calling.pin.is_bound() => Err(lost()),
        _ => Ok(()),
    }
}

fn lost() -> Deny {
    unknown("an endpoint may have begun this call, and it cannot be asked any more")
}

/// Writes a field, or takes away what an earlier try said.
fn say(head: &mut RequestHead, name: &str, value: Option<&str>) {
    match value {
        Some(value) => head.headers.set(name, value.as_bytes()),
        None => head.headers.remove(name),
    };
}

/// The window that the receiving sidecar says it has; not for the agent.
fn take_epoch(head: &mut ResponseHead) -> Option<Box<str>> {
    let epoch = std::str::from_utf8(head.headers.get(EPOCH)?).ok();
    let epoch = epoch.filter(|epoch| (1..=64).contains(&epoch.len())).map(Box::from);
    head.headers.remove(EPOCH);
    epoch
}
