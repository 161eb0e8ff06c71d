//! OTLP over gRPC: the one unary call that brings spans, on hyper's HTTP/2: a frame of five bytes and a message, and the
//! outcome in trailers.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use prost::Message;

use super::super::Control;
use super::super::answer::{Answer, Denied, whole};
use super::super::connection::Activity;
use super::ONLY_TRACES;
use super::body::{self, Room};
use super::http::response;
use crate::traces::batch::Speaker;
use crate::traces::store::Refusal;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Compressed or not, and the message's length.
const FRAME: usize = 5;

/// An outcome of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    InvalidArgument = 3,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Whether a request is one of gRPC.
pub(super) fn is(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web")
}

/// Answers a call.
pub(super) async fn answer(
    control: &Control,
    room: &Arc<Room>,
    speaker: Option<&Speaker>,
    head: &Parts,
    incoming: Incoming,
    activity: &Activity,
) -> Answer {
    if head.method != Method::POST || head.uri.path() != EXPORT {
        return failed(Code::Unimplemented, ONLY_TRACES);
    }
    match take(control, room, speaker, head, incoming, activity).await {
        Ok(message) => done(&message),
        Err((code, why)) => failed(code, &why),
    }
}

/// A refusal of HTTP as one of gRPC.
pub(super) fn refused(denied: &Denied) -> Answer {
    let (code, why) = translated(denied);
    failed(code, &why)
}

fn translated(denied: &Denied) -> (Code, String) {
    let code = match denied.status() {
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        // Not to be sent again as it is.
        StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT => {
            Code::Unavailable
        }
        _ => Code::Internal,
    };
    (code, denied.why().to_owned())
}

async fn take(
    control: &Control,
    room: &Arc<Room>,
    speaker: Option<&Speaker>,
    head: &Parts,
    incoming: Incoming,
    activity: &Activity,
) -> Result<Vec<u8>, (Code, String)> {
    let denied = |denied: Denied| translated(&denied);
    let mut place = room.place();
    let framed = body::read(incoming, &mut place, activity).await.map_err(denied)?;
    let (message, compressed) = unframed(&framed)
        .ok_or_else(|| (Code::InvalidArgument, "the body is not one message of gRPC".to_owned()))?;
    let message = if compressed {
        match head.headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
            Some(b"gzip") => {}
            _ => return Err((Code::Unimplemented, "only gzip is understood".into())),
        }
        let (message, _place) = body::inflate(message, place).await.map_err(denied)?;
        message
    } else {
        message
    };
    match control.traces.take(message, speaker).await {
        Ok(taken) => Ok(response(taken).encode_to_vec()),
        Err(refusal @ Refusal::Malformed) => Err((Code::InvalidArgument, refusal.why().into())),
        Err(refusal) => Err((Code::Unavailable, refusal.why().into())),
    }
}

/// The one message of a unary call, and whether it is compressed.
fn unframed(body: &Bytes) -> Option<(Bytes, bool)> {
    let head = body.get(..FRAME)?;
    let length = usize::try_from(u32::from_be_bytes(head.get(1..)?.try_into().ok()?)).ok()?;
    (body.len() == FRAME + length && head[0] <= 1).then(|| (body.slice(FRAME..), head[0] == 1))
}

fn done(message: &[u8]) -> Answer {
    let mut framed = BytesMut::with_capacity(FRAME + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(framed.freeze()).with_trailers(async move { Some(Ok(trailers)) });
    let mut answer = Response::new(body.boxed_unsync());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// The outcome in the headers, without a message.
fn failed(code: Code, why: &str) -> Answer {
    let mut answer = Response::new(whole(Bytes::new()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code as u16));
    if let Ok(why) = HeaderValue::try_from(escaped(why)) {
        headers.insert("grpc-message", why);
    }
    if code == Code::Unavailable {
        let details = data_encoding::BASE64_NOPAD.encode(&again(why));
        if let Ok(details) = HeaderValue::try_from(details) {
            headers.insert("grpc-status-details-bin", details);
        }
    }
    answer
}

/// Percent-encoded, as gRPC wants a message in a header.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A `google.rpc.Status` with a `RetryInfo` of one second: OTLP's senders wait so long, then send again.
fn again(why: &str) -> Vec<u8> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Seconds {
        #[prost(int64, tag = "1")]
        seconds: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<Seconds>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    let info = RetryInfo { retry_delay: Some(Seconds { seconds: 1 }) };
    let info =
        Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
    Status { code: Code::Unavailable as i32, message: why.into(), details: vec![info] }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_or_none() {
        let frame = |flag: u8, length: u32, rest: &[u8]| {
            let mut bytes = vec![flag];
            bytes.extend(length.to_be_bytes());
            bytes.extend(rest);
            unframed(&bytes.into())
        };
        assert_eq!(frame(0, 2, b"ab"), Some((Bytes::from_static(b"ab"), false)));
        assert_eq!(frame(1, 0, b""), Some((Bytes::new(), true)));
        for bad in [frame(0, 3, b"ab"), frame(0, 1, b"ab"), frame(2, 2, b"ab"), frame(0, u32::MAX, b"ab")] {
            assert_eq!(bad, None);
        }
        assert_eq!(unframed(&Bytes::from_static(b"\0\0")), None);
    }

    #[test]
    fn messages_are_escaped() {
        assert_eq!(escaped("50 % of ä\n"), "50 %25 of %C3%A4%0A");
    }
}
