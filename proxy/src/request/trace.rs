//! trace: which trace the call belongs to, whether it is kept, what the upstream is told of it; and how its tries went.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use pilotfish_filters::call::{Call, TraceMeta};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::correlate::{Handed, Joined, Keys};
use pilotfish_filters::endpoint::Endpoint;
use pilotfish_filters::plan::Plan;
use pilotfish_filters::sampling::Root;
use pilotfish_filters::text::Text;
use pilotfish_filters::trace::w3c::State;
use pilotfish_filters::trace::{Said, SpanId, TraceContext, TraceId, b3, baggage, w3c};
use pilotfish_filters::verdict::{Fault, Reason};

use crate::http::{Error, Headers, Known, RequestHead, ResponseHead};
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::request::repeat::attempt::{Sent, Unsent};
use crate::request::repeat::hedge::Second;
use crate::request::respond::Failed;
use crate::telemetry::call::{Acted, CallRecord, Ended, Try};
use crate::telemetry::export::Why;
use crate::worker::Worker;

/// `agent-workflow`: the workflow that a call is part of.
const WORKFLOW: &str = "agent-workflow";

/// All headers by which a trace is told.
const CONTEXT: u32 = Known::Traceparent.bit()
    | Known::Tracestate.bit()
    | Known::Baggage.bit()
    | Known::B3.bit()
    | Known::B3Part.bit();

/// What the next hop is told, besides what the record has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Onward {
    /// The first try's CLIENT span, known early: it is what calls that the agent makes for this one hang on.
    first: SpanId,
    /// The `random-trace-id` flag.
    random: bool,
    /// Nothing is told (`disableContextPropagation`).
    cut: bool,
    /// The workflow was inherited, so that its header is not there.
    tells_workflow: bool,
}

/// Reads what the caller says of the trace, or begins one. After guard, which knows what an outbound call belongs to.
pub fn enter(worker: &Worker, plan: &Plan, ctx: &mut Ctx<'_>, call: &Call, head: &mut RequestHead) {
    let policy = &ctx.direction.telemetry(plan).tracing;
    if let Some(meta) = &call.meta {
        from_body(meta, &mut head.headers);
    }
    let said = if head.headers.may_have(CONTEXT) { read(worker, &mut head.headers) } else { Said::default() };
    read_workflow(&mut ctx.call.workflow, &head.headers);
    let joined = match said.parent {
        None => join(worker, ctx, call, &mut head.headers),
        Some(_) => None,
    };
    let (trace, parent) = match (said.parent, &joined) {
        (Some(parent), _) => parent,
        (None, Some(joined)) => (joined.handed.trace, joined.span),
        (None, None) => (worker.with_rng(TraceId::new), SpanId::default()),
    };
    let sampled = match &joined {
        Some(joined) => joined.handed.sampled,
        None => {
            let request_id = policy.by_request_id.then(|| head.headers.known(Known::RequestId).next());
            let root = Root { trace, policy: policy.sampling, request_id: request_id.flatten() };
            worker.shared.tracing.sampler.decide(said.sampled, &root, ctx.started)
        }
    };
    let (span, first) = worker.with_rng(|rng| (SpanId::new(rng), SpanId::new(rng)));
    let record = &mut *ctx.call;
    (record.trace, record.span, record.parent) = (trace, span, parent);
    (record.sampled, record.inferred, record.silent) = (sampled, joined.is_some(), policy.silent);
    record.https = head.scheme() == "https";
    if sampled && !policy.tags.is_empty() {
        record.tag(&policy.tags, head);
    }
    let mut tells_workflow = false;
    if let Some(joined) = &joined
        && record.workflow.is_empty()
    {
        record.workflow = joined.handed.workflow;
        tells_workflow = !record.workflow.is_empty();
    }
    if let Some(agent) = ctx.mesh.and_then(|peer| peer.agent.as_deref()) {
        record.caller.set(agent);
    }
    if let Some(id) = head.headers.known(Known::RequestId).next() {
        record.request_id.set(std::str::from_utf8(id).unwrap_or_default());
    }
    if sampled && let Some(state) = head.headers.known(Known::Tracestate).next() {
        record.extra().tracestate = String::from_utf8_lossy(state).into();
    }
    let random = match &joined {
        Some(joined) => joined.handed.random,
        None => said.random || said.parent.is_none(),
    };
    ctx.onward = Onward { first, random, cut: policy.cut, tells_workflow };
    strip(worker, ctx, &mut head.headers);
}

/// What an MCP body says of the trace counts as if headers said it, unless they say something of their own.
fn from_body(meta: &TraceMeta, headers: &mut Headers) {
    if headers.may_have(CONTEXT) {
        return;
    }
    // What no header can hold is left out.
    let parts = [("tracestate", &meta.tracestate), ("baggage", &meta.baggage)];
    headers.append("traceparent", meta.traceparent.as_bytes());
    for (name, value) in parts {
        if let Some(value) = value {
            headers.append(name, value.as_bytes());
        }
    }
}

/// What the headers say. A `tracestate` that goes with no valid `traceparent`, or is none itself, is removed.
fn read(worker: &Worker, headers: &mut Headers) -> Said {
    let mut lines = headers.known(Known::Traceparent);
    let said = match (lines.next(), lines.next()) {
        (Some(only), None) => w3c::parse(only),
        _ => None,
    };
    drop(lines);
    if headers.may_have(Known::Tracestate.bit()) {
        read_state(headers, said.is_some());
    }
    if headers.may_have(Known::Baggage.bit()) && !baggage::fits(headers.known(Known::Baggage)) {
        let (kept, dropped) = baggage::cut(headers.known(Known::Baggage));
        worker.metrics.baggage_dropped.add(dropped as u64);
        headers.remove_known(Known::Baggage.bit());
        if !kept.is_empty() {
            headers.append("baggage", &kept);
        }
    }
    let single = || headers.known(Known::B3).next().and_then(b3::parse);
    let parts = || {
        let part = |name| headers.get(name);
        b3::parse_parts(part("x-b3-traceid"), part("x-b3-spanid"), part("x-b3-sampled"), part("x-b3-flags"))
    };
    said.or_else(single)
        .or_else(|| headers.may_have(Known::B3Part.bit()).then(parts).flatten())
        .unwrap_or_default()
}

fn read_state(headers: &mut Headers, has_parent: bool) {
    match w3c::judge(headers.known(Known::Tracestate)) {
        State::Good if has_parent => {}
        State::Join if has_parent => {
            if let Some(joined) = headers.joined("tracestate").map(|joined| joined.into_owned()) {
                headers.set("tracestate", &joined);
            }
        }
        _ => headers.remove_known(Known::Tracestate.bit()),
    }
}

/// The workflow: its header, else what the baggage says.
fn read_workflow(workflow: &mut Text<64>, headers: &Headers) {
    if !headers.may_have(Known::AgentWorkflow.bit() | Known::Baggage.bit()) {
        return;
    }
    if let Some(named) = headers.known(Known::AgentWorkflow).next() {
        return workflow.set(std::str::from_utf8(named).unwrap_or_default());
    }
    let mut room = [0; 64];
    if let Some(named) = baggage::workflow(headers.known(Known::Baggage), &mut room) {
        workflow.set(named);
    }
}

/// For an agent that passes no headers on: the trace of the inbound call that this one belongs to.
fn join(worker: &Worker, ctx: &Ctx<'_>, call: &Call, headers: &mut Headers) -> Option<Joined> {
    let serving = &worker.shared.serving;
    if ctx.direction == Direction::Inbound || !serving.has_agent() || !serving.joins_traces() {
        return None;
    }
    let joined = serving.find_trace(ctx.said, &Keys::of(call))?;
    if let Some(state) = &joined.tracestate {
        headers.append("tracestate", state.as_bytes());
    }
    Some(joined)
}

/// The call's `tracestate`, for calls that are made for it.
pub fn state(head: &RequestHead) -> Option<Arc<str>> {
    let state = head.headers.known(Known::Tracestate).next()?;
    std::str::from_utf8(state).ok().map(Arc::from)
}

/// What calls that are made for this one have to know.
pub fn handed(ctx: &Ctx<'_>) -> Handed {
    let CallRecord { trace, sampled, workflow, .. } = *ctx.call;
    Handed { trace, sampled, random: ctx.onward.random, workflow }
}

/// Removes what is not written anew with each try.
fn strip(worker: &Worker, ctx: &Ctx<'_>, headers: &mut Headers) {
    if !headers.may_have(CONTEXT) {
        return;
    }
    let writes = &worker.shared.tracing.propagators;
    let keep = |kept: bool, set: u32| if kept && !ctx.onward.cut { 0 } else { set };
    headers.remove_known(
        keep(writes.w3c, Known::Traceparent.bit() | Known::Tracestate.bit())
            | keep(writes.baggage, Known::Baggage.bit())
            | keep(writes.b3, Known::B3.bit())
            | Known::B3Part.bit(),
    );
}

/// What the call is is known.
pub fn decoded(ctx: &mut Ctx<'_>, call: &Call) {
    let record = &mut *ctx.call;
    record.protocol = call.protocol;
    if let Some(capability) = call.capabilities.first() {
        record.capability.set(capability);
    }
}

/// Its rule is known. From what the call is to its rule nothing waits, so one look at the clock is for both.
pub fn routed(worker: &Worker, ctx: &mut Ctx<'_>) {
    let at = ctx.call.after(worker.shared.clock.now());
    (ctx.call.stages.decoded, ctx.call.stages.routed) = (at, at);
    if let Some(rule) = ctx.rule {
        ctx.call.rule.set(&rule.name);
    }
}

/// It may go on: at once, unless it waited for a place.
pub fn admitted(worker: &Worker, ctx: &mut Ctx<'_>) {
    ctx.call.stages.admitted = match ctx.call.acted.has(Acted::QUEUE) {
        true => ctx.call.after(worker.shared.clock.now()),
        false => ctx.call.stages.routed,
    };
}

/// The head of an upstream's answer goes down, as soon as the try has it.
pub fn head_answered(worker: &Worker, ctx: &mut Ctx<'_>, head: &ResponseHead) {
    match ctx.call.current().map_or(0, |attempt| attempt.answered) {
        0 => answered(worker, ctx, streams(head)),
        at => (ctx.call.stages.answered, ctx.call.streams) = (at, streams(head)),
    }
}

/// The head of its answer goes down. `streams`: what follows takes as long as it takes.
pub fn answered(worker: &Worker, ctx: &mut Ctx<'_>, streams: bool) {
    ctx.call.stages.answered = ctx.call.after(worker.shared.clock.now());
    ctx.call.streams = streams;
}

/// A try begins: it has a span of its own, which the upstream gets as its parent.
pub fn begin_try(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    head: &mut RequestHead,
    endpoint: Option<SocketAddr>,
    now: Micros,
) {
    let span = begin_span(worker, ctx);
    tell(worker, ctx, &mut head.headers, span);
    ctx.call.begin_try(span, endpoint, now);
}

/// A try begins that no headers go with: a tunnel.
pub fn begin_tunnel(worker: &Worker, ctx: &mut Ctx<'_>, endpoint: Option<SocketAddr>) {
    let span = begin_span(worker, ctx);
    ctx.call.begin_try(span, endpoint, worker.shared.clock.now());
    ctx.call.streams = true;
}

/// The span of the next try.
fn begin_span(worker: &Worker, ctx: &mut Ctx<'_>) -> SpanId {
    let span = match ctx.call.tries {
        0 => ctx.onward.first,
        _ => worker.with_rng(SpanId::new),
    };
    if let Some(served) = ctx.serving.as_ref().and_then(|begun| begun.served()) {
        served.begin_try(span);
    }
    span
}

/// The span of a try that runs beside another.
pub fn beside(worker: &Worker, ctx: &Ctx<'_>, head: &mut RequestHead) -> SpanId {
    let span = worker.with_rng(SpanId::new);
    tell(worker, ctx, &mut head.headers, span);
    span
}

/// Tells the next hop that `span` calls it.
pub fn tell(worker: &Worker, ctx: &Ctx<'_>, headers: &mut Headers, span: SpanId) {
    let Onward { random, cut, tells_workflow, .. } = ctx.onward;
    if cut {
        return;
    }
    let record = &*ctx.call;
    let context = TraceContext { trace: record.trace, span, sampled: record.sampled, random };
    let writes = &worker.shared.tracing.propagators;
    if writes.w3c {
        headers.put(Known::Traceparent, "traceparent", &w3c::print(&context));
    }
    if writes.b3 || writes.b3multi {
        let printed = b3::print(&context);
        if writes.b3 {
            headers.put(Known::B3, "b3", &printed);
        }
        if writes.b3multi {
            headers.remove_known(Known::B3Part.bit());
            for (name, value) in b3::parts(&printed) {
                headers.append(name, value);
            }
        }
    }
    if tells_workflow {
        headers.put(Known::AgentWorkflow, WORKFLOW, record.workflow.as_str().as_bytes());
    }
}

/// The newest try goes to this endpoint.
pub fn chosen(attempt: &mut Try, endpoint: &Endpoint) {
    if let Some(agent) = endpoint.agent.as_deref() {
        attempt.agent.set(&endpoint.namespace);
        attempt.agent.push("/");
        attempt.agent.push(agent);
    } else if let Some((namespace, agent)) = endpoint.identity.as_deref().and_then(agent_of) {
        attempt.agent.set(namespace);
        attempt.agent.push("/");
        attempt.agent.push(agent);
    }
}

/// `spiffe://<trust domain>/ns/<namespace>/agent/<name>`.
fn agent_of(identity: &str) -> Option<(&str, &str)> {
    identity.split_once("/ns/")?.1.split_once("/agent/")
}

/// Two tries ran side by side: what is known of the one that has no answer is written down, the other one is the newest.
pub fn raced(ctx: &mut Ctx<'_>, now: Micros, tried: &Result<Sent, Unsent>, second: &Second<'_>) {
    let at = ctx.call.after(now);
    let endpoint = second.lease.endpoint();
    let first = (!second.won).then(|| ctx.call.current().copied()).flatten();
    match first {
        // It comes last, though it began first, as the one that the rest of the call is about.
        Some(first) => {
            if let Some(attempt) = ctx.call.current() {
                attempt.begin(second.span, Some(endpoint.addr), 0);
            }
            fill(ctx, second, at);
            let record = &mut *ctx.call;
            *record.begin_try(first.span, first.endpoint, now) = first;
            end_try(ctx, now, tried);
        }
        None => {
            if let Some(attempt) = ctx.call.current() {
                (attempt.answered, (attempt.ended, attempt.status)) = (at, second.first);
            }
            ctx.call.begin_try(second.span, Some(endpoint.addr), second.began);
            fill(ctx, second, 0);
        }
    }
    ctx.call.acted.add(Acted::HEDGE);
}

/// What is known of a try beside the first.
fn fill(ctx: &mut Ctx<'_>, second: &Second<'_>, answered: u32) {
    let began = ctx.call.after(second.began);
    if let Some(attempt) = ctx.call.current() {
        chosen(attempt, second.lease.endpoint());
        (attempt.began, attempt.answered) = (began, answered);
        (attempt.ended, attempt.status) = second.ended;
    }
}

/// The newest try has its answer's head, or failed.
pub fn end_try(ctx: &mut Ctx<'_>, now: Micros, tried: &Result<Sent, Unsent>) {
    let record = &mut *ctx.call;
    let at = record.after(now);
    let ready = tried.as_ref().ok().map(|sent| (record.after(sent.dialed.ready), sent.dialed.reused));
    if let Some(attempt) = record.current() {
        attempt.answered = at;
        (attempt.ended, attempt.status) = ended(tried);
        (attempt.connected, attempt.reused) = ready.unwrap_or((0, false));
    }
}

/// A tunnel has its connection, or found none.
pub fn end_tunnel(ctx: &mut Ctx<'_>, now: Micros, opened: bool) {
    let at = ctx.call.after(now);
    if let Some(attempt) = ctx.call.current() {
        (attempt.connected, attempt.answered) = (if opened { at } else { 0 }, at);
        (attempt.ended, attempt.status) =
            if opened { (Ended::Answered, 200) } else { (Ended::NotConnected, 0) };
    }
}

/// A call with a key, which a task of its own does, has the head of its answer.
pub fn kept_answer(worker: &Worker, ctx: &mut Ctx<'_>, head: &ResponseHead) {
    answered(worker, ctx, streams(head));
    let (at, status) = (ctx.call.stages.answered, head.status.as_u16());
    if let Some(attempt) = ctx.call.current() {
        (attempt.answered, attempt.ended, attempt.status) = (at, Ended::Answered, status);
    }
}

/// The same, and it failed.
pub fn kept_failure(worker: &Worker, ctx: &mut Ctx<'_>, failed: &Failed) {
    let at = ctx.call.after(worker.shared.clock.now());
    let not_connected = matches!(failed, Failed::Refused(deny) if deny.reason.is_no_connection());
    if let Some(attempt) = ctx.call.current().filter(|attempt| attempt.ended == Ended::Open) {
        attempt.answered = at;
        attempt.ended = if not_connected { Ended::NotConnected } else { Ended::Reset };
    }
}

/// Whether an answer takes as long as it takes: events, gRPC, another protocol.
fn streams(head: &ResponseHead) -> bool {
    const KINDS: [&[u8]; 2] = [b"text/event-stream", b"application/grpc"];
    let is = |kind: &[u8], wanted: &[u8]| {
        kind.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted))
    };
    head.status == StatusCode::SWITCHING_PROTOCOLS
        || head.headers.get("content-type").is_some_and(|kind| KINDS.iter().any(|wanted| is(kind, wanted)))
}

/// How a try ended, and the status of its answer.
pub fn ended(tried: &Result<Sent, Unsent>) -> (Ended, u16) {
    match tried {
        Ok(sent) => (Ended::Answered, sent.head.status.as_u16()),
        Err(Unsent::NotConnected(_)) => (Ended::NotConnected, 0),
        Err(Unsent::TimedOut(_) | Unsent::Overdue(..) | Unsent::Broken { error: Error::Silent, .. }) => {
            (Ended::TimedOut, 0)
        }
        Err(Unsent::Refused(_)) => (Ended::Cancelled, 0),
        Err(Unsent::Broken { error, .. }) if error.is_downstream() => (Ended::Cancelled, 0),
        Err(Unsent::Broken { .. }) => (Ended::Reset, 0),
    }
}

/// Whether a call is told of although its trace is not kept: it failed, and not by its caller's fault.
fn failed(record: &CallRecord) -> bool {
    record.status >= 500 || record.reason.is_some_and(|reason| reason.fault() != Fault::Caller)
}

/// Whether it took long.
fn slow(worker: &Worker, record: &CallRecord) -> bool {
    let Some(limit) = worker.shared.tracing.slow else { return false };
    let took = if record.streams { u64::from(record.stages.answered) } else { record.stages.ended };
    u128::from(took) > limit.as_micros()
}

/// The call has ended: its spans, if there are any to be made, and those who look.
pub fn finish(worker: &Worker, ctx: &mut Ctx<'_>) {
    let record = &mut *ctx.call;
    let end = record.stages.ended;
    if let Some(attempt) = record.current().filter(|attempt| attempt.ended == Ended::Open) {
        // It was dropped where it stood.
        attempt.answered = u32::try_from(end).unwrap_or(u32::MAX);
        let overdue =
            matches!(ctx.reason, Some(Reason::Timeout | Reason::DeadlineExceeded | Reason::TryTimeout));
        attempt.ended = if overdue { Ended::TimedOut } else { Ended::Cancelled };
    }
    let shared = &worker.shared;
    if shared.exporter.is_on() && !record.silent {
        if record.sampled {
            shared.exporter.offer(record, Why::Sampled);
        } else if is_told(worker, record) {
            record.told = true;
            shared.exporter.offer(record, Why::Partial);
        }
    }
    shared.taps.offer(record);
}

/// Whether a call of a trace that nobody keeps is told of all the same.
fn is_told(worker: &Worker, record: &CallRecord) -> bool {
    if failed(record) || slow(worker, record) {
        let end = Micros(record.started.0.saturating_add(record.stages.ended));
        return worker.shared.recalls.found(record.trace, end);
    }
    worker.calls.wanted.has(record.trace)
}
