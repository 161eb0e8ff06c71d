//! Every method of MCP and A2A, whatever binding it comes by, and everything in which a list may come.

use std::time::Duration;

use pilotfish_testkit::origin::{Step, send};
use pilotfish_testkit::strict::Message;
use serde_json::{Value, json};

use super::{ALLOW, DENY, Guarded, answer, names, post, post_with, rpc};

fn deny(key: &str, values: &str) -> String {
    format!("{{ action: DENY, rules: [{{ when: [{{ key: {key}, values: [{values}] }}] }}] }}")
}

fn allow(key: &str, values: &str) -> String {
    format!("{{ rules: [{{ when: [{{ key: {key}, values: [{values}] }}] }}] }}")
}

fn request(method: &str, path: &str, lines: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x.test\r\n{lines}Content-Length: 0\r\n\r\n")
}

#[tokio::test]
async fn tasks_of_mcp_are_no_tasks_of_a2a() {
    let mcp = |method: &str| post(rpc(method, &json!({"taskId": "t"})));
    let a2a = |method: &str| post(rpc(method, &json!({"id": "t"})));
    let headers = |method: &str, params: &Value| {
        let lines = format!(
            "Content-Type: application/json\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\nMcp-Name: t\r\n"
        );
        post_with(&lines, rpc(method, params))
    };
    let denies_mcp = Guarded::plain(&deny("pilotfish.mcp.method", "'tasks/*'")).await;
    let denies_a2a = Guarded::plain(&deny("pilotfish.a2a.method", "'tasks/*', GetTask, CancelTask")).await;
    let allows_mcp = Guarded::plain(&allow("pilotfish.mcp.method", "'tasks/*'")).await;
    let allows_a2a = Guarded::plain(&allow("pilotfish.a2a.method", "GetTask, CancelTask")).await;
    for method in ["tasks/get", "tasks/cancel"] {
        for request in [mcp(method), headers(method, &json!({"taskId": "t"}))] {
            denies_mcp.refuses(&request, "access-denied").await;
            denies_a2a.passes(&request).await;
            allows_mcp.passes(&request).await;
            allows_a2a.refuses(&request, "access-denied").await;
        }
        denies_mcp.passes(a2a(method)).await;
        denies_a2a.refuses(a2a(method), "access-denied").await;
        allows_mcp.refuses(a2a(method), "access-denied").await;
        allows_a2a.passes(a2a(method)).await;
        // One for the sidecar and another for the agent.
        let both = json!({"id": "t", "taskId": "t"});
        for odd in [post(rpc(method, &both)), headers(method, &json!({"id": "t"})), headers(method, &both)] {
            for guarded in [&denies_mcp, &denies_a2a, &allows_mcp, &allows_a2a] {
                guarded.refuses(&odd, "not-decidable").await;
            }
        }
    }
    for method in ["tasks/result", "tasks/update"] {
        denies_mcp.refuses(mcp(method), "access-denied").await;
        denies_a2a.passes(mcp(method)).await;
    }
    // A list names nothing: it counts as both where that leads to a refusal.
    let list = post(rpc("tasks/list", &json!({"id": 1})));
    denies_mcp.refuses(&list, "access-denied").await;
    denies_a2a.refuses(&list, "access-denied").await;
    allows_mcp.refuses(&list, "access-denied").await;
    let lines = "Content-Type: application/json\r\nMcp-Session-Id: s\r\n";
    allows_mcp.passes(post_with(lines, rpc("tasks/list", &json!({})))).await;
}

#[tokio::test]
async fn every_binding_of_a2a_falls_under_rules() {
    let denies = Guarded::plain(&deny(
        "pilotfish.a2a.method",
        "GetTask, ListTasks, CancelTask, 'tasks/pushNotificationConfig/*', tasks/resubscribe, GetExtendedAgentCard",
    ))
    .await;
    let allows = Guarded::plain(&allow("pilotfish.a2a.method", "CancelTask, GetTask")).await;
    for (method, path) in [
        ("GET", "/tasks/7"),
        ("GET", "/v1/tasks/7"),
        ("GET", "/agents/a/tasks/7"),
        ("GET", "/Tasks/7/"),
        ("GET", "/tasks"),
        ("POST", "/tasks/7:cancel"),
        ("POST", "/tasks/7%3Acancel"),
        ("POST", "/tasks/7:subscribe"),
        ("POST", "/v1/tasks/7/pushNotificationConfigs"),
        ("DELETE", "/v1/tasks/7/pushNotificationConfigs/c"),
        ("GET", "/extendedAgentCard"),
        ("GET", "/v1/card"),
        ("POST", "/lf.a2a.v1.A2AService/GetTask"),
        ("POST", "/a2a.v1.A2AService/TaskSubscription"),
        ("POST", "/a2a.v1.A2AService/CancelTask"),
    ] {
        for lines in ["", "A2A-Version: 1.0\r\n", "Mcp-Session-Id: s\r\n"] {
            denies.refuses(request(method, path, lines), "access-denied").await;
        }
    }
    denies.refuses(request("POST", "/x%2Ftasks%2F7:cancel", ""), "not-decidable").await;
    for (method, path) in [("POST", "/tasks/7:cancel"), ("POST", "/a2a.v1.A2AService/GetTask")] {
        allows.passes(request(method, path, "")).await;
    }
    // A path that others have too is A2A's when its caller says so, where A2A has it.
    allows.refuses(request("GET", "/tasks/7", ""), "access-denied").await;
    allows.passes(request("GET", "/tasks/7", "A2A-Version: 1.0\r\n")).await;
    allows.refuses(request("GET", "/admin/tasks/7", "A2A-Version: 1.0\r\n"), "access-denied").await;
}

#[tokio::test]
async fn the_skill_of_a_message_counts_in_every_binding() {
    let body =
        |skill: &str| json!({"message": {"messageId": "m", "metadata": {"skillId": skill}}}).to_string();
    let to = |path: &str, body: &[u8], kind: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x.test\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    for spec in [DENY, ALLOW] {
        let guarded = Guarded::plain(spec).await;
        for path in
            ["/message:send", "/v1/message:stream", "/message%3Asend", "/Message:Send/", "//message:send"]
        {
            guarded.refuses(to(path, body("refund").as_bytes(), "application/json"), "access-denied").await;
            guarded.passes(to(path, body("chat").as_bytes(), "application/json")).await;
        }
        let path = "/lf.a2a.v1.A2AService/SendMessage";
        let (told, got) = guarded.ask(to(path, b"\0\0\0\0\x02\x0a\0", "application/grpc")).await;
        assert_eq!((&*told.reason(), got), ("not-decidable", None), "{spec}");
        guarded.refuses(to(path, body("chat").as_bytes(), "application/json"), "not-decidable").await;
    }
    // By its method it can be told.
    let guarded = Guarded::plain(&allow("pilotfish.a2a.method", "message/send")).await;
    guarded.passes(to("/a2a.v1.A2AService/SendMessage", b"\0\0\0\0\x02\x0a\0", "application/grpc")).await;
}

#[tokio::test]
async fn templates_of_resources_are_narrowed_as_resources_are() {
    const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"resourceTemplates":[{"uriTemplate":"file:///{path}","name":"f"}],"nextCursor":"c"}}"#;
    let reads = "{ rules: [{ when: [{ key: pilotfish.mcp.method, values: ['resources/*'] }] }] }";
    let lists =
        "{ rules: [{ when: [{ key: pilotfish.mcp.method, values: ['resources/templates/list'] }] }] }";
    for (spec, count) in [(reads, 1), (lists, 0)] {
        let guarded = Guarded::by(spec, |_, _| answer("application/json", LIST)).await;
        let (told, _) = guarded.ask(post(rpc("resources/templates/list", &json!({"cursor": "b"})))).await;
        let result = &told.json()["result"];
        assert_eq!(result["resourceTemplates"].as_array().unwrap().len(), count, "{spec}");
        assert_eq!(result["nextCursor"], "c", "pages go on");
    }
}

const TOOLS: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"search"},{"name":"pay"}]}}"#;

#[tokio::test]
async fn a_stream_is_narrowed_whoever_asked_for_it_and_however_many_answers_an_event_has() {
    let script = |m: &Message, _: usize| {
        let coding = if m.target().contains("coded") { "Content-Encoding: gzip\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{coding}Transfer-Encoding: chunked\r\n\r\n"
        );
        let data = if m.target().contains("batch") { format!("[{TOOLS},{TOOLS}]") } else { TOOLS.to_owned() };
        let event = format!("data: {data}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        vec![send(head), Step::Pause(Duration::from_millis(5)), send(chunk), send("0\r\n\r\n")]
    };
    let guarded = Guarded::by(DENY, script).await;
    for (path, count) in [("/sse", 1), ("/batch", 2)] {
        for accept in ["", "Accept: text/event-stream\r\n", "Accept: */*\r\n"] {
            let (told, _) = guarded.ask(request("GET", path, accept)).await;
            let text = told.text();
            let list: Value = serde_json::from_str(text.trim().strip_prefix("data: ").unwrap()).unwrap();
            let lists = list.as_array().cloned().unwrap_or_else(|| vec![list.clone()]);
            assert_eq!(lists.len(), count, "{text}");
            for list in lists {
                assert_eq!(names(&list["result"]["tools"], "name"), ["search"], "{path} {accept}");
            }
        }
    }
    let (told, _) = guarded.ask(request("GET", "/coded", "Accept-Encoding: gzip\r\n")).await;
    assert_eq!((told.status(), &*told.reason()), (502, "list-unreadable"));
}

#[tokio::test]
async fn cards_over_other_bindings_are_narrowed_or_refused() {
    const CARD: &str = r#"{"name":"a","skills":[{"id":"chat"},{"id":"refund"}]}"#;
    let script = |m: &Message, _: usize| match m.target().contains("A2AService") {
        true => answer("application/grpc", "\0\0\0\0\u{2}\u{a}\0"),
        false => answer("application/json", CARD),
    };
    let guarded = Guarded::by(DENY, script).await;
    for (method, path) in [("GET", "/v1/card"), ("GET", "/extendedAgentCard"), ("POST", "/extendedAgentCard")]
    {
        let (told, _) = guarded.ask(request(method, path, "")).await;
        assert_eq!(names(&told.json()["skills"], "id"), ["chat"], "{method} {path}");
    }
    // Protocol buffers are not read: nobody gets such a card whose skills rules are about.
    let (told, _) = guarded.ask(request("POST", "/a2a.v1.A2AService/GetAgentCard", "")).await;
    assert_eq!(&*told.reason(), "list-unreadable");
}
