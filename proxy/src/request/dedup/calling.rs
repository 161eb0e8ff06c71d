//! The calling side of a call with a key: each try says for which window it is, and goes only where the call may have been
//! begun before.

use std::net::SocketAddr;
use std::sync::Arc;

use pilotfish_filters::dedup::{Pin, Tried, Where};
use pilotfish_filters::endpoint::Endpoint;
use pilotfish_filters::retry::{Happened, Keyed};
use pilotfish_filters::verdict::{Deny, Reason};

use super::{EPOCH, key, unknown};
use crate::http::{RequestHead, ResponseHead};
use crate::request::ctx::Ctx;
use crate::request::repeat::attempt::Unsent;
use crate::request::repeat::{Sent, Task};
use crate::request::respond::Failed;
use crate::worker::Worker;

/// Refusals of the receiving sidecar that come before anything is sent to its agent.
const NOTHING_DONE: [Reason; 12] = [
    Reason::DedupFull,
    Reason::ConnectFailed,
    Reason::ConnectTimeout,
    Reason::NoEndpoint,
    Reason::Overflow,
    Reason::RateLimited,
    Reason::Overloaded,
    Reason::MemoryPressure,
    Reason::TooManyConnections,
    Reason::TooManyHops,
    Reason::CallCycle,
    Reason::FanOut,
];

/// A call with a key over its tries.
pub struct Calling {
    pin: Pin,
    /// The key in a message, which the receiving sidecar does not see.
    message: Option<Box<str>>,
    /// What the try under way is for.
    epoch: Option<Arc<str>>,
    /// Whether a try was sent again because its window was another.
    adapted: bool,
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
        let message = key::message_id(task.call).map(Box::from);
        Ok(Some(Calling { pin, message, epoch: None, adapted: false }))
    }

    /// The only endpoint that it may go to, if that is so already.
    ///
    /// # Errors
    /// `outcome-unknown`: it may not be sent at all.
    pub fn only(&self) -> Result<Option<SocketAddr>, Deny> {
        match self.pin.next() {
            Where::Anywhere => Ok(None),
            Where::Only(endpoint, _) => Ok(Some(endpoint)),
            Where::Nowhere => Err(self.lost()),
        }
    }

    /// The only endpoint that it may go to is not there any more.
    pub fn gone(&mut self) -> Option<Deny> {
        self.pin.gone();
        self.pin.is_bound().then(|| self.lost())
    }

    /// Begins a try at `endpoint`, which is a sidecar or not, and says so in the head. False: another call with the same key went
    /// elsewhere meanwhile, so an endpoint has to be chosen anew.
    pub fn choose(&mut self, endpoint: &Endpoint, is_mesh: bool, head: &mut RequestHead) -> bool {
        self.epoch = match self.pin.next() {
            _ if !is_mesh => None,
            Where::Only(at, epoch) if at == endpoint.addr => Some(epoch),
            _ => endpoint.dedup_epoch(),
        };
        if let Some(epoch) = &self.epoch
            && !self.pin.choose(endpoint.addr, epoch)
        {
            return false;
        }
        let own = |name: &str, value: Option<&str>, head: &mut RequestHead| match value {
            Some(value) => drop(head.headers.set(name, value.as_bytes())),
            None => drop(head.headers.remove(name)),
        };
        own(EPOCH, self.epoch.as_deref(), head);
        own(key::KEY, self.message.as_deref().filter(|_| is_mesh), head);
        true
    }

    /// What is known of the endpoint of the try under way.
    pub fn keyed(&self) -> Keyed {
        if self.epoch.is_some() { Keyed::There } else { Keyed::No }
    }

    /// Ends a try.
    pub fn tried(&mut self, tried: &mut Result<Sent, Unsent>, endpoint: &Endpoint, is_mesh: bool) -> Then {
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
        let says = |reason: &Reason| {
            is_mesh && sent.head.headers.get("pilotfish-reason") == Some(reason.word().as_bytes())
        };
        if says(&Reason::DedupEpoch) {
            self.pin.tried(Tried::OtherEpoch);
            let again = !self.adapted && !self.pin.is_bound();
            self.adapted = true;
            return if again { Then::AtOnce } else { Then::Never };
        }
        if NOTHING_DONE.iter().any(says) {
            self.pin.tried(Tried::NotStarted);
            return Then::Policy;
        }
        self.pin.tried(Tried::MayHaveStarted);
        if self.epoch.is_some() { Then::Never } else { Then::Policy }
    }

    /// What the caller is told after the last try: that nobody knows, if that is so.
    pub fn failed(&self, unsent: Unsent) -> Failed {
        let by_upstream = unsent.happened().is_some_and(|happened| !matches!(happened, Happened::Answered(_)));
        if by_upstream && self.pin.is_bound() { self.lost().into() } else { unsent.into() }
    }

    /// The answer to the last try, unless it says only that nobody knows.
    pub fn answered(&self, sent: &Sent) -> Result<(), Deny> {
        let other = sent.head.headers.get("pilotfish-reason") == Some(Reason::DedupEpoch.word().as_bytes());
        if other && self.pin.is_bound() { Err(self.lost()) } else { Ok(()) }
    }

    fn lost(&self) -> Deny {
        unknown("an endpoint may have begun this call, and it cannot be asked any more")
    }
}

/// The window that the receiving sidecar says it has; not for the agent.
fn take_epoch(head: &mut ResponseHead) -> Option<Box<str>> {
    let epoch = std::str::from_utf8(head.headers.get(EPOCH)?).ok().map(Box::from);
    head.headers.remove(EPOCH);
    epoch.filter(|epoch: &Box<str>| (1..=64).contains(&epoch.len()))
}
