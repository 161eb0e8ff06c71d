//! What is told of a call on request: its account for `/why`, and the line that a tap shows. Made of its record, away from the
//! workers, and redacted.

use std::net::SocketAddr;
use std::time::Duration;

use pilotfish_config::wire::{Account, ActsFor, Attempt, RunnerUp, StageTimes, StartedFor, TappedCall, Why};
use pilotfish_filters::authz::Chain;
use pilotfish_filters::redact;
use pilotfish_filters::trace::{SpanId, TraceId};
use tokio::time::timeout;

use super::call::{CallRecord, START_WAIT, STARTED_FOR, Text, Try, Value};
use super::ring::Question;
use crate::listen::Direction;
use crate::server::Shared;

/// Workers answer at once; before they start nobody does.
const PATIENCE: Duration = Duration::from_millis(800);

/// The question about calls that somebody asks in words.
///
/// # Errors
/// It asks for nothing, or its trace is none.
pub fn question(why: &Why) -> Result<Question, String> {
    match (&why.request, &why.trace, why.last) {
        (Some(id), None, None) => {
            // The ring keeps as much of an id.
            let mut kept = Text::<64>::default();
            kept.set(id);
            Ok(Question::Request(kept.as_str().into()))
        }
        (None, Some(id), None) => {
            let trace = TraceId::parse(id).map(Question::Trace);
            trace.ok_or_else(|| "a trace has 32 hexadecimal digits, not all 0".to_owned())
        }
        (None, None, Some(most)) => Ok(Question::Last(most as usize)),
        _ => Err("one of request, trace and last is needed".into()),
    }
}

/// The accounts that answer a question, oldest first: at most `most`, the newest; and how many more there are.
pub async fn accounts(shared: &Shared, question: &Question, most: usize) -> (Vec<Account>, u64) {
    let mut records = timeout(PATIENCE, shared.calls(question)).await.unwrap_or_default();
    records.sort_by_key(|record| record.started);
    let most = if let Question::Last(last) = question { most.min(*last) } else { most };
    let more = records.len().saturating_sub(most);
    // Of the last calls there are always more.
    let left_off = if matches!(question, Question::Last(_)) { 0 } else { more as u64 };
    (records.drain(more..).map(|record| account(shared, &record)).collect(), left_off)
}

/// How a call went.
pub fn account(shared: &Shared, record: &CallRecord) -> Account {
    let stages = record.stages;
    let explained = record.extra.as_deref().and_then(|extra| extra.explained.as_deref());
    Account {
        time_ns: shared.clock.epoch().nanos(record.started),
        agent: own(shared),
        direction: record.direction.word().into(),
        caller: record.caller.as_str().into(),
        peer: record.peer.to_string(),
        method: record.method.as_str().into(),
        host: shown(record.host.as_str()),
        path: redact::path(record.path.as_str()).into_owned(),
        protocol: record.protocol.word().into(),
        status: record.status,
        reason: record.reason.map(|reason| reason.word()).unwrap_or_default().into(),
        detail: shown(record.detail()),
        delegation: record.chain.as_deref().map(acts_for),
        rule: record.rule.as_str().into(),
        cluster: record.cluster.as_str().into(),
        capability: shown(record.capability.as_str()),
        workflow: shown(record.workflow.as_str()),
        trace: record.trace.to_string(),
        span: record.span.to_string(),
        parent: span(record.parent),
        inferred: record.inferred,
        sampled: record.sampled,
        request_id: shown(record.request_id.as_str()),
        policies: record.acted.words().map(str::to_owned).collect(),
        started_for: started_for(record),
        stages: StageTimes {
            decoded_us: stages.decoded.into(),
            routed_us: stages.routed.into(),
            admitted_us: stages.admitted.into(),
            answered_us: stages.answered.into(),
            ended_us: stages.ended,
        },
        tries: record.tries,
        attempts: record.tried().iter().map(attempt).collect(),
        request_bytes: record.sent,
        response_bytes: record.received,
        explained: explained.and_then(|text| serde_json::from_str(text).ok()),
    }
}

fn acts_for(chain: &Chain) -> ActsFor {
    ActsFor {
        origin: shown(&chain.origin),
        agents: chain.agents.iter().map(|agent| shown(&agent.id)).collect(),
        uncertain: chain.uncertain,
    }
}

fn started_for(record: &CallRecord) -> Option<StartedFor> {
    let attributes = &record.extra.as_deref()?.attributes;
    let of = |name: &str| attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
    match (of(STARTED_FOR)?, of(START_WAIT)?) {
        (Value::Text(agent), Value::Number(waited)) => {
            Some(StartedFor { agent: agent.to_string(), waited_ms: u64::try_from(*waited).unwrap_or(0) })
        }
        _ => None,
    }
}

fn attempt(attempt: &Try) -> Attempt {
    let runner_up = attempt.runner_up;
    Attempt {
        span: span(attempt.span),
        endpoint: address(attempt.endpoint),
        agent: attempt.agent.as_str().into(),
        began_us: attempt.began.into(),
        connected_us: attempt.connected.into(),
        answered_us: attempt.answered.into(),
        reused: attempt.reused,
        status: attempt.status,
        ended: attempt.ended.word().into(),
        candidates: attempt.candidates.0,
        eligible: attempt.candidates.1,
        cost: finite(attempt.cost),
        runner_up: runner_up.map(|(at, cost)| RunnerUp { endpoint: at.to_string(), cost: finite(cost) }),
    }
}

/// What a tap shows of a call.
pub fn tapped(shared: &Shared, record: &CallRecord) -> TappedCall {
    let last = record.tried().last();
    let endpoint = address(last.and_then(|attempt| attempt.endpoint));
    let caller = record.caller.as_str();
    let peer = match record.direction {
        Direction::Inbound if caller.is_empty() => record.peer.ip().to_canonical().to_string(),
        Direction::Inbound => caller.to_owned(),
        Direction::Outbound => match last.map(|attempt| attempt.agent.as_str()) {
            Some(agent) if !agent.is_empty() => agent.to_owned(),
            _ if record.host.is_empty() => endpoint.clone(),
            _ => shown(record.host.as_str()),
        },
    };
    TappedCall {
        time_ns: shared.clock.epoch().nanos(record.started),
        agent: own(shared),
        direction: record.direction.word().into(),
        peer,
        method: record.method.as_str().into(),
        host: shown(record.host.as_str()),
        path: redact::path(record.path.as_str()).into_owned(),
        status: record.status,
        reason: record.reason.map(|reason| reason.word()).unwrap_or_default().into(),
        rule: record.rule.as_str().into(),
        cluster: record.cluster.as_str().into(),
        endpoint,
        capability: shown(record.capability.as_str()),
        protocol: record.protocol.word().into(),
        tries: record.tries,
        duration_us: record.stages.ended,
        request_bytes: record.sent,
        response_bytes: record.received,
        trace: record.trace.to_string(),
        request_id: shown(record.request_id.as_str()),
    }
}

/// `namespace/name` of this sidecar's agent.
fn own(shared: &Shared) -> String {
    format!("{}/{}", shared.settings.namespace, shared.settings.agent)
}

fn shown(text: &str) -> String {
    redact::value(text).into_owned()
}

fn span(span: SpanId) -> String {
    if span.is_none() { String::new() } else { span.to_string() }
}

fn address(address: Option<SocketAddr>) -> String {
    address.map(|address| address.to_string()).unwrap_or_default()
}

fn finite(cost: f32) -> Option<f32> {
    cost.is_finite().then_some(cost)
}
