//! What a line of the access log may have, and what a call has of it.

use std::borrow::Cow;
use std::str::FromStr;

use pilotfish_config::raw::nearest;
use pilotfish_filters::redact;

use crate::telemetry::call::{Acted, CallRecord, Try};

/// What is known of a call, as a line has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown<'r> {
    /// A text.
    Text(Cow<'r, str>),
    /// A whole number.
    Number(u64),
    /// Yes or no.
    Yes(bool),
    /// Words.
    Words(Acted),
}

macro_rules! fields {
    ($($(#[doc = $doc:literal])* $field:ident = $name:literal | $attribute:literal;)*) => {
        /// Something that a line may have.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Field {
            $($(#[doc = $doc])* $field,)*
        }

        impl Field {
            /// All of them, in the order in which lines have them.
            pub const ALL: &[Field] = &[$(Field::$field,)*];

            /// Its name in lines.
            pub const fn name(self) -> &'static str {
                match self { $(Field::$field => $name,)* }
            }

            /// Its name in log records of OpenTelemetry.
            pub const fn attribute(self) -> &'static str {
                match self { $(Field::$field => $attribute,)* }
            }
        }
    };
}

fields! {
    /// Which way it went.
    Direction = "direction" | "pilotfish.direction";
    /// The address that it came from.
    Peer = "peer" | "network.peer.address";
    /// What the caller spoke.
    HttpVersion = "protocol" | "network.protocol.version";
    /// The method as sent.
    Method = "method" | "http.request.method";
    /// The host that was asked for.
    Authority = "authority" | "server.address";
    /// The path without the query.
    Path = "path" | "url.path";
    /// What the caller got; 499 when it was gone before.
    Status = "status" | "http.response.status_code";
    /// Why the sidecar itself refused.
    Reason = "reason" | "pilotfish.reason";
    /// The rule that matched.
    Rule = "rule" | "pilotfish.rule";
    /// The cluster that it led to.
    Cluster = "cluster" | "pilotfish.cluster";
    /// The endpoint of the last try.
    Endpoint = "endpoint" | "pilotfish.endpoint";
    /// `x-request-id`.
    RequestId = "request_id" | "pilotfish.request_id";
    /// From the request's head to the end of its answer, in microseconds.
    Duration = "duration_us" | "pilotfish.duration_us";
    /// Bytes of the request's body.
    RequestBytes = "request_bytes" | "http.request.body.size";
    /// Bytes of the answer's body.
    ResponseBytes = "response_bytes" | "http.response.body.size";
    /// The trace.
    TraceId = "trace_id" | "pilotfish.trace_id";
    /// How many tries there were.
    Tries = "tries" | "pilotfish.tries";
    /// The endpoint's agent.
    Agent = "agent" | "pilotfish.agent";
    /// The calling agent, when its sidecar proved who it is.
    Caller = "caller" | "pilotfish.caller";
    /// The capability that was asked for.
    Capability = "capability" | "pilotfish.capability";
    /// The workflow that it is part of.
    Workflow = "workflow" | "pilotfish.workflow.id";
    /// What made a difference besides the rule.
    Policies = "policies" | "pilotfish.policies";
    /// Its SERVER span.
    SpanId = "span_id" | "pilotfish.span_id";
    /// Whether its trace is kept.
    Sampled = "sampled" | "pilotfish.sampled";
    /// `http` or `https`.
    Scheme = "scheme" | "url.scheme";
    /// What was spoken in it: `http`, `grpc`, `mcp`, ...
    Spoken = "spoken" | "pilotfish.protocol";
    /// Whether its answer is a stream or a tunnel.
    Streams = "streams" | "pilotfish.streams";
    /// Microseconds after the head: what the call is was known, ...
    Decoded = "decoded_us" | "pilotfish.decoded_us";
    /// ... its rule was, ...
    Routed = "routed_us" | "pilotfish.routed_us";
    /// ... it might go on, ...
    Admitted = "admitted_us" | "pilotfish.admitted_us";
    /// ... the last try had its connection, ...
    Connected = "connected_us" | "pilotfish.connected_us";
    /// ... the head of the answer went down.
    Answered = "answered_us" | "pilotfish.answered_us";
    /// Where the chain of who asked whom began, when the call is for somebody else than its caller.
    Origin = "delegation_origin" | "pilotfish.delegation.origin";
    /// How many agents are before the caller.
    Depth = "delegation_depth" | "pilotfish.delegation.depth";
    /// What the sidecar that refused it said about it.
    Detail = "detail" | "pilotfish.detail";
}

impl Field {
    /// What `call` has of it; nothing that must not leave.
    pub fn of(self, call: &CallRecord) -> Option<Shown<'_>> {
        let at = |micros: u32| (micros > 0).then_some(Shown::Number(micros.into()));
        Some(match self {
            Field::Direction => word(call.direction.word()),
            Field::Peer => Shown::Text(call.peer.ip().to_string().into()),
            Field::HttpVersion => word(call.http_version()),
            // Empty when nothing of the request could be read.
            Field::Method => Shown::Text(redact::value(call.method.as_str())),
            Field::Authority => Shown::Text(redact::url(call.whole_host())),
            Field::Path => Shown::Text(redact::path(call.whole_path())),
            Field::Status => Shown::Number(call.status_or_gone().into()),
            Field::Reason => word(call.reason?.word()),
            Field::Rule => text(call.whole_rule())?,
            Field::Cluster => text(call.whole_cluster())?,
            Field::Endpoint => Shown::Text(call.endpoint()?.to_string().into()),
            Field::RequestId => text(call.whole_request_id())?,
            Field::Duration => Shown::Number(call.stages.ended),
            Field::RequestBytes => Shown::Number(call.sent),
            Field::ResponseBytes => Shown::Number(call.received),
            Field::TraceId if call.trace.is_none() => return None,
            Field::TraceId => Shown::Text(call.trace.to_string().into()),
            Field::Tries if call.tries == 0 => return None,
            Field::Tries => Shown::Number(call.tries.into()),
            Field::Agent => text(call.last_try()?.agent.as_str())?,
            Field::Caller => text(call.caller.as_str())?,
            Field::Capability => text(call.capability.as_str())?,
            Field::Workflow => text(call.workflow.as_str())?,
            Field::Policies if call.acted == Acted::default() => return None,
            Field::Policies => Shown::Words(call.acted),
            Field::SpanId if call.span.is_none() => return None,
            Field::SpanId => Shown::Text(call.span.to_string().into()),
            Field::Sampled => Shown::Yes(call.sampled),
            Field::Scheme => word(if call.https { "https" } else { "http" }),
            Field::Spoken => word(call.protocol.word()),
            Field::Streams => Shown::Yes(call.streams),
            Field::Decoded => at(call.stages.decoded)?,
            Field::Routed => at(call.stages.routed)?,
            Field::Admitted => at(call.stages.admitted)?,
            Field::Connected => at(call.last_try().map_or(0, |last: &Try| last.connected))?,
            Field::Answered => at(call.stages.answered)?,
            Field::Origin => text(&call.chain.as_ref()?.origin)?,
            Field::Depth => Shown::Number(call.chain.as_ref()?.agents.len() as u64),
            Field::Detail => text(call.detail())?,
        })
    }
}

fn word(word: &'static str) -> Shown<'static> {
    Shown::Text(Cow::Borrowed(word))
}

fn text(text: &str) -> Option<Shown<'_>> {
    (!text.is_empty()).then(|| Shown::Text(redact::value(text)))
}

/// Which fields lines have, in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields(Vec<Field>);

impl Default for Fields {
    fn default() -> Self {
        let usual = Field::ALL.iter().position(|field| *field == Field::SpanId).unwrap_or(Field::ALL.len());
        Fields(Field::ALL[..usual].to_vec())
    }
}

impl Fields {
    /// Each with what `call` has of it.
    pub fn of<'r>(&'r self, call: &'r CallRecord) -> impl Iterator<Item = (Field, Shown<'r>)> {
        self.0.iter().filter_map(|field| Some((*field, field.of(call)?)))
    }
}

impl FromStr for Fields {
    type Err = String;

    /// Reads `default`, `all`, or names separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "default" => return Ok(Fields::default()),
            "all" => return Ok(Fields(Field::ALL.to_vec())),
            _ => {}
        }
        let mut fields = Vec::new();
        for name in text.split(',').map(str::trim) {
            let Some(field) = Field::ALL.iter().find(|field| field.name() == name) else {
                let known = || Field::ALL.iter().map(|field| field.name());
                return Err(match nearest(name, known()) {
                    Some(near) => format!("there is no field `{name}`; did you mean `{near}`?"),
                    None => format!(
                        "there is no field `{name}`; known: {}",
                        known().collect::<Vec<_>>().join(", ")
                    ),
                });
            };
            if fields.contains(field) {
                return Err(format!("`{name}` is there twice"));
            }
            fields.push(*field);
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_their_order_is_kept() {
        let fields: Fields = "status, path,trace_id".parse().unwrap();
        assert_eq!(fields, Fields(vec![Field::Status, Field::Path, Field::TraceId]));
        let error = |text: &str| text.parse::<Fields>().unwrap_err();
        assert_eq!(error("status,pth"), "there is no field `pth`; did you mean `path`?");
        assert_eq!(error("status,status"), "`status` is there twice");
        assert!(error("").starts_with("there is no field ``; known: direction, peer, "));
        assert!(error("status,,path").contains("no field ``"));
        assert_eq!("all".parse::<Fields>().unwrap().0.len(), Field::ALL.len());
        assert_eq!("default".parse(), Ok(Fields::default()));
    }
}
