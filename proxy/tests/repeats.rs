//! A call is never done twice: what may have started is not sent again, what cannot have started is.

use std::time::Duration;

use pilotfish_testkit::h2::origin::H2Origin;
use pilotfish_testkit::h2::{self, code, hpack};
use pilotfish_testkit::origin::{Step, ok, send};
use pilotfish_testkit::{H1, Origin, Sidecar, h1};

use crate::support::{service, service_with, sidecar};

/// An origin that answers the first request of each connection, and closes or resets on the second.
async fn fickle(end: Step) -> (Origin, Sidecar) {
    let origin = Origin::start(move |m, n| match n {
        0 => ok(format!("seen {}", m.target())),
        _ => vec![end.clone()],
    });
    let origin = origin.await;
    let sidecar = sidecar().yaml("a.yaml", service("s.test", origin.port())).start();
    (origin, sidecar)
}

fn count(origin: &Origin, target: &str) -> usize {
    origin.requests().iter().filter(|m| m.target() == target).count()
}

#[tokio::test]
async fn a_post_on_a_kept_connection_that_closes_is_not_sent_again() {
    for end in [Step::Close, Step::Reset] {
        let (origin, sidecar) = fickle(end.clone()).await;
        let mut client = H1::connect(sidecar.outbound).await;
        assert_eq!(client.get("s.test", "/first", &[]).await.unwrap().text(), "seen /first");
        let post = "POST /pay HTTP/1.1\r\nHost: s.test\r\nContent-Length: 5\r\n\r\nmoney";
        let answer = client.ask(post).await.unwrap();
        assert_eq!((answer.status(), answer.reason().as_str()), (502, "upstream-reset"), "{end:?}");
        assert_eq!(count(&origin, "/pay"), 1, "{end:?}: the work was done twice");
    }
}

#[tokio::test]
async fn a_get_on_a_kept_connection_that_closes_may_be_sent_again() {
    let (origin, sidecar) = fickle(Step::Close).await;
    let mut client = H1::connect(sidecar.outbound).await;
    assert_eq!(client.get("s.test", "/first", &[]).await.unwrap().text(), "seen /first");
    let answer = client.get("s.test", "/second", &[]).await.unwrap();
    assert_eq!(answer.text(), "seen /second", "{}", answer.reason());
    assert_eq!(count(&origin, "/second"), 2);
}

#[tokio::test]
async fn a_get_that_fails_on_a_new_connection_is_not_sent_again() {
    let origin = Origin::start(|_, _| vec![Step::Close]).await;
    let sidecar = sidecar().yaml("a.yaml", service("s.test", origin.port())).start();
    let answer = h1::get(sidecar.outbound, "s.test", "/once", &[]).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (502, "upstream-reset"));
    assert_eq!(count(&origin, "/once"), 1);
}

#[tokio::test]
async fn a_post_cut_by_its_client_poisons_nothing() {
    let origin = Origin::plain().await;
    let sidecar = sidecar().yaml("a.yaml", service("s.test", origin.port())).start();
    for i in 0..6 {
        let mut client = H1::connect(sidecar.outbound).await;
        client
            .send(
                "POST /cut HTTP/1.1\r\nHost: s.test\r\nContent-Length: 100\r\n\r\nGET /smuggled HTTP/1.1\r\n",
            )
            .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        if i % 2 == 0 {
            client.reset()
        } else {
            drop(client)
        }
        let next = h1::get(sidecar.outbound, "s.test", "/next", &[]).await.unwrap();
        assert_eq!(next.text(), "seen GET /next");
    }
    assert_eq!((count(&origin, "/smuggled"), count(&origin, "/next")), (0, 6));
    assert_eq!(origin.ambiguity(), None);
}

fn path(fields: &[(String, String)]) -> String {
    fields.iter().find(|f| f.0 == ":path").map(|f| f.1.clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_stream_that_an_upstream_refuses_was_not_processed() {
    // REFUSED_STREAM says that nothing was done (RFC 9113 section 8.7), even for a POST without content.
    let origin = H2Origin::start(&[], |stream, fields, n| match n {
        0 => vec![send(h2::reset(stream, code::REFUSED_STREAM).bytes())],
        _ => {
            let head = h2::headers(stream, hpack::block(&[(":status", "200")]), false).bytes();
            vec![send([head, h2::data(stream, path(fields), true).bytes()].concat())]
        }
    });
    let origin = origin.await;
    let yaml = service_with("s.test", "HTTP2", &[(origin.port(), "")]);
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let post = "POST /again HTTP/1.1\r\nHost: s.test\r\nContent-Length: 0\r\n\r\n";
    let answer = H1::connect(sidecar.outbound).await.ask(post).await.unwrap();
    assert_eq!(answer.text(), "/again", "{}", answer.reason());
}

#[tokio::test]
async fn a_stream_that_an_upstream_cancels_is_not_sent_again() {
    let origin =
        H2Origin::start(&[], |stream, _, _| vec![send(h2::reset(stream, code::CANCEL).bytes())]).await;
    let yaml = service_with("s.test", "HTTP2", &[(origin.port(), "")]);
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let answer = h1::get(sidecar.outbound, "s.test", "/", &[]).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (502, "upstream-reset"));
    assert_eq!(origin.requests(), 1);
}
