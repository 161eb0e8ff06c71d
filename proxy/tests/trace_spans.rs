//! Which spans there are, and what hangs on what: at a collector, behind the real sidecar.

use std::time::Duration;

use pilotfish_testkit::collector::Span;
use pilotfish_testkit::origin::{Step, ok, send};
use pilotfish_testkit::relay::Manners;
use pilotfish_testkit::sidecar::Builder;
use pilotfish_testkit::{Collector, H1, Origin, Relay};

use crate::support::{service, service_with, sidecar, virtual_service};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn told(collector: &Collector, flags: &[&str]) -> Builder {
    sidecar().args(&["--otlp-endpoint", &collector.url()]).args(flags)
}

fn parent(flag: &str) -> String {
    format!("traceparent: 00-{TRACE}-{SPAN}-{flag}")
}

/// The one span that fits.
fn one(spans: &[Span], fits: impl Fn(&Span) -> bool) -> Span {
    let found: Vec<&Span> = spans.iter().filter(|span| fits(span)).collect();
    let [only] = found[..] else { panic!("{} spans fit: {spans:#?}", found.len()) };
    only.clone()
}

#[tokio::test]
async fn an_agent_between_two_calls_is_one_trace_with_or_without_its_help() {
    for manners in [Manners::Drops, Manners::Forwards] {
        let (collector, origin) = (Collector::start().await, Origin::start(|_, _| ok("end")).await);
        let relay = Relay::start("a.test", manners).await;
        let sidecar = told(&collector, &[]).app(relay.addr());
        let sidecar = sidecar.yaml("a.yaml", service("a.test", origin.port())).start();
        relay.asks_through(sidecar.outbound);
        let said = parent("01");
        let headers = [said.as_str(), "tracestate: foo=1", "baggage: workflow.id=w%201"];
        H1::connect(sidecar.inbound).await.get("relay.test", "/", &headers).await.unwrap();
        let spans = collector.of_trace(TRACE, 4).await;
        assert_eq!(spans.len(), 4, "{spans:#?}");
        let direction = |span: &Span| span.attribute("pilotfish.direction").to_owned();
        let inbound = one(&spans, |span| span.server && span.parent == SPAN);
        let to_agent = one(&spans, |span| !span.server && span.parent == inbound.id);
        let outbound = one(&spans, |span| span.server && span.parent == to_agent.id);
        let to_origin = one(&spans, |span| !span.server && span.parent == outbound.id);
        assert_eq!((direction(&inbound).as_str(), direction(&outbound).as_str()), ("inbound", "outbound"));
        let inferred = outbound.attribute("pilotfish.trace.inferred");
        assert_eq!(inferred == "true", manners == Manners::Drops, "{outbound:#?}");
        assert_eq!(inbound.attribute("pilotfish.trace.inferred"), "");
        for span in [&inbound, &outbound] {
            assert_eq!(span.attribute("pilotfish.workflow.id"), "w 1", "{manners:?} {span:#?}");
        }
        assert_eq!((inbound.state.as_str(), outbound.state.as_str()), ("foo=1", "foo=1"));
        let arrived = origin.requests()[0].header("traceparent").unwrap();
        assert_eq!(arrived, format!("00-{TRACE}-{}-01", to_origin.id));
    }
}

#[tokio::test]
async fn calls_that_fail_or_are_slow_are_told_of_and_others_are_not() {
    let collector = Collector::start().await;
    let origin = Origin::start(|request, _| match request.target() {
        "/bad" => vec![send("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n")],
        "/missing" => vec![send("HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n")],
        "/slow" => vec![Step::Pause(Duration::from_millis(2500)), ok("slow").remove(0)],
        "/broken" => vec![send("HTTP/1.1 200 x\r\ncontent-length: 10\r\n\r\nabc"), Step::Reset],
        "/stream" => vec![
            send("HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\ncontent-length: 6\r\n\r\ndata"),
            Step::Pause(Duration::from_millis(2500)),
            send("\n\n"),
        ],
        _ => ok("good"),
    })
    .await;
    let sidecar = told(&collector, &["--trace-sampling", "off", "--trace-slow", "2s"])
        .yaml("a.yaml", service("a.test", origin.port()))
        .start();
    for path in ["/good", "/missing", "/stream", "/bad", "/slow", "/broken"] {
        let _ = H1::connect(sidecar.outbound).await.get("a.test", path, &[]).await;
    }
    // Nobody is there: the sidecar itself refuses. A caller's own mistake is none of these.
    let _ = H1::connect(sidecar.outbound).await.get("nobody.test", "/no-route", &[]).await;
    let told = async || {
        let spans = collector.spans();
        let servers = spans.iter().filter(|span| span.server);
        let mut paths: Vec<String> = servers.map(|span| span.attribute("url.path").to_owned()).collect();
        paths.sort();
        paths
    };
    let until = tokio::time::Instant::now() + Duration::from_secs(15);
    while told().await.len() < 3 && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What should not come has had the time to.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(told().await, ["/bad", "/broken", "/slow"]);
    assert!(collector.spans().iter().all(|span| span.attribute("pilotfish.trace.partial") == "true"));
}

#[tokio::test]
async fn every_try_is_a_span() {
    let (collector, origin) = (
        Collector::start().await,
        Origin::start(|_, _| vec![send("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n")]).await,
    );
    let rule = "- route: [{destination: {host: a.test}}]\n  retries: {attempts: 2, retryOn: \"503\"}";
    let yaml = service("a.test", origin.port()) + &virtual_service("r", "a.test", rule);
    let sidecar = told(&collector, &[]).yaml("a.yaml", yaml).start();
    let said = parent("01");
    H1::connect(sidecar.outbound).await.get("a.test", "/", &[&said]).await.unwrap();
    let spans = collector.of_trace(TRACE, 4).await;
    let server = one(&spans, |span| span.server);
    let mut tries: Vec<&Span> = spans.iter().filter(|span| !span.server).collect();
    tries.sort_by_key(|span| span.attribute("http.request.resend_count").to_owned());
    assert!(tries.iter().all(|span| span.parent == server.id));
    let counts: Vec<&str> = tries.iter().map(|span| span.attribute("http.request.resend_count")).collect();
    assert_eq!(counts, ["", "1", "2"]);
    let seen: Vec<String> = origin.requests().iter().map(|one| one.header("traceparent").unwrap()).collect();
    for span in tries {
        assert_eq!(span.attribute("http.response.status_code"), "503");
        assert!(seen.iter().any(|header| header.contains(&span.id)), "{span:#?} {seen:?}");
    }
    assert!(server.attribute("pilotfish.policies").contains("retry"), "{server:#?}");
}

#[tokio::test]
async fn the_try_that_lost_a_race_is_a_span_too() {
    let collector = Collector::start().await;
    let (stuck, well) = (Origin::start(|_, _| vec![Step::Hang]).await, Origin::plain().await);
    let rule = virtual_service("r", "s.test", "- route: [{destination: {host: s.test}}]")
        .replace("  name: r\n", "  name: r\n  annotations: {pilotfish.dev/hedge: 20ms}\n");
    let yaml = service_with("s.test", "HTTP", &[(stuck.port(), ""), (well.port(), "")]) + &rule;
    let sidecar = told(&collector, &["--trace-sampling", "100%"]).yaml("a.yaml", yaml).start();
    for _ in 0..100 {
        H1::connect(sidecar.outbound).await.get("s.test", "/", &[]).await.unwrap();
        let Some(first) = stuck.requests().first().cloned() else { continue };
        let header = first.header("traceparent").unwrap();
        let parts: Vec<&str> = header.split('-').collect();
        let spans = collector.of_trace(parts[1], 3).await;
        let lost = one(&spans, |span| span.id == parts[2]);
        assert_eq!(lost.attribute("pilotfish.try.ended"), "cancelled", "{lost:#?}");
        let winner = one(&spans, |span| !span.server && span.id != parts[2]);
        assert_eq!(winner.attribute("http.response.status_code"), "200", "{winner:#?}");
        assert!(well.requests().iter().any(|one| one.header("traceparent").unwrap().contains(&winner.id)));
        return;
    }
    panic!("the stuck one was never asked");
}
