//! Rewrites and redirects, as Envoy makes them.

use super::*;
use crate::call::test_head::{TestHead, caller};

fn matched(with: &str) -> PathRewrite {
    PathRewrite::Matched(with.into())
}

#[test]
fn a_prefix_is_replaced_and_the_rest_kept() {
    assert_eq!(matched("/v2").apply("/v1/users", 3).as_deref(), Some("/v2/users"));
    assert_eq!(matched("/").apply("/api/x", 4).as_deref(), Some("//x"), "as Istio: bytes, not segments");
    assert_eq!(matched("/").apply("/api/x", 5).as_deref(), Some("/x"));
    assert_eq!(matched("/whole").apply("/exact", 6).as_deref(), Some("/whole"));
    assert_eq!(PathRewrite::Keep.apply("/x", 1), None);
}

#[test]
fn a_path_always_starts_with_a_slash() {
    assert_eq!(matched("").apply("/api", 4).as_deref(), Some("/"));
    assert_eq!(matched("x").apply("/api", 4).as_deref(), Some("/x"));
}

#[test]
fn regex_rewrite_replaces_every_match_with_groups() {
    // Istio's own examples for uriRegexRewrite.
    let rewrite = |pattern: &str, with: &str, path: &str| {
        let regex = RegexRewrite { pattern: regex::Regex::new(pattern).unwrap(), replacement: with.into() };
        PathRewrite::Regex(Box::new(regex)).apply(path, 0).unwrap()
    };
    let swap = rewrite("^/service/([^/]+)(/.*)$", "${2}/instance/${1}", "/service/foo/v1/api");
    assert_eq!(swap, "/v1/api/instance/foo");
    assert_eq!(rewrite("one", "two", "/xxx/one/yyy/one/zzz"), "/xxx/two/yyy/two/zzz");
    assert_eq!(rewrite("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb"), "/aaa/yyy/bbb");
}

#[test]
fn redirects() {
    let head = TestHead::get("http", "shop.example:80", "/api/v1/cart?id=7");
    let base = Redirect {
        status: 301,
        scheme: None,
        authority: None,
        port: RedirectPort::Keep,
        path: RedirectPath::Keep,
    };
    let to = |change: &dyn Fn(&mut Redirect)| {
        let mut redirect = base.clone();
        change(&mut redirect);
        redirect.location(&head, &caller(80), 4)
    };
    assert_eq!(to(&|_| ()), "http://shop.example:80/api/v1/cart?id=7");
    assert_eq!(to(&|r| r.scheme = Some("https".into())), "https://shop.example/api/v1/cart?id=7");
    assert_eq!(to(&|r| r.port = RedirectPort::Number(8443)), "http://shop.example:8443/api/v1/cart?id=7");
    assert_eq!(to(&|r| r.port = RedirectPort::Request), "http://shop.example:80/api/v1/cart?id=7");
    assert_eq!(to(&|r| r.authority = Some("new".into())), "http://new/api/v1/cart?id=7");
    assert_eq!(to(&|r| r.path = RedirectPath::Whole("/x".into())), "http://shop.example:80/x?id=7");
    assert_eq!(to(&|r| r.path = RedirectPath::Whole("/x?y".into())), "http://shop.example:80/x?y");
    assert_eq!(
        to(&|r| r.path = RedirectPath::Matched("/new".into())),
        "http://shop.example:80/new/v1/cart?id=7"
    );
}
