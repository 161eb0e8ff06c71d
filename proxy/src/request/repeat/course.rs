//! The course of one call: its tries so far, and whether there is another.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilotfish_filters::budget::RetryPermit;
use pilotfish_filters::clock::Micros;
use pilotfish_filters::retry::{
    Again, Answer, Happened, Keyed, Nature, Pushback, RetryPolicy, Safety, after,
};
use pilotfish_filters::verdict::Reason;

use super::attempt::{self, Sent, Unsent};
use crate::http::{Downstream, Error, RequestHead, ResponseHead};
use crate::request::ctx::Ctx;
use crate::telemetry::call::Acted;
use crate::worker::Worker;

/// How many endpoints a call remembers; with more tries the first are forgotten.
const REMEMBERED: usize = 8;

/// The tries of one call.
pub struct Course<'r> {
    policy: &'r RetryPolicy,
    nature: Nature,
    /// What is known of the endpoint of the try under way.
    pub keyed: Keyed,
    /// When the call, or the wait for its answer, has to have ended.
    ends: Option<Micros>,
    tries: u32,
    tried: Tried,
    /// That the try under way is within the cluster's retry budget.
    permit: Option<RetryPermit>,
    /// Another try was not within the budget.
    over_budget: bool,
}

/// A try that has ended.
pub struct Spent {
    /// Where it went.
    pub endpoint: SocketAddr,
    /// When it ended.
    pub now: Micros,
    /// Its endpoint is another sidecar that proved so: what it says of a refusal is true.
    pub by_sidecar: bool,
}

/// Why a sidecar refused, when its answer is a refusal of its own.
pub fn refusal(head: &ResponseHead) -> Option<Reason> {
    Reason::from_word(head.headers.get("pilotfish-reason")?)
}

/// What a sidecar's refusal says about the agent behind it: that it never got the call.
pub fn refused_unseen(head: &ResponseHead) -> Option<Happened> {
    refusal(head).and_then(unseen)
}

fn unseen(reason: Reason) -> Option<Happened> {
    if reason.is_no_connection() {
        Some(Happened::NotConnected)
    } else {
        reason.is_turned_away().then_some(Happened::NotProcessed)
    }
}

impl<'r> Course<'r> {
    /// The course of a call that begins now.
    pub fn begin(ctx: &Ctx<'_>, policy: &'r RetryPolicy, head: &RequestHead) -> Self {
        let until_head = ctx.rule.and_then(|rule| rule.resilience.timeouts.response_header);
        let until_head = until_head.map(|limit| ctx.started.after(limit));
        Course {
            policy,
            nature: nature(head),
            keyed: Keyed::No,
            ends: [until_head, ctx.deadline].into_iter().flatten().min(),
            tries: 0,
            tried: Tried::default(),
            permit: None,
            over_budget: false,
        }
    }

    /// What ended the course, if something of its own did.
    pub fn acted(&self) -> Acted {
        if self.over_budget { Acted::RETRY_BUDGET } else { Acted::default() }
    }

    /// The endpoints that another try passes over while there are others.
    pub fn tried(&self) -> &[SocketAddr] {
        self.tried.addresses()
    }

    /// Begins a try and says which it is, from 1.
    pub fn begin_try(&mut self) -> u32 {
        self.tries += 1;
        self.tries
    }

    /// Whether another try may run beside the first, which nobody knows to have failed.
    pub fn may_hedge(&self) -> bool {
        let istio = self.policy.safety == Safety::Istio;
        self.tries == 1
            && self.keyed == Keyed::No
            && (self.nature == Nature::Safe || (istio && self.nature == Nature::Idempotent))
    }

    /// How much of the body is to be kept for another try; `None`: there will be none after it was sent. `refuses`: the upstream
    /// can say that it did nothing with the call, as sidecars and HTTP/2 can.
    pub fn replay_limit(&self, refuses: bool) -> Option<usize> {
        self.policy.may_replay(self.nature, self.keyed, refuses).then_some(self.policy.buffer)
    }

    /// Whether there is another try. It has its place in the budget by then, and the body starts again from its beginning. `permit`
    /// gives the place: `None` when there is none, `Some(None)` where there is no budget.
    pub fn again(
        &mut self,
        worker: &Worker,
        tried: &Result<Sent, Unsent>,
        spent: &Spent,
        permit: impl FnOnce() -> Option<Option<RetryPermit>>,
        down: &mut Downstream<'_>,
    ) -> Option<Again> {
        // The place of the try that has ended is free for the next one.
        self.permit = None;
        let happened = match tried {
            Ok(sent) => {
                let refusal = spent.by_sidecar.then(|| refusal(&sent.head)).flatten();
                if refusal.is_some_and(Reason::is_everywhere) {
                    return None;
                }
                refusal.and_then(unseen).unwrap_or_else(|| Happened::Answered(self.answer(&sent.head)))
            }
            Err(unsent) => unsent.happened()?,
        };
        let retries = &worker.metrics.retries;
        if self.tries > 1 {
            let failed = self.policy.on.covers(happened);
            if failed { &retries.failed } else { &retries.answered }.add(1);
        }
        let again =
            worker.with_rng(|rng| self.policy.again(self.tries, self.nature, self.keyed, happened, rng))?;
        if self.ends.is_some_and(|ends| spent.now.after(again.wait) >= ends) {
            retries.no_time.add(1);
            return None;
        }
        if !again.free {
            let Some(place) = permit() else {
                retries.over_budget.add(1);
                self.over_budget = true;
                return None;
            };
            self.permit = place;
        }
        if !down.rewind() {
            self.permit = None;
            retries.without_body.add(1);
            return None;
        }
        if self.policy.ignore_previous_hosts && happened != Happened::Stale {
            self.tried.add(spent.endpoint);
        }
        Some(again)
    }

    /// The call has its answer: its place in the budget is free.
    pub fn end(&mut self) {
        self.permit = None;
    }

    /// What an answer says about another try; nothing but its status when there could be none anyway.
    fn answer(&self, head: &ResponseHead) -> Answer {
        let status = head.status.as_u16();
        let never =
            self.nature == Nature::Once && self.keyed == Keyed::No && self.policy.safety == Safety::Strict;
        if never || self.tries > self.policy.attempts {
            return Answer { status, ..Answer::default() };
        }
        // Every gRPC call is a POST.
        let grpc = (self.nature == Nature::Once).then(|| head.headers.get("grpc-status")).flatten();
        let grpc = grpc.and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
        let answer = Answer { status, grpc, ..Answer::default() };
        if status < 400 && !self.policy.on.covers(Happened::Answered(answer)) {
            return answer;
        }
        Answer {
            rate_limited: head.headers.contains("x-envoy-ratelimited"),
            pushback: Pushback::read(
                head.headers.get("grpc-retry-pushback-ms"),
                head.headers.get("retry-after"),
                || head.headers.get("date").and_then(after::date).unwrap_or_else(unix_now),
            ),
            ..answer
        }
    }
}

fn nature(head: &RequestHead) -> Nature {
    #[cfg(feature = "sim")]
    if crate::net::simulated::is_planted() {
        return Nature::Idempotent;
    }
    Nature::of(head.method.as_str())
}

/// For an answer that names a date and does not say what time it thinks it is.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What lies between two tries: the one that failed is put away, then comes the wait.
///
/// # Errors
/// The client has gone.
pub async fn before_next(
    worker: &Worker,
    tried: Result<Sent, Unsent>,
    down: &mut Downstream<'_>,
    wait: Duration,
) -> Result<(), Error> {
    attempt::put_away(worker, tried).await;
    pause(down, wait).await
}

/// Waits before another try, as long as the client does.
///
/// # Errors
/// The client has gone.
async fn pause(down: &mut Downstream<'_>, wait: Duration) -> Result<(), Error> {
    if wait.is_zero() {
        return Ok(());
    }
    down.unless_gone(pin!(tokio::time::sleep(wait))).await
}

/// Endpoints that a call failed on, on the stack.
#[derive(Debug)]
struct Tried {
    addresses: [SocketAddr; REMEMBERED],
    len: usize,
    next: usize,
}

impl Default for Tried {
    fn default() -> Self {
        Tried { addresses: [SocketAddr::from(([0, 0, 0, 0], 0)); REMEMBERED], len: 0, next: 0 }
    }
}

impl Tried {
    fn addresses(&self) -> &[SocketAddr] {
        self.addresses.get(..self.len).unwrap_or_default()
    }

    fn add(&mut self, address: SocketAddr) {
        if self.addresses().contains(&address) {
            return;
        }
        if let Some(slot) = self.addresses.get_mut(self.next) {
            *slot = address;
        }
        self.next = (self.next + 1) % REMEMBERED;
        self.len = (self.len + 1).min(REMEMBERED);
    }
}
