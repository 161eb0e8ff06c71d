//! What is asked, how answers count, and each kind against a real socket.

use super::*;
use clap::Parser;
use pilotfish_config::wire::Status::{Degraded, Initializing, Ready};

fn settings(flags: &[&str]) -> Settings {
    let fixed = ["pilotfish-proxy", "--control", "https://c:1", "--agent", "a"];
    Settings::try_parse_from(fixed.iter().chain(flags)).unwrap()
}

#[test]
fn thresholds_count_answers_in_a_row() {
    let flags = ["--app", "1", "--probe-success", "2", "--probe-failures", "2"];
    let plan = Plan::default(&settings(&flags)).unwrap();
    let mut judge = Judge::new();
    let answers = [false, true, false, true, true, false, true, false, false, true, true];
    let said: Vec<Status> = answers.iter().map(|good| judge.answer(*good, &plan)).collect();
    let early = [Initializing; 4];
    assert_eq!(said[..4], early);
    assert_eq!(said[4..], [Ready, Ready, Ready, Ready, Degraded, Degraded, Ready]);
}

#[test]
fn flags_win_over_documents_and_documents_over_the_default() {
    let plain = settings(&["--app", "10.0.0.1:8080"]);
    assert_eq!(Plan::of_flags(&plain), None);
    assert!(matches!(Plan::default(&plain).unwrap().what, What::Tcp { address } if address.port == 8080));
    assert_eq!(Plan::default(&plain).unwrap().interval, Duration::from_secs(10));
    let flagged = settings(&["--app", "8080", "--probe", "http:/healthz", "--probe-interval", "2s"]);
    let plan = Plan::of_flags(&flagged).unwrap();
    assert!(matches!(plan.what, What::Http { .. }) && plan.interval == Duration::from_secs(2));
    let homeless = Plan::of_flags(&settings(&["--probe", "tcp"])).unwrap();
    assert!(matches!(homeless.what, What::Impossible(why) if why.contains("--app")));
    assert_eq!(Health::at_start(&settings(&[])).status, Ready, "a caller only has nobody to be asked");
    assert_eq!(Health::at_start(&plain).status, Initializing);
}

#[test]
fn a_groups_probe_is_translated() {
    let probe = Probe {
        initial_delay_seconds: 1,
        timeout_seconds: 0,
        period_seconds: 5,
        success_threshold: 0,
        failure_threshold: 4,
        method: ProbeMethod::Grpc { port: 9000, service: None },
    };
    let app = "10.0.0.1:8080".parse().unwrap();
    let plan = Plan::of_group(&probe, Some(&app));
    let address = HostPort { host: "10.0.0.1".into(), port: 9000 };
    assert_eq!(plan.what, What::Grpc { address, service: String::new() });
    assert_eq!((plan.timeout, plan.success, plan.failures), (Duration::from_secs(1), 1, 4));
}

/// An agent that answers every connection's first bytes with this.
async fn agent(answer: &'static [u8]) -> HostPort {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer).await;
        }
    });
    HostPort { host: "127.0.0.1".into(), port }
}

#[tokio::test]
async fn each_kind_asks_a_real_socket() {
    let (dns, _questions) = Dns::new();
    let verdict = async |flag: &str, app: &HostPort| {
        let app = app.to_string();
        let plan = Plan::of_flags(&settings(&["--app", &app, "--probe", flag])).unwrap();
        ask(&dns, &plan).await
    };
    let good = agent(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(verdict("http:/", &good).await, Ok(()));
    assert_eq!(verdict("tcp", &good).await, Ok(()));
    assert!(verdict("grpc", &good).await.unwrap_err().contains("gRPC"));
    let bad = agent(b"HTTP/1.1 404 No\r\n\r\n").await;
    assert_eq!(verdict("http:/", &bad).await, Err("it answers 404".into()));
    let silent = agent(b"").await;
    assert!(verdict("http:/", &silent).await.is_err());
    let nobody = HostPort { host: "127.0.0.1".into(), port: 1 };
    assert!(verdict("tcp", &nobody).await.is_err());
    assert_eq!(verdict("exec:exit 0", &nobody).await, Ok(()));
}
