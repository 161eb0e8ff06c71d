//! A call's record as conditions see it: filters of the access log and of taps.

use std::net::SocketAddr;

use pilotfish_filters::expression::{Attribute, Expression, Room, View};
use pilotfish_filters::verdict::Reason;

use super::{CallRecord, Text, Try, Whole};
use crate::http::RequestHead;
use crate::tls::MeshPeer;

impl CallRecord {
    /// Keeps what `condition` asks for and the record has no place for. To be called while the head is as it came.
    pub fn keep_for(&mut self, condition: &Expression, head: &RequestHead, mesh: Option<&MeshPeer>) {
        for name in condition.headers() {
            let Some(value) = head.headers.get(name) else { continue };
            let kept = &mut self.extra().headers;
            if !kept.iter().any(|(known, _)| known == name) {
                kept.push((name.clone(), String::from_utf8_lossy(value).into()));
            }
        }
        if let (true, Some(mesh)) = (condition.asks(Attribute::SourcePrincipal), mesh) {
            self.extra().principal = Some(mesh.peer.id.to_string().into());
        }
    }

    /// Keeps what was asked for, whole where the record has to cut it; and `x-request-id` already, for refusals that come
    /// before it is looked at.
    pub fn keep_whole(&mut self, host: &str, path: &str, request_id: &str) {
        self.request_id.set(request_id);
        let kept = [uncut(&self.host, host), uncut(&self.path, path), uncut(&self.request_id, request_id)];
        if kept.iter().any(Option::is_some) {
            let [host, path, request_id] = kept;
            let whole = &mut self.extra().whole;
            (whole.host, whole.path, whole.request_id) = (host, path, request_id);
        }
    }

    /// The same of what the call met.
    pub fn keep_names(&mut self, rule: &str, cluster: &str) {
        let kept = [uncut(&self.rule, rule), uncut(&self.cluster, cluster)];
        if kept.iter().any(Option::is_some) {
            let [rule, cluster] = kept;
            let whole = &mut self.extra().whole;
            (whole.rule, whole.cluster) = (rule, cluster);
        }
    }

    fn whole<'r>(&'r self, of: fn(&Whole) -> &Option<Box<str>>, cut: &'r str) -> &'r str {
        self.extra.as_ref().and_then(|extra| of(&extra.whole).as_deref()).unwrap_or(cut)
    }

    /// The authority that was asked for, whole if that was kept.
    pub fn whole_host(&self) -> &str {
        self.whole(|whole| &whole.host, self.host.as_str())
    }

    /// The path without its query, whole if that was kept.
    pub fn whole_path(&self) -> &str {
        self.whole(|whole| &whole.path, self.path.as_str())
    }

    /// `x-request-id`, whole if that was kept.
    pub fn whole_request_id(&self) -> &str {
        self.whole(|whole| &whole.request_id, self.request_id.as_str())
    }

    /// The rule that matched, whole if that was kept.
    pub fn whole_rule(&self) -> &str {
        self.whole(|whole| &whole.rule, self.rule.as_str())
    }

    /// The cluster that it led to, whole if that was kept.
    pub fn whole_cluster(&self) -> &str {
        self.whole(|whole| &whole.cluster, self.cluster.as_str())
    }

    /// The try that decided: the last one.
    pub fn last_try(&self) -> Option<&Try> {
        self.tried().last()
    }

    /// The status that the caller got; 499 when it was gone before.
    pub fn status_or_gone(&self) -> u16 {
        if self.status == 0 { Reason::ClientGone.status() } else { self.status }
    }

    /// What the caller spoke.
    pub fn http_version(&self) -> &'static str {
        if self.h2 { "HTTP/2" } else { "HTTP/1.1" }
    }

    /// The endpoint of the last try.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.last_try()?.endpoint
    }
}

/// `whole`, when a record's text has not the place for it.
fn uncut<const N: usize>(_: &Text<N>, whole: &str) -> Option<Box<str>> {
    (whole.len() > N).then(|| whole.into())
}

impl View for CallRecord {
    fn text<'v>(&'v self, attribute: Attribute, room: &'v mut Room) -> Option<&'v str> {
        Some(match attribute {
            Attribute::Method => self.method.as_str(),
            Attribute::Path => self.whole_path(),
            Attribute::Host => self.whole_host(),
            Attribute::Scheme if self.https => "https",
            Attribute::Scheme => "http",
            Attribute::RequestId => self.whole_request_id(),
            Attribute::HttpVersion => self.http_version(),
            Attribute::Reason => self.reason?.word(),
            Attribute::SourceAddress => room.show(&self.peer),
            Attribute::SourcePrincipal => self.extra.as_ref()?.principal.as_deref()?,
            Attribute::SourceNamespace => self.caller.as_str().split_once('/')?.0,
            Attribute::Caller => self.caller.as_str(),
            Attribute::Endpoint => room.show(&self.endpoint()?),
            Attribute::Cluster => self.whole_cluster(),
            Attribute::Agent => self.last_try()?.agent.as_str(),
            Attribute::Direction => self.direction.word(),
            Attribute::Rule => self.whole_rule(),
            Attribute::Capability => self.capability.as_str(),
            Attribute::Protocol => self.protocol.word(),
            Attribute::Workflow => self.workflow.as_str(),
            Attribute::Trace => room.show(&self.trace),
            Attribute::RequestSize
            | Attribute::Duration
            | Attribute::Status
            | Attribute::ResponseSize
            | Attribute::Mtls
            | Attribute::Tries
            | Attribute::Sampled => return None,
        })
    }

    fn number(&self, attribute: Attribute) -> Option<i64> {
        let whole = |number: u64| Some(i64::try_from(number).unwrap_or(i64::MAX));
        match attribute {
            Attribute::RequestSize => whole(self.sent),
            Attribute::ResponseSize => whole(self.received),
            Attribute::Duration => whole(self.stages.ended.saturating_mul(1000)),
            Attribute::Status => Some(self.status_or_gone().into()),
            Attribute::Tries => Some(self.tries.into()),
            Attribute::Mtls => Some((!self.caller.is_empty()).into()),
            Attribute::Sampled => Some(self.sampled.into()),
            _ => None,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let kept = &self.extra.as_ref()?.headers;
        kept.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }
}

#[cfg(test)]
mod tests {
    use pilotfish_filters::clock::Micros;
    use pilotfish_filters::trace::{SpanId, TraceId};

    use super::*;
    use crate::listen::Direction;

    fn full() -> CallRecord {
        let mut record = CallRecord::default();
        record.begin(Direction::Inbound, SocketAddr::from(([10, 0, 0, 1], 5)), Micros::default());
        record.trace = TraceId([7; 16]);
        record.caller.set("lab/anna");
        record.begin_try(SpanId([1; 8]), Some(SocketAddr::from(([10, 0, 0, 2], 80))), Micros::default());
        if let Some(attempt) = record.current() {
            attempt.agent.set("default/nlp");
        }
        (record.status, record.reason, record.stages.ended) = (504, Some(Reason::Timeout), 1_500_000);
        record.rule.set("rule");
        record.cluster.set("cluster");
        record.host.set("host");
        record.method.set("GET");
        record.path.set("/x");
        record.request_id.set("id");
        record.capability.set("translate");
        record.workflow.set("w");
        record.extra().principal = Some("spiffe://m/ns/lab/agent/anna".into());
        record.extra().headers.push(("x-user".into(), "anna".into()));
        record
    }

    #[test]
    fn every_attribute_is_known_of_a_full_record() {
        let record = full();
        for (attribute, names) in Attribute::ALL {
            let has = Expression::compile(&format!("has({})", names[0])).unwrap();
            assert!(has.matches(&record), "{attribute:?}");
        }
        for condition in [
            "request.duration == 1500ms && response.code == 504 && response.flags == 'timeout'",
            "source.namespace == 'lab' && connection.mtls && source.principal.endsWith('/anna')",
            "destination.address == '10.0.0.2:80' && source.address == '10.0.0.1:5' && call.tries == 1",
            "call.trace.startsWith('0707') && request.headers['X-User'] == 'anna' && !call.sampled",
            "call.direction == 'inbound' && call.protocol == 'http' && request.protocol == 'HTTP/1.1'",
            "call.agent == 'default/nlp' && request.scheme == 'http'",
        ] {
            assert!(Expression::compile(condition).unwrap().matches(&record), "{condition}");
        }
    }

    #[test]
    fn a_caller_that_is_gone_is_a_status_of_its_own() {
        let record = CallRecord::default();
        assert!(Expression::compile("response.code == 499 && !has(call.agent)").unwrap().matches(&record));
    }
}
