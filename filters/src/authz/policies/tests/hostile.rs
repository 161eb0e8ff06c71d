//! Calls that are written so that the policy reads them differently from whoever is behind the sidecar, and calls that cannot be
//! understood.

use crate::call::{Protocol, Understood};
use crate::delegation::Delegated;

use super::*;

fn deny(rule: &str) -> Plan {
    plan(&policy("foo", "p", &format!("{{action: DENY, rules: [{{{rule}}}]}}")))
}

fn allow(rule: &str) -> Plan {
    plan(&policy("foo", "p", &format!("{{rules: [{{{rule}}}]}}")))
}

fn to(operation: &str) -> String {
    format!("to: [{{operation: {{{operation}}}}}]")
}

fn when(key: &str, values: &str) -> String {
    format!("when: [{{key: '{key}', {values}}}]")
}

#[test]
fn repeated_and_joined_headers_bypass_nothing() {
    let role = |values: &str| when("request.headers[x-role]", values);
    let bad = deny(&role("values: [admin]"));
    let good = allow(&role("values: [user]"));
    let not_bad = allow(&role("notValues: [admin]"));
    let not_good = deny(&role("notValues: [user]"));
    for (values, harmless) in [
        (vec!["user"], true),
        (vec!["user", "user"], true),
        (vec!["admin"], false),
        (vec!["user", "admin"], false),
        (vec!["admin", "user"], false),
        (vec!["user,admin"], false),
        (vec!["user , admin "], false),
        (vec!["other", "user, admin"], false),
    ] {
        let asked = values.iter().fold(ask("GET /"), |asked, value| asked.header("x-role", value));
        for (name, plan) in [
            ("values in DENY", &bad),
            ("notValues in ALLOW", &not_bad),
            ("values in ALLOW", &good),
            ("notValues in DENY", &not_good),
        ] {
            assert_eq!(asked.allowed(plan), harmless, "{values:?} {name}");
        }
    }
    let absent = ask("GET /");
    assert!(
        absent.allowed(&bad)
            && absent.allowed(&not_bad)
            && !absent.allowed(&good)
            && !absent.allowed(&not_good)
    );
    let joined = deny(&role("values: ['a,b']"));
    assert!(!ask("GET /").header("x-role", "a").header("x-role", "b").allowed(&joined));
    assert!(!ask("GET /").header("x-role", "a,b").allowed(&joined));
}

#[test]
fn paths_that_others_read_differently() {
    let secret = deny(&to("paths: ['/admin', '/admin/*']"));
    let public = allow(&to("paths: ['/public', '/public/*', '/files/{*}']"));
    let not_secret = allow(&to("notPaths: ['/admin', '/admin/*']"));
    for path in [
        "/admin",
        "/admin/x",
        "//admin",
        "//x/admin",
        "///x/admin/x",
        "/%2fx//admin",
        "/\\x/admin",
        "/admin;x=1",
        "/admin;/x",
        "/admin%2Fx",
        "/admin%5cx",
        "/;a/admin",
        "/x/..;/admin",
        "/x/..%2fadmin",
        "/public/..;/admin",
        "/public/%2e%2e;a=b/admin/x",
        "/admin//x",
        // Slashes merged before dots are resolved, parameters cut before anything is decoded.
        "/x%2F%2F..%2Fadmin",
        "/admin;a%2Fb",
        // Encoded twice, or overlong.
        "/x/..%252fadmin",
        "/%2561dmin",
        "/x/%c0%ae%c0%ae/admin",
        "/admin%3Bx",
        "/admin%3Fx",
        "/admin%2500",
    ] {
        let asked = ask(&format!("GET {path}"));
        assert!(!asked.allowed(&secret), "DENY {path}");
        assert!(!asked.allowed(&not_secret), "ALLOW not {path}");
        assert!(!asked.allowed(&public), "ALLOW {path}");
    }
    // What Istio lets through stays: parameters and escaped slashes that lead nowhere else.
    for path in ["/public", "/public/a;v=1", "/files/a%2Fb", "/public//x", "/files/a;b"] {
        assert!(ask(&format!("GET {path}")).allowed(&public), "{path}");
        assert!(ask(&format!("GET {path}")).allowed(&secret), "{path}");
    }
    // Every origin decodes what is reserved, too.
    let verb = deny(&to("paths: ['/v1/model:delete']"));
    assert!(!ask("POST /v1/model%3Adelete").allowed(&verb) && !ask("POST /v1/model%3adelete").allowed(&verb));
    assert!(ask("POST /v1/model%3Aget").allowed(&verb));
    for path in ["/public/%252e%252e/admin", "/public/%c0%ae%c0%ae/admin", "/public/a%2F%2F..%2F..%2Fadmin"] {
        assert!(!ask(&format!("GET {path}")).allowed(&public), "{path}");
    }
    // The end that is allowed is not the end of what others read.
    let pages = allow(&to("paths: ['*.html', '*/public', '/tasks/{**}/done', '/x/{*}/y']"));
    for path in ["/a/b.html", "/a%20b.html", "/a;v=1/b.html", "/a/public", "/tasks//done", "/x/a;v=1/y"] {
        assert!(ask(&format!("GET {path}")).allowed(&pages), "{path}");
    }
    for path in [
        "/admin;.html",
        "/admin%3F.html",
        "/admin%23.html",
        "/admin%3b.html",
        "/admin%2500.html",
        "//public",
        "/tasks/7/delete%3f/done",
        "/x/;a/y",
    ] {
        assert!(!ask(&format!("GET {path}")).allowed(&pages), "{path}");
    }
    assert!(!ask("GET /public;x").allowed(&public), "parameters are part of the path where it is allowed");
}

#[test]
fn hosts_with_ports_and_in_any_case() {
    let bad = deny(&to("hosts: [internal.example.com]"));
    for host in [
        "internal.example.com",
        "INTERNAL.example.COM",
        "internal.example.com:8080",
        "internal.example.com.",
        "Internal.Example.com.:80",
    ] {
        assert!(!ask("GET /").host(host).allowed(&bad), "{host}");
    }
    assert!(ask("GET /").host("external.example.com").allowed(&bad));
    // Istio: a host with a port is another one, which `HOST:*` names.
    let good = allow(&to("hosts: ['Example.com', 'example.org:*', '*.example.net']"));
    for (host, allowed) in [
        ("example.com", true),
        ("EXAMPLE.com", true),
        ("example.com:80", false),
        ("example.org:8080", true),
        ("example.org", false),
        ("a.example.net", true),
        ("a.example.net:80", false),
    ] {
        assert_eq!(ask("GET /").host(host).allowed(&good), allowed, "{host}");
    }
    let not_bad = allow(&to("notHosts: [internal.example.com]"));
    assert!(!ask("GET /").host("internal.example.com:1").allowed(&not_bad));
    let v6 = deny(&to("hosts: ['[::1]', 'a.test:80']"));
    for host in [
        "[::1]:80",
        "[0::1]",
        "[0:0:0:0:0:0:0:1]:80",
        "[::1%25lo]",
        "a.test.:80",
        "a.test:080",
        "A.test.:0080",
    ] {
        assert!(!ask("GET /").host(host).allowed(&v6), "{host}");
    }
    for host in ["[::2]:80", "[::]", "a.test", "a.test:8", "a.test:", "[1::1]:080"] {
        assert!(ask("GET /").host(host).allowed(&v6), "{host}");
    }
    let by_key = deny(&when("request.headers[Host]", "values: [internal.example.com]"));
    assert!(
        !ask("GET /").host("Internal.example.com:80").allowed(&by_key),
        "the Host header is the authority"
    );
}

#[test]
fn subjects_with_slashes() {
    let asked = |sub: &str| ask("GET /").claims(serde_json::json!({"iss": "https://a", "sub": sub}));
    let source = |values: &str| format!("from: [{{source: {{{values}}}}}]");
    let bad = deny(&source("requestPrincipals: ['https://a/team/bob']"));
    let not_bad = allow(&source("notRequestPrincipals: ['https://a/team/bob']"));
    let good = allow(&source("requestPrincipals: ['https://a/team/bob']"));
    assert!(!asked("team/bob").allowed(&bad) && !asked("team/bob").allowed(&not_bad));
    assert!(asked("bob").allowed(&bad) && asked("bob").allowed(&not_bad));
    // Somebody whose subject only looks like another issuer's is not let in by it.
    assert!(!asked("team/bob").allowed(&good));
}

#[test]
fn methods_in_lower_case() {
    assert!(!ask("delete /").allowed(&deny(&to("methods: [DELETE]"))));
    assert!(!ask("get /").allowed(&allow(&to("methods: [GET]"))));
    assert!(!ask("delete /").allowed(&allow(&to("notMethods: [DELETE]"))));
}

#[test]
fn a_method_override_is_no_method() {
    // What an origin makes of such headers is its own affair: nothing here believes them.
    let asked = ask("POST /").header("x-http-method-override", "DELETE");
    assert!(asked.allowed(&deny(&to("methods: [DELETE]"))));
    assert!(!asked.allowed(&deny(&when("request.headers[x-http-method-override]", "values: ['*']"))));
}

fn mcp(tool: &str) -> Ask {
    let mut asked = ask("POST /mcp");
    asked.call = Call {
        protocol: Protocol::Mcp,
        rpc_method: Some("tools/call".into()),
        tool: Some(tool.into()),
        body: Understood::Whole,
        ..Call::default()
    };
    asked
}

#[test]
fn what_the_body_says() {
    let tools = deny(&when("pilotfish.mcp.tool", "values: [shell, 'fs_*']"));
    assert!(tools.authz_reads_body() && !deny(&to("paths: [/x]")).authz_reads_body());
    assert!(
        !mcp("shell").allowed(&tools) && !mcp("fs_write").allowed(&tools) && mcp("search").allowed(&tools)
    );
    let only = allow(&when("pilotfish.mcp.tool", "values: [search]"));
    assert!(mcp("search").allowed(&only) && !mcp("shell").allowed(&only) && !ask("GET /").allowed(&only));
    let mut a2a = ask("POST /");
    a2a.call = Call {
        protocol: Protocol::A2a,
        rpc_method: Some("SendMessage".into()),
        skill: Some("book".into()),
        ..Call::default()
    };
    assert!(
        !a2a.allowed(&deny(&when("pilotfish.a2a.method", "values: [message/send]"))),
        "the same by its old name"
    );
    assert!(!a2a.allowed(&deny(&when("pilotfish.a2a.method", "values: [SendMessage]"))));
    assert!(a2a.allowed(&deny(&when("pilotfish.mcp.method", "values: ['*']"))));
    assert!(a2a.allowed(&allow(&when("pilotfish.a2a.skill", "values: [book]"))));
    assert!(a2a.allowed(&allow(&when("pilotfish.capability", "values: [book]"))));
    assert!(a2a.allowed(&allow(&when("pilotfish.protocol", "values: [a2a]"))));
    a2a.call.capabilities = vec!["pay".into()];
    assert!(
        !a2a.allowed(&allow(&when("pilotfish.capability", "values: [book]"))),
        "all of them have to be allowed"
    );
    assert!(!a2a.allowed(&deny(&when("pilotfish.capability", "values: [book]"))));
}

#[test]
fn doubt_refuses_whatever_hangs_on_the_body() {
    let mut doubtful = mcp("search");
    doubtful.call.body = Understood::Doubtful;
    for key in ["protocol", "capability", "a2a.method", "a2a.skill", "mcp.method", "mcp.tool", "model"] {
        let key = format!("pilotfish.{key}");
        for values in ["values: [x]", "notValues: [x]", "values: ['*']"] {
            assert_eq!(
                doubtful.decided(&deny(&when(&key, values))),
                "not-decidable: foo/p rule 1",
                "{key} {values}"
            );
            assert_eq!(
                doubtful.decided(&allow(&when(&key, values))),
                "not-decidable: foo/p no rule",
                "{key} {values}"
            );
        }
    }
    // What does not hang on it is decided as ever.
    let plan = deny(&format!("{}, {}", to("paths: [/other]"), when("pilotfish.mcp.tool", "values: [x]")));
    assert!(doubtful.allowed(&plan));
    let both = allow("");
    assert!(doubtful.allowed(&both));
    let certain = policy("foo", "a", "{action: DENY, rules: [{to: [{operation: {paths: [/mcp]}}]}]}")
        + &policy(
            "foo",
            "b",
            &format!("{{action: DENY, rules: [{{{}}}]}}", when("pilotfish.mcp.tool", "values: [x]")),
        );
    assert_eq!(doubtful.decided(&self::plan(&certain)), "access-denied: foo/a rule 1");
}

#[test]
fn chains_of_delegation() {
    let chained = |agents: &[&str]| {
        let mut asked = ask("GET /").from("default/c");
        let agents =
            agents.iter().map(|name| agent(&format!("mesh.example/ns/default/agent/{name}"))).collect();
        asked.chain = Some(Chain { origin: "https://idp.example/bob".into(), agents, uncertain: false });
        asked
    };
    for (values, depth, matches) in [
        ("3", 3, true),
        ("3", 2, false),
        ("<=2", 2, true),
        ("<=2", 3, false),
        ("<2", 1, true),
        ("<2", 2, false),
        (">=2", 2, true),
        (">2", 2, false),
        (">2", 3, true),
        ("<0", 0, false),
    ] {
        let plan = deny(&when("pilotfish.delegation.depth", &format!("values: ['{values}']")));
        assert_eq!(!chained(&["a", "b", "d"][..depth]).allowed(&plan), matches, "{values} {depth}");
    }
    // Who serves several calls at once acts for one of them: none of the depths that it may be is a way past a rule.
    let uncertain = |agents: &[&str]| {
        let mut asked = chained(agents);
        asked.chain.as_mut().unwrap().uncertain = true;
        asked
    };
    for (values, depth, denied, allowed) in [
        ("1", 2, true, false),
        ("2", 2, true, false),
        ("3", 2, false, false),
        (">=1", 3, true, true),
        ("<=1", 3, true, false),
        ("<=3", 3, true, true),
        ("0", 1, false, false),
        ("0", 0, true, true),
    ] {
        let rule = when("pilotfish.delegation.depth", &format!("values: ['{values}']"));
        let asked = uncertain(&["a", "b", "d"][..depth]);
        let found = (!asked.allowed(&deny(&rule)), asked.allowed(&allow(&rule)));
        assert_eq!(found, (denied, allowed), "{values} {depth}");
    }
    // Nor are agents that are too many to be named.
    let mut crowd = uncertain(&["b"]);
    crowd.chain.as_mut().unwrap().agents.push(Delegated::unknown());
    let by = |values: &str| when("pilotfish.delegation.agents", values);
    let named = by("values: [cluster.local/ns/default/sa/a]");
    assert!(!crowd.allowed(&deny(&named)) && !crowd.allowed(&allow(&named)));
    let others = by("notValues: [cluster.local/ns/default/sa/a]");
    assert!(!crowd.allowed(&allow(&others)) && uncertain(&["b"]).allowed(&allow(&others)));
    let shallow = allow(&when("pilotfish.delegation.depth", "values: ['0']"));
    assert!(ask("GET /").allowed(&shallow) && !chained(&["a"]).allowed(&shallow));
    let through = deny(&when("pilotfish.delegation.agents", "values: [cluster.local/ns/default/sa/a]"));
    assert!(!chained(&["b", "a"]).allowed(&through) && chained(&["b"]).allowed(&through));
    let origin = allow(&when("pilotfish.delegation.origin", "values: ['https://idp.example/*']"));
    assert!(chained(&[]).allowed(&origin) && !ask("GET /").allowed(&origin));
}
