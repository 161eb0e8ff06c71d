//! Answers that the sidecar gives itself: refusals, redirects, direct responses.
//!
//! A refusal carries `pilotfish-reason` and says what happened as a problem document (RFC 9457). An upstream's
//! own error never carries that header, so a caller can tell the two apart.

use bytes::Bytes;
use http::StatusCode;
use pilotfish_filters::fault::{self, Abort};
use pilotfish_filters::trace::TraceId;
use pilotfish_filters::verdict::{Deny, Foreign, Reason};
use serde_json::{Map, Value};

use crate::http::{RequestHead, ResponseHead};

/// A head with its whole body.
#[derive(Debug)]
pub struct Answer {
    /// Status and fields; framing fields are the engine's.
    pub head: ResponseHead,
    /// The body, perhaps empty.
    pub body: Bytes,
}

impl Answer {
    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Self {
        Answer { head: ResponseHead::new(status), body: Bytes::new() }
    }
}

/// Whether the caller speaks gRPC.
pub fn is_grpc(head: &RequestHead) -> bool {
    head.headers.get("content-type").is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// What a caller sees of a refusal; to a gRPC caller it is a status of gRPC, as Envoy's local replies are.
pub fn refusal(deny: &Deny, grpc: bool) -> Answer {
    let mut answer = if let Some(foreign) = &deny.answer {
        foreign_refusal(deny, foreign, grpc)
    } else if grpc {
        grpc_refusal(deny, grpc_status(deny.reason))
    } else {
        problem(deny, status_of(deny.reason))
    };
    for (name, value) in &deny.headers {
        answer.head.headers.append(name, value.as_bytes());
    }
    answer
}

/// The same with nothing that says what is behind it: the reason's word, and the trace by which others find the rest.
pub fn brief(deny: Deny, trace: TraceId, grpc: bool) -> Deny {
    let known = !trace.is_none();
    let mut headers = deny.headers;
    // The name of a policy.
    headers.retain(|(name, _)| *name != "ratelimit-policy");
    for (name, value) in &mut headers {
        // RFC 6750: for developers, not for users.
        if *name == "www-authenticate"
            && let Some((short, _)) = value.split_once(", error_description=")
        {
            *value = short.into();
        }
    }
    Deny {
        detail: (known && grpc).then(|| format!("{}, trace {trace}", deny.reason.word()).into()),
        extra: known.then(|| format!(r#"{{"trace":"{trace}"}}"#).into()),
        headers,
        ..deny
    }
}

/// What a caller sees of a fault that is injected: a refusal whose status is the rule's.
pub fn aborted(deny: &Deny, abort: Abort, grpc: bool) -> Answer {
    match (grpc, fault::grpc_status(abort), fault::http_status(abort)) {
        (true, Some(status), _) => grpc_refusal(deny, &status.to_string()),
        (false, _, Some(status)) => {
            problem(deny, StatusCode::from_u16(status).unwrap_or(status_of(deny.reason)))
        }
        _ => refusal(deny, grpc),
    }
}

/// A refusal in somebody else's words, with the reason of ours.
fn foreign_refusal(deny: &Deny, foreign: &Foreign, grpc: bool) -> Answer {
    let status = StatusCode::from_u16(foreign.status).unwrap_or(status_of(deny.reason));
    let mut answer = if grpc {
        let said = std::str::from_utf8(&foreign.body).ok().filter(|body| !body.is_empty());
        let mut deny = Deny::from(deny.reason);
        deny.detail = said.map(Box::from);
        grpc_refusal(&deny, grpc_status_of(foreign.status))
    } else if foreign.body.is_empty() {
        problem(deny, status)
    } else {
        let mut answer = Answer::empty(status);
        if !foreign.quiet {
            answer.head.headers.append("pilotfish-reason", deny.reason.word().as_bytes());
        }
        answer.body = Bytes::copy_from_slice(&foreign.body);
        answer
    };
    for (name, value) in &foreign.headers {
        if name.eq_ignore_ascii_case("content-type") {
            if !grpc && !foreign.body.is_empty() {
                answer.head.headers.set(name, value);
            }
        } else {
            answer.head.headers.append(name, value);
        }
    }
    answer
}

fn problem(deny: &Deny, status: StatusCode) -> Answer {
    let mut members = Map::new();
    // Members that a policy adds come first, so that they can never replace the standard ones.
    if let Some(Ok(Value::Object(extra))) = deny.extra.as_deref().map(serde_json::from_str) {
        members.extend(extra);
    }
    members.insert("title".into(), status.canonical_reason().unwrap_or("Refused").into());
    members.insert("status".into(), status.as_u16().into());
    members.insert("reason".into(), deny.reason.word().into());
    if let Some(detail) = &deny.detail {
        members.insert("detail".into(), detail.as_ref().into());
    }
    let mut answer = Answer::empty(status);
    answer.head.headers.append("content-type", b"application/problem+json");
    answer.head.headers.append("pilotfish-reason", deny.reason.word().as_bytes());
    if deny.reason == Reason::LocalSecret {
        // A 407 has to say how (RFC 9110, section 15.5.8); some clients send their password only then.
        answer.head.headers.append("proxy-authenticate", b"Basic realm=\"pilotfish\"");
    }
    let mut body = Value::Object(members).to_string();
    body.push('\n');
    answer.body = body.into();
    answer
}

fn grpc_refusal(deny: &Deny, status: &str) -> Answer {
    let mut answer = Answer::empty(StatusCode::OK);
    let headers = &mut answer.head.headers;
    headers.append("content-type", b"application/grpc");
    headers.append("grpc-status", status.as_bytes());
    let message = deny.detail.as_deref().unwrap_or(deny.reason.word());
    headers.append("grpc-message", percent_encode(message).as_bytes());
    headers.append("pilotfish-reason", deny.reason.word().as_bytes());
    answer
}

fn status_of(reason: Reason) -> StatusCode {
    StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}

/// gRPC's mapping of HTTP statuses (grpc/grpc, `doc/http-grpc-status-mapping.md`), with the one difference that a
/// timeout of ours is DEADLINE_EXCEEDED.
fn grpc_status(reason: Reason) -> &'static str {
    match (reason, reason.status()) {
        (Reason::Timeout | Reason::TryTimeout | Reason::StreamIdle | Reason::DeadlineExceeded, _) => "4",
        (Reason::RateLimited | Reason::FanOut, _) => "8",
        (Reason::AlreadyDone, _) => "6",
        (Reason::KeyReused, _) => "3",
        (Reason::TooManyHops | Reason::CallCycle, _) => "9",
        (_, status) => grpc_status_of(status),
    }
}

/// The same of a status alone.
fn grpc_status_of(status: u16) -> &'static str {
    match status {
        400 | 431 | 414 => "13",
        403 => "7",
        401 | 407 => "16",
        404 => "12",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    }
}

/// `grpc-message` allows printable ASCII without `%` (gRPC over HTTP2, "Responses").
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_problem_document_with_its_reason() {
        let deny = Deny {
            reason: Reason::NobodyQualifies,
            detail: Some("nobody can".into()),
            extra: Some(r#"{"candidates":[],"status":200}"#.into()),
            headers: vec![("retry-after", "3".into())],
            answer: None,
        };
        let answer = refusal(&deny, false);
        assert_eq!(answer.head.status, 503);
        assert_eq!(answer.head.headers.get("pilotfish-reason"), Some(&b"nobody-qualifies"[..]));
        assert_eq!(answer.head.headers.get("retry-after"), Some(&b"3"[..]));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["status"], 503);
        assert_eq!(body["candidates"], serde_json::json!([]));
        assert_eq!(body["detail"], "nobody can");
    }

    #[test]
    fn a_brief_refusal_says_its_reason_and_its_trace() {
        let deny = Deny {
            extra: Some(r#"{"candidates":["a"]}"#.into()),
            ..Deny::with(Reason::Unauthenticated, "default/policy wants a token")
        };
        let challenge = "Bearer realm=\"a\", error=\"invalid_token\", error_description=\"it has expired\"";
        let deny = deny.and_header("www-authenticate", challenge).and_header("ratelimit-policy", "\"p\"");
        let deny = deny.and_header("retry-after", "3");
        let answer = refusal(&brief(deny.clone(), TraceId([7; 16]), false), false);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let trace = "07".repeat(16);
        let wanted = serde_json::json!(
            {"title": "Unauthorized", "status": 401, "reason": "unauthenticated", "trace": trace}
        );
        assert_eq!(body, wanted);
        let header = |name: &str| answer.head.headers.get(name).map(<[u8]>::to_vec);
        let short = &b"Bearer realm=\"a\", error=\"invalid_token\""[..];
        assert_eq!(header("www-authenticate").as_deref(), Some(short));
        assert_eq!((header("ratelimit-policy"), header("retry-after")), (None, Some(b"3".to_vec())));
        let answer = refusal(&brief(deny.clone(), TraceId([7; 16]), true), true);
        let message = format!("unauthenticated, trace {trace}");
        assert_eq!(answer.head.headers.get("grpc-message"), Some(message.as_bytes()));
        // Before anything of the call could be read there is no trace.
        let answer = refusal(&brief(deny, TraceId::default(), false), false);
        assert!(!String::from_utf8_lossy(&answer.body).contains("trace"));
    }

    #[test]
    fn a_grpc_caller_gets_a_grpc_status() {
        let answer = refusal(&Deny::with(Reason::NoEndpoint, "100% gone\n"), true);
        assert_eq!(answer.head.status, 200);
        assert_eq!(answer.head.headers.get("grpc-status"), Some(&b"14"[..]));
        assert_eq!(answer.head.headers.get("grpc-message"), Some(&b"100%25 gone%0A"[..]));
    }
}
