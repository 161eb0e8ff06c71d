//! Traces through the real sidecar: what an upstream is told, headers good and bad, and agents that pass nothing on.

use pilotfish_testkit::strict::Message;
use pilotfish_testkit::{H1, Origin, Sidecar};

use crate::support::{service, sidecar};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A sidecar in front of an origin, with these flags.
async fn before(origin: &Origin, flags: &[&str]) -> Sidecar {
    sidecar().yaml("a.yaml", service("a.test", origin.port())).args(flags).start()
}

/// What an origin gets when a call with these headers is made.
async fn sent(flags: &[&str], headers: &[&str]) -> Message {
    let origin = Origin::plain().await;
    let sidecar = before(&origin, flags).await;
    let answer = H1::connect(sidecar.outbound).await.get("a.test", "/", headers).await.unwrap();
    assert_eq!(answer.status(), 200, "{headers:?}");
    origin.requests().remove(0)
}

/// The parts of the one `traceparent` that a request has.
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
    let request = sent(&[], &[&said, "tracestate: foo=1", "tracestate: bar=2"]).await;
    let (trace, span, flags) = context(&request);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
    assert_ne!(span, SPAN);
    assert_eq!(request.header("tracestate").unwrap().replace(' ', ""), "foo=1,bar=2");
}
