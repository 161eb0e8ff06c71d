//! The same bytes in other packets: however a request or an answer is cut, it means the same.

use std::sync::Arc;
use std::time::Duration;

use pilotfish_testkit::origin::{Step, send};
use pilotfish_testkit::{H1, Origin};

use crate::support::{ensure, run_table, service, sidecar};

/// Pipelined requests with every kind of framing, and the answers to them.
const REQUESTS: &str = "\r\nGET /one?a=b HTTP/1.1\r\nHost: s.test\r\nA: b\r\n\r\n\
    POST /two HTTP/1.1\r\nHost: s.test\r\nContent-Length: 11\r\n\r\nhello world\
    POST /three HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: s.test\r\n\r\n5;x=\"y\"\r\nhello\r\n00a\r\n0123456789\r\n0\r\nX-T: y\r\n\r\n\
    GET http://s.test/four HTTP/1.1\r\nHost: s.test\r\n\r\n";

const ANSWER: &str = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n\
    HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5;x\r\nhello\r\n6\r\n world\r\n0\r\nX-T: y\r\n\r\n";

#[tokio::test]
async fn requests_cut_anywhere() {
    let origin = Origin::plain().await;
    let sidecar = sidecar().yaml("a.yaml", service("s.test", origin.port())).start();
    let addr = sidecar.outbound;
    let cuts: Vec<usize> = (0..REQUESTS.len()).collect();
    run_table(cuts, |_, cut| async move {
        let mut client = H1::connect(addr).await;
        let (a, b) = REQUESTS.split_at(cut);
        client.send_slowly(&[a, b], Duration::from_millis(2)).await;
        for want in ["seen GET /one?a=b", "seen POST /two", "seen POST /three", "seen GET /four"] {
            let answer =
                client.answer("GET").await.map_err(|gone| format!("cut at {cut}: {want}: {gone}"))?;
            ensure(answer.text() == want, || format!("cut at {cut}: {:?} for {want}", answer.message))?;
        }
        Ok(())
    })
    .await;
    assert_eq!(origin.ambiguity(), None);
    let seen = origin.requests();
    assert_eq!(seen.len(), 4 * REQUESTS.len());
    for request in seen {
        let want: &[u8] = match request.target() {
            "/two" => b"hello world",
            "/three" => b"hello0123456789",
            _ => b"",
        };
        assert_eq!(request.body, want, "{}", request.target());
    }
}

#[tokio::test]
async fn answers_cut_anywhere() {
    let origin = Origin::start(|m, _| {
        let cut = m.target().trim_start_matches('/').parse().unwrap_or(0);
        let (a, b) = ANSWER.split_at(cut);
        vec![send(a), Step::Pause(Duration::from_millis(2)), send(b)]
    });
    let origin = Arc::new(origin.await);
    let sidecar = sidecar().yaml("a.yaml", service("s.test", origin.port())).start();
    let addr = sidecar.outbound;
    let cuts: Vec<usize> = (0..ANSWER.len()).collect();
    run_table(cuts, |_, cut| async move {
        let answer = H1::connect(addr).await.get("s.test", &format!("/{cut}"), &[]).await;
        let answer = answer.map_err(|gone| format!("cut at {cut}: {gone}"))?;
        let right =
            answer.text() == "hello world" && answer.interim.len() == 1 && answer.message.trailers.len() == 1;
        ensure(right, || format!("cut at {cut}: {answer:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_byte_in_each_packet() {
    let origin = Origin::plain().await;
    let sidecar = sidecar().yaml("a.yaml", service("s.test", origin.port())).start();
    let mut client = H1::connect(sidecar.outbound).await;
    for byte in REQUESTS.bytes() {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    for want in ["seen GET /one?a=b", "seen POST /two", "seen POST /three", "seen GET /four"] {
        assert_eq!(client.answer("GET").await.unwrap().text(), want);
    }
}
