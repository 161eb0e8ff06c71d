//! Leaving the mesh: CONNECT and absolute-form requests, as `HTTP_PROXY` makes them, and what is refused.

use pilotfish_testkit::origin::{Step, When, send};
use pilotfish_testkit::{Agent, H1, Nobody, Origin, Sidecar, h1};

use crate::support::{service, sidecar, virtual_service};

async fn connect(sidecar: &Sidecar, to: &str) -> (H1, u16, String) {
    let mut client = H1::connect(sidecar.outbound).await;
    client.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")).await;
    let head = client.head().await.expect("an answer");
    let (status, reason) = (head.status(), head.header("pilotfish-reason").unwrap_or_default());
    (client, status, reason)
}

#[tokio::test]
async fn loopback_and_link_local_are_refused_unless_named() {
    let (agent, named) = (Agent::start("private").await, Agent::start("named").await);
    let sidecar = sidecar().yaml("a.yaml", service("named.test", named.port())).start();
    let port = agent.port();
    let own = sidecar.admin.port();
    for to in [
        format!("127.0.0.1:{port}"),
        format!("127.9.9.9:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("0.0.0.0:{port}"),
        "169.254.169.254:80".into(),
        "[fe80::1]:80".into(),
        format!("127.0.0.1:{own}"),
    ] {
        let (_, status, reason) = connect(&sidecar, &to).await;
        assert_eq!((status, reason.as_str()), (403, "egress-not-allowed"), "CONNECT {to}");
        let absolute = format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n");
        let answer = H1::connect(sidecar.outbound).await.ask(absolute).await.unwrap();
        assert_eq!(
            (answer.status(), answer.reason().as_str()),
            (403, "egress-not-allowed"),
            "GET http://{to}/"
        );
    }
    let (_, status, _) = connect(&sidecar, &format!("2130706433:{port}")).await;
    assert!(status >= 400, "a number is no way around: {status}");
    let plain = h1::get(sidecar.outbound, &format!("127.0.0.1:{port}"), "/", &[]).await.unwrap();
    assert_eq!((plain.status(), plain.reason().as_str()), (404, "no-route"), "a plain Host is no egress");
    assert_eq!(agent.requests(), 0);
}

#[tokio::test]
async fn a_service_entry_opens_a_tunnel() {
    let origin =
        Origin::start_when(When::Head, |_, _| vec![send("HTTP/1.1 200 OK\r\n\r\n"), Step::Echo]).await;
    let agent = Agent::start("inside").await;
    let yaml = service("named.test", agent.port()) + &service("echo.test", origin.port());
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let (mut client, status, _) = connect(&sidecar, "named.test:80").await;
    assert_eq!(status, 200);
    let inside = client.get("anything.test", "/inside", &[]).await.unwrap();
    assert_eq!(
        (inside.json()["path"].as_str(), inside.json()["headers"]["host"][0].as_str()),
        (Some("/inside"), Some("anything.test"))
    );
    let again = client.get("anything.test", "/again", &[]).await.unwrap();
    assert_eq!(again.json()["agent"], "inside");
    // What comes with the CONNECT belongs to the tunnel.
    let mut client = H1::connect(sidecar.outbound).await;
    client.send("CONNECT named.test:80 HTTP/1.1\r\nHost: named.test:80\r\n\r\nGET /early HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(client.head().await.expect("an answer").status(), 200);
    assert_eq!(client.answer("GET").await.unwrap().json()["path"], "/early");
}

#[tokio::test]
async fn registry_only_knows_only_the_registry() {
    let agent = Agent::start("known").await;
    let policy = ["--outbound-policy", "registry-only"];
    let sidecar = sidecar().yaml("a.yaml", service("known.test", agent.port())).args(&policy).start();
    let (_, status, reason) = connect(&sidecar, "192.0.2.1:80").await;
    assert_eq!((status, reason.as_str()), (403, "egress-not-allowed"));
    let (_, status, reason) = connect(&sidecar, "unheard-of.invalid:443").await;
    assert_eq!((status, reason.as_str()), (403, "egress-not-allowed"));
    let absolute = "GET http://unheard-of.invalid/ HTTP/1.1\r\nHost: unheard-of.invalid\r\n\r\n";
    let answer = H1::connect(sidecar.outbound).await.ask(absolute).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (403, "egress-not-allowed"));
    let known = "GET http://known.test/x HTTP/1.1\r\nHost: known.test\r\n\r\n";
    assert_eq!(H1::connect(sidecar.outbound).await.ask(known).await.unwrap().json()["agent"], "known");
    let (_, status, _) = connect(&sidecar, "known.test:80").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn absolute_form_is_routed_like_any_request() {
    let agent = Agent::start("routed").await;
    let routes = "- match: [{ uri: { prefix: /direct } }]\n  directResponse: { status: 200, body: { string: routed } }\n\
                  - route: [{ destination: { host: app.test } }]";
    let yaml = service("app.test", agent.port()) + &virtual_service("v", "front.test", routes);
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let mut client = H1::connect(sidecar.outbound).await;
    let direct =
        client.ask("GET http://front.test/direct HTTP/1.1\r\nHost: front.test\r\n\r\n").await.unwrap();
    assert_eq!(direct.text(), "routed");
    let rest = client.ask("GET http://front.test/x?y=1 HTTP/1.1\r\nHost: front.test\r\nProxy-Connection: keep-alive\r\n\r\n").await;
    let seen = rest.unwrap().json();
    assert_eq!((seen["path"].as_str(), seen["query"].as_str()), (Some("/x"), Some("y=1")));
    assert_eq!(seen["headers"]["proxy-connection"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_tunnel_that_cannot_be_made_says_so() {
    let nobody = Nobody::new();
    let sidecar = sidecar().yaml("a.yaml", service("closed.test", nobody.port())).start();
    let (_, status, reason) = connect(&sidecar, "closed.test:80").await;
    assert_eq!((status, reason.as_str()), (503, "connect-failed"));
}

/// A ServiceEntry without resolution names its own host. A wider rule that leads there must not make it a way to
/// whatever address a caller writes into Host.
#[tokio::test]
async fn a_rule_to_an_unresolved_host_is_no_way_to_loopback() {
    let agent = Agent::start("private").await;
    let rules = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec:\n  \
                 hosts: [outside.test]\n  resolution: NONE\n  ports: [{number: 80, name: http, protocol: HTTP}]\n\
                 ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec:\n  \
                 hosts: ['*']\n  http:\n  - route: [{destination: {host: outside.test, port: {number: 80}}}]\n";
    let sidecar = sidecar().yaml("a.yaml", rules).start();
    for host in [format!("127.0.0.1:{}", agent.port()), "169.254.169.254".into()] {
        let answer = h1::get(sidecar.outbound, &host, "/", &[]).await.unwrap();
        assert_eq!((answer.status(), answer.reason().as_str()), (403, "egress-not-allowed"), "{host}");
    }
}
