//! Spans are read back field by field, by the messages that everybody else reads them with.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span};
use pilotfish_filters::trace::{SpanId, TraceId};
use prost::Message;

use super::*;
use crate::listen::Direction;
use crate::telemetry::call::{Acted, Stages};

const EPOCH: Epoch = Epoch(1_700_000_000_000_000_000);

fn spans(call: &CallRecord, why: Why) -> Vec<Span> {
    let (mut made, mut out) = (Spans::default(), Vec::new());
    let count = made.append(&mut out, call, why, EPOCH);
    let spans = ScopeSpans::decode(&out[..]).unwrap().spans;
    assert_eq!(spans.len(), count);
    spans
}

/// The attributes as `key=value`, each key once.
fn read(span: &Span) -> BTreeMap<String, String> {
    let mut read = BTreeMap::new();
    for one in &span.attributes {
        let value = match one.value.clone().and_then(|value| value.value) {
            Some(Any::StringValue(text)) => text,
            Some(Any::IntValue(number)) => number.to_string(),
            Some(Any::BoolValue(flag)) => flag.to_string(),
            Some(Any::DoubleValue(number)) => format!("{number:.2}"),
            Some(Any::ArrayValue(list)) => {
                let texts = list.values.into_iter().map(|value| match value.value {
                    Some(Any::StringValue(text)) => text,
                    other => panic!("{other:?}"),
                });
                texts.collect::<Vec<_>>().join("+")
            }
            other => panic!("{other:?}"),
        };
        assert!(read.insert(one.key.clone(), value).is_none(), "{} twice", one.key);
    }
    read
}

fn lines(span: &Span) -> Vec<String> {
    read(span).into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn try_of(place: u8, ended: Ended, status: u16) -> Try {
    let mut attempt = Try {
        span: SpanId([place; 8]),
        endpoint: Some(SocketAddr::from(([10, 0, 0, place], 8080))),
        began: 100 * u32::from(place),
        connected: 100 * u32::from(place) + 20,
        answered: 100 * u32::from(place) + 50,
        status,
        ended,
        candidates: (5, 3),
        cost: 1.5,
        ..Try::default()
    };
    attempt.agent.set("default/nlp");
    attempt
}

/// An outbound POST that failed once, and then went well.
fn call() -> CallRecord {
    let mut call = CallRecord {
        trace: TraceId([7; 16]),
        span: SpanId([9; 8]),
        parent: SpanId([3; 8]),
        sampled: true,
        started: Micros(5_000_000),
        stages: Stages { decoded: 2, routed: 0, admitted: 8, answered: 260, ended: 900 },
        peer: SocketAddr::from(([127, 0, 0, 1], 40000)),
        status: 200,
        acted: Acted(Acted::RETRY.0 | Acted::AFFINITY.0),
        sent: 10,
        received: 2000,
        tries: 2,
        ..CallRecord::default()
    };
    call.method.set("POST");
    call.host.set("user:secret@nlp.default:8000");
    call.path.set("/v1/ask");
    call.rule.set("nlp-routing/0");
    call.cluster.set("nlp");
    call.request_id.set("r-1");
    call.workflow.set("w-1");
    call.capability.set("nlu");
    call.attempts[0] = try_of(1, Ended::NotConnected, 0);
    call.attempts[1] = try_of(2, Ended::Answered, 200);
    call.extra().tracestate = "a=b".into();
    call
}

#[test]
fn a_call_with_a_retry_is_three_spans() {
    let [server, first, second] = &spans(&call(), Why::Sampled)[..] else { panic!("not three") };
    assert_eq!(server.name, "POST nlp-routing/0");
    assert_eq!(
        (server.trace_id.len(), &server.span_id, &server.parent_span_id),
        (16, &vec![9; 8], &vec![3; 8])
    );
    assert_eq!((server.kind, server.flags, &*server.trace_state), (2, 0x301, "a=b"));
    assert_eq!(server.start_time_unix_nano, 1_700_000_005_000_000_000);
    assert_eq!(server.end_time_unix_nano, 1_700_000_005_000_900_000);
    assert_eq!(server.status, None);
    let expected = [
        "client.address=127.0.0.1",
        "http.request.body.size=10",
        "http.request.method=POST",
        "http.response.body.size=2000",
        "http.response.status_code=200",
        "network.peer.address=127.0.0.1",
        "network.peer.port=40000",
        "network.protocol.name=http",
        "network.protocol.version=1.1",
        "pilotfish.capability=nlu",
        "pilotfish.cluster=nlp",
        "pilotfish.direction=outbound",
        "pilotfish.policies=retry+affinity",
        "pilotfish.request_id=r-1",
        "pilotfish.rule=nlp-routing/0",
        "pilotfish.workflow.id=w-1",
        "server.address=nlp.default",
        "server.port=8000",
        "url.path=/v1/ask",
        "url.scheme=http",
    ];
    assert_eq!(lines(server), expected);
    let events: Vec<_> = server.events.iter().map(|event| (&*event.name, event.time_unix_nano)).collect();
    let at = |micros: u64| 1_700_000_005_000_000_000 + micros * 1000;
    let stages =
        [("pilotfish.decoded", at(2)), ("pilotfish.admitted", at(8)), ("pilotfish.answered", at(260))];
    assert_eq!(events, stages);

    assert_eq!((&*first.name, first.kind, first.flags), ("POST nlp-routing/0", 3, 0x101));
    assert_eq!((&first.span_id, &first.parent_span_id), (&vec![1; 8], &vec![9; 8]));
    assert_eq!((first.start_time_unix_nano, first.end_time_unix_nano), (at(100), at(150)));
    let status = first.status.clone().unwrap();
    assert_eq!((status.code, &*status.message), (2, "not-connected"));
    let attributes = read(first);
    assert_eq!(attributes["error.type"], "not-connected");
    assert!(!attributes.contains_key("http.request.resend_count"));
    assert!(!attributes.contains_key("http.response.status_code"));

    assert_eq!((second.start_time_unix_nano, second.end_time_unix_nano), (at(200), at(900)));
    assert_eq!(second.status, None);
    let expected = [
        "http.request.method=POST",
        "http.request.resend_count=1",
        "http.response.status_code=200",
        "network.peer.address=10.0.0.2",
        "network.peer.port=8080",
        "network.protocol.name=http",
        "pilotfish.agent=default/nlp",
        "pilotfish.candidates=3",
        "pilotfish.cluster=nlp",
        "pilotfish.cost=1.50",
        "pilotfish.direction=outbound",
        "pilotfish.endpoint=10.0.0.2:8080",
        "pilotfish.rule=nlp-routing/0",
        "pilotfish.try.ended=answered",
        "server.address=nlp.default",
        "server.port=8000",
        "url.full=http://nlp.default:8000/v1/ask",
    ];
    assert_eq!(lines(second), expected);
    let events: Vec<_> = second.events.iter().map(|event| (&*event.name, event.time_unix_nano)).collect();
    assert_eq!(events, [("pilotfish.connected", at(220)), ("pilotfish.answered", at(250))]);
}

#[test]
fn a_span_names_what_went_wrong() {
    let outcome = |change: &dyn Fn(&mut CallRecord)| {
        let mut call = call();
        change(&mut call);
        let of = |span: &Span| {
            let status = span.status.clone().map(|status| (status.code, status.message));
            let kind = read(span).get("error.type").cloned();
            assert_eq!(status.is_some(), kind.is_some(), "{span:?}");
            status.map(|(code, message)| format!("{code} {} {message}", kind.unwrap_or_default()))
        };
        let spans = spans(&call, Why::Sampled);
        (of(&spans[0]), spans.last().map(of).unwrap_or_default())
    };
    let some = |text: &str| Some(text.to_owned());
    let answered = |call: &mut CallRecord, status| {
        (call.status, call.attempts[1].status) = (status, status);
    };
    assert_eq!(outcome(&|call| answered(call, 404)), (None, some("2 404 ")));
    assert_eq!(outcome(&|call| answered(call, 500)), (some("2 500 "), some("2 500 ")));
    // The answer broke off after its head.
    let broke = |call: &mut CallRecord| call.reason = Some(Reason::UpstreamReset);
    let word = some("2 upstream-reset upstream-reset");
    assert_eq!(outcome(&broke), (word.clone(), word));
    // The caller has seen enough of a stream, or was gone before there was anything.
    assert_eq!(outcome(&|call| call.reason = Some(Reason::ClientGone)), (None, None));
    let gone = |call: &mut CallRecord| {
        (call.status, call.reason) = (0, Some(Reason::ClientGone));
        call.attempts[1] = try_of(2, Ended::Cancelled, 0);
    };
    assert_eq!(outcome(&gone), (some("2 client-gone client-gone"), None));
    let refused = |call: &mut CallRecord| {
        (call.status, call.reason, call.tries) = (429, Some(Reason::RateLimited), 0);
    };
    assert_eq!(outcome(&refused).0, None);
    let refused = |call: &mut CallRecord| {
        (call.status, call.reason, call.tries) = (503, Some(Reason::NoEndpoint), 0);
    };
    assert_eq!(outcome(&refused).0, some("2 no-healthy-endpoint no-healthy-endpoint"));
    let slow = |call: &mut CallRecord| {
        (call.status, call.reason) = (504, Some(Reason::Timeout));
        call.attempts[1] = Try { answered: 0, ..try_of(2, Ended::Open, 0) };
    };
    assert_eq!(outcome(&slow), (some("2 timeout timeout"), some("2 timeout timeout")));
}

#[test]
fn a_span_is_named_by_what_is_known_of_the_call() {
    let name = |attributes: &[(&'static str, &str)], rule: &str| {
        let mut call = call();
        call.rule.set(rule);
        call.extra().attributes =
            attributes.iter().map(|(key, value)| (*key, Value::Text((*value).into()))).collect();
        let spans = spans(&call, Why::Sampled);
        (spans[0].name.clone(), spans[1].name.clone())
    };
    let both = |text: &str| (text.to_owned(), text.to_owned());
    assert_eq!(name(&[], ""), both("POST"));
    assert_eq!(name(&[("http.route", "/a/{b}")], "r"), ("POST /a/{b}".into(), "POST r".into()));
    assert_eq!(name(&[("mcp.method.name", "tools/list")], "r"), both("tools/list"));
    let tool = [("mcp.method.name", "tools/call"), ("gen_ai.tool.name", "add")];
    assert_eq!(name(&tool, "r"), both("tools/call add"));
    assert_eq!(name(&[("a2a.method.name", "SendMessage")], "r"), both("SendMessage"));
    let chat = [("gen_ai.operation.name", "chat"), ("gen_ai.request.model", "m-1")];
    assert_eq!(name(&chat, "r"), both("chat m-1"));
    let mut other = call();
    other.method.set("BREW");
    let spans = spans(&other, Why::Sampled);
    assert_eq!(spans[0].name, "HTTP nlp-routing/0");
    assert_eq!(read(&spans[0])["http.request.method"], "_OTHER");
    assert_eq!(read(&spans[0])["http.request.method_original"], "BREW");
}

#[test]
fn what_the_answer_said_is_told_by_one_span() {
    let mut call = call();
    call.extra().attributes = vec![
        ("gen_ai.request.model", Value::Text("m".into())),
        ("gen_ai.usage.input_tokens", Value::Number(12)),
    ];
    call.extra().tags = vec![("team".into(), "x".into())];
    let keys = |call: &CallRecord| -> Vec<String> {
        let has = |span: &Span| {
            let read = read(span);
            let of = ["gen_ai.request.model", "gen_ai.usage.input_tokens", "team"];
            of.map(|key| if read.contains_key(key) { "+" } else { "-" }).concat()
        };
        spans(call, Why::Sampled).iter().map(has).collect()
    };
    assert_eq!(keys(&call), ["+-+", "+--", "++-"]);
    call.tries = 0;
    assert_eq!(keys(&call), ["+++"]);
}

#[test]
fn later_tries_than_are_kept_count() {
    let mut call = call();
    call.tries = 7;
    (2..=3).for_each(|place| call.attempts[place] = try_of(place as u8, Ended::Reset, 0));
    let spans = spans(&call, Why::Sampled);
    let resends: Vec<_> = spans[1..]
        .iter()
        .map(|span| read(span).remove("http.request.resend_count").unwrap_or_default())
        .collect();
    assert_eq!(resends, ["", "1", "2", "6"]);
    assert_eq!(read(&spans[0])["pilotfish.tries"], "7");
}

#[test]
fn what_was_inferred_and_what_is_partial_says_so() {
    let mut call = call();
    (call.inferred, call.sampled, call.direction) = (true, false, Direction::Inbound);
    call.extra().explained = Some("{}".into());
    let made = spans(&call, Why::Partial);
    assert_eq!(made[0].flags, 0x100);
    assert_eq!(read(&made[0])["pilotfish.trace.inferred"], "true");
    assert_eq!(read(&made[0])["pilotfish.direction"], "inbound");
    assert!(made.iter().all(|span| read(span)["pilotfish.trace.partial"] == "true"));
    let explained = made[0].events.last().unwrap();
    assert_eq!((&*explained.name, explained.attributes.len()), ("pilotfish.explained", 1));
    call.parent = SpanId::default();
    assert!(spans(&call, Why::Partial)[0].parent_span_id.is_empty());
}

#[test]
fn attributes_without_end_are_counted() {
    let mut call = call();
    call.extra().attributes = (0..200).map(|n| ("a", Value::Number(n))).collect();
    call.extra().tags = (0..130).map(|n| (n.to_string().into(), "x".into())).collect();
    let made = spans(&call, Why::Sampled);
    assert_eq!(made[0].dropped_attributes_count, 72 + 2);
    assert_eq!(made[1].dropped_attributes_count, 72);
}

#[test]
fn authorities_come_apart() {
    for (authority, host, port) in [
        ("a", "a", None),
        ("a:80", "a", Some(80)),
        ("[::1]", "::1", None),
        ("[::1]:8080", "::1", Some(8080)),
        ("a:", "a:", None),
        ("a:99999", "a:99999", None),
        ("", "", None),
    ] {
        assert_eq!(split(authority), (host, port), "{authority}");
    }
}

#[test]
fn addresses_are_forgotten_before_they_are_too_many() {
    let mut made = Spans::default();
    let mut call = call();
    for n in 0..5000_u32 {
        call.peer = SocketAddr::from((n.to_be_bytes(), 1));
        made.append(&mut Vec::new(), &call, Why::Sampled, EPOCH);
    }
    assert!(made.addresses.len() <= MOST_ADDRESSES);
}
