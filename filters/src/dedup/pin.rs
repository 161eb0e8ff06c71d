//! What the calling sidecar may do with a call that has a key: once an endpoint may have begun it, it is repeated only there,
//! and only while that endpoint's window is the same (its epoch), because only that window knows whether it was done.

use std::net::SocketAddr;
use std::sync::Arc;

/// Where the next try of a keyed call may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// To any endpoint: none can have begun it.
    Anywhere,
    /// Only to this endpoint, with this epoch; over what the retry policy says of previous hosts.
    Only(SocketAddr, Arc<str>),
    /// Nowhere: it may have been done, and nobody can say whether it was. The caller gets `outcome-unknown`.
    Nowhere,
    /// Nowhere: it may have been done by an endpoint that does not deduplicate. The caller gets the failure as it is.
    NotDeduplicated,
}

/// How a try ended that brought no answer for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// The endpoint provably did not begin: no connection, a refused stream, a refusal by its sidecar before anything was done.
    NotStarted,
    /// It may have begun.
    MayHaveStarted,
    /// Its sidecar has another window than the one that the try was for; nothing was begun by this try.
    OtherEpoch,
}

/// The memory of one keyed call over its tries.
#[derive(Debug, Default)]
pub struct Pin(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Free,
    Bound(SocketAddr, Arc<str>),
    Lost,
    Unsafe,
}

impl Pin {
    /// Where the next try may go.
    pub fn next(&self) -> Where {
        match &self.0 {
            State::Free => Where::Anywhere,
            State::Bound(endpoint, epoch) => Where::Only(*endpoint, Arc::clone(epoch)),
            State::Lost => Where::Nowhere,
            State::Unsafe => Where::NotDeduplicated,
        }
    }

    /// Whether an endpoint may have begun the call, and only its window can tell. Who gives up then says `outcome-unknown`.
    pub fn is_bound(&self) -> bool {
        matches!(self.0, State::Bound(..) | State::Lost)
    }

    /// Takes in a try at `endpoint` that carried `epoch` (`None`: it advertises none).
    pub fn tried(&mut self, endpoint: SocketAddr, epoch: Option<&Arc<str>>, how: Tried) {
        self.0 = match (std::mem::take(&mut self.0), how) {
            (State::Free, Tried::NotStarted | Tried::OtherEpoch) => State::Free,
            (State::Free, Tried::MayHaveStarted) => match epoch {
                Some(epoch) => State::Bound(endpoint, Arc::clone(epoch)),
                None => State::Unsafe,
            },
            (State::Bound(..), Tried::OtherEpoch) => State::Lost,
            // A try that went elsewhere, or to another window, than it was allowed to: nobody can tell any more.
            (State::Bound(at, of), how) if at != endpoint || epoch != Some(&of) => match how {
                Tried::NotStarted => State::Bound(at, of),
                _ => State::Lost,
            },
            (state, _) => state,
        };
    }

    /// The endpoint that it is bound to is not there any more.
    pub fn gone(&mut self) {
        if matches!(self.0, State::Bound(..)) {
            self.0 = State::Lost;
        }
    }
}
