//! A trace that nobody keeps is whole when one of its calls failed: each sidecar of it tells what it remembers.

use std::time::Duration;

use pilotfish_testkit::collector::Span;
use pilotfish_testkit::relay::Manners;
use pilotfish_testkit::{Collector, Origin, Relay, Sidecar, h1};

use crate::mesh::{binary, sidecar};
use crate::support::serve::Serve;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A call by capability, until somebody has it: its status.
async fn call(caller: &Sidecar, path: &str, headers: &[&str]) -> u16 {
    let mut all = vec!["agent-capability: planning"];
    all.extend(headers);
    let answer = h1::get(caller.outbound, "planning.capability.mesh", path, &all).await;
    answer.map_or(0, |answer| answer.status())
}

fn children<'a>(spans: &'a [Span], of: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.parent == of).collect()
}

#[tokio::test]
async fn a_trace_that_is_not_sampled_is_whole_when_a_call_of_it_failed() {
    let Some(binary) = binary() else { return };
    let (control, collector) = (Serve::start(&[]), Collector::start().await);
    let url = collector.url();
    let flags = ["--trace-sampling", "off", "--otlp-endpoint", &url];
    // The planner asks the worker, which fails for /bad, and answers what it was answered; it drops all headers.
    let worker = Origin::start(|request, _| {
        let status = if request.target() == "/bad" { 500 } else { 200 };
        vec![pilotfish_testkit::origin::send(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n"))]
    })
    .await;
    let relay = Relay::start("working.capability.mesh", Manners::Drops).await;
    let working = sidecar(&binary, &control, "worker").app(worker.addr()).args(&["--capability", "working"]);
    let planning =
        sidecar(&binary, &control, "planner").app(relay.addr()).args(&["--capability", "planning"]);
    let calling = sidecar(&binary, &control, "caller");
    let (working, planning, calling) =
        (working.args(&flags).launch(), planning.args(&flags).launch(), calling.args(&flags).launch());
    let (_working, planning, calling) =
        (working.ready().await, planning.ready().await, calling.ready().await);
    relay.asks_through(planning.outbound);
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while call(&calling, "/good", &[]).await != 200 {
        assert!(tokio::time::Instant::now() < until, "{:#?} {:#?}", calling.stderr(), planning.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The planner's answer comes long after the worker's failure, and the caller's call is over last of all.
    let parent = format!("traceparent: 00-{TRACE}-{SPAN}-00");
    assert_eq!(call(&calling, "/bad", &[&parent]).await, 500);
    let spans = collector.of_trace(TRACE, 8).await;
    let mut at = SPAN.to_owned();
    for service in ["caller", "caller", "planner", "planner", "planner", "planner", "worker", "worker"] {
        let next = children(&spans, &at);
        let [only] = next[..] else { panic!("{} hang on {at}: {spans:#?}", next.len()) };
        assert_eq!(
            (only.service.as_str(), only.attribute("pilotfish.trace.partial")),
            (service, "true"),
            "{only:#?}"
        );
        at = only.id.clone();
    }
    // Each once.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut ids: Vec<String> = collector.spans().iter().map(|span| span.id.clone()).collect();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "each span is told once");
}

#[tokio::test]
async fn what_went_well_of_a_trace_that_failed_elsewhere_is_told_too() {
    let Some(binary) = binary() else { return };
    let (control, collector) = (Serve::start(&[]), Collector::start().await);
    let url = collector.url();
    let flags = ["--trace-sampling", "off", "--otlp-endpoint", &url];
    let (good, bad) = (
        Origin::plain().await,
        Origin::start(|_, _| {
            vec![pilotfish_testkit::origin::send("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n")]
        })
        .await,
    );
    let planning = sidecar(&binary, &control, "planner").app(good.addr()).args(&["--capability", "planning"]);
    let failing = sidecar(&binary, &control, "failing").app(bad.addr());
    let calling = sidecar(&binary, &control, "caller");
    let (planning, failing, calling) =
        (planning.args(&flags).launch(), failing.args(&flags).launch(), calling.args(&flags).launch());
    let (_planning, failing, calling) =
        (planning.ready().await, failing.ready().await, calling.ready().await);
    let parent = format!("traceparent: 00-{TRACE}-{SPAN}-00");
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while call(&calling, "/", &[&parent]).await != 200 {
        assert!(tokio::time::Instant::now() < until, "{:#?}", calling.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Another agent of the same trace calls somebody who is not there, through its own sidecar.
    let answer =
        h1::get(failing.outbound, "planning.capability.mesh", "/", &["agent-capability: flying", &parent])
            .await;
    assert_eq!(answer.unwrap().status(), 503);
    // What the first calls left behind, while the agents were not known yet, may come in between.
    let has = |spans: &[Span], service: &str| spans.iter().any(|span| span.service == service);
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while !["failing", "caller", "planner"].iter().all(|service| has(&collector.spans(), service)) {
        assert!(tokio::time::Instant::now() < until, "{:#?}", collector.spans());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
