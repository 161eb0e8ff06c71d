//! RateLimit documents: which calls each concerns, and what survives another plan.

use super::*;
use crate::call::Head;
use crate::rate_limit::Asking;

const RULES: &str = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: search}
spec: {hosts: [search.default.svc.cluster.local, a.example.com, b.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 10.0.0.1}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: search}
spec:
  hosts: [rules.example.com, more.example.com, '*.wide.example.com']
  http:
  - {name: fast, match: [{uri: {prefix: /fast}}], route: [{destination: {host: a.example.com}}]}
  - {match: [{uri: {prefix: /plan}}], route: [{destination: {host: plan.capability.mesh}}]}
  - {route: [{destination: {host: any.capability.mesh}, weight: 1}, {destination: {host: a.example.com}, weight: 1}]}
---
";

fn limit(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: pilotfish.dev/v1\nkind: RateLimit\nmetadata: {{name: {name}}}\nspec: {{limit: {{requests: 1, per: 1h, burst: 2}}, {spec}}}\n---\n"
    )
}

/// How many of five calls get through.
fn through(plan: &Plan, head: &TestHead, capabilities: &[&str]) -> u32 {
    let call =
        Call { capabilities: capabilities.iter().map(|name| (*name).into()).collect(), ..Call::default() };
    let port = crate::route::split_authority(head.authority()).1.unwrap_or(80);
    let matched = plan.route(head, &call, &caller(port)).unwrap();
    let limits = &matched.rule.resilience.limits;
    (0..5)
        .map(|_| u32::from(limits.admit(Micros(0), &Asking { head, call: &call, caller: None }).is_ok()))
        .sum()
}

fn with(spec: &str) -> Plan {
    plan(&(RULES.to_owned() + &limit("l", spec)))
}

#[test]
fn a_host_is_limited_under_all_its_names_and_no_other() {
    let plan = || with("targets: [{host: search}]");
    for name in ["search", "search.default", "SEARCH.default.svc.cluster.local:80"] {
        assert_eq!(through(&plan(), &get(name, "/"), &[]), 2, "{name}");
    }
    assert_eq!(through(&plan(), &get("a.example.com", "/"), &[]), 5);
    let wide = with("targets: [{host: '*.example.com'}]");
    assert_eq!(through(&wide, &get("a.example.com", "/"), &[]), 2);
    assert_eq!(through(&wide, &get("b.example.com", "/"), &[]), 0, "one bucket for all of them");
    assert_eq!(through(&wide, &get("x.wide.example.com", "/"), &[]), 0);
    assert_eq!(through(&wide, &get("search", "/"), &[]), 5);
}

#[test]
fn one_host_of_several_with_the_same_rules_is_limited_alone() {
    let plan = with("targets: [{host: more.example.com}, {host: x.wide.example.com}]");
    assert_eq!(through(&plan, &get("rules.example.com", "/fast"), &[]), 5);
    assert_eq!(through(&plan, &get("y.wide.example.com", "/fast"), &[]), 5);
    assert_eq!(through(&plan, &get("MORE.example.com.:80", "/fast"), &[]), 2);
    assert_eq!(through(&plan, &get("x.wide.example.com", "/fast"), &[]), 0);
}

#[test]
fn a_rule_is_limited_by_its_name_or_position() {
    let fast = with("targets: [{route: search/fast}]");
    assert_eq!(through(&fast, &get("rules.example.com", "/other"), &[]), 5);
    assert_eq!(through(&fast, &get("rules.example.com", "/fast"), &[]), 2);
    let second = with("targets: [{route: default/search/1}]");
    assert_eq!(through(&second, &get("rules.example.com", "/fast"), &[]), 5);
    assert_eq!(through(&second, &get("rules.example.com", "/plan"), &[]), 2);
    let all = with("targets: [{route: search}]");
    assert_eq!(through(&all, &get("rules.example.com", "/fast"), &[]), 2);
    assert_eq!(through(&all, &get("rules.example.com", "/plan"), &[]), 0);
    assert_eq!(
        through(&all, &get("a.example.com", "/"), &[]),
        5,
        "the ServiceEntry of that name has no rules"
    );
}

#[test]
fn a_capability_is_limited_however_it_is_asked_for() {
    let plan = || with("targets: [{capability: Plan}]");
    assert_eq!(through(&plan(), &get("plan.capability.mesh", "/"), &["plan"]), 2);
    assert_eq!(through(&plan(), &get("other.capability.mesh", "/"), &["other"]), 5);
    assert_eq!(through(&plan(), &get("nobody", "/"), &["x", "PLAN@^1.2"]), 2);
    assert_eq!(through(&plan(), &get("rules.example.com", "/plan"), &[]), 2, "its rule asks");
    assert_eq!(through(&plan(), &get("rules.example.com", "/"), &[]), 5);
    assert_eq!(through(&plan(), &get("rules.example.com", "/"), &["plan"]), 2);
    assert_eq!(
        through(&plan(), &get("a.example.com", "/"), &["plan"]),
        5,
        "a host's rule decides, not the header"
    );
}

#[test]
fn limits_are_for_their_namespace_and_workloads() {
    let count = |yaml: &str| plan(&(RULES.to_owned() + yaml)).rate_limits().len();
    let spec = "targets: [{host: search}]";
    assert_eq!(count(&limit("l", spec)), 1);
    assert_eq!(count(&limit("l, namespace: other", spec)), 0);
    assert_eq!(count(&limit("l, namespace: istio-system", spec)), 1);
    assert_eq!(count(&limit("l", &format!("{spec}, selector: {{matchLabels: {{app: caller}}}}"))), 1);
    assert_eq!(count(&limit("l", &format!("{spec}, selector: {{matchLabels: {{app: other}}}}"))), 0);
}

#[test]
fn inbound_limits_are_the_agents() {
    let plan = with("direction: inbound");
    assert_eq!(through(&plan, &get("search", "/"), &[]), 5);
    let admit = |plan: &Plan, capabilities: Vec<Box<str>>| {
        let call = Call { capabilities, ..Call::default() };
        let asking =
            Asking { head: &get("caller", "/"), call: &call, caller: Some("spiffe://d/ns/n/agent/a") };
        (0..5).filter(|_| plan.inbound_limits().admit(Micros(0), &asking).is_ok()).count()
    };
    assert_eq!(admit(&plan, Vec::new()), 2);
    let plan = with("direction: inbound, targets: [{capability: plan}]");
    assert_eq!(admit(&plan, Vec::new()), 5);
    assert_eq!(admit(&plan, vec!["plan".into()]), 2);
}

#[test]
fn what_was_spent_outlives_the_plan() {
    let state = State::with_seed(1);
    let now = Micros(0);
    let plan = |yaml: &str| {
        compile(&model(&(RULES.to_owned() + yaml)), &options(), &Resolved::default(), &state, now).unwrap()
    };
    let first = plan(&limit("l", "targets: [{host: search}]"));
    let head = get("search", "/");
    assert_eq!(through(&first, &head, &[]), 2);
    let more = limit("l", "targets: [{host: search}]").replace("burst: 2", "burst: 5");
    let second = plan(&more);
    assert_eq!(through(&second, &head, &[]), 0, "it does not serve yet");
    second.settle_limits(now);
    assert_eq!(through(&second, &head, &[]), 3);
    drop((first, second));
    assert_eq!(plan("").rate_limits().len(), 0);
    assert_eq!(
        through(&plan(&limit("l", "targets: [{host: search}]")), &head, &[]),
        2,
        "a document that went is forgotten"
    );
}

#[test]
fn without_a_control_plane_a_fleets_limit_is_each_sidecars() {
    let model = model(&(RULES.to_owned() + &limit("l", "targets: [{host: search}], fleet: true")));
    let alone = plan_of(&model, &CompileOptions { alone: true, ..options() });
    assert_eq!(through(&alone, &get("search", "/"), &[]), 2);
    assert!(alone.warnings().join("\n").contains("RateLimit default/l: there is no control plane"));
    let member = plan_of(&model, &options());
    assert_eq!(
        through(&member, &get("search", "/"), &[]),
        1,
        "a hundredth, at least one call, until it is told"
    );
    assert!(member.warnings().is_empty());
}
