//! Bodies that decisions hang on: read to their end, and understood without doubt or not at all.
//!
//! An attacker chooses every byte here, and wins when the agent reads another call than the sidecar did. So the content type is not
//! believed: a body that begins as JSON does is read as JSON. What some parser could read in another way (a member twice, another
//! encoding, a batch, headers that say something else, a tail that nobody looked at) leaves doubt, and what hangs on it is refused.

use std::cell::Cell;
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use pilotfish_filters::call::{Call, Protocol, Understood};

use super::{fill, json};
use crate::authorizers::Beginning;
use crate::http::{Downstream, Frame, Framing, RequestHead, Source};

/// Longest body that is read for a decision, in bytes: sixteen times what a long prompt of text takes. A longer one leaves doubt.
pub const LIMIT: usize = 1024 * 1024;
/// What the bodies that one worker is reading may take together, in bytes. Further ones leave doubt.
pub const LIMIT_TOGETHER: usize = 32 * LIMIT;
/// How long a body may take to arrive; a slower one leaves doubt.
const TIME: Duration = Duration::from_secs(10);
/// How many bytes of a body may be blank before it says what it is.
const BLANK: usize = 64;

/// Bytes of the bodies that one worker is reading.
#[derive(Debug, Default)]
pub struct Reading(Cell<usize>);

/// One body's part of that.
struct Part<'a> {
    of: &'a Reading,
    bytes: usize,
}

impl Part<'_> {
    /// Takes room for more. False: there is none.
    fn grow(&mut self, by: usize) -> bool {
        let all = self.of.0.get() + by;
        if all > LIMIT_TOGETHER {
            return false;
        }
        self.of.0.set(all);
        self.bytes += by;
        true
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.of.0.set(self.of.0.get() - self.bytes);
    }
}

/// Reads the body and learns what the call is. Whatever was read is given back to `down`.
pub async fn understand(
    reading: &Reading,
    head: &RequestHead,
    down: &mut Downstream<'_>,
    call: &mut Call,
) -> Understood {
    if head.upgrade().is_some() || head.method == Method::CONNECT {
        // What is said after the change of protocol cannot be read.
        return Understood::Doubtful;
    }
    let rest = rest_method(head.path());
    if let Some(method) = rest {
        call.protocol = Protocol::A2a;
        call.rpc_method = Some(method.into());
    }
    let mut frames = Vec::new();
    let seen = if down.framing().is_empty() {
        Seen::Nothing
    } else if !is_plain(head) {
        Seen::Doubt
    } else {
        let mut part = Part { of: reading, bytes: 0 };
        let wants = call.protocol == Protocol::Mcp || call.protocol == Protocol::A2a;
        let reads = read(head, down, &mut frames, &mut part, wants);
        tokio::time::timeout(TIME, reads).await.unwrap_or(Seen::Doubt)
    };
    let understood = match seen {
        Seen::Doubt => Understood::Doubtful,
        // A field of the head says what only a body does.
        Seen::Nothing | Seen::Other if rest.is_none() && says_call(head) => Understood::Doubtful,
        Seen::Nothing => Understood::Empty,
        Seen::Other => Understood::Unread,
        Seen::Json => from_whole(head, &together(&frames), rest.is_some(), call),
    };
    frames.into_iter().rev().for_each(|frame| down.unread(frame));
    understood
}

/// Takes over what a body says that is all there.
fn from_whole(head: &RequestHead, body: &[u8], rest: bool, call: &mut Call) -> Understood {
    let Some(mut fields) = json::read_whole(body) else { return Understood::Doubtful };
    if rest {
        fields.skill = fields.rest_skill.take();
    }
    if !agree(head, call, &fields, rest) {
        return Understood::Doubtful;
    }
    let is_rpc = is_rpc(call, &fields);
    fill(fields, is_rpc, call);
    Understood::Whole
}

/// Reads so much of a body as an external authorizer may want to see. Whatever was read is given back to `down`.
pub async fn begin(reading: &Reading, down: &mut Downstream<'_>, limit: usize) -> Box<Beginning> {
    let mut beginning = Box::new(Beginning { bytes: Vec::new(), whole: down.framing().is_empty() });
    if beginning.whole {
        return beginning;
    }
    let mut frames = Vec::new();
    let mut part = Part { of: reading, bytes: 0 };
    let reads = async {
        loop {
            match poll_fn(|cx| down.poll_frame(cx)).await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(Frame::Data(data))) => {
                    let taken = &data[..data.len().min(limit - beginning.bytes.len())];
                    let (room, all) = (part.grow(data.len()), taken.len() == data.len());
                    beginning.bytes.extend_from_slice(taken);
                    frames.push(Frame::Data(data));
                    if !room || !all {
                        return false;
                    }
                }
                Some(Ok(trailers)) => frames.push(trailers),
            }
            if down.is_ended() {
                return true;
            }
        }
    };
    let whole = tokio::time::timeout(TIME, reads).await.unwrap_or(false);
    beginning.whole = whole;
    frames.into_iter().rev().for_each(|frame| down.unread(frame));
    beginning
}

/// What came of reading a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It is empty.
    Nothing,
    /// It is JSON, or has to be, and is all there.
    Json,
    /// It is nothing that agents' protocols are made of.
    Other,
    /// It cannot be read.
    Doubt,
}

/// Reads as much as has to be known.
async fn read(
    head: &RequestHead,
    down: &mut Downstream<'_>,
    frames: &mut Vec<Frame>,
    part: &mut Part<'_>,
    wants_json: bool,
) -> Seen {
    let kind = Kind::of(head);
    let mut first = Vec::new();
    let mut size = 0;
    let mut is_json = false;
    loop {
        match poll_fn(|cx| down.poll_frame(cx)).await {
            None => break,
            // A broken body shows again when it is relayed; there it has its proper answer.
            Some(Err(_)) => return Seen::Doubt,
            Some(Ok(Frame::Data(data))) => {
                size += data.len();
                first.extend_from_slice(&data[..data.len().min(BLANK - first.len())]);
                let room = part.grow(data.len());
                frames.push(Frame::Data(data));
                if !room {
                    return Seen::Doubt;
                }
            }
            Some(Ok(trailers)) => frames.push(trailers),
        }
        if !is_json {
            match looks(&first, kind, down.is_ended()) {
                Looks::Unknown => {}
                Looks::Doubtful => return Seen::Doubt,
                Looks::Json => is_json = true,
                Looks::Other if wants_json || kind == Kind::Json => is_json = true,
                Looks::Other if kind == Kind::Form && names_model(head.path()) => return Seen::Doubt,
                Looks::Other => return Seen::Other,
            }
        }
        if size > LIMIT || matches!(down.framing(), Framing::Length(all) if all > LIMIT as u64) {
            return Seen::Doubt;
        }
        if down.is_ended() {
            break;
        }
    }
    match (size, is_json) {
        (0, _) => Seen::Nothing,
        (_, true) => Seen::Json,
        // Nothing but blanks.
        (_, false) => Seen::Doubt,
    }
}

/// What the head says of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Grpc,
    Form,
    Unknown,
}

impl Kind {
    fn of(head: &RequestHead) -> Kind {
        let Some(value) = head.headers.get("content-type") else { return Kind::Unknown };
        let kind = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        match &*kind {
            b"application/json" => Kind::Json,
            b"application/x-www-form-urlencoded" | b"multipart/form-data" => Kind::Form,
            kind if kind.ends_with(b"+json") => Kind::Json,
            kind if kind.starts_with(b"application/grpc") => Kind::Grpc,
            _ => Kind::Unknown,
        }
    }
}

/// Whether the head says nothing that makes the bytes something else than UTF-8.
fn is_plain(head: &RequestHead) -> bool {
    let identity = |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"identity");
    let mut kinds = head.headers.get_all("content-type");
    let kind = kinds.next().unwrap_or_default();
    let charset = |parameter: &[u8]| {
        let parameter = parameter.trim_ascii().to_ascii_lowercase();
        let value = parameter.strip_prefix(b"charset")?.trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        Some(value.to_vec())
    };
    head.headers.get_all("content-encoding").all(identity)
        && kinds.next().is_none()
        && kind
            .split(|b| *b == b';')
            .skip(1)
            .filter_map(charset)
            .all(|charset| matches!(&*charset, b"utf-8" | b"utf8" | b"us-ascii"))
}

/// What the first bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// Too few to say.
    Unknown,
    Json,
    Other,
    /// JSON in another encoding than UTF-8, which some parsers find out by themselves (Python's `json.loads`).
    Doubtful,
}

fn looks(first: &[u8], kind: Kind, ended: bool) -> Looks {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    let opens = |b: u8| b == b'{' || b == b'[';
    let enough = ended || first.len() >= 8;
    match first {
        [] => return Looks::Unknown,
        [0xef, 0xbb, 0xbf, ..] | [0xfe, 0xff, ..] | [0xff, 0xfe, ..] => return Looks::Doubtful,
        [0xef | 0xfe | 0xff, ..] if !enough => return Looks::Unknown,
        // gRPC's messages begin with a flag and their length (4 bytes, less than 16 MiB). UTF-16 has no such, nor has UTF-32: its
        // second character would be the message's begin, and no field of a message has the number 0.
        [0 | 1, rest @ ..] if kind == Kind::Grpc => {
            return match rest {
                _ if !enough => Looks::Unknown,
                [0, 0, 0, ..] => Looks::Other,
                [0, 0, _, 0, 0, 0, ..] => Looks::Doubtful,
                [0, ..] => Looks::Other,
                _ => Looks::Doubtful,
            };
        }
        _ => {}
    }
    if first.iter().take(4).any(|b| *b == 0) {
        let mut rest = first.iter().filter(|b| **b != 0).skip_while(|b| blank(b));
        return match rest.next() {
            Some(b) if opens(*b) => Looks::Doubtful,
            Some(_) => Looks::Other,
            None if first.len() < BLANK && !ended => Looks::Unknown,
            None => Looks::Doubtful,
        };
    }
    if first.len() < 4 && !ended {
        return Looks::Unknown;
    }
    match first.iter().find(|b| !blank(b)) {
        Some(b) if opens(*b) => Looks::Json,
        Some(_) => Looks::Other,
        // Blank for longer than anybody writes: read as what it may become.
        None if first.len() >= BLANK => Looks::Json,
        None => Looks::Unknown,
    }
}

fn together(frames: &[Frame]) -> Bytes {
    let data = |frame: &Frame| match frame {
        Frame::Data(data) => Some(data.clone()),
        Frame::Trailers(_) => None,
    };
    let mut pieces: Vec<Bytes> = frames.iter().filter_map(data).collect();
    match pieces.len() {
        1 => pieces.remove(0),
        _ => pieces.concat().into(),
    }
}

/// Whether fields of the head say which method or tool is called.
fn says_call(head: &RequestHead) -> bool {
    head.headers.contains("mcp-method") || head.headers.contains("mcp-name")
}

/// Whether a body is JSON-RPC. One that names an agent's method is, even when it does not say which version of JSON-RPC it is: a
/// careless agent would do what it says.
fn is_rpc(call: &Call, fields: &json::Fields) -> bool {
    let known = |method: &str| Protocol::of_rpc(method) != Protocol::JsonRpc;
    fields.is_json_rpc
        || matches!(call.protocol, Protocol::Mcp | Protocol::A2a)
        || fields.method.as_deref().is_some_and(known)
}

/// Whether head and body speak of the same call.
fn agree(head: &RequestHead, call: &Call, fields: &json::Fields, rest: bool) -> bool {
    let method = fields.method.as_deref();
    let of_method = method.map_or(Protocol::Http, Protocol::of_rpc);
    let is_known = matches!(of_method, Protocol::Mcp | Protocol::A2a);
    let protocol = match call.protocol {
        // By its path it is a message of A2A, and its body would be another.
        Protocol::A2a if rest && method.is_some() => return false,
        Protocol::Http if is_known || fields.is_json_rpc => of_method,
        Protocol::Http | Protocol::JsonRpc => Protocol::Http,
        said @ (Protocol::Mcp | Protocol::A2a) if is_known && said != of_method => return false,
        said @ (Protocol::Mcp | Protocol::A2a) => said,
        // JSON that comes as something else.
        Protocol::Grpc | Protocol::WebSocket | Protocol::OpenAi => return false,
    };
    let is_agents = matches!(protocol, Protocol::Mcp | Protocol::A2a);
    let says = |name: &str, body: Option<&str>| {
        head.headers.get_all(name).all(|said| Some(said) == body.map(str::as_bytes))
    };
    let skill_is_asked_for = |skill: &str| {
        let named = |asked: &str| asked.split('@').next().unwrap_or_default().eq_ignore_ascii_case(skill);
        call.capabilities.is_empty() || call.capabilities.iter().any(|asked| named(asked))
    };
    !(is_agents && (fields.odd_params || fields.model.is_some()))
        && !(protocol == Protocol::A2a && fields.odd_message)
        && says("mcp-method", method)
        && says("mcp-name", fields.name.as_deref())
        && (protocol != Protocol::A2a || fields.skill.as_deref().is_none_or(skill_is_asked_for))
}

/// The method of A2A's HTTP binding that a path means (A2A 1.0, section 11.3).
fn rest_method(path: &str) -> Option<&'static str> {
    let (before, last) = path.rsplit_once('/')?;
    match last {
        "message:send" => Some("SendMessage"),
        "message:stream" => Some("SendStreamingMessage"),
        _ if !before.ends_with("/tasks") => None,
        _ if last.ends_with(":cancel") => Some("CancelTask"),
        _ if last.ends_with(":subscribe") => Some("SubscribeToTask"),
        _ => None,
    }
}

/// Whether the path is one of those of OpenAI's API where a form says which model is meant.
fn names_model(path: &str) -> bool {
    const PATHS: [&str; 4] =
        ["/audio/transcriptions", "/audio/translations", "/images/edits", "/images/variations"];
    let path = path.trim_end_matches('/');
    PATHS.iter().any(|end| path.ends_with(end))
}

#[cfg(test)]
mod tests;
