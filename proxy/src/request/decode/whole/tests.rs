//! What leaves doubt, and that nothing else is ever read out of a body than any parser would.

use fastrand::Rng;
use serde_json::{Map, Value};

use super::super::from_head;
use super::*;

fn head(headers: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::new(Method::POST, "agent", "/mcp");
    for (name, value) in headers {
        assert!(head.headers.append(name, value.as_bytes()));
    }
    head
}

/// The whole decision on a body that is all there.
fn understood(headers: &[(&str, &str)], body: &[u8]) -> (Understood, Call) {
    let head = head(headers);
    let mut call = from_head(&head);
    let understood = from_whole(&head, body, &ByPath::Nothing, &mut call);
    (understood, call)
}

#[track_caller]
fn doubtful(headers: &[(&str, &str)], body: &str) {
    assert_eq!(understood(headers, body.as_bytes()).0, Understood::Doubtful, "{body}");
}

#[track_caller]
fn whole(headers: &[(&str, &str)], body: &str) -> Call {
    let (understood, call) = understood(headers, body.as_bytes());
    assert_eq!(understood, Understood::Whole, "{body}");
    call
}

#[test]
fn calls_of_agents_are_understood() {
    let call = whole(
        &[("mcp-method", "tools/call"), ("mcp-name", "search")],
        r#" {"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","uri":"x","arguments":{"name":"a","name":"b"}}} "#,
    );
    assert_eq!((call.protocol, call.tool.as_deref()), (Protocol::Mcp, Some("search")));
    let call =
        whole(&[], r#"{"jsonrpc":"2.0","method":"resources/read","params":{"uri":"file:///a","name":"b"}}"#);
    assert_eq!(call.tool.as_deref(), Some("file:///a"));
    let call = whole(
        &[("a2a-version", "1.0"), ("agent-capability", "Plan@^1")],
        r#"{"jsonrpc":"2.0","method":"SendMessage","params":{"metadata":{"skill":"plan"},"message":{"metadata":{"skillId":"plan"}}}}"#,
    );
    assert_eq!((call.protocol, call.skill.as_deref()), (Protocol::A2a, Some("plan")));
    let call = whole(&[], r#"{"model":"m","messages":[{"role":"user","content":"method"}],"metadata":"x"}"#);
    assert_eq!((call.protocol, call.model.as_deref()), (Protocol::OpenAi, Some("m")));
    let call = whole(&[], r#"{"name":"an order","items":[1,2],"message":"hello"}"#);
    assert_eq!((call.protocol, call.rpc_method), (Protocol::Http, None));
    // An answer that an MCP client gives.
    let call = whole(&[("mcp-session-id", "s")], r#"{"jsonrpc":"2.0","id":3,"result":{}}"#);
    assert_eq!((call.protocol, call.rpc_method), (Protocol::Mcp, None));
    // A careless agent would do it, so it is what it says.
    let call = whole(&[], r#"{"method":"tools/call","params":{"name":"pay"}}"#);
    assert_eq!((call.protocol, call.tool.as_deref()), (Protocol::Mcp, Some("pay")));
}

#[test]
fn what_parsers_could_read_differently_leaves_doubt() {
    let call = |params: &str| format!(r#"{{"jsonrpc":"2.0","method":"tools/call","params":{params}}}"#);
    for params in [
        r#"{"name":"a","name":"b"}"#,
        r#"{"name":"a","n\u0061me":"b"}"#,
        r#"{"name":"a","Name":"b"}"#,
        r#"["a"]"#,
        r#""a""#,
    ] {
        doubtful(&[], &call(params));
    }
    for body in [
        r#"{"jsonrpc":"2.0","method":"tools/list","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","method":"tools/list","Method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}"#,
        "{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"param\u{17f}\":{\"name\":\"b\"}}",
        r#"[{"jsonrpc":"2.0","method":"tools/list"}]"#,
        r#"{"jsonrpc":"2.0","method":"tools/list"}{"jsonrpc":"2.0","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","method":"tools/list""#,
        r#"{"jsonrpc":"2.0","method":"tools/list",}"#,
        "\u{feff}{\"jsonrpc\":\"2.0\",\"method\":\"tools/list\"}",
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a"},"model":"m"}"#,
        r#"{"jsonrpc":"2.0","method":"SendMessage","params":{"metadata":{"skill":"a"},"message":{"metadata":{"skillId":"b"}}}}"#,
        r#"{"jsonrpc":"2.0","method":"SendMessage","params":{"metadata":{"skill":["a"]}}}"#,
        r#"{"jsonrpc":"2.0","method":"SendMessage","params":{"metadata":{"skill":"a"},"metadata":{}}}"#,
        r#"{"model":"a","model":"b"}"#,
    ] {
        doubtful(&[], body);
    }
    assert_eq!(json::read_whole(b"{\"model\":\"m\",\"x\":\"\xff\"}"), None);
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(300));
    doubtful(&[], &long);
}

#[test]
fn head_and_body_have_to_agree() {
    let body = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"pay"}}"#;
    doubtful(&[("mcp-method", "tools/list")], body);
    doubtful(&[("mcp-method", "tools/call"), ("mcp-method", "tools/list")], body);
    doubtful(&[("mcp-name", "search")], body);
    doubtful(&[("a2a-version", "1.0")], body);
    doubtful(&[("content-type", "application/grpc")], body);
    doubtful(&[("mcp-name", "search")], r#"{"model":"m"}"#);
    let body = r#"{"jsonrpc":"2.0","method":"message/send","params":{"metadata":{"skill":"pay"}}}"#;
    doubtful(&[("mcp-session-id", "s")], body);
    doubtful(&[("agent-capability", "chat")], body);
    whole(&[("agent-capability", "chat, pay")], body);
}

#[test]
fn the_http_binding_of_a2a_has_its_method_in_the_path() {
    let begin =
        || Call { protocol: Protocol::A2a, rpc_method: Some("SendMessage".into()), ..Call::default() };
    let mut call = begin();
    let body = br#"{"message":{"metadata":{"skillId":"plan"}},"params":{"metadata":{"skill":"other"}}}"#;
    assert_eq!(from_whole(&head(&[]), body, &ByPath::Rest, &mut call), Understood::Whole);
    assert_eq!((call.rpc_method.as_deref(), call.skill.as_deref()), (Some("SendMessage"), Some("plan")));
    let body = br#"{"jsonrpc":"2.0","method":"tasks/get","message":{}}"#;
    assert_eq!(from_whole(&head(&[]), body, &ByPath::Rest, &mut begin()), Understood::Doubtful);
}

#[test]
fn tasks_of_mcp_and_of_a2a_are_told_apart_by_how_they_are_named() {
    let body = |method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
    };
    let is = |call: Call| (call.protocol, call.also, call.task_id.as_deref().map(str::to_owned), call.tool);
    let (mcp, a2a) = (Protocol::Mcp, Protocol::A2a);
    let task = || Some("t".to_owned());
    for method in ["tasks/get", "tasks/cancel"] {
        assert_eq!(is(whole(&[], &body(method, r#"{"taskId":"t"}"#))), (mcp, None, task(), None));
        assert_eq!(is(whole(&[], &body(method, r#"{"id":"t"}"#))), (a2a, None, task(), None));
        let head = [("mcp-method", method), ("mcp-name", "t"), ("mcp-protocol-version", "2026-07-28")];
        assert_eq!(is(whole(&head, &body(method, r#"{"taskId":"t"}"#))), (mcp, None, task(), None));
        // A header must not make one of the other.
        doubtful(&[("mcp-session-id", "s")], &body(method, r#"{"id":"t"}"#));
        doubtful(&[("a2a-version", "1.0")], &body(method, r#"{"taskId":"t"}"#));
        for both in [r#"{"id":"t","taskId":"t"}"#, r#"{"id":"t","TaskID":"t"}"#, r#"{"taskId":"t","ID":1}"#] {
            doubtful(&[], &body(method, both));
        }
        assert_eq!(is(whole(&[], &body(method, "{}"))), (a2a, Some(mcp), None, None));
    }
    doubtful(&[("mcp-name", "other")], &body("tasks/get", r#"{"taskId":"t"}"#));
    assert_eq!(is(whole(&[], &body("tasks/result", r#"{"taskId":"t"}"#))), (mcp, None, task(), None));
    assert_eq!(is(whole(&[], &body("tasks/update", r#"{"taskId":"t"}"#))), (mcp, None, task(), None));
    assert_eq!(is(whole(&[], &body("tasks/resubscribe", r#"{"id":"t"}"#))), (a2a, None, task(), None));
    // Nothing has to be named: it may be either, whatever is named.
    assert_eq!(is(whole(&[], &body("tasks/list", r#"{"id":"t"}"#))).1, Some(mcp));
    let call = whole(&[("mcp-session-id", "s")], &body("tasks/list", "{}"));
    assert_eq!((call.protocol, call.also), (mcp, Some(a2a)));
}

#[test]
fn names_in_the_head_may_be_encoded() {
    let body = r#"{"jsonrpc":"2.0","method":"resources/read","params":{"uri":"file:///ü"}}"#;
    let call = whole(&[("mcp-method", "resources/read"), ("mcp-name", "=?base64?ZmlsZTovLy/DvA==?=")], body);
    assert_eq!(call.tool.as_deref(), Some("file:///ü"));
    doubtful(&[("mcp-name", "=?base64?ZmlsZTovLy8=?=")], body);
    doubtful(&[("mcp-name", "=?base64?*?=")], body);
}

#[test]
fn other_encodings_are_seen() {
    for (first, kind, then) in [
        (&b"{\"a\":1}"[..], Kind::Unknown, Looks::Json),
        (b"\n\t [1]", Kind::Form, Looks::Json),
        (b"--boundary", Kind::Form, Looks::Other),
        (b"GIF89a", Kind::Unknown, Looks::Other),
        (b"{\0\"\0", Kind::Unknown, Looks::Doubtful),
        (b"\0{\0\"", Kind::Unknown, Looks::Doubtful),
        (b"\n\0 \0{\0", Kind::Unknown, Looks::Doubtful),
        (b"\0\0\0{\0\0\0\"", Kind::Grpc, Looks::Doubtful),
        (b"\0{\0\"\0a\0\"", Kind::Grpc, Looks::Doubtful),
        (b"\xff\xfe{\0\"\0", Kind::Unknown, Looks::Doubtful),
        (b"\xef\xbb\xbf{}", Kind::Unknown, Looks::Doubtful),
        (b"\0\0\0\0\x7b\x0a\x02hi", Kind::Grpc, Looks::Other),
        (b"\0\0\0\x7b\x00\x0a\x02hi", Kind::Grpc, Looks::Other),
        (b"\x01\0\0\0\x05hello", Kind::Grpc, Looks::Other),
        (b"{\"jsonrpc\":", Kind::Grpc, Looks::Json),
        (b"\0\0\0\x18ftyp", Kind::Unknown, Looks::Other),
        (&[b' '; BLANK], Kind::Unknown, Looks::Json),
    ] {
        assert_eq!(looks(first, kind, false), then, "{}", String::from_utf8_lossy(first));
    }
    assert_eq!(looks(b"  ", Kind::Unknown, false), Looks::Unknown);
    assert_eq!(looks(b"{}", Kind::Unknown, true), Looks::Json);
    for (kind, plain) in [
        ("application/json", true),
        ("application/json; charset=\"UTF-8\"", true),
        ("application/json;charset = utf-16", false),
        ("text/plain; x=1; charset=utf-7", false),
    ] {
        assert_eq!(is_plain(&head(&[("content-type", kind)])), plain, "{kind}");
    }
    assert!(!is_plain(&head(&[("content-encoding", "gzip")])));
    assert!(is_plain(&head(&[("content-encoding", "identity")])));
    assert!(!is_plain(&head(&[("content-type", "text/plain"), ("content-type", "application/json")])));
}

#[test]
fn what_is_read_together_is_bounded() {
    let reading = Reading::default();
    let mut one = Part { of: &reading, bytes: 0 };
    assert!(one.grow(LIMIT_TOGETHER));
    let mut other = Part { of: &reading, bytes: 0 };
    assert!(!other.grow(1));
    drop(one);
    assert!(other.grow(1));
}

/// Which of several members with one name holds, and whether case counts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Parser {
    First,
    Last,
    Folding,
}

/// A tree as it was written, members in their order.
#[derive(Debug, Clone)]
enum Tree {
    Text(&'static str),
    Other(&'static str),
    Object(Vec<(&'static str, Tree)>),
    Array(Vec<Tree>),
}

const KEYS: [&str; 17] = [
    "jsonrpc",
    "method",
    "params",
    "model",
    "name",
    "uri",
    "message",
    "metadata",
    "skillId",
    "skill",
    "id",
    "x",
    "Method",
    "NAME",
    "Model",
    "\\u006dethod",
    "s\u{212a}ill",
];

impl Tree {
    fn random(random: &mut Rng, depth: usize) -> Tree {
        match random.u8(0..10) {
            0..=3 if depth < 4 => Tree::object(random, depth),
            4 if depth < 4 => {
                Tree::Array((0..random.usize(0..3)).map(|_| Tree::random(random, depth + 1)).collect())
            }
            5 => Tree::Other(random.choice(["1", "null", "true", "-1.5e3"]).unwrap_or("1")),
            _ => Tree::Text(
                random
                    .choice(["2.0", "tools/call", "SendMessage", "resources/read", "a", "b"])
                    .unwrap_or("a"),
            ),
        }
    }

    fn object(random: &mut Rng, depth: usize) -> Tree {
        let member = |random: &mut Rng| {
            let key = KEYS[random.usize(0..KEYS.len())];
            (key, Tree::random(random, depth + 1))
        };
        Tree::Object((0..random.usize(0..6)).map(|_| member(random)).collect())
    }

    /// Mostly a call that makes sense, so that much of what is tried is read at all.
    fn call(random: &mut Rng) -> Tree {
        let Tree::Object(mut top) = Tree::object(random, 0) else { unreachable!() };
        let Tree::Object(params) = Tree::object(random, 1) else { unreachable!() };
        top.truncate(random.usize(0..3));
        top.push(("jsonrpc", Tree::Text("2.0")));
        top.push((
            "method",
            Tree::Text(random.choice(["tools/call", "SendMessage", "resources/read"]).unwrap_or("x")),
        ));
        top.push(("params", Tree::Object(params)));
        random.shuffle(&mut top);
        Tree::Object(top)
    }

    fn write(&self, out: &mut String) {
        match self {
            Tree::Text(text) => out.push_str(&format!("\"{text}\"")),
            Tree::Other(text) => out.push_str(text),
            Tree::Object(members) => {
                out.push('{');
                for (i, (key, value)) in members.iter().enumerate() {
                    out.push_str(if i == 0 { "\"" } else { ",\"" });
                    out.push_str(key);
                    out.push_str("\":");
                    value.write(out);
                }
                out.push('}');
            }
            Tree::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    item.write(out);
                }
                out.push(']');
            }
        }
    }

    /// As a parser of this kind has it.
    fn read(&self, by: Parser) -> Value {
        match self {
            Tree::Text(text) => Value::from(*text),
            Tree::Other(text) => serde_json::from_str(text).unwrap(),
            Tree::Array(items) => items.iter().map(|item| item.read(by)).collect(),
            Tree::Object(members) => {
                let mut object = Map::new();
                for (key, value) in members {
                    let key = key.replace("\\u006d", "m");
                    let key =
                        if by == Parser::Folding { key.replace('\u{212a}', "k").to_lowercase() } else { key };
                    if by != Parser::First || !object.contains_key(&key) {
                        object.insert(key, value.read(by));
                    }
                }
                Value::Object(object)
            }
        }
    }
}

/// What an agent would do with a body.
fn done(body: &Value, by: Parser) -> (Option<String>, Option<String>, Option<String>, Option<String>) {
    let key = |name: &str| if by == Parser::Folding { name.to_lowercase() } else { name.to_owned() };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let method = text(&body["method"]);
    let params = &body["params"];
    let name = match method.as_deref() {
        Some("tools/call") => text(&params["name"]),
        Some("resources/read") => text(&params["uri"]),
        _ => None,
    };
    let metadata = |holder: &Value| {
        let metadata = &holder["metadata"];
        text(&metadata[key("skillId")]).or_else(|| text(&metadata["skill"]))
    };
    let skill = (method.as_deref() == Some("SendMessage"))
        .then(|| metadata(params).or_else(|| metadata(&params["message"])))
        .flatten();
    (method, name, skill, text(&body["model"]))
}

#[test]
fn what_is_certain_is_what_every_parser_reads() {
    let mut random = Rng::with_seed(7);
    let mut certain = 0;
    for _ in 0..60_000 {
        let tree = if random.bool() { Tree::call(&mut random) } else { Tree::object(&mut random, 0) };
        let mut body = String::new();
        tree.write(&mut body);
        let last = tree.read(Parser::Last);
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), last, "the model of a parser");
        let (Understood::Whole, call) = understood(&[], body.as_bytes()) else { continue };
        certain += 1;
        for by in [Parser::First, Parser::Last, Parser::Folding] {
            let (method, name, skill, model) = done(&tree.read(by), by);
            let known =
                method.filter(|method| ["tools/call", "SendMessage", "resources/read"].contains(&&**method));
            if known.is_some() {
                assert_eq!(call.rpc_method.as_deref(), known.as_deref(), "{by:?} {body}");
                assert_eq!(call.skill, skill.map(Into::into), "{by:?} {body}");
            }
            if let Some(name) = name {
                assert_eq!(call.tool.as_deref(), Some(&*name), "{by:?} {body}");
            }
            if let Some(model) = model {
                assert_eq!(call.model.as_deref(), Some(&*model), "{by:?} {body}");
            }
        }
    }
    assert!(certain > 5_000, "only {certain} bodies said something");
}
