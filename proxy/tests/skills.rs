//! Rules about tools, skills and models: calls that hide what they are, and lists that have only in them what their caller may use.
//! What counts is what the agent received.

mod models;
mod protocols;

use std::time::Duration;

use pilotfish_testkit::h1::Answer;
use pilotfish_testkit::origin::{Step, send};
use pilotfish_testkit::strict::Message;
use pilotfish_testkit::{H1, Origin, Sidecar};
use serde_json::{Value, json};

use crate::support::sidecar;
use crate::tls::setup::{Mesh, ask};

/// Outside of the team nobody may use these; written twice, as DENY and as ALLOW.
const DENY: &str = "{ action: DENY, rules: [
  { when: [{ key: pilotfish.mcp.tool, values: [pay, 'delete*'] }, { key: 'request.headers[x-team]', notValues: [finance] }] },
  { when: [{ key: pilotfish.a2a.skill, values: [refund] }, { key: 'request.headers[x-team]', notValues: [finance] }] },
  { when: [{ key: pilotfish.model, values: [big] }, { key: 'request.headers[x-team]', notValues: [finance] }] } ] }";

const ALLOW: &str = "{ rules: [
  { when: [{ key: 'request.headers[x-team]', values: [finance] }] },
  { to: [{ operation: { methods: [GET] } }] },
  { when: [{ key: pilotfish.mcp.method, values: [initialize, 'tools/list', 'resources/list', 'prompts/list'] }] },
  { when: [{ key: pilotfish.mcp.tool, values: [search] }] },
  { when: [{ key: pilotfish.a2a.skill, values: [chat] }] },
  { when: [{ key: pilotfish.model, values: [small] }] } ] }";

struct Guarded {
    origin: Origin,
    sidecar: Sidecar,
}

impl Guarded {
    async fn by(
        spec: &str,
        script: impl Fn(&Message, usize) -> Vec<Step> + Send + Sync + 'static,
    ) -> Guarded {
        let origin = Origin::start(script).await;
        let policy = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: p\nspec: {spec}\n"
        );
        let sidecar = sidecar().app(origin.addr()).yaml("p.yaml", policy).start();
        Guarded { origin, sidecar }
    }

    async fn plain(spec: &str) -> Guarded {
        Guarded::by(spec, |_, _| pilotfish_testkit::origin::ok("done")).await
    }

    async fn ask(&self, request: impl AsRef<[u8]>) -> (Answer, Option<Message>) {
        self.origin.forget();
        let answer = H1::connect(self.sidecar.inbound).await.ask(request).await.unwrap();
        (answer, self.origin.requests().pop())
    }

    async fn refuses(&self, request: impl AsRef<[u8]>, reason: &str) {
        let text = String::from_utf8_lossy(request.as_ref()).chars().take(300).collect::<String>();
        let (answer, got) = self.ask(request).await;
        assert_eq!((answer.status(), &*answer.reason()), (403, reason), "{text}");
        assert!(got.is_none(), "the agent got {text}");
    }

    async fn passes(&self, request: impl AsRef<[u8]>) -> Message {
        let text = String::from_utf8_lossy(request.as_ref()).chars().take(300).collect::<String>();
        let (answer, got) = self.ask(request).await;
        assert_eq!(answer.status(), 200, "{text}: {}", answer.text());
        got.unwrap()
    }
}

/// A POST with further header lines, the content type among them.
fn post_with(lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("POST /mcp HTTP/1.1\r\nHost: x.test\r\n{lines}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn post(body: impl AsRef<[u8]>) -> Vec<u8> {
    post_with("Content-Type: application/json\r\n", body)
}

fn rpc(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

fn tool(name: &str) -> String {
    rpc("tools/call", &json!({"name": name, "arguments": {}}))
}

fn skill(name: &str) -> String {
    rpc("SendMessage", &json!({"message": {"messageId": "m", "metadata": {"skillId": name}}}))
}

#[tokio::test]
async fn calls_are_told_apart_by_what_their_bodies_say() {
    for spec in [DENY, ALLOW] {
        let guarded = Guarded::plain(spec).await;
        for allowed in [tool("search"), skill("chat"), json!({"model": "small", "messages": []}).to_string()]
        {
            let got = guarded.passes(post(&allowed)).await;
            assert_eq!(got.body, allowed.as_bytes(), "the agent gets what was sent");
        }
        for refused in [tool("pay"), tool("delete_all"), skill("refund"), json!({"model": "big"}).to_string()]
        {
            guarded.refuses(post(&refused), "access-denied").await;
            guarded
                .passes(post_with("Content-Type: application/json\r\nx-team: finance\r\n", &refused))
                .await;
        }
        // In pieces, slowly, and as long as a long prompt.
        let long = json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"arguments": "x".repeat(600_000), "name": "search"}});
        guarded.passes(post(long.to_string())).await;
        let long = json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"arguments": "x".repeat(600_000), "name": "pay"}});
        guarded.refuses(post(long.to_string()), "access-denied").await;
        let mut h1 = H1::connect(guarded.sidecar.inbound).await;
        let request = post(tool("pay"));
        let (head, body) = request.split_at(request.len() - 30);
        h1.send_slowly(&[head, body], Duration::from_millis(30)).await;
        assert_eq!(h1.answer("POST").await.unwrap().status(), 403);
    }
}

#[tokio::test]
async fn a_body_that_could_mean_two_things_is_refused() {
    let with = |lines: &str| format!("Content-Type: application/json\r\n{lines}\r\n");
    let pay = tool("pay");
    let utf16: Vec<u8> = pay.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf16_be: Vec<u8> = pay.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let attacks: Vec<(&str, Vec<u8>)> = vec![
        ("padding", post(format!("{}{}", " ".repeat(1_100_000), pay))),
        ("a long member first", post(format!(r#"{{"x":"{}",{}"#, "y".repeat(1_100_000), &pay[1..]))),
        (
            "a name twice",
            post(r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"search","name":"pay"}}"#),
        ),
        (
            "a name twice, the other first",
            post(r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"pay","name":"search"}}"#),
        ),
        (
            "by another case",
            post(r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"search","Name":"pay"}}"#),
        ),
        (
            "params twice",
            post(
                r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"search"},"params":{"name":"pay"}}"#,
            ),
        ),
        (
            "method twice",
            post(r#"{"jsonrpc":"2.0","method":"tools/list","params":{"name":"pay"},"method":"tools/call"}"#),
        ),
        ("a batch", post(format!("[{},{pay}]", tool("search")))),
        ("two documents", post(format!("{}{pay}", tool("search")))),
        ("not JSON", post(format!("// {pay}"))),
        ("compressed", post_with(&with("Content-Encoding: gzip"), &pay)),
        ("UTF-16", post(&utf16)),
        ("UTF-16 in secret", post_with("Content-Type: application/octet-stream\r\n", &utf16)),
        ("UTF-16 as gRPC", post_with("Content-Type: application/grpc\r\n", &utf16_be)),
        ("another charset", post_with("Content-Type: application/json; charset=utf-7\r\n", &pay)),
        ("a byte order mark", post([b"\xef\xbb\xbf", pay.as_bytes()].concat())),
        (
            "two content types",
            post_with("Content-Type: text/plain\r\nContent-Type: application/json\r\n", &pay),
        ),
        ("gRPC that is JSON", post_with("Content-Type: application/grpc\r\n", &pay)),
        ("another method in the head", post_with(&with("Mcp-Method: tools/list"), &pay)),
        ("another name in the head", post_with(&with("Mcp-Method: tools/call\r\nMcp-Name: search"), &pay)),
        ("another protocol in the head", post_with(&with("A2A-Version: 1.0"), &pay)),
        ("another capability in the head", post_with(&with("agent-capability: chat"), skill("refund"))),
        ("a method without a body", post_with(&with("Mcp-Method: tools/call\r\nMcp-Name: search"), "")),
        (
            "an upgrade",
            b"GET /mcp HTTP/1.1\r\nHost: x.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
                .to_vec(),
        ),
        (
            "two skills",
            post(rpc(
                "SendMessage",
                &json!({"metadata": {"skill": "chat"}, "message": {"metadata": {"skillId": "refund"}}}),
            )),
        ),
    ];
    for spec in [DENY, ALLOW] {
        let guarded = Guarded::plain(spec).await;
        for (what, attack) in &attacks {
            if *what == "an upgrade" && spec == ALLOW {
                // It lets everybody GET, whatever is said afterwards.
                continue;
            }
            let (answer, got) = guarded.ask(attack).await;
            // A caller that says it speaks gRPC is refused in gRPC.
            let status = if what.contains("gRPC") { 200 } else { 403 };
            assert_eq!((answer.status(), &*answer.reason(), got), (status, "not-decidable", None), "{what}");
        }
        // What only hides what it is, is read all the same.
        for (what, request) in [
            ("no content type", post_with("", &pay)),
            ("another content type", post_with("Content-Type: text/plain\r\n", &pay)),
            ("a form", post_with("Content-Type: application/x-www-form-urlencoded\r\n", &pay)),
            ("blanks before it", post(format!("{}{pay}", "\n \t".repeat(1000)))),
            ("another method of HTTP", [b"PUT", &post(&pay)[4..]].concat()),
            ("no version", post(r#"{"method":"tools/call","params":{"name":"pay"}}"#)),
            (
                "an escape",
                post(r#"{"jsonrpc":"2.0","m\u0065thod":"tools/call","params":{"name":"p\u0061y"}}"#),
            ),
        ] {
            let (answer, got) = guarded.ask(&request).await;
            assert_eq!((answer.status(), &*answer.reason(), got), (403, "access-denied", None), "{what}");
        }
    }
}

#[tokio::test]
async fn what_is_no_agents_call_passes_unread() {
    let guarded = Guarded::plain(DENY).await;
    for (kind, body) in [
        ("application/octet-stream", vec![0x7f_u8; 2_000_000]),
        ("text/plain", b"hello".to_vec()),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n".to_vec()),
        ("application/json", br#"{"name":"an order","method":{"of":"payment"},"items":[]}"#.to_vec()),
        ("application/grpc", b"\0\0\0\0\x7b\x0a\x79".to_vec()),
    ] {
        let got = guarded.passes(post_with(&format!("Content-Type: {kind}\r\n"), &body)).await;
        assert_eq!(got.body, body, "{kind}");
    }
}

const TOOLS: &str = r#" {"jsonrpc":"2.0", "id":1,"result":{"z":1.50,"tools":[{"name":"search","inputSchema":{"z":0,"a":[]}},{"name":"pay"},{"name":"delete_all"},{"x":1}],"nextCursor":"c"}}"#;

fn answer(kind: &str, body: &str) -> Vec<Step> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nETag: \"1\"\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    vec![send(head)]
}

fn names(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_list_of_tools_has_in_it_what_its_caller_may_call() {
    for spec in [DENY, ALLOW] {
        let guarded = Guarded::by(spec, |_, _| answer("application/json", TOOLS)).await;
        let lines = "Content-Type: application/json\r\nAccept-Encoding: gzip\r\nIdempotency-Key: k\r\n";
        for _ in 0..2 {
            let (told, got) = guarded.ask(post_with(lines, rpc("tools/list", &json!({})))).await;
            let expected = r#" {"jsonrpc":"2.0", "id":1,"result":{"z":1.50,"tools":[{"name":"search","inputSchema":{"z":0,"a":[]}}],"nextCursor":"c"}}"#;
            assert_eq!(told.text(), expected);
            assert_eq!(
                (told.header("etag"), told.header("content-length")),
                (None, Some(expected.len().to_string()))
            );
            assert_eq!(got.unwrap().header("accept-encoding"), None);
        }
        let lines = "Content-Type: application/json\r\nx-team: finance\r\n";
        let (told, _) = guarded.ask(post_with(lines, rpc("tools/list", &json!({})))).await;
        assert_eq!(names(&told.json()["result"]["tools"], "name"), ["search", "pay", "delete_all", ""][..3]);
    }
}

#[tokio::test]
async fn lists_in_streams_are_narrowed_event_by_event() {
    let stream = |m: &Message, _: usize| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let events = format!(
            "event: message\r\nid: 1\r\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}}\r\n\r\n: {}\n\nevent: message\nid: 2\ndata: {TOOLS}\n\ndata: no JSON\n\n",
            m.method()
        );
        // In two pieces, in the middle of an event.
        let (one, two) = events.split_at(150);
        let chunk = |text: &str| send(format!("{:x}\r\n{text}\r\n", text.len()));
        vec![send(head), chunk(one), Step::Pause(Duration::from_millis(20)), chunk(two), send("0\r\n\r\n")]
    };
    let guarded = Guarded::by(DENY, stream).await;
    let resumed =
        "GET /mcp HTTP/1.1\r\nHost: x.test\r\nAccept: text/event-stream\r\nLast-Event-ID: 1\r\n\r\n";
    for request in [post(rpc("tools/list", &json!({}))), resumed.as_bytes().to_vec()] {
        let (told, _) = guarded.ask(&request).await;
        let text = told.text();
        assert!(
            text.contains("id: 1\r\n") && text.contains("id: 2\n") && text.contains("data: no JSON\n\n"),
            "{text}"
        );
        let list = text.lines().filter_map(|line| line.strip_prefix("data: ")).nth(1).unwrap();
        let list: Value = serde_json::from_str(list).unwrap();
        assert_eq!(names(&list["result"]["tools"], "name"), ["search"], "{text}");
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_not_served() {
    let guarded = Guarded::by(DENY, |m, _| match &*m.header("x-case").unwrap_or_default() {
        "coded" => {
            vec![send("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x1f")]
        }
        "broken" => answer("application/json", &TOOLS[..60]),
        "long" => answer("application/json", &format!("{}{TOOLS}", " ".repeat(4_300_000))),
        "twice" => answer("application/json", r#"{"result":{"tools":[],"tools":[{"name":"pay"}]}}"#),
        "error" => vec![send("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")],
        _ => answer("application/json", r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1}}"#),
    })
    .await;
    let ask = async |case: &str| {
        let lines = format!("Content-Type: application/json\r\nx-case: {case}\r\n");
        guarded.ask(post_with(&lines, rpc("tools/list", &json!({})))).await.0
    };
    for case in ["coded", "broken", "long", "twice"] {
        let told = ask(case).await;
        assert_eq!((told.status(), &*told.reason()), (502, "list-unreadable"), "{case}");
    }
    assert_eq!(ask("error").await.text(), "no");
    assert_eq!(ask("none").await.json()["error"]["code"], -1);
}

#[tokio::test]
async fn cards_have_the_skills_of_their_readers_and_signed_ones_are_whole_or_refused() {
    let card = |signed: bool| {
        let mut card = json!({
            "name": "a", "url": "https://a.test/a2a",
            "skills": [{"id": "chat", "name": "Chat"}, {"id": "refund", "name": "Refund"}],
        });
        if signed {
            card["signatures"] = json!([{"protected": "e", "signature": "s"}]);
        }
        card.to_string()
    };
    let (plain, signed) = (card(false), card(true));
    let served = signed.clone();
    for spec in [DENY, ALLOW] {
        let (plain, signed) = (plain.clone(), signed.clone());
        let guarded = Guarded::by(spec, move |m, _| {
            let card = if m.target().contains("signed") { &signed } else { &plain };
            if m.method() == "POST" {
                return answer("application/json", &format!(r#"{{"jsonrpc":"2.0","id":1,"result":{card}}}"#));
            }
            answer("application/json", card)
        })
        .await;
        let get =
            |path: &str, team: &str| format!("GET {path} HTTP/1.1\r\nHost: x.test\r\nx-team: {team}\r\n\r\n");
        for path in [
            "/.well-known/agent-card.json",
            "/.well-known/agent.json",
            "/x/%2ewell-known/agent-card.json",
            "/v1/extendedAgentCard",
        ] {
            let (told, _) = guarded.ask(get(path, "x")).await;
            assert_eq!(names(&told.json()["skills"], "id"), ["chat"], "{path}");
            let (told, _) = guarded.ask(get(path, "finance")).await;
            assert_eq!(names(&told.json()["skills"], "id"), ["chat", "refund"], "{path}");
        }
        let path = "/.well-known/agent-card.json?signed";
        let (told, _) = guarded.ask(get(path, "x")).await;
        assert_eq!((told.status(), &*told.reason()), (403, "access-denied"));
        let (told, _) = guarded.ask(get(path, "finance")).await;
        assert_eq!((told.text(), told.header("etag")), (served.clone(), Some("\"1\"".into())));
        let lines = if spec == ALLOW { "x-team: finance\r\n" } else { "x-team: x\r\n" };
        let (told, _) = guarded.ask(post_with(lines, rpc("GetExtendedAgentCard", &json!({})))).await;
        let expected: &[&str] = if spec == ALLOW { &["chat", "refund"] } else { &["chat"] };
        assert_eq!(names(&told.json()["result"]["skills"], "id"), expected);
        let mut h1 = H1::connect(guarded.sidecar.inbound).await;
        h1.send("HEAD /.well-known/agent-card.json HTTP/1.1\r\nHost: x.test\r\n\r\n").await;
        assert_eq!(h1.answer("HEAD").await.unwrap().status(), if spec == ALLOW { 403 } else { 200 });
    }
}

#[tokio::test]
async fn without_a_rule_that_asks_nothing_is_read_or_narrowed() {
    let guarded =
        Guarded::by("{ action: DENY, rules: [{ to: [{ operation: { paths: [/admin] } }] }] }", |_, _| {
            answer("application/json", TOOLS)
        })
        .await;
    let (told, got) = guarded
        .ask(post_with(
            "Content-Type: application/json\r\nAccept-Encoding: gzip\r\n",
            rpc("tools/list", &json!({})),
        ))
        .await;
    assert_eq!((told.text().as_str(), told.header("etag")), (TOOLS, Some("\"1\"".into())));
    assert_eq!(got.unwrap().header("accept-encoding").as_deref(), Some("gzip"));
}

#[tokio::test]
async fn lists_follow_the_roles_of_an_agent_security_policy() {
    const ROLES: &str = "apiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {name: p}\nspec:\n  authorization:\n    model: rbac\n    roles:\n    \
                         - {name: reader, permissions: ['mcp:*'], resources: ['mcp/*', tools/search]}\n    \
                         - {name: cashier, permissions: ['mcp:*'], resources: ['mcp/*', 'tools/*']}\n";
    let mesh = Mesh::new();
    let origin = Origin::start(|_, _| answer("application/json", TOOLS)).await;
    let callee = mesh.sidecar("callee").app(origin.addr()).yaml("p.yaml", ROLES).start();
    let body = rpc("tools/list", &json!({}));
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: x.test\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    for (agent, tools) in [("reader", &["search"][..]), ("cashier", &["search", "pay", "delete_all"])] {
        let client = mesh.client(Some(&mesh.issue(agent)));
        let told = ask(callee.inbound, client, &request).await.unwrap();
        let (head, list) = told.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{agent}: {told}");
        let list: Value = serde_json::from_str(list.trim()).unwrap();
        assert_eq!(names(&list["result"]["tools"], "name"), tools, "{agent}");
    }
    // A session is no identity: whoever shows another's gets what its own certificate gives it.
    let taken = request.replace("host:", "mcp-session-id: of-the-cashier\r\nhost:");
    let told = ask(callee.inbound, mesh.client(Some(&mesh.issue("reader"))), &taken).await.unwrap();
    let list: Value = serde_json::from_str(told.split_once("\r\n\r\n").unwrap().1.trim()).unwrap();
    assert_eq!(names(&list["result"]["tools"], "name"), ["search"]);
    let stranger = mesh.client(Some(&mesh.issue("stranger")));
    assert!(ask(callee.inbound, stranger, &request).await.unwrap().starts_with("HTTP/1.1 403"));
}
