//! Traces through the real sidecar: what an upstream is told, headers good and bad, tries, and agents that pass nothing on.

use std::collections::HashSet;

use pilotfish_testkit::origin::{Step, ok, send};
use pilotfish_testkit::relay::Manners;
use pilotfish_testkit::strict::Message;
use pilotfish_testkit::{H1, Origin, Relay, Sidecar};

use crate::support::{metric, service, service_with, sidecar, virtual_service};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A sidecar in front of an origin, with these flags.
fn before(origin: &Origin, flags: &[&str]) -> Sidecar {
    sidecar().yaml("a.yaml", service("a.test", origin.port())).args(flags).start()
}

async fn call(sidecar: &Sidecar, headers: &[&str]) {
    let answer = H1::connect(sidecar.outbound).await.get("a.test", "/", headers).await.unwrap();
    assert_eq!(answer.status(), 200, "{headers:?}");
}

/// What an origin gets when a call with these headers is made.
async fn sent(flags: &[&str], headers: &[&str]) -> Message {
    let origin = Origin::plain().await;
    call(&before(&origin, flags), headers).await;
    origin.requests().remove(0)
}

/// Trace, span and flags of the one `traceparent` that a request has.
fn context(request: &Message) -> (String, String, String) {
    let all = request.header("traceparent").unwrap_or_else(|| panic!("no traceparent in {request:?}"));
    let parts: Vec<&str> = all.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { panic!("{all}") };
    assert_eq!((version, trace.len(), span.len(), flags.len()), ("00", 32, 16, 2), "{all}");
    (trace.into(), span.into(), flags.into())
}

#[tokio::test]
async fn the_upstream_hangs_on_a_span_of_the_sidecar() {
    let said = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    let request = sent(&[], &[&said, "tracestate: foo=1", "tracestate: bar=2", "baggage: a=1"]).await;
    let (trace, span, flags) = context(&request);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
    assert_ne!(span, SPAN);
    assert_eq!(request.header("tracestate").as_deref(), Some("foo=1,bar=2"));
    assert_eq!(request.header("baggage").as_deref(), Some("a=1"));
}

#[tokio::test]
async fn a_bad_header_begins_a_new_trace_and_is_no_error() {
    let origin = Origin::plain().await;
    let sidecar = before(&origin, &["--trace-sampling", "off"]);
    let rows: Vec<Vec<String>> = vec![
        vec![format!("traceparent: 00-{TRACE}-{SPAN}-01-more")],
        vec![format!("traceparent: ff-{TRACE}-{SPAN}-01")],
        vec![format!("traceparent: 00-{}-{SPAN}-01", TRACE.to_uppercase())],
        vec![format!("traceparent: 00-{TRACE}-{SPAN}-01"), format!("traceparent: 00-{TRACE}-{SPAN}-00")],
        vec![format!("traceparent: {}", "x".repeat(20_000))],
        vec!["traceparent:".into()],
        vec![format!("b3: {TRACE}-{SPAN}-7")],
        vec![format!("x-b3-traceid: {TRACE}"), "x-b3-sampled: 1".into()],
    ];
    for row in &rows {
        let mut lines: Vec<&str> = row.iter().map(String::as_str).collect();
        lines.push("tracestate: foo=1");
        call(&sidecar, &lines).await;
    }
    let mut traces = HashSet::new();
    for (request, row) in origin.requests().iter().zip(&rows) {
        let (trace, _, flags) = context(request);
        assert_ne!(trace, TRACE, "{row:?}");
        // New, so random; and not kept.
        assert_eq!(flags, "02", "{row:?}");
        assert_eq!((request.header("tracestate"), request.header("b3")), (None, None), "{row:?}");
        assert_eq!(request.header("x-b3-traceid"), None, "{row:?}");
        traces.insert(trace);
    }
    assert_eq!(traces.len(), rows.len());
}

#[tokio::test]
async fn a_bad_tracestate_is_dropped_and_its_trace_is_not() {
    let said = format!("traceparent: 00-{TRACE}-{SPAN}-00");
    let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    let request = sent(&[], &[&said, &format!("tracestate: {many}")]).await;
    assert_eq!((context(&request).0.as_str(), request.header("tracestate")), (TRACE, None));
}

#[tokio::test]
async fn baggage_goes_on_within_its_limits() {
    let origin = Origin::plain().await;
    let sidecar = before(&origin, &[]);
    call(&sidecar, &[&format!("baggage: first=1,large={},last=1", "x".repeat(40_000))]).await;
    call(&sidecar, &[&format!("baggage: {}", vec!["k=v"; 200].join(","))]).await;
    let seen: Vec<String> = origin.requests().iter().map(|one| one.header("baggage").unwrap()).collect();
    assert_eq!(seen[0], "first=1,last=1");
    assert_eq!(seen[1].split(',').count(), 180);
    assert_eq!(metric(&sidecar, "pilotfish_baggage_dropped_total").await, 21);
}

#[tokio::test]
async fn b3_is_read_always_and_written_when_asked() {
    let single = format!("b3: {TRACE}-{SPAN}-1-{SPAN}");
    let request = sent(&[], &[&single]).await;
    let (trace, _, flags) = context(&request);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
    assert_eq!(request.header("b3"), None, "the caller's own is never passed on");

    let parts = [format!("X-B3-TraceId: {TRACE}"), format!("x-b3-spanid: {SPAN}"), "x-b3-sampled: 0".into()];
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let request = sent(&["--trace-propagators", "b3,b3multi"], &parts).await;
    assert_eq!(request.header("traceparent"), None);
    let span = request.header("x-b3-spanid").unwrap();
    assert_ne!(span, SPAN);
    assert_eq!(request.header("x-b3-traceid").as_deref(), Some(TRACE));
    assert_eq!(request.header("x-b3-sampled").as_deref(), Some("0"));
    assert_eq!(request.header("b3"), Some(format!("{TRACE}-{span}-0")));

    // Only a flag: the trace begins here, and its caller decided already.
    let request = sent(&["--trace-sampling", "100%"], &["b3: 0"]).await;
    assert_eq!(context(&request).2, "02");
    let request = sent(&["--trace-sampling", "off"], &["b3: d"]).await;
    assert_eq!(context(&request).2, "03");

    let said = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    let request = sent(&["--trace-propagators", "none"], &[&said, &single, "baggage: a=1"]).await;
    for name in ["traceparent", "tracestate", "baggage", "b3", "x-b3-traceid"] {
        assert_eq!(request.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn what_a_parent_decided_holds() {
    for (sampling, flag) in [("off", "01"), ("100%", "00")] {
        let said = format!("traceparent: 00-{TRACE}-{SPAN}-{flag}");
        let request = sent(&["--trace-sampling", sampling], &[&said]).await;
        assert_eq!(context(&request).2, flag);
    }
    let request = sent(&["--trace-sampling", "100%"], &[]).await;
    assert_eq!(context(&request).2, "03");
}

#[tokio::test]
async fn so_many_traces_a_second_are_kept() {
    let origin = Origin::plain().await;
    let sidecar = before(&origin, &["--trace-sampling", "5/s"]);
    let start = std::time::Instant::now();
    let mut client = H1::connect(sidecar.outbound).await;
    for _ in 0..60 {
        client.get("a.test", "/", &[]).await.unwrap();
    }
    let seconds = start.elapsed().as_secs() as usize + 1;
    let kept = origin.requests().iter().filter(|request| context(request).2 == "03").count();
    assert!((5..=5 + 5 * seconds).contains(&kept), "{kept} in {seconds} s");
}

#[test]
fn bad_flags_say_what_is_expected() {
    for (flag, value, word) in [
        ("--trace-sampling", "sometimes", "10/s+1%"),
        ("--trace-propagators", "jaeger", "tracecontext"),
        ("--trace-slow", "long", "or off"),
        ("--trace-inference", "maybe", "on"),
    ] {
        let (status, stderr) = sidecar().args(&[flag, value]).start_to_fail();
        assert!(!status.success() && stderr.contains(flag) && stderr.contains(word), "{stderr}");
    }
}

#[tokio::test]
async fn each_try_has_a_span_of_its_own() {
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n")]).await;
    let rule = "- route: [{destination: {host: a.test}}]\n  retries: {attempts: 2, retryOn: \"503\"}";
    let yaml = service("a.test", origin.port()) + &virtual_service("r", "a.test", rule);
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let answer = H1::connect(sidecar.outbound).await.get("a.test", "/", &[]).await.unwrap();
    assert_eq!(answer.status(), 503);
    let seen: Vec<_> = origin.requests().iter().map(context).collect();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|one| one.0 == seen[0].0 && one.2 == seen[0].2), "{seen:?}");
    assert_eq!(seen.iter().map(|one| &one.1).collect::<HashSet<_>>().len(), 3, "{seen:?}");
}

#[tokio::test]
async fn two_tries_at_once_have_two_spans() {
    let (stuck, well) = (Origin::start(|_, _| vec![Step::Hang]).await, Origin::plain().await);
    let rule = virtual_service("r", "s.test", "- route: [{destination: {host: s.test}}]")
        .replace("  name: r\n", "  name: r\n  annotations: {pilotfish.dev/hedge: 20ms}\n");
    let yaml = service_with("s.test", "HTTP", &[(stuck.port(), ""), (well.port(), "")]) + &rule;
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    for _ in 0..100 {
        let answer = H1::connect(sidecar.outbound).await.get("s.test", "/", &[]).await.unwrap();
        assert_eq!(answer.status(), 200);
        if let Some(first) = stuck.requests().first() {
            let (first, second) = (context(first), context(well.requests().last().unwrap()));
            assert_eq!(first.0, second.0);
            assert_ne!(first.1, second.1);
            return;
        }
    }
    panic!("the stuck one was never asked");
}

/// A call to an agent that asks another for each: what the other one got, and the agent itself.
async fn through_an_agent(flags: &[&str], manners: Manners, headers: &[&str]) -> (Message, String) {
    let origin = Origin::start(|_, _| ok("the end")).await;
    let relay = Relay::start("a.test", manners).await;
    let yaml = service("a.test", origin.port());
    let sidecar = sidecar().app(relay.addr()).yaml("a.yaml", yaml).args(flags).start();
    relay.asks_through(sidecar.outbound);
    let answer = H1::connect(sidecar.inbound).await.get("relay.test", "/", headers).await.unwrap();
    assert_eq!(answer.status(), 200);
    (origin.requests().remove(0), relay.heads().remove(0))
}

#[tokio::test]
async fn calls_of_an_agent_that_drops_headers_join_the_trace_that_it_serves() {
    let said = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    for manners in [Manners::Drops, Manners::Forwards] {
        let headers = [said.as_str(), "tracestate: foo=1", "agent-workflow: w1"];
        let (request, head) = through_an_agent(&[], manners, &headers).await;
        let (trace, span, flags) = context(&request);
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"), "{manners:?}");
        assert!(!head.contains(&span) && span != SPAN, "{manners:?}");
        assert_eq!(request.header("tracestate").as_deref(), Some("foo=1"), "{manners:?}");
        assert_eq!(request.header("agent-workflow").as_deref(), Some("w1"), "{manners:?}");
    }
}

#[tokio::test]
async fn joining_can_be_switched_off() {
    let said = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    let (request, _) = through_an_agent(&["--trace-inference", "off"], Manners::Drops, &[&said]).await;
    assert_ne!(context(&request).0, TRACE);
}

#[tokio::test]
async fn the_body_of_an_mcp_call_says_it_where_no_header_does() {
    let origin = Origin::plain().await;
    // Conversations decide about its rule, so its bodies are read.
    let rule = "- route: [{destination: {host: a.test}}]";
    let rule = virtual_service("r", "a.test", rule)
        .replace("  name: r\n", "  name: r\n  annotations: {pilotfish.dev/affinity: contextId}\n");
    let sidecar = sidecar().yaml("a.yaml", service("a.test", origin.port()) + &rule).start();
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","_meta":{{"traceparent":"00-{TRACE}-{SPAN}-01","tracestate":"foo=1"}}}}}}"#
    );
    for (line, of_body) in
        [("x-none: 1".to_owned(), true), (format!("traceparent: 00-{}-{SPAN}-00", "1".repeat(32)), false)]
    {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\ncontent-type: application/json\r\n{line}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(H1::connect(sidecar.outbound).await.ask(request).await.unwrap().status(), 200);
        let arrived = origin.requests().pop().unwrap();
        let (trace, span, flags) = context(&arrived);
        assert_eq!(trace == TRACE, of_body, "{line}");
        assert_eq!((flags.as_str(), span == SPAN), (if of_body { "01" } else { "00" }, false), "{line}");
        assert_eq!(arrived.header("tracestate").is_some(), of_body, "{line}");
    }
}

#[tokio::test]
async fn telemetry_documents_decide_what_is_kept_and_what_is_told() {
    let telemetry = |tracing: &str| {
        format!(
            "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata:\n  name: t\nspec:\n  tracing:\n  - {tracing}\n---\n"
        )
    };
    let arrived = async |tracing: &str, headers: &[&str]| {
        let origin = Origin::plain().await;
        let yaml = service("a.test", origin.port()) + &telemetry(tracing);
        let sidecar = sidecar().yaml("a.yaml", yaml).args(&["--trace-sampling", "off"]).start();
        call(&sidecar, headers).await;
        origin.requests().remove(0)
    };
    let said = format!("traceparent: 00-{TRACE}-{SPAN}-00");
    let request = arrived("randomSamplingPercentage: 100", &[]).await;
    assert_eq!(context(&request).2, "03");
    // It is about traces that begin here.
    let request = arrived("randomSamplingPercentage: 100", &[&said]).await;
    assert_eq!(context(&request).2, "00");
    let request = arrived("disableContextPropagation: true", &[&said, "tracestate: a=1", "b3: 1"]).await;
    for name in ["traceparent", "tracestate", "b3"] {
        assert_eq!(request.header(name), None, "{name}");
    }
}
