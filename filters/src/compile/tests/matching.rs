//! Each kind of match, with Istio's meaning.

use super::*;

/// The rule that a request gets among `blocks`, each of which is the `match` of one rule named by its letter.
fn first(blocks: &[(&str, &str)], head: &TestHead) -> String {
    let http: Vec<String> = blocks
        .iter()
        .map(|(name, m)| format!("  - {{name: {name}, match: {m}, route: [{{destination: {{host: b}}}}]}}"))
        .collect();
    rule(&plan(&(service("b", 80) + &virtual_service("v", "[b]", &http.join("\n")))), head)
}

/// Whether one block takes a request.
fn takes(block: &str, head: TestHead) -> bool {
    first(&[("yes", block)], &head) == "yes"
}

#[test]
fn uri_is_the_path_without_the_query() {
    assert!(takes("[{uri: {exact: /a}}]", get("b", "/a?x=1")));
    assert!(!takes("[{uri: {exact: /a}}]", get("b", "/a/")));
    assert!(takes("[{uri: {prefix: /a}}]", get("b", "/ab")), "a prefix is of bytes, not of segments");
    assert!(takes("[{uri: {regex: '/v[0-9]+/.*'}}]", get("b", "/v1/x?y")));
    assert!(!takes("[{uri: {regex: '/v[0-9]+'}}]", get("b", "/v1/x")), "the whole path must match");
    assert!(!takes("[{uri: {regex: '.*x=1'}}]", get("b", "/a?x=1")));
}

#[test]
fn case_counts_unless_told_otherwise() {
    assert!(!takes("[{uri: {exact: /Abc}}]", get("b", "/aBC")));
    assert!(takes("[{uri: {exact: /Abc}, ignoreUriCase: true}]", get("b", "/aBC")));
    assert!(takes("[{uri: {prefix: /Abc}, ignoreUriCase: true}]", get("b", "/aBCd")));
    assert!(!takes("[{uri: {regex: /Abc}, ignoreUriCase: true}]", get("b", "/abc")), "not for regex");
}

#[test]
fn scheme_method_and_authority() {
    assert!(takes("[{scheme: {exact: http}}]", get("b", "/")));
    assert!(!takes("[{scheme: {exact: https}}]", get("b", "/")));
    assert!(takes("[{method: {regex: 'GET|POST'}}]", get("b", "/")));
    assert!(!takes("[{method: {exact: get}}]", get("b", "/")), "methods are case-sensitive");
    assert!(takes("[{authority: {exact: 'b:80'}}]", get("b:80", "/")), "the authority as it was sent");
    assert!(!takes("[{authority: {exact: b}}]", get("b:80", "/")));
}

#[test]
fn headers() {
    let head = |name: &str, value: &str| get("b", "/").with(name, value);
    assert!(takes("[{headers: {x-user: {exact: jason}}}]", head("x-user", "jason")));
    assert!(!takes("[{headers: {x-user: {exact: jason}}}]", head("x-user", "Jason")));
    assert!(takes("[{headers: {X-User: {prefix: ja}}}]", head("x-user", "jason")), "names have no case");
    assert!(takes("[{headers: {x-user: {regex: 'j.*n'}}}]", head("x-user", "jason")));
    assert!(takes("[{headers: {x-user: {}}}]", head("x-user", "")), "an empty match is presence");
    assert!(!takes("[{headers: {x-user: {}}}]", get("b", "/")));
    let twice = get("b", "/").with("x-user", "a").with("x-user", "b");
    assert!(takes("[{headers: {x-user: {exact: 'a,b'}}}]", twice), "values are joined as Envoy does");
}

#[test]
fn without_headers() {
    let head = get("b", "/").with("x", "1");
    assert!(!takes("[{withoutHeaders: {x: {}}}]", head.clone()));
    assert!(takes("[{withoutHeaders: {y: {}}}]", head.clone()));
    assert!(!takes("[{withoutHeaders: {x: {exact: '1'}}}]", head.clone()));
    assert!(takes("[{withoutHeaders: {x: {exact: '2'}}}]", head));
    assert!(takes("[{withoutHeaders: {x: {exact: '2'}}}]", get("b", "/")));
}

#[test]
fn query_parameters() {
    assert!(takes("[{queryParams: {key: {exact: 'true'}}}]", get("b", "/?a=1&key=true")));
    assert!(!takes("[{queryParams: {key: {exact: 'true'}}}]", get("b", "/?key=false")));
    assert!(takes("[{queryParams: {key: {exact: ''}}}]", get("b", "/?key")));
    assert!(takes(
        "[{queryParams: {key: {regex: '\\\\d+'}}}]".replace("\\\\", "\\").as_str(),
        get("b", "/?key=12")
    ));
    assert!(!takes("[{queryParams: {key: {prefix: a}}}]", get("b", "/")));
}

#[test]
fn port_is_the_one_that_was_addressed() {
    assert!(takes("[{port: 80}]", get("b", "/")));
    assert!(takes("[{port: 8080}]", get("b:8080", "/")));
    assert!(!takes("[{port: 8080}]", get("b", "/")));
}

#[test]
fn the_calling_workload() {
    assert!(takes("[{sourceLabels: {app: caller}}]", get("b", "/")));
    assert!(!takes("[{sourceLabels: {app: other}}]", get("b", "/")));
    assert!(takes("[{sourceNamespace: default}]", get("b", "/")));
    assert!(!takes("[{sourceNamespace: other}]", get("b", "/")));
    assert!(takes("[{gateways: [mesh, ingress]}]", get("b", "/")));
    assert!(!takes("[{gateways: [ingress]}]", get("b", "/")));
}

#[test]
fn fields_are_and_blocks_are_or() {
    let and = "[{uri: {prefix: /a}, method: {exact: GET}}]";
    assert!(takes(and, get("b", "/a")));
    assert!(!takes(and, get("b", "/b")));
    let or = "[{uri: {exact: /a}}, {headers: {x: {exact: '1'}}}]";
    assert!(takes(or, get("b", "/a")));
    assert!(takes(or, get("b", "/b").with("x", "1")));
    assert!(!takes(or, get("b", "/b")));
}

#[test]
fn the_first_rule_that_matches_wins() {
    let rules = [("one", "[{uri: {prefix: /}}]"), ("two", "[{uri: {exact: /a}}]")];
    assert_eq!(first(&rules, &get("b", "/a")), "one");
    let rules = [
        ("never", "[{sourceNamespace: x}]"),
        ("one", "[{uri: {exact: /a}}]"),
        ("rest", "[{uri: {prefix: /}}]"),
    ];
    assert_eq!(first(&rules, &get("b", "/a")), "one");
    assert_eq!(first(&rules, &get("b", "/c")), "rest");
}

#[test]
fn a_rule_without_match_takes_everything_and_without_one_it_is_404() {
    let all =
        plan(&(service("b", 80) + &virtual_service("v", "[b]", "  - route: [{destination: {host: b}}]")));
    assert_eq!(rule(&all, &get("b", "/x")), "0", "a rule without a name is called by its position");
    let some = [("a", "[{uri: {exact: /a}}]")];
    assert_eq!(first(&some, &get("b", "/x")), "-");
}

#[test]
fn why_a_rule_does_not_match_is_told_in_order() {
    let rules = [
        ("a", "[{uri: {exact: /a}}]"),
        ("b", "[{method: {exact: POST}}, {headers: {x: {prefix: v}}}]"),
        ("c", "[{port: 99}, {queryParams: {q: {exact: '1'}}}, {withoutHeaders: {y: {}}}]"),
        ("d", "[{uri: {prefix: /}}]"),
        ("e", "[{uri: {prefix: /}}]"),
    ];
    let http: Vec<String> = rules
        .iter()
        .map(|(name, m)| format!("  - {{name: {name}, match: {m}, route: [{{destination: {{host: b}}}}]}}"))
        .collect();
    let plan = plan(&(service("b", 80) + &virtual_service("v", "[b]", &http.join("\n"))));
    let head = get("b", "/x?q=2").with("x", "w").with("y", "");
    let why = plan.why(&head, &Call::default(), &caller(80));
    assert_eq!(why["answer"]["name"], "default/v/d");
    assert_eq!(why["before"].as_array().map(Vec::len), Some(3));
    assert_eq!(why["before"][0]["why_not"][0], "the path is `/x`, not exactly `/a`");
    assert_eq!(why["before"][1]["why_not"][0], "the method is `GET`, not exactly `POST`");
    assert_eq!(why["before"][1]["why_not"][1], "the header x is `w`, not `v` at its start");
    assert_eq!(why["before"][2]["why_not"][0], "the port is 80, not 99");
    assert_eq!(why["before"][2]["why_not"][1], "the query parameter q is `2`, not exactly `1`");
    assert_eq!(why["before"][2]["why_not"][2], "the header y is there");
    let nowhere = plan.why(&get("nowhere", "/"), &Call::default(), &caller(80));
    assert_eq!(nowhere["answer"]["refused"], "no-route");
}
