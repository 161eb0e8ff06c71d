//! Bodies that decisions hang on: read to their end, and understood without doubt or not at all.
//!
//! An attacker chooses every byte here, and wins when the agent reads another call than the sidecar did. So the content type is not
//! believed: a body that begins as JSON does is read as JSON. What some parser could read in another way (a member twice, another
//! encoding, a batch, headers that say something else, a tail that nobody looked at) leaves doubt, and what hangs on it is refused.

use std::cell::Cell;
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http::Method;
use pilotfish_filters::binding::{self, Binding, Path, Said};
use pilotfish_filters::call::{Call, Protocol, Understood};

use super::{fill, form, json, protocol_of};
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
    let said = match binding::read(head.method.as_str(), head.path()) {
        Path::Doubtful => return Understood::Doubtful,
        Path::Said(said) => Some(said),
        Path::Nothing => None,
    };
    let path = by_path(said, call);
    let mut frames = Vec::new();
    let seen = if down.framing().is_empty() {
        Seen::Nothing
    } else if !is_plain(head) {
        Seen::Doubt
    } else {
        let mut part = Part { of: reading, bytes: 0 };
        let wants = Wants {
            json: !matches!(path, ByPath::Grpc) && matches!(call.protocol, Protocol::Mcp | Protocol::A2a),
            form: path.is_model(),
        };
        let reads = read(head, down, &mut frames, &mut part, wants);
        tokio::time::timeout(TIME, reads).await.unwrap_or(Seen::Doubt)
    };
    let understood = match seen {
        Seen::Doubt => Understood::Doubtful,
        // A field of the head says what only a body does.
        Seen::Nothing | Seen::Other | Seen::Form if path != ByPath::Rest && says_call(head) => {
            Understood::Doubtful
        }
        Seen::Nothing => Understood::Empty,
        Seen::Other => Understood::Unread,
        Seen::Form => match form::model(head, &together(&frames)) {
            Ok(model) => {
                call.model = model;
                Understood::Whole
            }
            Err(form::Unclear) => Understood::Doubtful,
        },
        Seen::Json => from_whole(head, &together(&frames), &path, call),
    };
    frames.into_iter().rev().for_each(|frame| down.unread(frame));
    match path.settle(head, call) {
        true => understood,
        false => Understood::Doubtful,
    }
}

/// What the path says, as far as the body has to agree with it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ByPath {
    /// Nothing.
    Nothing,
    /// A message of A2A's HTTP binding.
    Rest,
    /// The same in gRPC: the body is none that is read here.
    Grpc,
    /// A call of a model, with its name if the path has it.
    Model(Option<Box<str>>),
    /// Calls of many models.
    Batch,
}

/// Takes over what the path says.
fn by_path(said: Option<Said>, call: &mut Call) -> ByPath {
    let (method, by) = match said {
        Some(Said::A2a(method, by)) => (method, by),
        Some(Said::Model(name)) => return ByPath::Model(name),
        Some(Said::Batch) => return ByPath::Batch,
        Some(Said::Models | Said::OneModel(_)) | None => return ByPath::Nothing,
    };
    let rest = match by {
        Binding::Http => true,
        Binding::Grpc => false,
        Binding::Perhaps { usual } => usual && call.protocol == Protocol::A2a,
    };
    if by == Binding::Grpc {
        call.unsure.skill = matches!(&*method, "SendMessage" | "SendStreamingMessage");
        call.also = Some(Protocol::Grpc);
    }
    call.rpc_method = Some(method.into_owned().into());
    if rest || by == Binding::Grpc {
        call.protocol = Protocol::A2a;
        return if rest { ByPath::Rest } else { ByPath::Grpc };
    }
    // Something else has such paths too: what is asked for is the path, and where that leads to a refusal also the method.
    call.protocol = Protocol::Http;
    call.also = Some(Protocol::A2a);
    ByPath::Nothing
}

impl ByPath {
    fn is_model(&self) -> bool {
        matches!(self, ByPath::Model(_) | ByPath::Batch)
    }

    /// Puts together which model is meant. False: path, query and body do not agree.
    fn settle(self, head: &RequestHead, call: &mut Call) -> bool {
        let name = match self {
            ByPath::Nothing | ByPath::Rest | ByPath::Grpc => return true,
            ByPath::Batch => {
                call.unsure.model = true;
                return true;
            }
            ByPath::Model(name) => name,
        };
        if call.model.is_none() {
            call.model = name.clone();
        }
        if call.model.is_none() {
            // The server's default, or whatever else it finds.
            call.unsure.model = true;
        } else if call.protocol == Protocol::Http {
            call.protocol = Protocol::OpenAi;
        }
        let is_same = |other: &str| call.model.as_deref() == Some(other);
        let pairs = head.query().into_iter().flat_map(|query| query.split(['&', ';']));
        let mut asked = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        name.as_deref().is_none_or(is_same)
            && asked.all(|(key, value)| {
                !(key.contains('%') || key.eq_ignore_ascii_case("model")) || is_same(value)
            })
    }
}

/// Takes over what a body says that is all there.
fn from_whole(head: &RequestHead, body: &[u8], path: &ByPath, call: &mut Call) -> Understood {
    let Some(mut fields) = json::read_whole(body) else { return Understood::Doubtful };
    let rest = *path == ByPath::Rest;
    if rest {
        fields.skill = fields.rest_skill.take();
    }
    if *path == ByPath::Grpc || !agree(head, call, &fields, rest) {
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
    /// It is a form that may name a model, and is all there.
    Form,
    /// It is nothing that agents' protocols are made of.
    Other,
    /// It cannot be read.
    Doubt,
}

/// What a body may have to be.
#[derive(Debug, Clone, Copy)]
struct Wants {
    /// JSON, whatever it looks like.
    json: bool,
    /// A form, if it is one.
    form: bool,
}

/// Reads as much as has to be known.
async fn read(
    head: &RequestHead,
    down: &mut Downstream<'_>,
    frames: &mut Vec<Frame>,
    part: &mut Part<'_>,
    wants: Wants,
) -> Seen {
    let kind = Kind::of(head);
    let mut first = Vec::new();
    let mut size = 0;
    let (mut is_json, mut is_form) = (false, false);
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
        if !is_json && !is_form {
            match looks(&first, kind, down.is_ended()) {
                Looks::Unknown => {}
                Looks::Doubtful => return Seen::Doubt,
                Looks::Json => is_json = true,
                Looks::Other if wants.json || kind == Kind::Json => is_json = true,
                Looks::Other if wants.form && kind == Kind::Multipart => is_form = true,
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
        _ if is_form => Seen::Form,
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
    Multipart,
    Unknown,
}

impl Kind {
    fn of(head: &RequestHead) -> Kind {
        let Some(value) = head.headers.get("content-type") else { return Kind::Unknown };
        let kind = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        match &*kind {
            b"application/json" => Kind::Json,
            b"application/x-www-form-urlencoded" => Kind::Form,
            b"multipart/form-data" => Kind::Multipart,
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

/// Whether a header has this text, as it is or in base64 (MCP 2026-07-28, for what a header cannot have).
fn is_text(said: &[u8], text: &str) -> bool {
    let coded = said.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?="));
    match coded {
        Some(coded) => BASE64.decode(coded).is_ok_and(|decoded| decoded == text.as_bytes()),
        None => said == text.as_bytes(),
    }
}

/// Whether head and body speak of the same call.
fn agree(head: &RequestHead, call: &Call, fields: &json::Fields, rest: bool) -> bool {
    let method = fields.method.as_deref();
    let of_method = match method {
        None => Protocol::Http,
        Some(_) => match protocol_of(fields, call.protocol) {
            Some((protocol, _)) => protocol,
            None => return false,
        },
    };
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
        head.headers.get_all(name).all(|said| body.is_some_and(|body| is_text(said, body)))
    };
    let is_task = of_method == Protocol::Mcp && method.is_some_and(|method| method.starts_with("tasks/"));
    let name = if is_task { &fields.task_id } else { &fields.name };
    let skill_is_asked_for = |skill: &str| {
        let named = |asked: &str| asked.split('@').next().unwrap_or_default().eq_ignore_ascii_case(skill);
        call.capabilities.is_empty() || call.capabilities.iter().any(|asked| named(asked))
    };
    !(is_agents && (fields.odd_params || fields.model.is_some()))
        && !(protocol == Protocol::A2a && fields.odd_message)
        && says("mcp-method", method)
        && says("mcp-name", name.as_deref())
        && (protocol != Protocol::A2a || fields.skill.as_deref().is_none_or(skill_is_asked_for))
}

#[cfg(test)]
mod tests;
