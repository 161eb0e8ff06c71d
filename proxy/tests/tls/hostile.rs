//! Half handshakes, and what openssl's own client makes of the inbound port.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use pilotfish_testkit::{Agent, H1, Origin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::setup::{Mesh, ask, counted, get, mesh_service, mesh_service_with};

#[tokio::test]
async fn a_flood_of_half_handshakes_keeps_nobody_out_and_pins_no_memory() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let callee = mesh.sidecar("callee").app(origin.addr()).start();
    let before = callee.rss();
    let mut half = Vec::new();
    for n in 0..1500 {
        let mut stream = TcpStream::connect(callee.inbound).await.unwrap();
        if n % 2 == 0 {
            // A record that is announced and never ends.
            let _ = stream.write_all(&[&b"\x16\x03\x01\x40\0\x01\0\x3f\xfc"[..], &[0; 1000]].concat()).await;
        }
        half.push(stream);
    }
    let good = mesh.issue("other");
    let answer = ask(callee.inbound, mesh.client(Some(&good)), &get("/")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let grown = callee.rss().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB for half handshakes", grown >> 20);
    let sample = "pilotfish_tls_handshakes_total{direction=\"inbound\",result=\"too-many-handshakes\"}";
    assert!(super::setup::metric(&callee, sample).await >= 900);
}

#[tokio::test]
async fn a_handshake_has_ten_seconds() {
    let mesh = Mesh::new();
    let callee = mesh.sidecar("callee").start();
    let mut stream = TcpStream::connect(callee.inbound).await.unwrap();
    stream.write_all(b"\x16\x03\x01").await.unwrap();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "it is still open");
    counted(&callee, "pilotfish_tls_handshakes_total{direction=\"inbound\",result=\"timeout\"}", 1).await;
}

/// What `openssl s_client` says; `None` without openssl.
async fn s_client(to: std::net::SocketAddr, arguments: &[&str], input: &[u8]) -> Option<String> {
    let mut command = std::process::Command::new("timeout");
    command.args(["30", "openssl", "s_client", "-connect", &to.to_string(), "-ign_eof"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let mut stdin = child.stdin.take()?;
    let input = input.to_vec();
    let output = tokio::task::spawn_blocking(move || {
        let _ = stdin.write_all(&input);
        child.wait_with_output()
    });
    let output = output.await.ok()?.ok().filter(|output| output.status.code() != Some(127))?;
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test]
async fn openssls_client_is_served_by_tls_13_with_a_certificate_only() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let callee = mesh.sidecar("callee").app(origin.addr()).start();
    let files = mesh.issue("other").write(mesh.folder.path(), "other");
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (chain, key, root) =
        (text(&files.chain), text(&files.key), text(&mesh.folder.path().join("callee/bundle.pem")));
    let own = ["-cert", &chain, "-cert_chain", &chain, "-key", &key, "-CAfile", &root];
    let with = |more: &[&'static str]| -> Vec<String> {
        own.iter().copied().chain(more.iter().copied()).map(str::to_owned).collect()
    };
    let call = async |more: &[&'static str]| {
        let arguments = with(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        s_client(callee.inbound, &arguments, get("/").as_bytes()).await
    };
    let Some(said) = call(&["-tls1_3", "-alpn", "http/1.1"]).await else {
        eprintln!("openssl is not installed");
        return;
    };
    assert!(said.contains("HTTP/1.1 200") && said.contains("Verify return code: 0"), "{said}");
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
    // A protocol of neither side's is refused by ALPN; one that is not spoken then harms nobody.
    assert!(call(&["-tls1_3", "-alpn", "h2"]).await.unwrap().contains("HTTP/1.1 200"));
    assert!(!call(&["-tls1_3", "-alpn", "smtp"]).await.unwrap().contains("HTTP/1.1 200"));
    for old in ["-tls1_2", "-tls1_1", "-tls1"] {
        let said = call(&[old]).await.unwrap();
        assert!(!said.contains("HTTP/1.1 200"), "{old}: {said}");
    }
    let served = origin.requests().len();
    let said = s_client(callee.inbound, &["-tls1_3"], get("/").as_bytes()).await.unwrap();
    assert!(said.contains("alert certificate required"), "{said}");
    assert_eq!(origin.requests().len(), served, "the agent heard of a caller without a certificate");
    // A server that resumed sessions would not look at the certificate again.
    assert!(!call(&["-tls1_3"]).await.unwrap().contains("Post-Handshake New Session Ticket arrived"));
}

#[tokio::test]
async fn a_peer_that_stops_is_noticed_within_two_seconds() {
    let (mesh, agent) = (Mesh::new(), Agent::start("a").await);
    let callee = mesh.sidecar("callee").app(agent.addr()).start();
    let other = mesh.sidecar("callee").app(agent.addr()).start();
    let rule = "trafficPolicy: { connectionPool: { http: { h2UpgradePolicy: UPGRADE } }, loadBalancer: { simple: ROUND_ROBIN } }";
    let labels = "labels: { pilotfish.dev/agent: callee, pilotfish.dev/mesh: \"true\" }";
    let second = format!(
        "{labels}\n  - address: 127.0.0.1\n    ports: {{ web: {} }}\n    {labels}",
        other.inbound.port()
    );
    let yaml = mesh_service_with("s.test", &second, callee.inbound)
        + &crate::support::destination_rule("s", "s.test", rule);
    let caller = mesh.sidecar("caller").yaml("a.yaml", yaml).start();
    let mut client = H1::connect(caller.outbound).await;
    for _ in 0..4 {
        assert_eq!(client.get("s.test", "/", &[]).await.unwrap().status(), 200);
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(callee.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let stat = format!("/proc/{}/stat", callee.pid());
    while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..6 {
        let began = tokio::time::Instant::now();
        let answer = client.get("s.test", "/", &[]).await.unwrap();
        let took = began.elapsed();
        // About two seconds, and the machine's own slowness.
        assert!(
            answer.status() == 200 && took < Duration::from_secs(6),
            "{} after {took:?}",
            answer.status()
        );
    }
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
}

#[tokio::test]
async fn streams_upgrades_and_trailers_pass_through_both_sidecars() {
    let (mesh, agent) = (Mesh::new(), Agent::start("a").await);
    let callee = mesh.sidecar("callee").app(agent.addr()).start();
    let caller =
        mesh.sidecar("caller").yaml("a.yaml", mesh_service("s.test", "callee", callee.inbound)).start();
    let mut client = H1::connect(caller.outbound).await;
    client.send("GET /stream/2/600000 HTTP/1.1\r\nhost: s.test\r\n\r\n").await;
    let begun = client.read_until(|bytes| bytes.windows(7).any(|part| part == b"data: 0")).await;
    assert!(begun.ends_with(b"data: 0\n\n\r\n"), "the first event was held back: {begun:?}");
    let mut client = H1::connect(caller.outbound).await;
    let trailers = client.get("s.test", "/trailers", &["TE: trailers"]).await.unwrap();
    assert_eq!(trailers.message.trailers, [("x-trailer".to_owned(), "end".to_owned())]);
    let switched = client.get("s.test", "/upgrade", &["Upgrade: raw", "Connection: upgrade"]).await.unwrap();
    assert_eq!(switched.status(), 101);
    let long = "0123456789".repeat(20_000);
    client.send(&long).await;
    let back = client.read_until(|bytes| bytes.len() >= long.len()).await;
    assert!(back == long.as_bytes(), "{} bytes came back", back.len());
}
