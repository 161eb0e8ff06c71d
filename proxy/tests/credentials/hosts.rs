//! To whom a secret is shown, and to whom never.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use pilotfish_testkit::ca::{Ca, Leaf};
use pilotfish_testkit::dns::{self, Dns};
use pilotfish_testkit::{H1, Origin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::{PATIENCE, Safe, credential, get, said, state};
use crate::support::{destination_rule, metric, service, service_with, sidecar, virtual_service};

const KEY: &str = "the-secret-of-api-test";

#[tokio::test]
async fn the_host_that_is_named_decides_in_every_spelling() {
    let mut safe = Safe::new();
    let file = safe.put("key", KEY);
    let (api, evil) = (Origin::plain().await, Origin::plain().await);
    let yaml = service("api.test", api.port())
        + &service("evil.test", evil.port())
        + &credential("api", "api.test", &format!("bearer: {{file: {file}}}"));
    let sidecar = safe.start(yaml);
    let mut shown = 0;
    for request in [
        "GET / HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: API.Test:80\r\n\r\n",
        "GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        // The absolute form says where it goes (RFC 9112 section 3.2.2).
        "GET http://api.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "GET http://evil.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil.test\r\nx-forwarded-host: api.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil.test\r\nHost: api.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test, evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test@evil.test\r\n\r\n",
        "GET http://api.test@evil.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test.evil.test\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: api.test\r\n\r\n",
    ] {
        let before = api.requests().len();
        let answer = H1::connect(sidecar.outbound).await.ask(request).await;
        let status = answer.as_ref().map_or(0, |answer| answer.status());
        for seen in &api.requests()[before..] {
            assert_eq!(seen.header("authorization"), Some(format!("Bearer {KEY}")), "{request}");
            assert_eq!(seen.header("host").unwrap().to_lowercase().trim_end_matches(":80"), "api.test");
            shown += 1;
        }
        if request.starts_with("TRACE") {
            assert_eq!((status, api.requests().len()), (503, before), "{request}");
        }
    }
    assert_eq!(shown, 4);
    for seen in evil.requests() {
        assert_eq!(seen.header("authorization"), None, "{:?}", seen.headers);
    }
    safe.is_tight(&sidecar).await;
}

#[tokio::test]
async fn rules_that_lead_elsewhere_take_no_secret_along() {
    let mut safe = Safe::new();
    let file = safe.put("key", KEY);
    let (api, other) = (Origin::plain().await, Origin::plain().await);
    let yaml = service("api.test", api.port())
        + &service("other.test", other.port())
        + &service("copy.test", other.port())
        + &credential("api", "api.test", &format!("bearer: {{file: {file}}}"))
        + &virtual_service(
            "api",
            "api.test",
            "- match: [{ uri: { prefix: /away } }]\n  route: [{ destination: { host: other.test } }]\n\
             - match: [{ uri: { prefix: /copy } }]\n  mirrors: [{ destination: { host: copy.test } }]\n  \
             route: [{ destination: { host: api.test } }]\n\
             - match: [{ uri: { prefix: /set } }]\n  headers: { request: { set: { authorization: rules } } }\n  \
             route: [{ destination: { host: api.test } }]\n\
             - route: [{ destination: { host: api.test } }]",
        )
        + &virtual_service(
            "alias",
            "alias.test",
            "- match: [{ uri: { prefix: /as } }]\n  rewrite: { authority: api.test }\n  \
             route: [{ destination: { host: api.test } }]\n\
             - match: [{ uri: { prefix: /fake } }]\n  rewrite: { authority: api.test }\n  \
             route: [{ destination: { host: other.test } }]\n\
             - route: [{ destination: { host: api.test } }]",
        );
    let sidecar = safe.start(yaml);
    let own = ["authorization: agents"];
    // Who is asked for what, who gets it, with the secret?
    for (host, target, at, secret) in [
        ("api.test", "/", &api, true),
        ("api.test", "/set", &api, true),
        ("api.test", "/away", &other, false),
        ("alias.test", "/as", &api, true),
        ("alias.test", "/fake", &other, false),
        // Another name at the same machine may be another's.
        ("alias.test", "/", &api, false),
    ] {
        let before = at.requests().len();
        assert_eq!(get(&sidecar, host, target, &own).await.status(), 200, "{host}{target}");
        let seen = at.requests().remove(before);
        let expected = if secret { format!("Bearer {KEY}") } else { "agents".to_owned() };
        assert_eq!(seen.header("authorization"), Some(expected), "{host}{target}");
    }
    let before = other.requests().len();
    get(&sidecar, "api.test", "/copy", &own).await;
    for _ in 0..200 {
        if other.requests().len() > before {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(other.requests().remove(before).header("authorization").as_deref(), Some("agents"));
    assert_eq!(state(&sidecar).await["elsewhere"], 3);
    safe.is_tight(&sidecar).await;
}

#[tokio::test]
async fn another_try_within_the_mesh_carries_what_the_agent_sent() {
    let mut safe = Safe::new();
    let file = safe.put("key", KEY);
    let outside = Origin::fixed("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", vec![]).await;
    let inside = Origin::plain().await;
    let endpoints = [(outside.port(), ""), (inside.port(), "pilotfish.dev/mesh: \"true\"")];
    let yaml = service_with("api.test", "HTTP", &endpoints)
        + &credential("api", "api.test", &format!("apiKey: {{header: authorization, file: {file}}}"))
        + &virtual_service(
            "api",
            "api.test",
            "- retries: { attempts: 3, retryOn: \"5xx\", backoff: 1ms }\n  route: [{ destination: { host: api.test } }]",
        );
    let sidecar = safe.start(yaml);
    // Which one is asked first is chance: in so many calls both are.
    for _ in 0..60 {
        get(&sidecar, "api.test", "/", &["authorization: agents", "Authorization: more"]).await;
    }
    assert!(outside.requests().len() > 3 && inside.requests().len() > 3);
    for (origin, expected) in [(&outside, vec![KEY]), (&inside, vec!["agents", "more"])] {
        for seen in origin.requests() {
            let found = seen.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
            assert_eq!(found.map(|(_, value)| &**value).collect::<Vec<_>>(), expected);
        }
    }
    safe.is_tight(&sidecar).await;
}

/// An HTTPS server for `api.test` that answers with the `authorization` that it got.
async fn https(ca: &Ca) -> u16 {
    let leaf = Leaf { dns: vec!["api.test".into()], ..Leaf::of("spiffe://outside/api") };
    let acceptor = TlsAcceptor::from(ca.server(&ca.issue(&leaf), false, &[b"http/1.1"]));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                let mut bytes = vec![0; 16384];
                while let Ok(n @ 1..) = tls.read(&mut bytes).await {
                    let head = String::from_utf8_lossy(&bytes[..n]).to_lowercase();
                    let has = head.contains(&format!("authorization: bearer {KEY}"));
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{has:<5}");
                    let _ = tls.write_all(answer.as_bytes()).await;
                    let _ = tls.flush().await;
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn only_over_verified_tls_or_on_this_machine() {
    let mut safe = Safe::new();
    let file = safe.put("key", KEY);
    let ca = Ca::new("outside");
    let port = https(&ca).await;
    let plain = Origin::plain().await;
    let roots = ca.write_bundle(safe.folder.path());
    let dns = Dns::start().await;
    dns.set("api.test", dns::Answer::Addresses(vec![Ipv4Addr::LOCALHOST], 60));
    let shown = credential("api", "api.test", &format!("bearer: {{file: {file}}}"));
    let insecure = credential("api", "api.test", &format!("insecure: true\nbearer: {{file: {file}}}"));
    let tls = |tls: &str| {
        destination_rule("api", "api.test", &format!("trafficPolicy: {{ tls: {{ mode: SIMPLE, {tls} }} }}"))
    };
    let verified = tls(&format!("caCertificates: \"{}\"", roots.display()));
    let anybody = tls("insecureSkipVerify: true");
    let named = |port: u16| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: api\nspec:\n  hosts: [api.test]\n  \
             ports: [{{ number: 80, name: web, protocol: HTTP }}]\n  resolution: DNS\n  endpoints:\n  \
             - {{ address: api.test, ports: {{ web: {port} }} }}\n---\n"
        )
    };
    let far = service("api.test", 80).replace("127.0.0.1", "203.0.113.1");
    for (name, yaml, status, says) in [
        ("verified", service("api.test", port) + &shown + &verified, 200, "true"),
        ("anybody", service("api.test", port) + &shown + &anybody, 503, "is not verified"),
        ("anybody, meant", service("api.test", port) + &insecure + &anybody, 200, "true"),
        ("here", service("api.test", plain.port()) + &shown, 200, "seen"),
        // A name may lead here without anybody having meant it.
        ("a name that leads here", named(plain.port()) + &shown, 503, "in plaintext"),
        ("plaintext, meant", named(plain.port()) + &insecure, 200, "seen"),
        ("far", far + &shown, 503, "in plaintext; a DestinationRule"),
        ("nobody's", shown.clone(), 503, "in plaintext"),
    ] {
        let sidecar = sidecar().yaml("a.yaml", yaml).args(&["--dns-server", &dns.addr().to_string()]);
        // The name server is on this thread.
        let sidecar = sidecar.launch().ready().await;
        let request = match name {
            // As HTTP_PROXY does, to a host that no document names.
            "nobody's" => {
                dns.set("api.test", dns::Answer::Addresses(vec![Ipv4Addr::new(203, 0, 113, 1)], 60));
                "GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n"
            }
            _ => "GET / HTTP/1.1\r\nHost: api.test\r\n\r\n",
        };
        let ask = async || H1::connect(sidecar.outbound).await.ask(request).await.unwrap();
        let (mut answer, began) = (ask().await, Instant::now());
        // Until the name is known.
        while answer.reason() == "no-healthy-endpoint" && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer = ask().await;
        }
        assert_eq!(answer.status(), status, "{name}: {}", answer.text());
        assert!(answer.text().contains(says), "{name}: {}", answer.text());
        if status == 503 {
            assert_eq!(answer.reason(), "credential-unavailable", "{name}");
            let missed = "pilotfish_credential_calls_total{credential=\"default/api\",result=\"missed\"}";
            assert_eq!(metric(&sidecar, missed).await, 1, "{name}");
            if name != "nobody's" {
                said(&sidecar, "OutboundCredential default/api: calls to api.test are refused").await;
            }
        }
    }
}

#[tokio::test]
async fn tunnels_carry_none_and_are_told_of() {
    let mut safe = Safe::new();
    let file = safe.put("key", KEY);
    let api = Origin::plain().await;
    let yaml = service("api.test", api.port())
        + &credential("api", "api.test", &format!("bearer: {{file: {file}}}"));
    let sidecar = safe.start(yaml);
    let mut client = H1::connect(sidecar.outbound).await;
    client.send("CONNECT api.test:80 HTTP/1.1\r\nHost: api.test:80\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    assert_eq!(client.get("api.test", "/", &[]).await.unwrap().status(), 200);
    assert_eq!(api.requests()[0].header("authorization"), None);
    assert_eq!(state(&sidecar).await["tunnels"], 1);
    said(&sidecar, "in a tunnel nothing can be shown").await;
    safe.is_tight(&sidecar).await;
}

#[tokio::test]
async fn a_copy_shows_what_its_own_host_gets_and_nothing_of_the_call() {
    let mut safe = Safe::new();
    let (file, other) = (safe.put("key", KEY), safe.put("other", "the-secret-of-the-copy"));
    let (api, copy, bare) = (Origin::plain().await, Origin::plain().await, Origin::plain().await);
    let yaml = service("api.test", api.port())
        + &service("copy.test", copy.port())
        + &service("bare.test", bare.port())
        + &service("far.test", 80).replace("127.0.0.1", "203.0.113.1")
        + &credential("api", "api.test", &format!("bearer: {{file: {file}}}"))
        + &credential("copy", "copy.test, far.test", &format!("bearer: {{file: {other}}}"))
        + &virtual_service(
            "api",
            "api.test",
            "- mirrors: [{ destination: { host: copy.test } }, { destination: { host: bare.test } }, { destination: { host: far.test } }]\n  \
             route: [{ destination: { host: api.test } }]",
        );
    let sidecar = safe.start(yaml);
    assert_eq!(get(&sidecar, "api.test", "/", &[]).await.status(), 200);
    for (at, expected) in [
        (&api, Some(format!("Bearer {KEY}"))),
        (&copy, Some("Bearer the-secret-of-the-copy".to_owned())),
        (&bare, None),
    ] {
        let began = Instant::now();
        while at.requests().is_empty() {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(at.requests()[0].header("authorization"), expected);
    }
    // A copy that would show it in plaintext is none.
    let missed = "pilotfish_credential_calls_total{credential=\"default/copy\",result=\"missed\"}";
    crate::support::wait_metric(&sidecar, missed, 1).await;
    safe.is_tight(&sidecar).await;
}

#[tokio::test]
async fn a_health_check_shows_it_where_that_is_wanted() {
    let mut safe = Safe::new();
    let file = safe.put("key", KEY);
    for (wanted, place, target, header) in [
        ("", "bearer", "/health", None),
        (",credential=on", "bearer", "/health", Some(format!("Bearer {KEY}"))),
        (",credential=on", "query", &*format!("/health?key={KEY}"), None),
    ] {
        let api = Origin::plain().await;
        let annotation =
            format!("pilotfish.dev/health-check: \"http:/health,interval=100ms,timeout=20s{wanted}\"");
        let yaml = service("api.test", api.port())
            .replace("  name: api-test\n", &format!("  name: api-test\n  annotations:\n    {annotation}\n"));
        let how = match place {
            "query" => format!("apiKey: {{query: key, file: {file}}}"),
            _ => format!("bearer: {{file: {file}}}"),
        };
        let sidecar = safe.start(yaml + &credential("api", "api.test", &how));
        let began = Instant::now();
        while api.requests().is_empty() {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let seen = &api.requests()[0];
        assert_eq!((seen.target(), seen.header("authorization")), (target, header));
        safe.is_tight(&sidecar).await;
    }
}
