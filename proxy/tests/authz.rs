//! AuthorizationPolicy on the inbound port, and callers that write their requests so that the policy and the agent would read them
//! differently. What counts is what the agent received.

use std::sync::Arc;
use std::time::Duration;

use pilotfish_testkit::ca::Leaf;
use pilotfish_testkit::h2::Outcome;
use pilotfish_testkit::origin::{Step, send};
use pilotfish_testkit::strict::Message;
use pilotfish_testkit::{Agent, H1, H2, Origin, Sidecar, h1};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::support::{service, sidecar, virtual_service};
use crate::tls::setup::{DOMAIN, Mesh, PATIENCE, ask, mesh_service};

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\nspec: {spec}\n---\n"
    )
}

const PERMISSIVE: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: p\nspec: { mtls: { mode: PERMISSIVE } }\n---\n";

/// An agent behind a sidecar without identity, so that callers may speak plaintext.
struct Guarded {
    origin: Origin,
    sidecar: Sidecar,
}

impl Guarded {
    async fn by(spec: &str) -> Guarded {
        Guarded::with(spec, &[]).await
    }

    async fn with(spec: &str, args: &[&str]) -> Guarded {
        let origin = Origin::plain().await;
        let sidecar = sidecar().app(origin.addr()).yaml("p.yaml", policy("p", spec)).args(args).start();
        Guarded { origin, sidecar }
    }

    /// The status and reason, and what the agent got of it.
    async fn send(&self, request: &str) -> (u16, String, Option<Message>) {
        self.origin.forget();
        let answer = H1::connect(self.sidecar.inbound).await.ask(request).await.unwrap();
        (answer.status(), answer.reason(), self.origin.requests().pop())
    }

    /// Sends it, and says whether that came out which should: refused by the policy and unseen by the agent, or passed on.
    async fn passes(&self, request: &str, passes: bool) -> Option<Message> {
        let (status, reason, got) = self.send(request).await;
        let what = (status, reason.as_str(), got.is_some());
        if passes {
            assert_eq!((status, got.is_some()), (200, true), "{request:?}: {what:?}");
        } else {
            assert_eq!(what, (403, "access-denied", false), "{request:?}");
        }
        got
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x.test\r\n\r\n")
}

#[tokio::test]
async fn paths_mean_to_the_agent_what_they_meant_to_the_policy() {
    let guarded =
        Guarded::by("{ action: DENY, rules: [{ to: [{ operation: { paths: [/admin, '/admin/*'] } }] }] }")
            .await;
    for target in [
        "/admin",
        "/admin/",
        "/admin/x?y=1",
        "/%61dmin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/%2E./admin",
        "/./admin",
        "/x\\..\\admin",
        "\\admin",
        "//admin",
        "///admin//x",
        "/x/..%2fadmin",
        "/admin%2Fx",
        "/admin%5Cx",
        "/admin;jsessionid=1",
        "//x/admin",
        "/\\x/admin",
        "/admin;/x",
        "/x/..;/admin",
        "/../admin",
        "/x%2F%2F..%2Fadmin",
        "/x%5c%5c..%5cadmin",
        "/admin;a%2Fb",
        "/x/..%252fadmin",
        "/x/%252e%252e/admin",
        "/x/%c0%ae%c0%ae/admin",
        "/%2561dmin",
        "/admin%3Bx",
        "/admin%3Fx",
        "/admin%2500",
        "http://x.test/admin",
        "http://x.test/x/../admin",
    ] {
        if target.starts_with('\\') {
            // No form of a target begins so.
            assert_eq!(guarded.send(&get(target)).await.0, 400, "{target}");
            continue;
        }
        guarded.passes(&get(target), false).await;
    }
    for (target, received) in [
        ("/", "/"),
        ("/adminx", "/adminx"),
        ("/a/../b?p=/../admin", "/b?p=/../admin"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a//b", "/a//b"),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/a\\b", "/a/b"),
        ("/%7Euser/%41", "/~user/A"),
        ("/x?to=/admin", "/x?to=/admin"),
        ("http://x.test", "/"),
        ("http://x.test/a/./b", "/a/b"),
    ] {
        let got = guarded.passes(&get(target), true).await.unwrap();
        assert_eq!(got.target(), received, "{target}");
    }
    for target in ["/a%00b", "/admin#x", "/#/../admin", "http://x.test/admin#"] {
        let (status, reason, got) = guarded.send(&get(target)).await;
        assert_eq!((status, reason.as_str(), got.is_some()), (400, "bad-request", false), "{target}");
    }
}

#[tokio::test]
async fn what_is_allowed_cannot_be_left_by_dots_that_others_see() {
    let guarded =
        Guarded::by("{ rules: [{ to: [{ operation: { paths: [/public, '/public/*'] } }] }] }").await;
    for target in [
        "/admin",
        "//public",
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/..%2fadmin",
        "/public/..%5cadmin",
        "/public/..%252fadmin",
        "/public/%c0%ae%c0%ae/admin",
        "/public/a%2F%2F..%2F..%2Fadmin",
        "/public/..;/admin",
        "/public\\..\\admin",
    ] {
        guarded.passes(&get(target), false).await;
    }
    for target in ["/public", "/public/a;v=1", "/public/a%2Fb", "/public//x"] {
        let got = guarded.passes(&get(target), true).await.unwrap();
        assert_eq!(got.target(), target);
    }
    // Nor by what others cut off: the end that is allowed is not theirs.
    let pages = Guarded::by("{ rules: [{ to: [{ operation: { paths: ['*.html'] } }] }] }").await;
    for target in ["/admin;.html", "/admin%3F.html", "/admin%23.html", "/admin%3b.html"] {
        pages.passes(&get(target), false).await;
    }
    for target in ["/a.html", "/a;v=1/b.html", "/a%20b.html"] {
        pages.passes(&get(target), true).await;
    }
}

#[tokio::test]
async fn normalisation_is_istios_by_option_and_in_both_directions() {
    let rows = [
        ("none", ["/a/../b", "/a//b", "/a%2Fb", "/%41"]),
        ("BASE", ["/b", "/a//b", "/a%2Fb", "/A"]),
        ("merge-slashes", ["/b", "/a/b", "/a%2Fb", "/A"]),
        ("DECODE_AND_MERGE_SLASHES", ["/b", "/a/b", "/a/b", "/A"]),
    ];
    for (mode, received) in rows {
        let origin = Origin::plain().await;
        let sidecar = sidecar().app(origin.addr()).yaml("s.yaml", service("s.test", origin.port()));
        let sidecar = sidecar.args(&["--path-normalization", mode]).start();
        for port in [sidecar.inbound, sidecar.outbound] {
            for (target, want) in ["/a/../b", "/a//b", "/a%2Fb", "/%41"].into_iter().zip(received) {
                let answer = h1::get(port, "s.test", target, &[]).await.unwrap();
                assert_eq!(answer.status(), 200);
                assert_eq!(origin.requests().pop().unwrap().target(), want, "{mode} {target}");
            }
        }
    }
    let (status, said) = sidecar().args(&["--path-normalization", "most"]).start_to_fail();
    assert!(!status.success() && said.contains("decode-and-merge-slashes"), "{said}");
}

#[tokio::test]
async fn routes_see_the_path_that_is_sent() {
    let (own, other) = (Origin::plain().await, Origin::plain().await);
    let routes = "- match:\n  - uri: { prefix: /admin }\n  route:\n  - destination: { host: admin.test }\n- route:\n  - destination: { host: other.test }";
    let yaml = service("admin.test", own.port())
        + &service("other.test", other.port())
        + &virtual_service("v", "v.test", routes);
    let sidecar = sidecar().yaml("v.yaml", yaml).start();
    for target in ["/admin/x", "/a/%2e%2e/admin/x", "/%61dmin/x"] {
        assert_eq!(h1::get(sidecar.outbound, "v.test", target, &[]).await.unwrap().status(), 200);
        assert_eq!(
            own.requests().pop().map(|got| got.target().to_owned()).as_deref(),
            Some("/admin/x"),
            "{target}"
        );
    }
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn hosts_in_any_case_with_ports_and_in_both_places() {
    let guarded =
        Guarded::by("{ action: DENY, rules: [{ to: [{ operation: { hosts: [internal.test] } }] }] }").await;
    for host in ["internal.test", "INTERNAL.Test", "internal.test:80", "Internal.test:8080", "internal.test."]
    {
        guarded.passes(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), false).await;
    }
    // The absolute form decides (RFC 9112, section 3.2.2), and the agent is told the same.
    guarded.passes("GET http://internal.test/ HTTP/1.1\r\nHost: x.test\r\n\r\n", false).await;
    guarded.passes("GET HTTP://INTERNAL.test:80/ HTTP/1.1\r\nHost: x.test\r\n\r\n", false).await;
    let got =
        guarded.passes("GET http://x.test/ HTTP/1.1\r\nHost: internal.test\r\n\r\n", true).await.unwrap();
    assert_eq!(got.header("host").as_deref(), Some("x.test"));
    // None of these is one name, and only one.
    for host in
        ["x.test\r\nHost: internal.test", "internal%2etest", "x.test@internal.test", "internal.test,x", ""]
    {
        let (status, _, got) = guarded.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((status, got.is_some()), (400, false), "{host}");
    }
    let addresses =
        Guarded::by("{ action: DENY, rules: [{ to: [{ operation: { hosts: ['[::1]', 'a.test:80'] } }] }] }")
            .await;
    for host in ["[::1]", "[::1]:80", "[0::1]", "[0:0:0:0:0:0:0:1]:8080", "a.test:080", "A.test.:80"] {
        addresses.passes(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), false).await;
        addresses.passes(&format!("GET http://{host}/ HTTP/1.1\r\nHost: x.test\r\n\r\n"), false).await;
    }
    addresses.passes("GET / HTTP/1.1\r\nHost: [::2]\r\n\r\n", true).await;
}

#[tokio::test]
async fn h2_authority_and_host() {
    // The agent speaks HTTP/2 as its caller does; it says which of its names it got.
    let agent = Agent::start("x").await;
    let spec = "{ action: DENY, rules: [{ to: [{ operation: { hosts: [internal.test] } }] }] }";
    let sidecar = sidecar().app(agent.addr()).yaml("p.yaml", policy("p", spec)).start();
    // Two names that differ never reach anybody (RFC 9113, section 8.3.1).
    for (authority, host, wanted) in [
        ("x.test", None, 200),
        ("x.test", Some("x.test"), 200),
        ("internal.test", None, 403),
        ("INTERNAL.test:80", None, 403),
        ("internal.test", Some("x.test"), 400),
        ("x.test", Some("internal.test"), 400),
    ] {
        let before = agent.requests();
        let more: Vec<(&str, &str)> = host.map(|host| ("host", host)).into_iter().collect();
        let status = match H2::open(sidecar.inbound, &[]).await.get(1, authority, "/", &more).await {
            Outcome::Answer(answer) => answer.status,
            other => panic!("{authority} {host:?}: {other:?}"),
        };
        assert_eq!(
            (status, agent.requests() - before),
            (wanted, usize::from(wanted == 200)),
            "{authority} {host:?}"
        );
    }
}

#[tokio::test]
async fn headers_that_are_repeated_or_joined() {
    let with = |lines: &str| format!("GET / HTTP/1.1\r\nHost: x.test\r\n{lines}\r\n");
    let deny = Guarded::by(
        "{ action: DENY, rules: [{ when: [{ key: 'request.headers[x-role]', values: [admin] }] }] }",
    )
    .await;
    let allow =
        Guarded::by("{ rules: [{ when: [{ key: 'request.headers[X-Role]', values: [user] }] }] }").await;
    let not =
        Guarded::by("{ rules: [{ when: [{ key: 'request.headers[x-role]', notValues: [admin] }] }] }").await;
    for lines in [
        "x-role: admin\r\n",
        "X-Role: user\r\nx-role: admin\r\n",
        "x-role: admin\r\nx-role: user\r\n",
        "x-role: user, admin\r\n",
        "x-role: user,admin\r\n",
        "x-role:  admin \r\n",
    ] {
        for guarded in [&deny, &allow, &not] {
            guarded.passes(&with(lines), false).await;
        }
    }
    for lines in ["x-role: user\r\n", "x-role: user\r\nX-ROLE: user\r\n"] {
        for guarded in [&deny, &allow, &not] {
            guarded.passes(&with(lines), true).await;
        }
    }
    allow.passes(&with(""), false).await;
    // To many agents (CGI, WSGI) `_` in a name is `-`: what looks like the header that decided does not get to them.
    for lines in ["x_role: admin\r\n", "x-role: user\r\nX_Role: admin\r\n"] {
        let got = deny.passes(&with(lines), true).await.unwrap();
        assert_eq!(got.header("x_role"), None, "{lines}");
    }
    allow.passes(&with("x_role: user\r\n"), false).await;
    assert!(deny.passes(&with("other_role: admin\r\n"), true).await.unwrap().header("other_role").is_some());
    // Nor what looks like a header that says where the message ends.
    for name in ["Content_Length", "transfer_encoding"] {
        let got = deny.passes(&with(&format!("{name}: 7\r\n")), true).await.unwrap();
        assert_eq!(got.header(name), None, "{name}");
    }
    let framed = "POST / HTTP/1.1\r\nHost: x.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n";
    let trailers =
        "X-Role: admin\r\nx_role: admin\r\nx-pilotfish-a: 1\r\nx_forwarded_for: 1.1.1.1\r\nx-sum: 7\r\n\r\n";
    let got = deny.passes(&format!("{framed}{trailers}"), true).await.unwrap();
    assert_eq!(got.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    // A header that `Connection` names is gone for the agent as for the policy.
    let got = deny.passes(&with("Connection: x-role\r\nx-role: admin\r\n"), true).await.unwrap();
    assert_eq!(got.header("x-role"), None);
}

#[tokio::test]
async fn method_overrides_are_nothing_to_the_sidecar() {
    let guarded =
        Guarded::by("{ action: DENY, rules: [{ to: [{ operation: { methods: [DELETE] } }] }] }").await;
    guarded.passes("DELETE / HTTP/1.1\r\nHost: x.test\r\n\r\n", false).await;
    guarded.passes("delete / HTTP/1.1\r\nHost: x.test\r\n\r\n", false).await;
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: x.test\r\ncontent-length: 0\r\n{name}: DELETE\r\n\r\n");
        let got = guarded.passes(&request, true).await.unwrap();
        assert_eq!((got.method(), got.header(name).as_deref()), ("POST", Some("DELETE")));
    }
    // Whoever has an agent that heeds them says so.
    let careful = Guarded::by("{ action: DENY, rules: [{ when: [{ key: 'request.headers[x-http-method-override]', values: ['*'] }] }] }").await;
    careful
        .passes(
            "POST / HTTP/1.1\r\nHost: x.test\r\ncontent-length: 0\r\nX-HTTP-Method-Override: DELETE\r\n\r\n",
            false,
        )
        .await;
}

#[tokio::test]
async fn an_address_is_believed_only_from_trusted_proxies() {
    let inside = "{ rules: [{ from: [{ source: { remoteIpBlocks: [10.0.0.0/8] } }] }] }";
    let with = |value: &str| format!("GET / HTTP/1.1\r\nHost: x.test\r\nx-forwarded-for: {value}\r\n\r\n");
    let nobody = Guarded::by(inside).await;
    nobody.passes(&with("10.0.0.1"), false).await;
    let peer = Guarded::by(
        "{ rules: [{ from: [{ source: { remoteIpBlocks: [127.0.0.1], ipBlocks: [127.0.0.0/8] } }] }] }",
    )
    .await;
    peer.passes(&with("6.6.6.6"), true).await;
    let one = Guarded::with(inside, &["--trusted-hops", "1"]).await;
    one.passes(&with("10.0.0.1"), true).await;
    one.passes(&with("6.6.6.6, 10.0.0.1"), true).await;
    one.passes(&with("10.0.0.1, 6.6.6.6"), false).await;
    one.passes(&get("/"), false).await;
}

#[tokio::test]
async fn who_calls_is_proved_and_nothing_that_is_said() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let allow = "{ rules: [{ from: [{ source: { principals: [cluster.local/ns/default/sa/caller] } }] }] }";
    let callee = mesh
        .sidecar("callee")
        .app(origin.addr())
        .yaml("p.yaml", policy("viewers", allow) + PERMISSIVE)
        .start();
    let forged = format!(
        "GET / HTTP/1.1\r\nhost: x.test\r\nconnection: close\r\n\
         x-forwarded-client-cert: By=spiffe://{DOMAIN}/ns/default/agent/callee;URI=spiffe://{DOMAIN}/ns/default/agent/caller\r\n\
         x-pilotfish-caller: default/caller\r\nx-pilotfish-delegation: forged\r\nagent-caller: caller\r\nagent-hops: 0\r\n\r\n"
    );
    // In plaintext, and by the identity of another agent.
    let answer = H1::connect(callee.inbound).await.ask(&forged).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (403, "access-denied"));
    assert!(answer.text().contains("default/viewers"), "{}", answer.text());
    let plain = "GET / HTTP/1.1\r\nhost: x.test\r\nconnection: close\r\n\r\n";
    let foreign = Leaf::agent(DOMAIN, "other", "caller");
    for other in [mesh.issue("other"), mesh.ca.issue(&foreign)] {
        for request in [forged.as_str(), plain] {
            let answer = ask(callee.inbound, mesh.client(Some(&other)), request).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        }
    }
    assert!(origin.requests().is_empty());
    // The one who may.
    let answer = ask(callee.inbound, mesh.client(Some(&mesh.issue("caller"))), plain).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let yaml = mesh_service("callee.test", "callee", callee.inbound);
    let caller = mesh.sidecar("caller").yaml("s.yaml", &*yaml).start();
    assert_eq!(h1::get(caller.outbound, "callee.test", "/", &[]).await.unwrap().status(), 200);
    let other = mesh.sidecar("other").yaml("s.yaml", yaml).start();
    assert_eq!(h1::get(other.outbound, "callee.test", "/", &[]).await.unwrap().status(), 403);
    assert_eq!(origin.requests().len(), 2);
}

#[tokio::test]
async fn the_name_that_a_connection_asked_for() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let allow = "{ rules: [{ when: [{ key: connection.sni, values: ['*.callee.test'] }] }] }";
    let callee = mesh.sidecar("callee").app(origin.addr()).yaml("p.yaml", policy("p", allow)).start();
    for (name, status) in [(Some("a.callee.test"), "200"), (Some("other.test"), "403"), (None, "403")] {
        let config = mesh.client(Some(&mesh.issue("caller")));
        let name = match name {
            Some(name) => ServerName::try_from(name).unwrap(),
            None => ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
        };
        let stream = TcpStream::connect(callee.inbound).await.unwrap();
        let mut stream = TlsConnector::from(config).connect(name.clone(), stream).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x.test\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{name:?}: {answer}");
    }
}

#[tokio::test]
async fn a_new_policy_decides_new_calls_and_running_streams_go_on() {
    let gate = Arc::new(Semaphore::new(0));
    let waits = gate.clone();
    let origin = Origin::start(move |request, _| match request.target() {
        "/stream" => vec![
            send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"),
            Step::Gate(waits.clone()),
            send("4\r\nlast\r\n0\r\n\r\n"),
        ],
        _ => pilotfish_testkit::origin::ok("ok"),
    })
    .await;
    let open = policy("p", "{ rules: [{}] }");
    let sidecar = sidecar().app(origin.addr()).yaml("p.yaml", &*open).start();
    let mut streaming = H1::connect(sidecar.inbound).await;
    assert!(streaming.send(get("/stream")).await);
    let begun = streaming.read_until(|bytes| bytes.windows(5).any(|window| window == b"first")).await;
    assert!(begun.starts_with(b"HTTP/1.1 200"));
    let until = tokio::time::Instant::now() + PATIENCE;
    let status = |want: u16| {
        let inbound = sidecar.inbound;
        async move {
            while h1::get(inbound, "x.test", "/", &[]).await.unwrap().status() != want {
                assert!(tokio::time::Instant::now() < until, "the policy is not in force");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    sidecar.rewrite("p.yaml", &policy("p", "{ action: DENY, rules: [{}] }"));
    status(403).await;
    gate.add_permits(1);
    let rest = streaming.read_until(|bytes| bytes.windows(5).any(|window| window == b"0\r\n\r\n")).await;
    assert!(String::from_utf8_lossy(&rest).contains("last"), "the stream was cut: {rest:?}");
    // The same connection, a new call.
    let answer = streaming.get("x.test", "/", &[]).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (403, "access-denied"));
    sidecar.rewrite("p.yaml", &open);
    status(200).await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_decided_lets_nobody_in_and_says_so() {
    let spec =
        "{ rules: [{ when: [{ key: 'experimental.envoy.filters.network.mysql_proxy[db]', values: [a] }] }] }";
    let guarded = Guarded::by(spec).await;
    let answer = H1::connect(guarded.sidecar.inbound).await.ask(get("/")).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (403, "access-denied"));
    let text = answer.text();
    assert!(text.contains("AuthorizationPolicy default/p cannot be enforced"), "{text}");
    let told = guarded.sidecar.stderr().join("\n");
    assert!(told.contains("cannot be compiled, it denies its workload"), "{told}");
}
