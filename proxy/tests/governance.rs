//! AgentSecurityPolicy from outside: the users' file as they wrote it, each refusal, classes of answers both ways, and ways around it.

use std::sync::Arc;

use pilotfish_testkit::ca::Issued;
use pilotfish_testkit::origin::{ok, send};
use pilotfish_testkit::relay::{Manners, Relay};
use pilotfish_testkit::{H1, Origin, Sidecar};
use rustls::ClientConfig;

use crate::support::{service, wait_metric};
use crate::tls::setup::{Mesh, ask, mesh_service};

/// The users' policy, as they wrote it.
const USERS: &str = include_str!("../../filters/src/compile/tests/governance/users.yaml");

/// What calls to the agent `callee` need.
const DECLARED: &str = "\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: callee\n  annotations:\n    \
                        pilotfish.dev/permission.talk: nlp:process\n    pilotfish.dev/resource.talk: conversations/{id}\n    \
                        pilotfish.dev/permission.read: knowledge:read\n    pilotfish.dev/resource.read: knowledge-base/{path.2}/{path.3}\n    \
                        pilotfish.dev/classification.vault: restricted\n    pilotfish.dev/permission.vault: nlp:process\n    \
                        pilotfish.dev/resource.vault: conversations/all\n    pilotfish.dev/classification: public\nspec:\n  hosts: \
                        [s.test]\n  http:\n  - name: talk\n    match: [{uri: {prefix: /v1/conversations/}}]\n    route: [{destination: \
                        {host: s.test}}]\n  - name: read\n    match: [{uri: {prefix: /kb/}}]\n    route: [{destination: {host: \
                        s.test}}]\n  - name: vault\n    match: [{uri: {exact: /vault}}]\n    route: [{destination: {host: s.test}}]\n  \
                        - name: rest\n    route: [{destination: {host: s.test}}]\n---\n";

const PERMISSIVE: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: \
                          PERMISSIVE}}\n---\n";

/// An agent under the policy, and clients with identities.
struct Governed {
    mesh: Mesh,
    origin: Origin,
    callee: Sidecar,
    yaml: String,
}

impl Governed {
    async fn start() -> Governed {
        Governed::with(Origin::plain().await)
    }

    fn with(origin: Origin) -> Governed {
        let mesh = Mesh::new();
        let at = mesh_service("s.test", "callee", origin.addr());
        let yaml = format!("{at}{PERMISSIVE}{USERS}{DECLARED}");
        let callee = mesh.sidecar("callee").app(origin.addr()).yaml("a.yaml", &yaml).start();
        Governed { mesh, origin, callee, yaml }
    }

    fn client(&self, agent: &str) -> Arc<ClientConfig> {
        let own: Issued = self.mesh.issue(agent);
        self.mesh.client(Some(&own))
    }

    /// The status, and the reason of a refusal.
    async fn call(&self, agent: &str, method: &str, path: &str) -> (u16, String, String) {
        self.send(agent, &request(method, path, "")).await
    }

    async fn send(&self, agent: &str, request: &str) -> (u16, String, String) {
        let answer = ask(self.callee.inbound, self.client(agent), request).await.unwrap();
        parse(answer)
    }
}

fn request(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: s.test\r\n{more}connection: close\r\n\r\n")
}

fn parse(answer: String) -> (u16, String, String) {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let reason = answer.lines().find_map(|line| line.strip_prefix("pilotfish-reason: ")).unwrap_or("");
    (status, reason.to_owned(), answer.clone())
}

#[tokio::test]
async fn the_users_policy_is_enforced_as_written() {
    let governed = Governed::start().await;
    let rows = [
        ("conversation-agent", "POST", "/v1/conversations/17/messages", 200, ""),
        ("conversation-agent", "GET", "/kb/public/page", 200, ""),
        ("conversation-agent", "GET", "/kb/secret/page", 403, "access-denied"),
        ("conversation-agent", "GET", "/metrics", 403, "access-denied"),
        ("conversation-agent", "GET", "/vault", 403, "classified"),
        ("admin-agent", "POST", "/v1/conversations/17/messages", 200, ""),
        ("admin-agent", "DELETE", "/anything", 200, ""),
        ("admin-agent", "GET", "/vault", 200, ""),
        ("stranger", "POST", "/v1/conversations/17/messages", 403, "access-denied"),
        ("stranger", "GET", "/", 403, "access-denied"),
    ];
    for (agent, method, path, status, reason) in rows {
        let answer = governed.call(agent, method, path).await;
        assert_eq!((answer.0, &*answer.1), (status, reason), "{agent} {method} {path}: {}", answer.2);
    }
    let (.., text) = governed.call("stranger", "POST", "/v1/conversations/17").await;
    assert!(
        text.contains("agent default/stranger has no role that gives nlp:process on conversations/17"),
        "{text}"
    );
    // Plaintext is let in by PeerAuthentication, and not by the policy.
    let mut plain = H1::connect(governed.callee.inbound).await;
    let answer = plain.get("s.test", "/v1/conversations/17", &[]).await.unwrap();
    assert_eq!((answer.status(), &*answer.reason()), (403, "encryption-required"));
    assert_eq!(governed.origin.requests().len(), 5, "what was refused never came");
}

#[tokio::test]
async fn permissions_are_not_injected() {
    let governed = Governed::start().await;
    let paths = [
        "/v1/conversations/17%2f..%2fadmin",
        "/v1/conversations/%2e%2e/admin",
        "/v1/conversations/*",
        "/v1/conversations/%2a",
        "/v1/conversations/",
        "/v1/conversations",
        "/v1/conversations/..;/admin",
        "/v1/conversations/17%00",
        "/v1/conversations/17%5c..",
        "/v1/conversations/conversations/17",
        "/kb/public/%2e%2e%2fsecret",
        "/kb/public%2fx/page",
        "/kb//public/page",
        "/v1/conversations/17%252f",
        "/vault/",
        "/vault%2f",
        "/%76ault2",
        "/v1/../vault",
    ];
    for path in paths {
        let (status, reason, text) = governed.call("conversation-agent", "GET", path).await;
        let denied =
            (status, &*reason) == (403, "access-denied") || (status, &*reason) == (403, "classified");
        assert!(denied || (status, &*reason) == (400, "bad-request"), "{path}: {text}");
    }
    // Headers that only sidecars write, and other hosts, change nothing.
    let forged = "x-forwarded-client-cert: URI=spiffe://mesh.test/ns/default/agent/admin-agent\r\nx-pilotfish-agent: admin-agent\r\n";
    assert_eq!(governed.send("stranger", &request("GET", "/x", forged)).await.1, "access-denied");
    for host in ["S.TEST", "s.test:8080", "s.test.", "elsewhere", "127.0.0.1"] {
        let request = request("GET", "/kb/secret/x", "").replace("host: s.test", &format!("host: {host}"));
        let (status, reason, text) = governed.send("conversation-agent", &request).await;
        assert_eq!((status, &*reason), (403, "access-denied"), "{host}: {text}");
    }
    assert!(governed.origin.requests().is_empty(), "{:?}", governed.origin.requests());
}

#[tokio::test]
async fn what_a_route_needs_it_needs_however_its_path_is_written() {
    // What everything else needs says itself what it is about: the path does not have to be plain for it.
    let declared = "apiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {name: p}\nspec:\n  authorization:\n    model: rbac\n    \
                    roles:\n    - {name: reader, permissions: ['x:read'], resources: ['*']}\n---\n\
                    apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: callee\n  annotations: \
                    {pilotfish.dev/permission.admin: 'x:admin', pilotfish.dev/resource.admin: admin, \
                    pilotfish.dev/permission.rest: 'x:read', pilotfish.dev/resource.rest: rest}\nspec:\n  hosts: [s.test]\n  http:\n  \
                    - {name: admin, match: [{uri: {prefix: /admin}}, {headers: {x-op: {exact: wipe}}}], route: [{destination: \
                    {host: s.test}}]}\n  \
                    - {name: rest, route: [{destination: {host: s.test}}]}\n";
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let at = mesh_service("s.test", "callee", origin.addr());
    let yaml = format!("{at}{declared}");
    let callee = mesh.sidecar("callee").app(origin.addr()).yaml("a.yaml", &yaml).start();
    let governed = Governed { mesh, origin, callee, yaml };
    for path in [
        "/admin",
        "//admin",
        "//x/admin",
        "/%2561dmin",
        "/x/..%2fadmin",
        "/;/admin",
        "/x/..;/admin",
        "/%2e%2e%5cadmin",
    ] {
        let (status, reason, text) = governed.call("reader", "GET", path).await;
        assert_eq!((status, &*reason), (403, "access-denied"), "{path}: {text}");
    }
    for path in ["/", "/x/admin", "/a%20b", "/a;v=1", "/a//b", "/x%2fadmin"] {
        let (status, _, text) = governed.call("reader", "GET", path).await;
        assert_eq!(status, 200, "{path}: {text}");
    }
    // Nor by a header of which the agent may take one value, or another spelling.
    for lines in ["x-op: wipe\r\n", "x-op: wipe\r\nx-op: x\r\n", "X-Op: x,wipe\r\n"] {
        let (status, reason, text) = governed.send("reader", &request("GET", "/", lines)).await;
        assert_eq!((status, &*reason), (403, "access-denied"), "{lines}: {text}");
    }
    governed.origin.forget();
    assert_eq!(governed.send("reader", &request("GET", "/", "x_op: wipe\r\n")).await.0, 200);
    assert_eq!(governed.origin.requests().pop().unwrap().header("x_op"), None);
}

#[tokio::test]
async fn a_role_holds_as_soon_as_it_is_given_and_as_long() {
    let governed = Governed::start().await;
    let binding = "---\napiVersion: pilotfish.dev/v1\nkind: RoleBinding\nmetadata: {name: helpers}\nspec: {role: conversation-agent, \
                   subjects: [{agent: stranger}, {agent: guest, namespace: other}]}\n";
    let talk = || governed.call("stranger", "POST", "/v1/conversations/17/messages");
    assert_eq!(talk().await.0, 403);
    governed.callee.rewrite("a.yaml", &format!("{}{binding}", governed.yaml));
    wait_metric(&governed.callee, "pilotfish_snapshot_version", 2).await;
    assert_eq!(talk().await.0, 200);
    // No more than the role, and nobody else.
    assert_eq!(governed.call("stranger", "DELETE", "/anything").await.1, "access-denied");
    assert_eq!(governed.call("stranger", "GET", "/vault").await.1, "classified");
    assert_eq!(
        governed.call("guest", "GET", "/kb/public/page").await.1,
        "access-denied",
        "of another namespace"
    );
    governed.callee.rewrite("a.yaml", &governed.yaml);
    wait_metric(&governed.callee, "pilotfish_snapshot_version", 3).await;
    assert_eq!(talk().await.0, 403);
}

#[tokio::test]
async fn what_an_upgrade_leads_to_has_a_class_too() {
    let origin = Origin::start(|_, _| {
        vec![send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nagent-classification: \
             restricted\r\n\r\nsecret",
        )]
    })
    .await;
    let governed = Governed::with(origin);
    let request =
        request("GET", "/v1/conversations/1", "upgrade: websocket\r\nsec-websocket-version: 13\r\n")
            .replace("connection: close", "connection: upgrade, close");
    let (status, reason, text) = governed.send("conversation-agent", &request).await;
    assert_eq!((status, &*reason), (403, "classified"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(governed.origin.requests().len(), 1, "it was asked");
}

/// An agent whose answers stream, and say the class that the path names.
async fn classifying() -> Origin {
    Origin::start(|message, _| {
        let class = message.target().rsplit('/').next().unwrap_or_default().replace('+', "\r\nAgent-Classification: ");
        let class = if class == "none" { String::new() } else { format!("agent-classification: {class}\r\n") };
        vec![
            send(format!("HTTP/1.1 200 OK\r\n{class}content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")),
            send("6\r\nsecret\r\n"),
            send("0\r\n\r\n"),
        ]
    })
    .await
}

#[tokio::test]
async fn an_answer_of_a_higher_class_never_gets_out() {
    let governed = Governed::with(classifying().await);
    let rows = [
        ("public", true),
        ("none", true),
        ("internal", false),
        ("restricted", false),
        ("Restricted", false),
        ("cosmic", false),
        ("public,restricted", false),
        ("public+restricted", false),
        ("", false),
    ];
    for (class, passes) in rows {
        let path = format!("/v1/conversations/1/{class}");
        let (status, reason, text) = governed.call("conversation-agent", "GET", &path).await;
        let expected = if passes { (200, "") } else { (403, "classified") };
        assert_eq!((status, &*reason), expected, "{class}: {text}");
        assert_eq!(text.contains("\r\nsecret"), passes, "{class}: {text}");
        // The same with a key, and once more: what is kept for repeats is no way around it.
        for _ in 0..2 {
            let keyed = request("GET", &path, &format!("idempotency-key: \"k-{class}\"\r\n"));
            let (status, reason, text) = governed.send("conversation-agent", &keyed).await;
            if passes {
                assert!(status == 200 || reason == "already-done", "{class}: {text}");
            } else {
                assert!(
                    matches!(&*reason, "classified" | "already-done") && !text.contains("secret"),
                    "{class}: {text}"
                );
            }
        }
        assert_eq!(governed.call("admin-agent", "GET", &path).await.0, 200, "{class}");
    }
    let (.., text) = governed.call("conversation-agent", "GET", "/v1/conversations/1/none").await;
    assert!(
        text.contains("agent-classification: public\r\n"),
        "an answer without a class is of its route's: {text}"
    );
}

#[tokio::test]
async fn the_callers_own_sidecar_holds_back_what_its_agent_may_not_see() {
    let (mesh, origin) = (Mesh::new(), classifying().await);
    // The callee knows of no policy.
    let callee = mesh.sidecar("callee").app(origin.addr()).start();
    let yaml = mesh_service("s.test", "callee", callee.inbound) + USERS;
    let start = |agent: &str| mesh.sidecar(agent).yaml("a.yaml", yaml.clone()).start();
    let (low, high) = (start("conversation-agent"), start("admin-agent"));
    for (path, passes) in [("/public", true), ("/none", true), ("/confidential", false), ("/cosmic", false)] {
        let mut client = H1::connect(low.outbound).await;
        let answer = client.get("s.test", path, &[]).await.unwrap();
        let expected = if passes { (200, "") } else { (403, "classified") };
        assert_eq!((answer.status(), &*answer.reason()), expected, "{path}");
        assert_eq!(answer.text().contains("secret"), passes, "{path}");
        let mut client = H1::connect(high.outbound).await;
        assert_eq!(client.get("s.test", path, &[]).await.unwrap().status(), 200, "{path}");
    }
    // A rule that takes the header away does not take the class away.
    let strip = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec:\n  hosts: [s.test]\n  http:\n  \
                 - route: [{destination: {host: s.test}}]\n    headers: {response: {remove: [agent-classification]}}\n";
    low.rewrite("a.yaml", &format!("{yaml}\n{strip}"));
    wait_metric(&low, "pilotfish_snapshot_version", 2).await;
    let answer = H1::connect(low.outbound).await.get("s.test", "/confidential", &[]).await.unwrap();
    assert_eq!(&*answer.reason(), "classified");
}

#[tokio::test]
async fn an_agents_own_sidecar_looks_at_those_for_whom_it_acts() {
    let policy = "---\napiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {name: p}\nspec:\n  authorization:\n    model: rbac\n    \
                  roles:\n    - {name: low, permissions: ['*:*'], resources: ['*'], clearance: public}\n    - {name: high, \
                  permissions: ['*:*'], resources: ['*']}\n  data_access: {access_levels: [public, secret]}\n";
    let (mesh, origin) = (Mesh::new(), classifying().await);
    // The callee knows of no policy.
    let callee = mesh.sidecar("callee").app(origin.addr()).start();
    let relay = Relay::start("s.test", Manners::Drops).await;
    let yaml = mesh_service("s.test", "callee", callee.inbound) + policy;
    let high = mesh.sidecar("high").app(relay.addr()).yaml("a.yaml", yaml).start();
    relay.asks_through(high.outbound);
    let yaml = mesh_service("high.test", "high", high.inbound);
    let low = mesh.sidecar("low").yaml("a.yaml", yaml).start();
    for (from, host, secret) in [(&high, "s.test", 200), (&low, "high.test", 403)] {
        for (path, status) in [("/public", 200), ("/secret", secret)] {
            let answer = H1::connect(from.outbound).await.get(host, path, &[]).await.unwrap();
            assert_eq!(answer.status(), status, "{host}{path}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn nothing_leaves_in_plaintext_where_encryption_is_required() {
    let (mesh, origin) = (Mesh::new(), Origin::start(|_, _| ok("plain")).await);
    let callee = mesh.sidecar("callee").app(origin.addr()).start();
    let services = service("plain.test", origin.port()) + &mesh_service("s.test", "callee", callee.inbound);
    let caller = mesh.sidecar("admin-agent").yaml("a.yaml", services.clone()).start();
    let mut client = H1::connect(caller.outbound).await;
    assert_eq!(client.get("plain.test", "/before", &[]).await.unwrap().status(), 200);
    caller.rewrite("a.yaml", &(services + USERS));
    wait_metric(&caller, "pilotfish_snapshot_version", 2).await;
    let answer = client.get("plain.test", "/after", &[]).await.unwrap();
    assert_eq!(
        (answer.status(), &*answer.reason()),
        (403, "encryption-required"),
        "the connection is kept, and not used"
    );
    assert!(answer.text().contains("default/production-agent-policies"), "{}", answer.text());
    assert_eq!(client.get("s.test", "/", &[]).await.unwrap().status(), 200, "sidecars encrypt");
    let absolute = format!("GET http://127.0.0.1:{}/ HTTP/1.1\r\nhost: a\r\n\r\n", origin.port());
    assert_ne!(client.ask(absolute).await.unwrap().status(), 200);
    assert_eq!(origin.requests().len(), 2);
}
