//! What a sidecar knows of one call: a record of a fixed size that the stages fill on its way. Spans, the answer of `/why`, a
//! line of the access log and what a tap shows are all made from it, and only from it.

mod tags;
mod view;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use pilotfish_filters::authz::Chain;
use pilotfish_filters::call::Protocol;
use pilotfish_filters::clock::Micros;
pub use pilotfish_filters::text::Text;
use pilotfish_filters::trace::{SpanId, TraceId};
use pilotfish_filters::verdict::Reason;

use crate::listen::Direction;

/// Tries that are told apart; of later ones only the last is kept, in the last place.
pub const TRIES: usize = 4;

/// The attribute of a call that waited for an agent: `namespace/name`.
pub const STARTED_FOR: &str = "pilotfish.started_for";
/// How long it waited, milliseconds.
pub const START_WAIT: &str = "pilotfish.start_wait_ms";

/// What made a difference to a call, besides its rule; a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acted(pub u32);

impl Acted {
    /// Each with its word in `/why`, spans and logs.
    pub const ALL: [(Acted, &'static str); 13] = [
        (Acted(1), "retry"),
        (Acted(1 << 1), "hedge"),
        (Acted(1 << 2), "dedup-kept"),
        (Acted(1 << 3), "dedup-joined"),
        (Acted(1 << 4), "fault-delay"),
        (Acted(1 << 5), "fault-abort"),
        (Acted(1 << 6), "mirror"),
        (Acted(1 << 7), "rate-limit"),
        (Acted(1 << 8), "queue"),
        (Acted(1 << 9), "retry-budget"),
        (Acted(1 << 10), "affinity"),
        (Acted(1 << 11), "priority"),
        (Acted(1 << 12), "started"),
    ];
    /// A try after the first.
    pub const RETRY: Acted = Acted(1);
    /// A try beside the first.
    pub const HEDGE: Acted = Acted(1 << 1);
    /// It got the kept answer of an earlier call with its key.
    pub const DEDUP_KEPT: Acted = Acted(1 << 2);
    /// It got the answer of a running call with its key.
    pub const DEDUP_JOINED: Acted = Acted(1 << 3);
    /// Its rule delayed it.
    pub const FAULT_DELAY: Acted = Acted(1 << 4);
    /// Its rule aborted it.
    pub const FAULT_ABORT: Acted = Acted(1 << 5);
    /// A copy was sent.
    pub const MIRROR: Acted = Acted(1 << 6);
    /// A rate limit held for it.
    pub const RATE_LIMIT: Acted = Acted(1 << 7);
    /// It waited for a place.
    pub const QUEUE: Acted = Acted(1 << 8);
    /// A further try was not made because the budget was exhausted.
    pub const RETRY_BUDGET: Acted = Acted(1 << 9);
    /// Its conversation decided where it went.
    pub const AFFINITY: Acted = Acted(1 << 10);
    /// Its priority was lowered.
    pub const PRIORITY: Acted = Acted(1 << 11);
    /// It waited until an agent was started.
    pub const STARTED: Acted = Acted(1 << 12);

    /// Whether it is in the set.
    pub fn has(self, one: Acted) -> bool {
        self.0 & one.0 != 0
    }

    /// Adds to the set.
    pub fn add(&mut self, other: Acted) {
        self.0 |= other.0;
    }

    /// The words of the set.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Acted::ALL.into_iter().filter(move |(one, _)| self.0 & one.0 != 0).map(|(_, word)| word)
    }
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ended {
    /// It is under way, or was never begun.
    #[default]
    Open,
    /// With an answer, whatever it said.
    Answered,
    /// There was no connection.
    NotConnected,
    /// The connection broke.
    Reset,
    /// It took longer than it may.
    TimedOut,
    /// Another try was answered first, or the caller went away.
    Cancelled,
}

impl Ended {
    /// The word in `/why`, and `error.type` of the span of a try without an answer.
    pub const fn word(self) -> &'static str {
        match self {
            Ended::Open => "open",
            Ended::Answered => "answered",
            Ended::NotConnected => "not-connected",
            Ended::Reset => "reset",
            Ended::TimedOut => "timed-out",
            Ended::Cancelled => "cancelled",
        }
    }
}

/// One try.
#[derive(Debug, Clone, Copy)]
pub struct Try {
    /// Its CLIENT span, which the upstream gets as parent.
    pub span: SpanId,
    /// Where it went.
    pub endpoint: Option<SocketAddr>,
    /// The endpoint's agent, `namespace/name`, when that is known.
    pub agent: Text<64>,
    /// Microseconds after the call's start: when it began, ...
    pub began: u32,
    /// ... had its connection, ...
    pub connected: u32,
    /// ... had the head of its answer, or failed.
    pub answered: u32,
    /// It went out on a connection that was there already.
    pub reused: bool,
    /// The answer's status; 0: none.
    pub status: u16,
    /// How it ended.
    pub ended: Ended,
    /// Endpoints that were looked at, and of those how many could be chosen; 0: not counted.
    pub candidates: (u16, u16),
    /// What the chosen one cost in the balancer's eyes; not a number: the balancer does not reckon.
    pub cost: f32,
    /// What the runner-up cost, and who it was.
    pub runner_up: Option<(SocketAddr, f32)>,
}

impl Default for Try {
    fn default() -> Self {
        Try {
            span: SpanId::default(),
            endpoint: None,
            agent: Text::default(),
            began: 0,
            connected: 0,
            answered: 0,
            reused: false,
            status: 0,
            ended: Ended::Open,
            candidates: (0, 0),
            cost: f32::NAN,
            runner_up: None,
        }
    }
}

impl Try {
    /// Becomes what `other` is.
    fn copy(&mut self, other: &Try) {
        self.begin(other.span, other.endpoint, other.began);
        self.agent.copy(&other.agent);
        (self.connected, self.answered) = (other.connected, other.answered);
        (self.reused, self.status, self.ended) = (other.reused, other.status, other.ended);
        (self.candidates, self.cost, self.runner_up) = (other.candidates, other.cost, other.runner_up);
    }

    /// Empties it for another try, without touching the text's bytes.
    pub fn begin(&mut self, span: SpanId, endpoint: Option<SocketAddr>, began: u32) {
        (self.span, self.endpoint, self.began) = (span, endpoint, began);
        (self.connected, self.answered, self.reused, self.status) = (0, 0, false, 0);
        (self.ended, self.candidates, self.cost, self.runner_up) = (Ended::Open, (0, 0), f32::NAN, None);
        self.agent.clear();
    }
}

/// When which stage was over, in microseconds after the call's start; 0: it never came so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stages {
    /// What the call is was known.
    pub decoded: u32,
    /// Its rule was known.
    pub routed: u32,
    /// It had a place.
    pub admitted: u32,
    /// The head of the answer went down.
    pub answered: u32,
    /// Its last byte went down, or it failed.
    pub ended: u64,
}

/// One call, as this sidecar saw it.
#[derive(Debug, Clone)]
pub struct CallRecord {
    /// Which way it went.
    pub direction: Direction,
    /// Its trace.
    pub trace: TraceId,
    /// Its SERVER span.
    pub span: SpanId,
    /// The span that made it; none: the trace begins here.
    pub parent: SpanId,
    /// The parent's side of the trace is kept, so this one is: the propagated flag.
    pub sampled: bool,
    /// Who the parent is was inferred: the agent did not say.
    pub inferred: bool,
    /// No spans of it are reported (`disableSpanReporting`).
    pub silent: bool,
    /// It was told of already, though its trace is not sampled.
    pub told: bool,
    /// Its answer is a stream or a tunnel: how long it took says nothing, when its head came does.
    pub streams: bool,
    /// When it began.
    pub started: Micros,
    /// How far it came when.
    pub stages: Stages,
    /// The method.
    pub method: Text<16>,
    /// The authority that was asked for.
    pub host: Text<96>,
    /// The path without its query, which may hold secrets.
    pub path: Text<128>,
    /// `x-request-id`.
    pub request_id: Text<64>,
    /// The rule that matched.
    pub rule: Text<96>,
    /// The cluster that it led to.
    pub cluster: Text<96>,
    /// The capability that was asked for; the first of several.
    pub capability: Text<48>,
    /// The workflow that it is part of: `agent-workflow`, or `workflow.id` in the baggage.
    pub workflow: Text<64>,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The calling agent, `namespace/name`, when its sidecar proved who it is.
    pub caller: Text<96>,
    /// For whom it is: inbound for whom the caller acts, outbound for whom the own agent does.
    pub chain: Option<Arc<Chain>>,
    /// HTTP/2 downstream.
    pub h2: bool,
    /// `https`, as far as the request says.
    pub https: bool,
    /// What was spoken in it.
    pub protocol: Protocol,
    /// What the caller got; 0: the caller was gone before.
    pub status: u16,
    /// Why the sidecar itself refused or gave up.
    pub reason: Option<Reason>,
    /// What made a difference.
    pub acted: Acted,
    /// Bytes of the request's body that went upstream.
    pub sent: u64,
    /// Bytes of the answer's body that went downstream.
    pub received: u64,
    /// How many tries there were.
    pub tries: u32,
    /// The tries.
    pub attempts: [Try; TRIES],
    /// What only calls have that are told of at length.
    pub extra: Option<Box<Extra>>,
}

/// What has no fixed size: kept for calls whose spans are certain to be made, and for what is known of gen-AI calls.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// `tracestate`.
    pub tracestate: Box<str>,
    /// Attributes besides those that the record has, in semantic conventions' names: custom tags, gen_ai, mcp, a2a.
    pub attributes: Vec<(&'static str, Value)>,
    /// Custom tags of Telemetry documents.
    pub tags: Vec<(Box<str>, Box<str>)>,
    /// The whole decision, for a call with `agent-explain: 1`, as JSON.
    pub explained: Option<Box<str>>,
    /// What the record had to cut and the access log tells.
    pub whole: Whole,
    /// Request headers that a condition asks for, by their name in lower case.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// The caller's SPIFFE ID, when a condition asks for it.
    pub principal: Option<Box<str>>,
    /// What the sidecar that refused it said about it.
    pub detail: Option<Box<str>>,
}

/// Texts of a record that did not fit it.
#[derive(Debug, Clone, Default)]
pub struct Whole {
    host: Option<Box<str>>,
    path: Option<Box<str>>,
    request_id: Option<Box<str>>,
    rule: Option<Box<str>>,
    cluster: Option<Box<str>>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(Box<str>),
    /// A whole number.
    Number(i64),
    /// A number.
    Float(f64),
    /// Texts.
    List(Vec<Box<str>>),
}

impl Default for CallRecord {
    fn default() -> Self {
        CallRecord {
            direction: Direction::Outbound,
            trace: TraceId::default(),
            span: SpanId::default(),
            parent: SpanId::default(),
            sampled: false,
            inferred: false,
            silent: false,
            told: false,
            streams: false,
            started: Micros::default(),
            stages: Stages::default(),
            method: Text::default(),
            host: Text::default(),
            path: Text::default(),
            request_id: Text::default(),
            rule: Text::default(),
            cluster: Text::default(),
            capability: Text::default(),
            workflow: Text::default(),
            peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            caller: Text::default(),
            chain: None,
            h2: false,
            https: false,
            protocol: Protocol::default(),
            status: 0,
            reason: None,
            acted: Acted::default(),
            sent: 0,
            received: 0,
            tries: 0,
            attempts: [Try::default(); TRIES],
            extra: None,
        }
    }
}

impl CallRecord {
    /// Empties it for another call, without touching the texts' bytes.
    pub fn begin(&mut self, direction: Direction, peer: SocketAddr, started: Micros) {
        (self.direction, self.peer, self.started) = (direction, peer, started);
        (self.trace, self.span, self.parent) = <(TraceId, SpanId, SpanId)>::default();
        (self.sampled, self.inferred, self.silent, self.told) = (false, false, false, false);
        (self.streams, self.h2, self.https) = (false, false, false);
        self.stages = Stages::default();
        self.method.clear();
        self.host.clear();
        self.path.clear();
        self.request_id.clear();
        self.rule.clear();
        self.cluster.clear();
        self.capability.clear();
        self.workflow.clear();
        self.caller.clear();
        self.protocol = Protocol::default();
        (self.status, self.reason, self.acted) = (0, None, Acted::default());
        (self.sent, self.received, self.tries) = (0, 0, 0);
        (self.chain, self.extra) = (None, None);
    }

    /// Becomes what `other` is, whose [`Extra`] it takes. What there is is copied, not the room for it: this record is one of a
    /// call long ago, in no near cache, and `other` stays in it for the next call.
    pub fn take_over(&mut self, other: &mut CallRecord) {
        self.begin(other.direction, other.peer, other.started);
        (self.chain, self.extra) = (other.chain.take(), other.extra.take());
        (self.trace, self.span, self.parent) = (other.trace, other.span, other.parent);
        (self.sampled, self.inferred, self.silent, self.told) =
            (other.sampled, other.inferred, other.silent, other.told);
        (self.streams, self.h2, self.https) = (other.streams, other.h2, other.https);
        (self.stages, self.protocol) = (other.stages, other.protocol);
        self.method.copy(&other.method);
        self.host.copy(&other.host);
        self.path.copy(&other.path);
        self.request_id.copy(&other.request_id);
        self.rule.copy(&other.rule);
        self.cluster.copy(&other.cluster);
        self.capability.copy(&other.capability);
        self.workflow.copy(&other.workflow);
        self.caller.copy(&other.caller);
        (self.status, self.reason, self.acted) = (other.status, other.reason, other.acted);
        (self.sent, self.received, self.tries) = (other.sent, other.received, other.tries);
        for (own, theirs) in self.attempts.iter_mut().zip(other.tried()) {
            own.copy(theirs);
        }
    }

    /// Microseconds from the call's start to `now`, as they are kept.
    pub fn after(&self, now: Micros) -> u32 {
        u32::try_from(now.since(self.started).as_micros()).unwrap_or(u32::MAX)
    }

    /// Begins a try; later ones than [`TRIES`] take the last place.
    pub fn begin_try(&mut self, span: SpanId, endpoint: Option<SocketAddr>, now: Micros) -> &mut Try {
        let began = self.after(now);
        let at = (self.tries as usize).min(TRIES - 1);
        self.tries += 1;
        let attempt = &mut self.attempts[at];
        attempt.begin(span, endpoint, began);
        attempt
    }

    /// The newest try.
    pub fn current(&mut self) -> Option<&mut Try> {
        let at = (self.tries as usize).checked_sub(1)?.min(TRIES - 1);
        self.attempts.get_mut(at)
    }

    /// The tries that are kept, in their order.
    pub fn tried(&self) -> &[Try] {
        &self.attempts[..(self.tries as usize).min(TRIES)]
    }

    /// What the sidecar that refused it said about it.
    pub fn detail(&self) -> &str {
        self.extra.as_deref().and_then(|extra| extra.detail.as_deref()).unwrap_or_default()
    }

    /// Whether its decisions are kept at length.
    pub fn is_explained(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.explained.is_some())
    }

    /// What is kept at length.
    pub fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two tries at an agent, with whatever a record may have.
    fn full() -> CallRecord {
        let peer = SocketAddr::from(([10, 0, 0, 9], 9));
        let mut record = CallRecord::default();
        record.begin(Direction::Inbound, peer, Micros(7));
        (record.trace, record.span, record.parent) = (TraceId([1; 16]), SpanId([2; 8]), SpanId([3; 8]));
        (record.sampled, record.inferred, record.silent, record.told) = (true, true, true, true);
        (record.streams, record.h2, record.https) = (true, true, true);
        record.stages = Stages { decoded: 1, routed: 2, admitted: 3, answered: 4, ended: 5 };
        record.protocol = Protocol::Mcp;
        record.method.set("POST");
        record.host.set("host");
        record.path.set("/path");
        record.request_id.set("id");
        record.rule.set("rule");
        record.cluster.set("cluster");
        record.capability.set("capability");
        record.workflow.set("workflow");
        record.caller.set("caller");
        (record.status, record.reason, record.acted) = (503, Some(Reason::Overflow), Acted::RETRY);
        (record.sent, record.received) = (10, 11);
        for n in 1..=2 {
            let attempt = record.begin_try(SpanId([n; 8]), Some(peer), Micros(20));
            attempt.agent.set("agent");
            (attempt.connected, attempt.answered, attempt.reused, attempt.status) = (1, 2, true, 200);
            (attempt.ended, attempt.candidates, attempt.cost) = (Ended::Answered, (3, 2), 1.5);
            attempt.runner_up = Some((peer, 2.5));
        }
        record.extra().tracestate = "a=b".into();
        record.chain = Some(Arc::default());
        record
    }

    #[test]
    fn a_record_becomes_another_one_whole() {
        let (mut from, expected) = (full(), full());
        let mut kept = full();
        kept.host.set("a longer host than the other one's");
        kept.begin_try(SpanId([9; 8]), None, Micros(30));
        kept.take_over(&mut from);
        let tried = |record: &CallRecord| format!("{:?}", record.tried());
        assert_eq!(tried(&kept), tried(&expected));
        kept.attempts = expected.attempts;
        assert_eq!(format!("{kept:?}"), format!("{expected:?}"), "no field is forgotten");
        assert!(from.extra.is_none() && from.chain.is_none());
    }

    #[test]
    fn a_record_is_as_large_as_the_flag_of_the_ring_says() {
        let size = size_of::<CallRecord>();
        assert!((1500..=1800).contains(&size), "{size}");
    }

    #[test]
    fn the_fifth_try_takes_the_last_place() {
        let mut record = CallRecord::default();
        for n in 1..=6 {
            record.begin_try(SpanId([n; 8]), None, Micros(u64::from(n)));
        }
        let kept: Vec<u8> = record.tried().iter().map(|one| one.span.0[0]).collect();
        assert_eq!((kept, record.tries), (vec![1, 2, 3, 6], 6));
    }
}
