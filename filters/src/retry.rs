//! Retries: which failures, how often, after which wait. What must never be done twice is decided by [`may_repeat`].

pub mod after;
pub mod policy;

use std::time::Duration;

pub use after::Pushback;
pub use policy::{RetryOn, RetryPolicy, Safety, Word};

/// Methods that mean the same when they are done twice, by whether they change anything (RFC 9110 section 9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// GET, HEAD, OPTIONS, TRACE: nothing is changed.
    Safe,
    /// PUT, DELETE: twice is as good as once.
    Idempotent,
    /// Everything else, gRPC's POST among them: twice may be one flight too many.
    Once,
}

impl Nature {
    /// That of a method, as it was sent.
    pub fn of(method: &str) -> Nature {
        match method {
            "GET" | "HEAD" | "OPTIONS" | "TRACE" => Nature::Safe,
            "PUT" | "DELETE" => Nature::Idempotent,
            _ => Nature::Once,
        }
    }
}

/// Whether the receiving sidecar does a call with this key only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keyed {
    /// It has no key, or nobody there remembers keys.
    #[default]
    No,
    /// The endpoint that had it does it once for each key, and only that endpoint knows.
    There,
}

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// No connection could be made, so nothing of the call was sent.
    NotConnected,
    /// The upstream says that it never looked at the call: REFUSED_STREAM, or a stream above GOAWAY's last one.
    NotProcessed,
    /// A connection that was kept from an earlier call was closed before the first byte of an answer. Most likely it was
    /// closed before the call was sent; nobody can tell.
    Stale,
    /// The upstream broke off before the whole head of an answer, or sent what is none.
    Reset,
    /// No answer within `perTryTimeout`.
    TimedOut,
    /// An answer, whose body nobody has seen yet.
    Answered(Answer),
}

/// What of an answer's head decides about another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `grpc-status`, when the head has it (an answer without messages).
    pub grpc: Option<u32>,
    /// It has `x-envoy-ratelimited`.
    pub rate_limited: bool,
    /// What the answer says about when to come back.
    pub pushback: Pushback,
}

impl Happened {
    /// Whether the upstream provably did not start on the call.
    pub const fn never_started(self) -> bool {
        matches!(self, Happened::NotConnected | Happened::NotProcessed)
    }
}

/// Where a call may be sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// Nowhere.
    Nowhere,
    /// Only to the endpoint that may have it already, which will not do it twice.
    Same,
    /// Anywhere.
    Anywhere,
}

/// Where a call may be sent again without being done twice: the one place where that is decided.
///
/// `keyed` is what is known of the endpoint that had this try.
pub fn may_repeat(nature: Nature, keyed: Keyed, safety: Safety, happened: Happened) -> Where {
    if happened.never_started() {
        return Where::Anywhere;
    }
    match (nature, keyed, safety) {
        (_, Keyed::There, _) => Where::Same,
        (Nature::Safe | Nature::Idempotent, ..) | (.., Safety::Istio) => Where::Anywhere,
        (Nature::Once, Keyed::No, Safety::Strict) => Where::Nowhere,
    }
}

/// Another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// Where to.
    pub to: Where,
    /// How long to wait before.
    pub wait: Duration,
    /// It takes nothing from the retry budget: the try before it never reached its endpoint, because there was no connection, or
    /// (as far as anybody can tell) a kept one had been closed meanwhile. Once for a call.
    pub free: bool,
}

impl Again {
    /// Where a try before provably changed nothing.
    pub const AT_ONCE: Again = Again { to: Where::Anywhere, wait: Duration::ZERO, free: true };
}

impl RetryPolicy {
    /// Whether there is another try after `tries` of them, the last of which ended so; `None`: the failure is passed on.
    /// Budget and deadline are the caller's business.
    pub fn again(
        &self,
        tries: u32,
        nature: Nature,
        keyed: Keyed,
        happened: Happened,
        rng: &mut fastrand::Rng,
    ) -> Option<Again> {
        if tries > self.attempts || !self.covers(keyed, happened) {
            return None;
        }
        let to = may_repeat(nature, keyed, self.safety, happened);
        if to == Where::Nowhere {
            return None;
        }
        if happened == Happened::Stale && tries == 1 {
            return Some(Again { to, wait: Duration::ZERO, free: true });
        }
        let pushback = match happened {
            Happened::Answered(answer) => answer.pushback,
            _ => Pushback::None,
        };
        // Nothing of the call was done anywhere, so the next try adds no work: a call must not fail for want of a place in the
        // budget while other endpoints are well.
        let free = happened == Happened::NotConnected && tries == 1;
        // Those who were told the same moment do not come back together.
        let jitter = self.backoff(tries, rng);
        match pushback {
            Pushback::None => Some(Again { to, wait: jitter, free }),
            Pushback::After(time) => {
                Some(Again { to, wait: (time + jitter).min(after::LONGEST), free: false })
            }
            Pushback::Never => None,
        }
    }

    /// Whether the rule wants another try. Who gives a call a key says that it may be repeated: a connection that broke is then
    /// as good a reason as one that could not be made.
    fn covers(&self, keyed: Keyed, happened: Happened) -> bool {
        let broke = matches!(happened, Happened::Stale | Happened::Reset);
        self.on.covers(happened) || (keyed == Keyed::There && broke && self.on.covers(Happened::NotConnected))
    }

    /// Whether what a request sends may have to be sent once more after some of it was taken from the client: only then is
    /// its body worth keeping. `refuses`: the upstream speaks a protocol in which it can say that it did nothing (HTTP/2).
    pub fn may_replay(&self, nature: Nature, keyed: Keyed, refuses: bool) -> bool {
        keyed == Keyed::There
            || self.attempts > 0
                && (may_repeat(nature, keyed, self.safety, Happened::Reset) != Where::Nowhere
                    || (refuses && self.on.covers(Happened::NotProcessed)))
    }

    /// The wait before retry `number`, from 1: at random up to `backoff` x 2^(number-1), at most 10 x `backoff` (Envoy's full
    /// jitter).
    fn backoff(&self, number: u32, rng: &mut fastrand::Rng) -> Duration {
        let base = u64::try_from(self.backoff.as_micros()).unwrap_or(u64::MAX);
        let doubled = base.saturating_mul(1 << number.saturating_sub(1).min(20));
        Duration::from_micros(rng.u64(..=doubled.min(base.saturating_mul(10))))
    }
}

#[cfg(test)]
mod tests;
