//! OTLP over HTTP: one batch of spans in a request's body, as protobuf or JSON.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use hyper::body::Incoming;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;

use super::super::Control;
use super::super::answer::{Answer, Denied, typed};
use super::super::connection::Activity;
use super::ONLY_TRACES;
use super::body::{self, Room};
use crate::traces::batch::Speaker;
use crate::traces::store::{Refusal, Taken};

/// How a body says what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// Answers a request of an OTLP listener.
pub(super) async fn answer(
    control: &Control,
    room: &Arc<Room>,
    speaker: Option<&Speaker>,
    head: &Parts,
    incoming: Incoming,
    activity: &Activity,
) -> Result<Answer, Denied> {
    match head.uri.path() {
        "/v1/traces" if head.method == Method::POST => {
            take(control, room, speaker, head, incoming, activity).await
        }
        "/v1/traces" => Err(Denied::method("POST")),
        "/v1/metrics" | "/v1/logs" => Err(Denied::not_found(ONLY_TRACES)),
        _ => Err(Denied::not_found("there is only /v1/traces, OTLP over HTTP")),
    }
}

/// Takes a batch of spans; with a speaker all of them are his.
pub(in crate::server) async fn take(
    control: &Control,
    room: &Arc<Room>,
    speaker: Option<&Speaker>,
    head: &Parts,
    incoming: Incoming,
    activity: &Activity,
) -> Result<Answer, Denied> {
    let form = form(&head.headers)?;
    let mut place = room.place();
    let bytes = body::read(incoming, &mut place, activity).await?;
    let (bytes, place) =
        if is_gzip(&head.headers)? { body::inflate(bytes, place).await? } else { (bytes, place) };
    let bytes = if form == Form::Json { body::from_json(bytes, &place).await? } else { bytes };
    let taken = control.traces.take(bytes, speaker).await.map_err(denied)?;
    Ok(answered(form, taken))
}

fn form(headers: &HeaderMap) -> Result<Form, Denied> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(PROTOBUF) || kind.eq_ignore_ascii_case("application/protobuf") {
        return Ok(Form::Protobuf);
    }
    if kind.eq_ignore_ascii_case(JSON) {
        return Ok(Form::Json);
    }
    let why = "the content type must be application/x-protobuf or application/json";
    Err(Denied::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why))
}

pub(super) fn is_gzip(headers: &HeaderMap) -> Result<bool, Denied> {
    match headers.get(CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
        None | Some(b"identity" | b"") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(_) => {
            let why = "the content encoding must be gzip or identity";
            Err(Denied::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why))
        }
    }
}

/// OTLP: what may be sent again is told by 429 and 503.
fn denied(refusal: Refusal) -> Denied {
    let status = match refusal {
        Refusal::Malformed => StatusCode::BAD_REQUEST,
        Refusal::Busy => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Full => StatusCode::SERVICE_UNAVAILABLE,
    };
    let denied = Denied::new(status, refusal.why());
    if refusal == Refusal::Malformed { denied } else { denied.after(1) }
}

/// What OTLP answers: nothing when all is well.
pub(super) fn response(taken: Taken) -> ExportTraceServiceResponse {
    let refused = taken.refused.total();
    let partial_success = (refused > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(refused).unwrap_or(i64::MAX),
        error_message: taken.refused.why(),
    });
    ExportTraceServiceResponse { partial_success }
}

fn answered(form: Form, taken: Taken) -> Answer {
    let response = response(taken);
    match form {
        Form::Protobuf => typed(StatusCode::OK, PROTOBUF, response.encode_to_vec()),
        Form::Json => {
            let partial = response.partial_success.map(|partial| {
                serde_json::json!({"rejectedSpans": partial.rejected_spans.to_string(), "errorMessage": partial.error_message})
            });
            let body =
                partial.map_or_else(|| serde_json::json!({}), |it| serde_json::json!({"partialSuccess": it}));
            typed(StatusCode::OK, JSON, body.to_string())
        }
    }
}
