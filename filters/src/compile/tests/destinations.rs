//! Where rules send requests, and what they change on the way.

use super::*;
use crate::headers::{HeaderEdit, HeaderMapMut};
use std::time::Duration;

fn with_rule(rule: &str) -> Plan {
    let subsets = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: b}\nspec:\n  \
                   host: b\n  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]\n";
    plan(&(service("b", 8080) + subsets + &virtual_service("v", "[web]", rule)))
}

#[test]
fn ports_and_subsets() {
    let to = |destination: &str| {
        targets(&with_rule(&format!("  - route: [{{destination: {destination}}}]")), &get("web", "/"))
    };
    assert_eq!(to("{host: b}"), ["b.default.svc.cluster.local:8080 1"]);
    assert_eq!(to("{host: b, port: {number: 8080}}"), ["b.default.svc.cluster.local:8080 1"]);
    assert_eq!(to("{host: b, subset: v1}"), ["b.default.svc.cluster.local:8080|v1 1"]);
    assert_eq!(to("{host: b.default}"), ["b.default.svc.cluster.local:8080 1"]);
    assert_eq!(to("{host: b, port: {number: 99}}"), ["no-cluster"]);
    assert_eq!(to("{host: nobody}"), ["no-cluster"]);
}

#[test]
fn an_unknown_destination_breaks_only_its_own_rule() {
    let plan = with_rule(
        "  - {match: [{uri: {prefix: /x}}], route: [{destination: {host: nobody}}]}\n  - route: [{destination: {host: b}}]",
    );
    assert_eq!(targets(&plan, &get("web", "/x")), ["no-cluster"]);
    assert_eq!(targets(&plan, &get("web", "/")), ["b.default.svc.cluster.local:8080 1"]);
    assert!(
        plan.warnings().iter().any(|w| w.contains("nobody.default.svc.cluster.local")),
        "{:?}",
        plan.warnings()
    );
}

#[test]
fn a_service_with_several_ports_is_reached_at_the_callers() {
    let two = service("b", 80).replace(
        "ports: [{number: 80, name: http, protocol: HTTP}]",
        "ports: [{number: 8080, name: http, protocol: HTTP}, {number: 9090, name: grpc, protocol: GRPC}]",
    );
    let plan = plan(&two);
    assert_eq!(targets(&plan, &get("b:8080", "/")), ["b.default.svc.cluster.local:8080 1"]);
    assert_eq!(targets(&plan, &get("b:9090", "/")), ["b.default.svc.cluster.local:9090 1"]);
    assert_eq!(targets(&plan, &get("b", "/")), ["b.default.svc.cluster.local:8080 1"], "no port: the first");
    assert_eq!(targets(&plan, &get("b:7070", "/")), ["no-cluster"]);
}

#[test]
fn weights_split_at_random_and_by_key() {
    let plan = with_rule(
        "  - route: [{destination: {host: b, subset: v1}, weight: 80}, {destination: {host: b, subset: v2}, weight: 20}]",
    );
    let matched = route(&plan, &get("web", "/")).unwrap();
    let Action::Forward(split) = &matched.rule.action else { panic!("{matched:?}") };
    let mut rng = fastrand::Rng::with_seed(1);
    let mut share = |key: &dyn Fn(u64) -> Option<u64>| {
        (0..10_000).filter(|at| split.choose(key(*at), &mut rng).weight == 80).count()
    };
    assert!((7_800..8_200).contains(&share(&|_| None)));
    assert!((7_800..8_200).contains(&share(&Some)));
    assert!([0, 10_000].contains(&share(&|_| Some(5))), "one key, one destination");
}

#[test]
fn timeout_is_off_unless_written() {
    let timeout = |rule: &str| route(&with_rule(rule), &get("web", "/")).unwrap().rule.timeout;
    assert_eq!(
        timeout("  - {route: [{destination: {host: b}}], timeout: 1.5s}"),
        Some(Duration::from_millis(1500))
    );
    assert_eq!(timeout("  - route: [{destination: {host: b}}]"), None);
}

#[test]
fn rewrites() {
    let path = |rule: &str, target: &str| {
        let plan = with_rule(&format!("  - {{{rule}, route: [{{destination: {{host: b}}}}]}}"));
        let head = get("web", target);
        let matched = route(&plan, &head).unwrap();
        let path = crate::call::Head::path(&head).to_owned();
        (matched.rewritten_path(&path), matched.rewritten_authority().map(str::to_owned))
    };
    let some = |path: &str| (Some(path.to_owned()), None);
    assert_eq!(
        path("match: [{uri: {prefix: /api}}], rewrite: {uri: /v2}", "/api/users?x=1"),
        some("/v2/users")
    );
    assert_eq!(path("match: [{uri: {exact: /api}}], rewrite: {uri: /v2}", "/api"), some("/v2"));
    assert_eq!(path("match: [{uri: {regex: '/a.*'}}], rewrite: {uri: /v2}", "/api/x"), some("/v2"));
    assert_eq!(path("rewrite: {uri: /v2/}", "/api"), some("/v2/api"), "no match is the prefix /");
    assert_eq!(
        path("match: [{uri: {prefix: /a/}}, {uri: {prefix: /}}], rewrite: {uri: /r/}", "/a/x"),
        some("/r/x"),
        "the block that matched counts"
    );
    assert_eq!(
        path("rewrite: {uriRegexRewrite: {match: '^/s/([^/]+)(/.*)$', rewrite: '\\2/i/\\1'}}", "/s/foo/v1"),
        some("/v1/i/foo")
    );
    assert_eq!(path("rewrite: {authority: other.org}", "/x"), (None, Some("other.org".into())));
}

#[test]
fn redirects_and_fixed_answers() {
    let plan = with_rule(
        "  - {match: [{uri: {prefix: /old}}], redirect: {uri: /new, authority: n.org, redirectCode: 302}}\n  \
         - {match: [{uri: {prefix: /p}}], redirect: {scheme: https, port: 8443}}\n  \
         - {directResponse: {status: 503, body: {string: gone}}, headers: {response: {set: {content-type: text/x}}}}",
    );
    let location = |target: &str| {
        let head = get("web", target);
        let matched = route(&plan, &head).unwrap();
        let Action::Redirect(redirect) = &matched.rule.action else { panic!("{matched:?}") };
        (redirect.status, matched.location(redirect, &head, &caller(80)))
    };
    assert_eq!(location("/old/x?q=1"), (302, "http://n.org/new?q=1".into()));
    assert_eq!(location("/p/x"), (301, "https://web:8443/p/x".into()));
    let matched = route(&plan, &get("web", "/")).unwrap();
    let Action::Respond(response) = &matched.rule.action else { panic!("{matched:?}") };
    assert_eq!((response.status, &*response.body), (503, &b"gone"[..]));
    let edits: Vec<_> = matched.rule.edits.response.iter().collect();
    assert_eq!(edits, [&HeaderEdit::Set("content-type".into(), b"text/x"[..].into())]);
}

#[derive(Default)]
struct Log(Vec<String>);

impl HeaderMapMut for Log {
    fn set(&mut self, name: &str, value: &[u8]) {
        self.0.push(format!("set {name}={}", String::from_utf8_lossy(value)));
    }
    fn append(&mut self, name: &str, value: &[u8]) {
        self.0.push(format!("add {name}={}", String::from_utf8_lossy(value)));
    }
    fn remove(&mut self, name: &str) {
        self.0.push(format!("remove {name}"));
    }
}

#[test]
fn header_edits_at_both_levels() {
    let edits = "headers: {request: {set: {X-A: r}, add: {x-b: r}, remove: [X-C]}}";
    let own = "headers: {request: {set: {x-a: d}}, response: {remove: [server]}}";
    let one = with_rule(&format!("  - {{{edits}, route: [{{destination: {{host: b}}, {own}}}]}}"));
    let mut log = Log::default();
    let rule = route(&one, &get("web", "/")).unwrap().rule;
    rule.edits.request.apply(&mut log);
    assert_eq!(
        log.0,
        ["remove x-c", "set x-a=r", "set x-a=d", "add x-b=r"],
        "a single destination's come after"
    );
    assert_eq!(rule.edits.response.iter().next(), Some(&HeaderEdit::Remove("server".into())));
    let two = with_rule(&format!(
        "  - {{{edits}, route: [{{destination: {{host: b}}, weight: 1, {own}}}, {{destination: {{host: b, subset: v1}}, weight: 1}}]}}"
    ));
    let Action::Forward(split) = &route(&two, &get("web", "/")).unwrap().rule.action else { panic!() };
    assert_eq!(split.destinations()[0].edits.request.iter().count(), 1);
    assert!(split.destinations()[1].edits.is_empty());
}

#[test]
fn delegates_are_part_of_their_root() {
    let delegate = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: d}\nspec:\n  http:\n  \
                    - {name: sub, match: [{uri: {prefix: /a/b}}], route: [{destination: {host: b}}]}\n";
    let root = "  - {name: top, match: [{uri: {prefix: /a}}], delegate: {name: d}}";
    let plan = plan(&(service("b", 80) + delegate + &virtual_service("v", "[web]", root)));
    assert_eq!(targets(&plan, &get("web", "/a/b/c")), ["b.default.svc.cluster.local:80 1"]);
    assert_eq!(rule(&plan, &get("web", "/a/x")), "-");
}

#[test]
fn outbound_policy_and_named_addresses() {
    let sidecar = "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default}\nspec:\n  \
                   outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n";
    let named = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: n}\nspec:\n  hosts: [n.test]\n  \
                 addresses: [127.0.0.1]\n  resolution: STATIC\n  ports: [{number: 8080, name: http}]\n  \
                 endpoints: [{address: 127.0.0.2}]\n";
    let strict = plan(&(service("b", 8080) + sidecar + named));
    assert_eq!(strict.egress().mode(), OutboundMode::RegistryOnly);
    assert_eq!(plan("").egress().mode(), OutboundMode::AllowAny);
    assert!(strict.egress().names(([127, 0, 0, 1], 8080).into()));
    assert!(!strict.egress().names(([127, 0, 0, 1], 22).into()));
    assert!(!strict.egress().names(([127, 0, 0, 2], 8080).into()), "an endpoint is reached by its host");
}

#[test]
fn names_that_have_to_be_looked_up() {
    let dns = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: d}\nspec:\n  \
               hosts: [api.example.com]\n  resolution: DNS\n  ports: [{number: 80, name: http, protocol: HTTP}]\n";
    let model = model(dns);
    let mut resolved = Resolved::default();
    resolved.insert("api.example.com".into(), vec![[10, 0, 0, 1].into()]);
    let plan = compile(&model, &options(), &resolved, &State::with_seed(1), Micros(0)).unwrap();
    assert_eq!(plan.dns_names(), ["api.example.com".into()]);
    let endpoints: Vec<_> = plan.clusters()[0].endpoints().iter().map(|e| e.addr.to_string()).collect();
    assert_eq!(endpoints, ["10.0.0.1:80"]);
}

#[test]
fn the_plan_describes_itself() {
    let text =
        with_rule("  - {name: r, route: [{destination: {host: b, subset: v1}}]}").describe().to_string();
    for part in ["default/v/r", "b.default.svc.cluster.local:8080|v1", "web.default", "AllowAny"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
