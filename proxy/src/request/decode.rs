//! decode: what a call is, from its headers first, and only then from the first bytes of its body.

mod form;
pub mod json;
pub mod whole;

use std::future::poll_fn;
use std::time::Duration;

use pilotfish_filters::call::{Call, Protocol, Understood};
use pilotfish_filters::capability::host_capability;
use pilotfish_filters::plan::Plan;

use crate::http::{Downstream, Frame, Framing, RequestHead, Source};
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::worker::Worker;

/// How much of a body is looked at, in bytes.
pub const PEEK_LIMIT: usize = 64 * 1024;

/// How long a body may take to show its first bytes before the call goes on without being understood.
const PEEK_TIME: Duration = Duration::from_secs(10);

/// Learns what the call is. What cannot be told stays unknown; nothing here refuses a request.
pub async fn decode(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    head: &RequestHead,
    down: &mut Downstream<'_>,
    plan: &Plan,
) -> Call {
    let mut call = from_head(head);
    if ctx.direction == Direction::Inbound
        && let Some(limit) = plan.authorizers().body()
    {
        ctx.beginning = Some(Box::pin(whole::begin(&worker.reading, down, limit)).await);
    }
    if ctx.direction == Direction::Inbound && plan.authz_reads_body() {
        // On the heap, as whatever is rare here: the future of every call is as large as its largest branch.
        call.body = Box::pin(whole::understand(&worker.reading, head, down, &mut call)).await;
        return call;
    }
    if !down.framing().is_empty() {
        call.body = Understood::Unread;
    }
    let wanted = plan.own().reads_conversations()
        || (ctx.direction == Direction::Outbound
            // A2A: its `messageId` says which calls are the same.
            && (call.protocol == Protocol::A2a || plan.peeks_body(head.authority())));
    if wanted && has_json(head, down) {
        let frames = peek(down).await;
        from_body(&frames, &mut call);
        frames.into_iter().rev().for_each(|frame| down.unread(frame));
    }
    call
}

/// One pass over the fields; most requests have none of these.
fn from_head(head: &RequestHead) -> Call {
    let mut call = Call::default();
    let mut is_mcp = false;
    let mut is_a2a = false;
    for (name, value) in head.headers.iter() {
        let first = name.first().map_or(0, u8::to_ascii_lowercase);
        if !matches!(first, b'a' | b'c' | b'm') {
            continue;
        }
        let named = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        let text = || std::str::from_utf8(value).ok().map(Box::from);
        if named("content-type") {
            if value.starts_with(b"application/grpc") {
                call.protocol = Protocol::Grpc;
            }
        } else if named("accept") {
            call.streaming = memchr::memmem::find(value, b"text/event-stream").is_some();
        } else if named("agent-capability") {
            let wanted = String::from_utf8_lossy(value);
            call.capabilities
                .extend(wanted.split(',').map(str::trim).filter(|c| !c.is_empty()).map(Box::from));
        } else if named("agent-constraint") {
            // Bytes that are not UTF-8 become U+FFFD, which no constraint has: the grammar refuses them.
            let constraint = String::from_utf8_lossy(value);
            call.constraint = Some(match call.constraint.take() {
                None => constraint.into(),
                Some(before) => format!("{before},{constraint}").into(),
            });
        } else if named("a2a-version") {
            is_a2a = true;
        } else if named("mcp-session-id") {
            call.session = text();
            is_mcp = true;
        } else if named("mcp-method") {
            call.rpc_method = text();
            is_mcp = true;
        } else if named("mcp-name") {
            call.tool = text();
        } else if named("mcp-protocol-version") {
            is_mcp = true;
        }
    }
    if let Some(capability) = host_capability(head.authority()) {
        call.capabilities.push(capability.into());
    }
    let upgrade = head.upgrade();
    if upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket")) {
        call.protocol = Protocol::WebSocket;
    } else if is_mcp {
        call.protocol = Protocol::Mcp;
    } else if is_a2a {
        call.protocol = Protocol::A2a;
    }
    call
}

/// A body is looked at only when it can matter, for a host whose rules, affinity or capability ask for what is inside or for
/// finding out what calls belong to; and when it can be read: JSON, by POST, in one of the plain codings.
fn has_json(head: &RequestHead, down: &Downstream<'_>) -> bool {
    let is_json = |value: &[u8]| {
        let kind = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        kind.eq_ignore_ascii_case(b"application/json") || kind.to_ascii_lowercase().ends_with(b"+json")
    };
    head.method == http::Method::POST
        && !matches!(down.framing(), Framing::None)
        && head.headers.get("content-type").is_some_and(is_json)
        && !head.headers.contains("content-encoding")
}

/// The body's first pieces, as they come, until there are enough or no more.
async fn peek(down: &mut Downstream<'_>) -> Vec<Frame> {
    let mut frames = Vec::new();
    let reading = async {
        let mut size = 0;
        while size < PEEK_LIMIT {
            // A broken body shows again when it is relayed; there it has its proper answer.
            let Some(Ok(frame)) = poll_fn(|cx| down.poll_frame(cx)).await else { return };
            if let Frame::Data(data) = &frame {
                size += data.len();
            }
            frames.push(frame);
        }
    };
    // Too slow means unknown: the call goes on and its body streams.
    let _ = tokio::time::timeout(PEEK_TIME, reading).await;
    frames
}

fn from_body(frames: &[Frame], call: &mut Call) {
    let mut whole = Vec::new();
    for frame in frames {
        if let Frame::Data(data) = frame {
            whole.extend_from_slice(&data[..data.len().min(PEEK_LIMIT - whole.len())]);
        }
    }
    let fields = json::read(&whole);
    let is_rpc = fields.is_json_rpc;
    fill(fields, is_rpc, call);
}

/// The protocol of a JSON-RPC message whose head says `said`, and the other one that it may be of just as well. `None`: one agent would
/// take it for this and another for that.
///
/// Methods of tasks have the same names in MCP and A2A; by what they name the task tells them apart, as each needs its own.
fn protocol_of(fields: &json::Fields, said: Protocol) -> Option<(Protocol, Option<Protocol>)> {
    let method = fields.method.as_deref().unwrap_or_default();
    let own = Protocol::of_rpc(method);
    let Some(other) = Protocol::other_of_rpc(method) else { return Some((own, None)) };
    let (first, second) = if said == other { (other, own) } else { (own, other) };
    match fields.task_by {
        // Nothing has to be named there.
        _ if method == "tasks/list" => Some((first, Some(second))),
        json::TaskBy::Nothing => Some((first, Some(second))),
        json::TaskBy::Id => Some((own, None)),
        json::TaskBy::TaskId => Some((other, None)),
        json::TaskBy::Both => None,
    }
}

/// Whether it is a call of MCP about a task, whose `Mcp-Name` is the task.
fn is_mcp_task(call: &Call) -> bool {
    call.protocol == Protocol::Mcp
        && call.rpc_method.as_deref().is_some_and(|method| method.starts_with("tasks/"))
}

/// What a body says, where the head says nothing.
fn fill(fields: json::Fields, is_rpc: bool, call: &mut Call) {
    if is_rpc {
        let (protocol, also) = protocol_of(&fields, call.protocol).unwrap_or_default();
        call.rpc_id = fields.id;
        if call.protocol == Protocol::Http {
            call.protocol = protocol;
        }
        call.also = call.also.or(also);
        // The header, where both are given, was made for proxies (MCP 2026-07-28); the origin checks that they agree.
        call.rpc_method = call.rpc_method.take().or(fields.method);
        if is_mcp_task(call) {
            // There the header has the task.
            call.tool = None;
        } else {
            // As it is written: a header may have it encoded.
            call.tool = fields.name.or(call.tool.take());
        }
    } else if fields.model.is_some() && call.protocol == Protocol::Http {
        call.protocol = Protocol::OpenAi;
    }
    call.meta = fields.meta.filter(|_| is_rpc);
    call.message_id = fields.message_id;
    call.context_id = fields.context_id;
    call.task_id = fields.task_id;
    call.model = fields.model;
    call.user = fields.user;
    call.skill = fields.skill.filter(|_| call.protocol == Protocol::A2a);
    let streams = matches!(call.rpc_method.as_deref(), Some("message/stream" | "SendStreamingMessage"));
    call.streaming |= fields.stream || streams;
}
