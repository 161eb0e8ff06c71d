//! Why a call went as it did: what a sidecar remembers of each, and everything of those that asked to be explained.

use std::time::Duration;

use pilotfish_testkit::{Agent, Origin, Sidecar, h1, origin};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{service, service_with, sidecar, virtual_service};
use crate::tls::setup::{Mesh, mesh_service};

/// One question on the Unix socket.
async fn why(sidecar: &Sidecar, query: &str) -> (u16, String) {
    let mut stream = tokio::net::UnixStream::connect(&sidecar.admin_socket).await.unwrap();
    let head = format!("GET /why?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// The one call that a question is about, once it is over.
pub async fn account(sidecar: &Sidecar, query: &str) -> Value {
    let until = tokio::time::Instant::now() + Duration::from_secs(15);
    loop {
        let (status, body) = why(sidecar, query).await;
        assert_eq!(status, 200, "{body}");
        let found: Value = serde_json::from_str(&body).unwrap();
        match found["calls"].as_array().unwrap().as_slice() {
            [only] => return only.clone(),
            [] => {}
            several => panic!("{} calls", several.len()),
        }
        assert!(tokio::time::Instant::now() < until, "it is not remembered: {:#?}", sidecar.stderr());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_call_is_remembered_with_its_decisions_and_without_secrets() {
    let agent = Agent::start("s").await;
    let rule = virtual_service("s", "s.test", "- name: all\n  route: [{ destination: { host: s.test } }]");
    let sidecar = sidecar().yaml("a.yaml", service("s.test", agent.port()) + &rule).start();
    let path = "/v1/token=hidden-one/x?api_key=hidden-two";
    let headers = ["x-request-id: look-here", "authorization: Bearer hidden-three"];
    let answer = h1::get(sidecar.outbound, "s.test", path, &headers).await.unwrap();
    assert_eq!(answer.status(), 200);
    let call = account(&sidecar, "request=look-here").await;
    assert!(!call.to_string().contains("hidden"), "{call:#}");
    for (field, value) in
        [("direction", "outbound"), ("method", "GET"), ("host", "s.test"), ("cluster", "s.test:80")]
    {
        assert_eq!(call[field], value, "{call:#}");
    }
    assert!(call["rule"].as_str().unwrap().contains("s/all"), "{call:#}");
    assert_eq!((&call["status"], &call["tries"]), (&200.into(), &1.into()));
    let attempt = &call["attempts"][0];
    assert_eq!(attempt["endpoint"], format!("127.0.0.1:{}", agent.port()));
    assert_eq!(
        (&attempt["ended"], &attempt["candidates"], &attempt["eligible"]),
        (&"answered".into(), &1.into(), &1.into())
    );
    let stages = ["decoded_us", "routed_us", "admitted_us", "answered_us", "ended_us"];
    let times: Vec<u64> = stages.iter().map(|stage| call["stages"][stage].as_u64().unwrap()).collect();
    assert!(times.is_sorted() && times[4] > 0, "{times:?}");
    assert!(call.get("explained").is_none(), "nobody asked for that: {call:#}");
    // The same call by its trace.
    let trace = call["trace"].as_str().unwrap();
    assert_eq!(account(&sidecar, &format!("trace={trace}")).await["request_id"], "look-here");
    assert_eq!(account(&sidecar, "last=1").await["trace"], trace);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_told_so() {
    let sidecar = sidecar().yaml("a.yaml", service("s.test", 9)).start();
    for (query, what) in [
        ("trace=xyz", "32 hexadecimal digits"),
        ("trace=00000000000000000000000000000000", "not all 0"),
        ("last=many", "no whole number"),
        ("request=a&trace=4bf92f3577b34da6a3ce929d0e0e4736", "one of"),
        ("request=a&host=s.test", "host does not go with"),
        ("host=s.test&request=a", "host does not go with"),
        ("request=%zz", "percent"),
    ] {
        let (status, body) = why(&sidecar, query).await;
        assert!(status == 400 && body.contains(what), "{query}: {status} {body}");
    }
    let (status, body) = why(&sidecar, "request=nobody").await;
    assert!(status == 200 && body.contains("\"calls\": []"), "{body}");
    // The hypothetical question is still there.
    assert!(why(&sidecar, "host=s.test").await.1.contains("\"rule\""));
}

/// Each call's origin records whether it saw the header.
async fn recording() -> Origin {
    Origin::start(|_, _| origin::ok("x")).await
}

fn saw_header(origin: &Origin) -> bool {
    origin
        .connections()
        .iter()
        .any(|bytes| String::from_utf8_lossy(bytes).to_ascii_lowercase().contains("agent-explain"))
}

#[tokio::test]
async fn an_explained_call_tells_everything_that_was_weighed_and_nobody_outside_sees_that_it_asked() {
    let origins = [recording().await, recording().await, recording().await];
    let ports: Vec<(u16, &str)> = origins.iter().map(|origin| (origin.port(), "app: s")).collect();
    let rules = virtual_service(
        "s",
        "s.test",
        "- name: other\n  match: [{ headers: { authorization: { exact: Bearer hidden } } }]\n  route: [{ destination: { host: s.test } }]\n\
         - name: all\n  route: [{ destination: { host: s.test } }]",
    );
    let yaml = service_with("s.test", "HTTP", &ports) + &rules;
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let headers = ["x-request-id: one", "agent-explain: 1", "authorization: Bearer hidden-too"];
    assert_eq!(h1::get(sidecar.outbound, "s.test", "/", &headers).await.unwrap().status(), 200);
    let call = account(&sidecar, "request=one").await;
    assert_eq!(call["sampled"], true, "its spans are kept");
    let explained = &call["explained"];
    let passed = &explained["passed_over"][0];
    assert!(passed["rule"].as_str().unwrap().contains("other"), "{explained:#}");
    assert!(passed["why"][0].as_str().unwrap().contains("authorization"), "{explained:#}");
    assert!(!call.to_string().contains("hidden"), "{call:#}");
    let choice = &explained["choices"][0];
    let candidates = choice["candidates"].as_array().unwrap();
    assert_eq!((candidates.len(), &choice["target"]), (3, &"s.test:80".into()));
    assert_eq!((&candidates[0]["chosen"], &candidates[0]["endpoint"]), (&true.into(), &choice["chosen"]));
    assert_eq!(choice["chosen"], call["attempts"][0]["endpoint"]);
    assert!(candidates[1..].iter().all(|one| one["why_not"][0].is_string()), "{explained:#}");
    assert!(!origins.iter().any(saw_header), "the header left the mesh");
    // Any other word asks for nothing, and does not leave either.
    let headers = ["x-request-id: two", "agent-explain: yes"];
    assert_eq!(h1::get(sidecar.outbound, "s.test", "/", &headers).await.unwrap().status(), 200);
    assert!(account(&sidecar, "request=two").await.get("explained").is_none());
    assert!(!origins.iter().any(saw_header));
}

#[tokio::test]
async fn a_refused_call_is_explained_too() {
    let sidecar = sidecar().yaml("a.yaml", service("s.test", 9)).start();
    let headers = ["x-request-id: one", "agent-explain: 1", "agent-capability: nothing"];
    assert_eq!(h1::get(sidecar.outbound, "x.test", "/", &headers).await.unwrap().status(), 503);
    let call = account(&sidecar, "request=one").await;
    assert_eq!(call["reason"], "nobody-qualifies");
    assert!(call["explained"].is_object(), "{call:#}");
}

#[tokio::test]
async fn who_may_not_ask_gets_no_explanation_and_the_header_goes_nowhere() {
    let origin = recording().await;
    let yaml = service("s.test", origin.port());
    let sidecar = sidecar().yaml("a.yaml", yaml).args(&["--explain-callers", "none"]).start();
    let headers = ["x-request-id: one", "agent-explain: 1"];
    assert_eq!(h1::get(sidecar.outbound, "s.test", "/", &headers).await.unwrap().status(), 200);
    assert!(account(&sidecar, "request=one").await.get("explained").is_none());
    assert!(!saw_header(&origin));
}

#[tokio::test]
async fn explanations_are_bounded_however_many_ask() {
    let origin = recording().await;
    let sidecar = sidecar().yaml("a.yaml", service("s.test", origin.port())).start();
    let mut client = pilotfish_testkit::H1::connect(sidecar.outbound).await;
    for _ in 0..300 {
        assert_eq!(client.get("s.test", "/", &["agent-explain: 1"]).await.unwrap().status(), 200);
    }
    // Whoever asks is told the id.
    let answer = client.get("s.test", "/", &[]).await.unwrap();
    assert!(answer.header("x-request-id").is_none(), "nobody asked");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let answer = client.get("s.test", "/", &["agent-explain: 1"]).await.unwrap();
    let id = answer.header("x-request-id").unwrap();
    assert!(account(&sidecar, &format!("request={id}")).await["explained"].is_object());
    let (_, body) = why(&sidecar, "last=1000").await;
    let found: Value = serde_json::from_str(&body).unwrap();
    let explained =
        found["calls"].as_array().unwrap().iter().filter(|call| call["explained"].is_object()).count();
    assert!((1..=64).contains(&explained), "{explained} of 300 are kept explained");
}

/// Within the mesh the wish goes on, and each sidecar decides by the name that its caller proved.
#[tokio::test]
async fn each_sidecar_decides_by_who_its_caller_is() {
    for (callers, explains) in
        [("self", false), ("default/a", true), ("default/c", false), ("other/*,default/*", true)]
    {
        let mesh = Mesh::new();
        let agent = recording().await;
        let b = mesh.sidecar("b").app(agent.addr()).args(&["--explain-callers", callers]).start();
        let a = mesh.sidecar("a").yaml("a.yaml", mesh_service("b.test", "b", b.inbound)).start();
        let headers = ["x-request-id: one", "agent-explain: 1"];
        assert_eq!(h1::get(a.outbound, "b.test", "/", &headers).await.unwrap().status(), 200, "{callers}");
        assert!(account(&a, "request=one").await["explained"].is_object(), "{callers}");
        let inbound = account(&b, "request=one").await;
        assert_eq!((&inbound["direction"], &inbound["caller"]), (&"inbound".into(), &"default/a".into()));
        assert_eq!(inbound.get("explained").is_some(), explains, "{callers}: {inbound:#}");
        // The agent may hand it on, if its sidecar took it.
        assert_eq!(saw_header(&agent), explains, "{callers}");
    }
}
