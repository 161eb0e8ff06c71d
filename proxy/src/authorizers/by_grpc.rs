//! An authorizer that speaks gRPC: `envoy.service.auth.v3.Authorization/Check`, of whose messages only those fields are here that a
//! sidecar fills or obeys.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use pilotfish_config::model::CheckedBody;
use prost::Message;

use super::metadata::{self, Struct};
use super::{Allowed, Answer, Check, Edit, Field, How, Refused};

const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The question.
///
/// # Errors
/// The authorizer's address is none.
pub(super) fn question(
    origin: &str,
    context: &[(String, String)],
    body: Option<CheckedBody>,
    check: &Check<'_>,
) -> Result<Request<Bytes>, String> {
    let message = CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer(Some(check.source), check.principal)),
            destination: Some(peer(check.destination, check.own)),
            request: Some(AttributeRequest { http: Some(http(check, body)) }),
            context_extensions: context.iter().cloned().collect(),
            tls_session: check.sni.map(|sni| TlsSession { sni: sni.to_owned() }),
        }),
    };
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(5 + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).map_err(|error| error.to_string())?);
    message.encode(&mut framed).map_err(|error| error.to_string())?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{origin}{PATH}"))
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(header::TE, HeaderValue::from_static("trailers"));
    request.body(framed.freeze()).map_err(|error| error.to_string())
}

fn peer(address: Option<SocketAddr>, principal: Option<&str>) -> Peer {
    let socket = address.map(|address| SocketAddress {
        address: address.ip().to_canonical().to_string(),
        port_value: u32::from(address.port()),
    });
    Peer {
        address: socket.map(|socket_address| Address { socket_address: Some(socket_address) }),
        principal: principal.unwrap_or_default().to_owned(),
    }
}

fn http(check: &Check<'_>, body: Option<CheckedBody>) -> HttpRequest {
    let head = check.head;
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in head.headers.iter() {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let value = String::from_utf8_lossy(value);
        match headers.get_mut(&name) {
            None => {
                // Envoy has it by its name in HTTP/2.
                if name != "host" {
                    headers.insert(name, value.into_owned());
                }
            }
            Some(before) => {
                before.push(',');
                before.push_str(&value);
            }
        }
    }
    let pseudo = [
        (":method", head.method.as_str()),
        (":path", head.path_and_query()),
        (":authority", head.authority()),
        (":scheme", head.scheme()),
    ];
    headers.extend(pseudo.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let as_bytes = body.is_some_and(|body| body.as_bytes);
    let length = head.headers.get("content-length");
    let length = length.and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
    HttpRequest {
        id: check.id.unwrap_or_default().to_owned(),
        method: head.method.to_string(),
        headers,
        // With the query, as Envoy has it.
        path: head.path_and_query().to_owned(),
        host: head.authority().to_owned(),
        scheme: head.scheme().to_owned(),
        size: length.unwrap_or(-1),
        protocol: if head.version == http::Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" }.to_owned(),
        body: if as_bytes { String::new() } else { String::from_utf8_lossy(check.body).into_owned() },
        raw_body: if as_bytes { check.body.to_vec() } else { Vec::new() },
    }
}

/// What it answers.
///
/// # Errors
/// It does not answer as gRPC does, or that it cannot tell.
pub(super) fn answer(response: &Response<Bytes>) -> Result<Answer, String> {
    if response.status() != StatusCode::OK {
        return Err(format!("it answers {}", response.status().as_u16()));
    }
    match response.headers().get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(status) => {
            let status = String::from_utf8_lossy(status.get(..2).unwrap_or(status)).into_owned();
            return Err(format!("it answers with gRPC's status {status}"));
        }
        None => return Err("its answer has no status of gRPC".into()),
    }
    let message = match &response.body()[..] {
        [0, a, b, c, d, message @ ..] if message.len() == u32::from_be_bytes([*a, *b, *c, *d]) as usize => {
            message
        }
        _ => return Err("its answer is not one message of gRPC".into()),
    };
    let message = CheckResponse::decode(message).map_err(|_| "its answer is no CheckResponse".to_owned())?;
    // A message without a status is one of its default: OK.
    let code = message.status.map_or(0, |status| status.code);
    if code == 0 {
        let ok = message.ok_response.unwrap_or_default();
        // The one of the answer as a whole is the newer one.
        let metadata = message.dynamic_metadata.or(ok.dynamic_metadata).filter(|all| !all.fields.is_empty());
        return Ok(Answer::Allowed(Allowed {
            // Envoy's ext_authz replaces headers of the call where nothing is said, and adds to those of the answer.
            to_upstream: edits(ok.headers, How::Overwrite),
            remove: ok.headers_to_remove.into_iter().map(Into::into).collect(),
            to_downstream: edits(ok.response_headers_to_add, How::Append),
            query_set: ok
                .query_parameters_to_set
                .into_iter()
                .map(|one| (one.key.into(), one.value.into()))
                .collect(),
            query_remove: ok.query_parameters_to_remove.into_iter().map(Into::into).collect(),
            metadata: metadata.map(metadata::read).transpose()?,
        }));
    }
    let denied = message.denied_response.unwrap_or_default();
    let status = denied.status.and_then(|status| u16::try_from(status.code).ok());
    Ok(Answer::Refused(Refused {
        // Envoy's default.
        status: status.filter(|status| (200..=599).contains(status)).unwrap_or(403),
        headers: denied.headers.into_iter().filter_map(field).collect(),
        body: denied.body.into(),
    }))
}

fn field(option: HeaderValueOption) -> Option<Field> {
    let header = option.header?;
    let value = if header.value.is_empty() { header.raw_value } else { header.value.into_bytes() };
    Some((header.key.into(), value.into()))
}

fn edits(options: Vec<HeaderValueOption>, usual: How) -> Vec<Edit> {
    options.into_iter().filter_map(|option| edit(option, usual)).collect()
}

fn edit(option: HeaderValueOption, usual: How) -> Option<Edit> {
    let how = match (option.append.as_ref().map(|append| append.value), option.append_action) {
        (Some(true), _) => How::Append,
        (Some(false), _) | (None, 2) => How::Overwrite,
        (None, 1) => How::AddIfAbsent,
        (None, 3) => How::OverwriteIfThere,
        (None, _) => usual,
    };
    let keeps_empty = option.keep_empty_value;
    let (name, value) = field(option)?;
    match (value.is_empty(), how) {
        // Nothing is added; what a caller has forged there goes all the same.
        (true, How::Append | How::AddIfAbsent) if !keeps_empty => None,
        (true, _) if !keeps_empty => Some(Edit { name, value, how: How::Remove }),
        _ => Some(Edit { name, value, how }),
    }
}

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
    #[prost(message, optional, tag = "2")]
    destination: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    request: Option<AttributeRequest>,
    #[prost(btree_map = "string, string", tag = "10")]
    context_extensions: BTreeMap<String, String>,
    #[prost(message, optional, tag = "12")]
    tls_session: Option<TlsSession>,
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    #[prost(string, tag = "4")]
    principal: String,
}

#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    socket_address: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, Message)]
struct SocketAddress {
    #[prost(string, tag = "2")]
    address: String,
    #[prost(uint32, tag = "3")]
    port_value: u32,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeRequest {
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct HttpRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(btree_map = "string, string", tag = "3")]
    headers: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "6")]
    scheme: String,
    #[prost(int64, tag = "9")]
    size: i64,
    #[prost(string, tag = "10")]
    protocol: String,
    #[prost(string, tag = "11")]
    body: String,
    #[prost(bytes = "vec", tag = "12")]
    raw_body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct TlsSession {
    #[prost(string, tag = "1")]
    sni: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(message, optional, tag = "2")]
    pub(super) denied_response: Option<DeniedHttpResponse>,
    #[prost(message, optional, tag = "3")]
    pub(super) ok_response: Option<OkHttpResponse>,
    #[prost(message, optional, tag = "4")]
    pub(super) dynamic_metadata: Option<Struct>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeniedHttpResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    pub(super) headers: Vec<HeaderValueOption>,
    #[prost(string, tag = "3")]
    pub(super) body: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HttpStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OkHttpResponse {
    #[prost(message, repeated, tag = "2")]
    pub(super) headers: Vec<HeaderValueOption>,
    #[prost(message, optional, tag = "3")]
    pub(super) dynamic_metadata: Option<Struct>,
    #[prost(string, repeated, tag = "5")]
    pub(super) headers_to_remove: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub(super) response_headers_to_add: Vec<HeaderValueOption>,
    #[prost(message, repeated, tag = "7")]
    pub(super) query_parameters_to_set: Vec<QueryParameter>,
    #[prost(string, repeated, tag = "8")]
    pub(super) query_parameters_to_remove: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct QueryParameter {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<HeaderPair>,
    #[prost(message, optional, tag = "2")]
    pub(super) append: Option<BoolValue>,
    #[prost(int32, tag = "3")]
    pub(super) append_action: i32,
    #[prost(bool, tag = "4")]
    pub(super) keep_empty_value: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HeaderPair {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) raw_value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BoolValue {
    #[prost(bool, tag = "1")]
    pub(super) value: bool,
}
