//! Alerts from outside: a rule, sidecars that report, what people see, and what a webhook gets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pilotfish_config::wire::{Edge, Heartbeat, Status, ToControl};
use pilotfish_control::api::types::{Alerts, Applied};
use serde_json::{Value, json};

use crate::support::sidecar::{hello, joined};
use crate::support::{Http, Serve, Stream};

/// Evaluated every 5 s; a busy machine needs most of it.
const SOON: Duration = Duration::from_secs(60);

/// Answers each request with the next of these statuses, the last for ever; gives what came: head and body.
fn receiver(statuses: &'static [&'static str]) -> (SocketAddr, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut all = Vec::new();
            let (head, length) = loop {
                let mut part = [0; 4096];
                let count = stream.read(&mut part).unwrap_or(0);
                all.extend_from_slice(&part[..count]);
                let text = String::from_utf8_lossy(&all).into_owned();
                if let Some((head, _)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| {
                        line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
                    });
                    break (head.to_owned(), length.unwrap().parse::<usize>().unwrap());
                }
                assert!(count > 0, "it broke off: {text}");
            };
            while all.len() < head.len() + 4 + length {
                let mut part = [0; 4096];
                let count = stream.read(&mut part).unwrap();
                all.extend_from_slice(&part[..count]);
            }
            let body = serde_json::from_slice(&all[head.len() + 4..]).unwrap();
            let status = statuses[number.min(statuses.len() - 1)];
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
            );
            if tell.send((head, body)).is_err() {
                return;
            }
        }
    });
    (at, told)
}

async fn alerts(serve: &Serve) -> Alerts {
    Http::socket(serve).await.get("/v1/alerts").await.ok()
}

fn beat(edges: Vec<Edge>) -> ToControl {
    ToControl::Heartbeat(Heartbeat {
        idle_ms: None,
        usage: None,
        status: Status::Ready,
        detail: None,
        in_flight: 0,
        reports: Vec::new(),
        certificate_expires: None,
        limits: Vec::new(),
        edges,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_are_told_of_until_they_do_not() {
    let (at, told) = receiver(&["503 Away", "200 OK"]);
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let url = format!("http://{at}/hook?key=hidden");
    let serve =
        Serve::start(&["--alert-webhook", &url, "--alert-webhook-token-file", token.to_str().unwrap()]);
    let text = "apiVersion: pilotfish.dev/v1\nkind: AlertRule\nmetadata: {name: coder-fails}\nspec: {type: error-rate, agent: coder, for: 0s, keepFiringFor: 0s, window: 10s, labels: {team: agents}}\n";
    let document = json!({ "files": [{ "name": "rules.yaml", "text": text }], "summary": "a rule" });
    let _: Applied = Http::socket(&serve).await.post("/v1/apply", &document).await.ok();
    let deadline = Instant::now() + SOON;
    let before = loop {
        let now = alerts(&serve).await;
        if now.rules.len() == 5 {
            break now;
        }
        assert!(Instant::now() < deadline, "{now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(before.alerts.len(), 0);
    assert!(before.rules.iter().all(|rule| rule.state == "inactive"));
    let own = joined(&serve, "default", "planner").await;
    let mut stream = Stream::welcomed(&serve, &own, hello("default", "planner")).await;
    let edge = Edge {
        to: "default/coder".into(),
        capability: None,
        calls: 40,
        errors: 10,
        sum_us: 1,
        buckets: vec![40],
    };
    stream.say(&beat(vec![edge])).await;
    let deadline = Instant::now() + SOON;
    let fires = loop {
        let now = alerts(&serve).await;
        if let Some(alert) = now.alerts.iter().find(|alert| alert.state == "firing") {
            break alert.clone();
        }
        assert!(Instant::now() < deadline, "{now:?}");
        stream.say(&beat(Vec::new())).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!((fires.rule.as_str(), fires.agent.as_str()), ("default/coder-fails", "default/coder"));
    assert_eq!((fires.value, fires.shown.as_str(), fires.shown_threshold.as_str()), (0.25, "25 %", "5 %"));
    // The first attempt met a receiver that was not there.
    let first = told.recv_timeout(SOON).unwrap();
    let (head, second) = told.recv_timeout(SOON).unwrap();
    assert_eq!(first.1["alerts"][0]["fingerprint"], second["alerts"][0]["fingerprint"]);
    assert!(head.starts_with("POST /hook?key=hidden HTTP/1.1") && head.contains("Bearer s3cret"), "{head}");
    assert_eq!((&second["version"], &second["status"]), (&json!("4"), &json!("firing")));
    let labels = &second["alerts"][0]["labels"];
    assert_eq!((&labels["alertname"], &labels["team"]), (&json!("coder-fails"), &json!("agents")));
    // No calls any more: it is over, and told so.
    let deadline = Instant::now() + SOON;
    loop {
        stream.say(&beat(Vec::new())).await;
        if let Ok((_, body)) = told.recv_timeout(Duration::from_millis(300))
            && body["status"] == "resolved"
        {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    let now = alerts(&serve).await.alerts;
    let state = |rule: &str| now.iter().find(|alert| alert.rule == rule).map(|alert| alert.state.clone());
    assert_eq!(state("default/coder-fails").as_deref(), Some("resolved"));
    assert_eq!(state("pilotfish-system/error-rate").as_deref(), Some("pending"), "it looks at two minutes");
    let shown = crate::mesh::pilotfish(&serve, &["alerts", "--all"]);
    assert!(
        shown.contains("default/coder-fails") && shown.contains("pilotfish-system/agent-unavailable"),
        "{shown}"
    );
}
