//! Policies as Istio's documentation and samples have them, with the outcomes that they give.

use serde_json::json;

use super::*;

#[test]
fn the_reference_example() {
    // Reference, "AuthorizationPolicy": a service account or a namespace, two operations, and a token's issuer.
    let plan = plan(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: httpbin, namespace: foo}
spec:
  action: ALLOW
  rules:
  - from:
    - source:
        principals: [\"cluster.local/ns/default/sa/sleep\"]
    - source:
        namespaces: [\"test\"]
    to:
    - operation:
        methods: [\"GET\"]
        paths: [\"/info*\"]
    - operation:
        methods: [\"POST\"]
        paths: [\"/data\"]
    when:
    - key: request.auth.claims[iss]
      values: [\"https://accounts.google.com\"]
",
    );
    let google = json!({"iss": "https://accounts.google.com", "sub": "1"});
    for (who, line, token, allowed) in [
        ("default/sleep", "GET /info", true, true),
        ("default/sleep", "GET /information/x", true, true),
        ("test/anybody", "POST /data", true, true),
        ("default/sleep", "POST /data", false, false),
        ("default/sleep", "POST /info", true, false),
        ("default/sleep", "POST /data/x", true, false),
        ("default/other", "GET /info", true, false),
        ("testing/anybody", "GET /info", true, false),
    ] {
        let mut asked = ask(line).from(who);
        if token {
            asked = asked.claims(google.clone());
        }
        assert_eq!(asked.allowed(&plan), allowed, "{who} {line}");
    }
    assert!(!ask("GET /info").claims(google).allowed(&plan), "no identity");
}

#[test]
fn namespaces_of_the_reference() {
    let deny_dev = plan(&policy(
        "foo",
        "httpbin",
        "{action: DENY, rules: [{from: [{source: {namespaces: [dev]}}], to: [{operation: {methods: [POST]}}]}]}",
    ));
    assert!(!ask("POST /").from("dev/a").allowed(&deny_dev));
    assert!(ask("GET /").from("dev/a").allowed(&deny_dev) && ask("POST /").from("prod/a").allowed(&deny_dev));
    let port = plan(&policy(
        "foo",
        "httpbin",
        "{action: DENY, rules: [{to: [{operation: {methods: [POST], ports: ['8080']}}]}]}",
    ));
    let mut asked = ask("POST /");
    assert!(asked.allowed(&port));
    asked.destination = Some(SocketAddr::from(([10, 0, 0, 1], 8080)));
    assert!(!asked.allowed(&port));
    asked.destination = None;
    assert!(!asked.allowed(&port), "what cannot be known refuses");
    let nothing = "{}";
    assert!(!ask("GET /").from("foo/a").allowed(&plan(&policy("foo", "allow-nothing", nothing))));
    let all = policy("foo", "allow-all", "{rules: [{}]}");
    assert!(ask("GET /").allowed(&plan(&all)));
    assert!(
        ask("GET /").allowed(&plan(&(all + &policy("foo", "allow-nothing", nothing)))),
        "any policy is enough"
    );
}

#[test]
fn the_task_of_bookinfo() {
    // Tasks, "HTTP Traffic": allow-nothing, then a viewer for each service.
    let bookinfo = |agent: &str| {
        let yaml = policy("default", "allow-nothing", "{}")
            + &policy(
                "default",
                "productpage-viewer",
                "{selector: {matchLabels: {app: productpage}}, action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]}",
            )
            + &policy(
                "default",
                "details-viewer",
                "{selector: {matchLabels: {app: details}}, action: ALLOW, rules: [{from: [{source: {principals: ['cluster.local/ns/default/sa/bookinfo-productpage']}}], to: [{operation: {methods: [GET]}}]}]}",
            )
            + &policy(
                "default",
                "reviews-viewer",
                "{selector: {matchLabels: {app: reviews}}, action: ALLOW, rules: [{from: [{source: {principals: ['cluster.local/ns/default/sa/bookinfo-productpage']}}], to: [{operation: {methods: [GET]}}]}]}",
            )
            + &policy(
                "default",
                "ratings-viewer",
                "{selector: {matchLabels: {app: ratings}}, action: ALLOW, rules: [{from: [{source: {principals: ['cluster.local/ns/default/sa/bookinfo-reviews']}}], to: [{operation: {methods: [GET]}}]}]}",
            );
        plan_for(&yaml, &CompileOptions { agent: agent.into(), namespace: "default".into(), ..options() })
    };
    let get = ask("GET /");
    assert!(get.allowed(&bookinfo("productpage")) && !ask("POST /").allowed(&bookinfo("productpage")));
    let (page, reviews) =
        (get.clone().from("default/bookinfo-productpage"), get.clone().from("default/bookinfo-reviews"));
    assert!(page.allowed(&bookinfo("details")) && page.allowed(&bookinfo("reviews")));
    assert!(!page.allowed(&bookinfo("ratings")) && reviews.allowed(&bookinfo("ratings")));
    assert!(!reviews.allowed(&bookinfo("details")) && !get.allowed(&bookinfo("details")));
    assert!(!page.allowed(&bookinfo("anything-else")));
}

#[test]
fn the_task_of_explicit_deny() {
    // Tasks, "Explicit Deny": GET is denied, then GET without a header, then an ALLOW beside it.
    let deny_get = policy(
        "foo",
        "deny-method-get",
        "{selector: {matchLabels: {app: httpbin}}, action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}",
    );
    let p = plan(&deny_get);
    assert!(!ask("GET /get").allowed(&p) && ask("POST /post").allowed(&p));
    let deny_get = policy(
        "foo",
        "deny-method-get",
        "{selector: {matchLabels: {app: httpbin}}, action: DENY, rules: [{to: [{operation: {methods: [GET]}}], when: [{key: 'request.headers[x-token]', notValues: [admin]}]}]}",
    );
    let p = plan(&deny_get);
    assert!(ask("GET /get").header("x-token", "admin").allowed(&p));
    assert!(!ask("GET /get").header("x-token", "guest").allowed(&p) && !ask("GET /get").allowed(&p));
    let with_allow = deny_get
        + &policy(
            "foo",
            "allow-path-ip",
            "{selector: {matchLabels: {app: httpbin}}, action: ALLOW, rules: [{to: [{operation: {paths: [/ip]}}]}]}",
        );
    let p = plan(&with_allow);
    assert!(!ask("GET /ip").header("x-token", "guest").allowed(&p));
    assert!(ask("GET /ip").header("x-token", "admin").allowed(&p));
    assert!(!ask("GET /get").header("x-token", "admin").allowed(&p));
}

#[test]
fn the_task_of_tokens() {
    // Tasks, "JWT Token": a request principal, then a claim that is a list.
    let require = plan(&policy(
        "foo",
        "require-jwt",
        "{selector: {matchLabels: {app: httpbin}}, action: ALLOW, rules: [{from: [{source: {requestPrincipals: ['testing@secure.istio.io/testing@secure.istio.io']}}]}]}",
    ));
    let own = json!({"iss": "testing@secure.istio.io", "sub": "testing@secure.istio.io"});
    assert!(ask("GET /headers").claims(own.clone()).allowed(&require));
    assert!(!ask("GET /headers").allowed(&require));
    assert!(
        !ask("GET /headers")
            .claims(json!({"iss": "testing@secure.istio.io", "sub": "other"}))
            .allowed(&require)
    );
    let groups = plan(&policy(
        "foo",
        "require-jwt",
        "{action: ALLOW, rules: [{from: [{source: {requestPrincipals: ['testing@secure.istio.io/*']}}], when: [{key: 'request.auth.claims[groups]', values: [group1]}]}]}",
    ));
    let with = |groups: serde_json::Value| {
        let mut claims = own.clone();
        claims["groups"] = groups;
        ask("GET /headers").claims(claims)
    };
    assert!(with(json!(["group1", "group2"])).allowed(&groups) && with(json!("group1")).allowed(&groups));
    assert!(!with(json!(["group2"])).allowed(&groups) && !with(json!({"group1": true})).allowed(&groups));
    assert!(!ask("GET /headers").claims(own).allowed(&groups));
    // "End user": every request without a valid token is denied.
    let frontend = plan(&policy(
        "foo",
        "frontend",
        "{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {paths: [/headers]}}]}]}",
    ));
    assert!(!ask("GET /headers").allowed(&frontend) && ask("GET /ip").allowed(&frontend));
    assert!(ask("GET /headers").claims(json!({"iss": "a", "sub": "b"})).allowed(&frontend));
}

#[test]
fn request_principals_have_two_parts() {
    let allows = |pattern: &str, iss: &str, sub: &str| {
        let plan = plan(&policy(
            "foo",
            "p",
            &format!("{{rules: [{{from: [{{source: {{requestPrincipals: ['{pattern}']}}}}]}}]}}"),
        ));
        ask("GET /").claims(json!({"iss": iss, "sub": sub})).allowed(&plan)
    };
    assert!(allows("*", "https://a.example", "bob") && !allows("*", "https://a.example", ""));
    assert!(allows("https://a.example/*", "https://a.example", "bob"));
    assert!(!allows("https://a.example/*", "https://a.example/evil", "bob"), "another issuer");
    assert!(allows("*/bob", "https://a.example", "bob") && !allows("*/bob", "https://a.example", "rob/bob2"));
    assert!(allows("https://a.example/b*", "https://a.example", "bob"));
    for (pattern, iss, sub, matches) in [
        ("*@a.example/bob", "x@a.example", "bob", true),
        ("*@a.example/*", "x@a.example", "bob", true),
        ("*bob", "https://a.example", "rob-bob", true),
        ("issuer*", "issuer-1", "bob", true),
        ("https://a*", "https://a.example", "bob", false),
        // A star within the value is a star.
        ("https://a*/bob", "https://a.example", "bob", false),
        ("https://a*/bob", "https://a*", "bob", true),
        ("https://a.example/*bob", "https://a.example", "bob", false),
        ("https://a.example", "https://a.example", "bob", false),
        ("https://a.example", "https://a.example", "", false),
        ("https://a.example/*", "https://a.example", "", false),
        ("*", "", "bob", false),
    ] {
        assert_eq!(allows(pattern, iss, sub), matches, "{pattern} {iss} {sub}");
    }
}

#[test]
fn nested_and_delimited_claims() {
    let allows = |key: &str, value: &str, claims: serde_json::Value| {
        let plan = plan(&policy(
            "foo",
            "p",
            &format!("{{rules: [{{when: [{{key: '{key}', values: ['{value}']}}]}}]}}"),
        ));
        ask("GET /").claims(claims).allowed(&plan)
    };
    assert!(allows("request.auth.claims[nested][key]", "ok", json!({"nested": {"key": ["no", "ok"]}})));
    assert!(!allows("request.auth.claims[nested][key]", "ok", json!({"nested": "ok", "key": "ok"})));
    assert!(allows("request.auth.claims[scope]", "read", json!({"scope": "write read"})));
    assert!(!allows("request.auth.claims[other]", "read", json!({"other": "write read"})));
    let nested = json!({"provider": {"login": {"scope": "write read"}}});
    assert!(allows("request.auth.claims[provider][login][scope]", "read", nested.clone()));
    assert!(!allows("request.auth.claims[provider][login][scope]", "rea", nested));
    assert!(
        allows("request.auth.claims[n]", "5", json!({"n": 5}))
            && allows("request.auth.claims[n]", "true", json!({"n": true}))
    );
    assert!(allows("request.auth.audiences", "b", json!({"aud": ["a", "b"]})));
    assert!(!allows("request.auth.audiences", "b", json!({"aud": "a"})));
    assert!(allows("request.auth.presenter", "app*", json!({"azp": "app-1"})));
}

#[test]
fn the_task_of_ingress_addresses() {
    // Tasks, "Ingress Access Control": ipBlocks are the peer's, remoteIpBlocks the client's.
    let plan = |field: &str, action: &str| {
        self::plan(&policy(
            "foo",
            "ingress",
            &format!(
                "{{action: {action}, rules: [{{from: [{{source: {{{field}: ['1.2.3.4', '5.6.7.0/24', '2001:db8::/32']}}}}]}}]}}"
            ),
        ))
    };
    let at = |ip: &str, remote: Option<&str>| {
        let mut asked = ask("GET /");
        asked.ip = ip.parse().unwrap();
        asked.remote_ip = remote.map(|ip| ip.parse().unwrap());
        asked
    };
    let allow = plan("ipBlocks", "ALLOW");
    assert!(at("1.2.3.4", None).allowed(&allow) && at("5.6.7.9", None).allowed(&allow));
    assert!(at("::ffff:5.6.7.9", None).allowed(&allow) && at("2001:db8:1::1", None).allowed(&allow));
    assert!(!at("1.2.3.5", None).allowed(&allow) && !at("5.6.8.0", None).allowed(&allow));
    assert!(!at("9.9.9.9", Some("1.2.3.4")).allowed(&allow));
    // Blocks of IPv4 may be written within IPv6, as some logs show addresses.
    let within = self::plan(&policy(
        "foo",
        "within",
        "{action: DENY, rules: [{from: [{source: {ipBlocks: ['::ffff:10.1.0.0/112', '::ffff:7.7.7.7']}}]}]}",
    ));
    assert!(!at("10.1.9.9", None).allowed(&within) && !at("::ffff:10.1.9.9", None).allowed(&within));
    assert!(!at("7.7.7.7", None).allowed(&within) && at("10.2.0.1", None).allowed(&within));
    let remote = plan("remoteIpBlocks", "DENY");
    assert!(!at("9.9.9.9", Some("1.2.3.4")).allowed(&remote) && !at("1.2.3.4", None).allowed(&remote));
    assert!(at("1.2.3.4", Some("9.9.9.9")).allowed(&remote));
    let all = self::plan(&policy(
        "foo",
        "n",
        "{rules: [{from: [{source: {ipBlocks: ['0.0.0.0/0'], notIpBlocks: ['10.0.0.0/8']}}]}]}",
    ));
    assert!(at("11.0.0.1", None).allowed(&all) && !at("10.9.9.9", None).allowed(&all));
}

#[test]
fn templates_of_paths() {
    // Reference, `Operation.paths`.
    for (template, path, matches) in [
        ("/foo/{*}", "/foo/bar", true),
        ("/foo/{*}", "/foo/bar/baz", false),
        ("/foo/{*}", "/foo/", false),
        ("/foo/{**}/", "/foo/bar/", true),
        ("/foo/{**}/", "/foo//", true),
        ("/foo/{**}/", "/foo/bar", false),
        ("/foo/{*}/bar/{**}", "/foo/buzz/bar/", true),
        ("/foo/{*}/bar/{**}", "/foo/buzz/bar/baz", true),
        ("/foo/{*}/bar/{**}", "/foo/buzz/bar/baz/x", true),
        ("/foo/{*}/bar/{**}", "/foo/a/b/bar/baz", false),
        ("/{*}/{*}", "/a/b", true),
        ("/{*}/{*}", "/a", false),
        ("/{**}", "/", true),
        ("/tenants/{*}/delete", "/tenants/1/delete", true),
        ("/tenants/{*}/delete", "/tenants/1/2/delete", false),
    ] {
        let plan = plan(&policy(
            "foo",
            "t",
            &format!("{{rules: [{{to: [{{operation: {{paths: ['{template}']}}}}]}}]}}"),
        ));
        assert_eq!(ask(&format!("GET {path}")).allowed(&plan), matches, "{template} {path}");
    }
}

#[test]
fn exact_prefix_suffix_and_presence() {
    // Reference, `Rule`.
    for (pattern, path, matches) in [
        ("/abc", "/abc", true),
        ("/abc", "/abcd", false),
        ("/abc*", "/abc", true),
        ("/abc*", "/abcd", true),
        ("*abc", "/abc", true),
        ("*abc", "/xabc", true),
        ("*abc", "/abcx", false),
        ("*", "/", true),
    ] {
        for line in [format!("GET {path}"), format!("GET {path}?query=/other")] {
            let plan = plan(&policy(
                "foo",
                "t",
                &format!("{{rules: [{{to: [{{operation: {{paths: ['{pattern}']}}}}]}}]}}"),
            ));
            assert_eq!(ask(&line).allowed(&plan), matches, "{pattern} {line}");
        }
    }
}

#[test]
fn identities() {
    for (source, who, matches) in [
        ("principals: ['cluster.local/ns/default/sa/a']", "default/a", true),
        ("principals: ['mesh.example/ns/default/sa/a']", "default/a", true),
        ("principals: ['mesh.example/ns/default/agent/a']", "default/a", true),
        ("principals: ['other.example/ns/default/agent/a']", "default/a", false),
        ("principals: ['cluster.local/ns/default/*']", "default/a", true),
        ("principals: ['cluster.local/ns/sa/*']", "agent/a", false),
        ("principals: ['cluster.local/ns/default/sa/a*']", "default/ab", true),
        ("principals: ['*/ns/default/sa/a']", "default/a", true),
        ("principals: ['*/sa/a']", "default/a", true),
        ("principals: ['*/sa/a']", "default/b", false),
        ("principals: ['*']", "default/a", true),
        ("notPrincipals: ['cluster.local/ns/default/sa/a']", "default/a", false),
        ("notPrincipals: ['cluster.local/ns/default/sa/a']", "default/b", true),
        ("namespaces: [default]", "default/a", true),
        ("namespaces: ['def*']", "default/a", true),
        ("namespaces: ['*ault']", "default/a", true),
        ("namespaces: ['d*lt']", "default/a", true),
        ("namespaces: ['d*x']", "default/a", false),
        ("namespaces: [prod]", "default/a", false),
        ("notNamespaces: [prod]", "default/a", true),
        ("serviceAccounts: [a]", "foo/a", true),
        ("serviceAccounts: [a]", "default/a", false),
        ("serviceAccounts: [default/a]", "default/a", true),
        ("notServiceAccounts: [default/a]", "default/a", false),
        ("trustDomains: [cluster.local]", "default/a", true),
        ("trustDomains: ['mesh.*']", "default/a", true),
        ("notTrustDomains: [mesh.example]", "default/a", false),
    ] {
        let plan = plan(&policy("foo", "t", &format!("{{rules: [{{from: [{{source: {{{source}}}}}]}}]}}")));
        assert_eq!(ask("GET /").from(who).allowed(&plan), matches, "{source} {who}");
        let positive = !source.starts_with("not");
        assert_eq!(ask("GET /").allowed(&plan), !positive, "{source} without an identity");
    }
    // Another mesh that has service accounts.
    let plan = plan(&policy(
        "foo",
        "t",
        "{rules: [{from: [{source: {principals: ['k8s.example/ns/default/sa/a']}}]}]}",
    ));
    let mut asked = ask("GET /");
    asked.principal = Some(agent("k8s.example/ns/default/sa/a"));
    assert!(asked.allowed(&plan));
    asked.principal = Some(agent("k8s.example/ns/default/sa/b"));
    assert!(!asked.allowed(&plan));
}

#[test]
fn conditions() {
    let allows = |key: &str, value: &str, asked: &Ask| {
        let plan = plan(&policy(
            "foo",
            "t",
            &format!("{{rules: [{{when: [{{key: '{key}', values: ['{value}']}}]}}]}}"),
        ));
        asked.allowed(&plan)
    };
    let mut asked = ask("GET /").from("default/a").header("user-agent", "Mozilla/5.0 (a, b)");
    asked.sni = Some("www.example.com".into());
    for (key, value, matches) in [
        ("request.headers[User-Agent]", "Mozilla/*", true),
        ("request.headers[User-Agent]", "*", true),
        ("request.headers[x-absent]", "*", false),
        ("source.ip", "10.1.2.3", true),
        ("source.ip", "10.1.2.0/28", true),
        ("remote.ip", "10.1.2.4", false),
        ("source.namespace", "default", true),
        ("source.principal", "cluster.local/ns/default/sa/a", true),
        ("source.serviceAccount", "default/a", true),
        ("source.trustDomain", "mesh.example", true),
        ("destination.ip", "10.0.0.0/8", true),
        ("destination.port", "8000", true),
        ("destination.port", "80", false),
        ("connection.sni", "www.example.com", true),
        ("connection.sni", "WWW.Example.com", true),
        ("connection.sni", "*.example.org", false),
    ] {
        assert_eq!(allows(key, value, &asked), matches, "{key} {value}");
    }
}
