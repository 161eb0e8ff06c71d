//! Rules and capabilities together.

use super::*;
use crate::plan::CapabilityTarget;

/// Two agents with capabilities, one of them with a GPU.
fn agents() -> String {
    let cluster = "apiVersion: v1\nkind: AgentCluster\nmetadata: {name: c}\nspec:\n  agents:\n  \
                   - {name: alpha, replicas: 1, capabilities: [nlu, search]}\n  - {name: beta, replicas: 1, capabilities: [nlu]}\n";
    let agent = |name: &str, port: u16, label: &str| {
        service(name, port).replace(
            "labels: {version: v1}",
            &format!("labels: {{pilotfish.dev/agent: {name}, gpu: {label}}}"),
        )
    };
    cluster.to_owned() + &agent("alpha", 7001, "none") + &agent("beta", 7002, "h100")
}

fn asking(names: &[&str], constraint: Option<&str>) -> Call {
    Call {
        capabilities: names.iter().map(|name| (*name).into()).collect(),
        constraint: constraint.map(Into::into),
        ..Call::default()
    }
}

fn target<'p>(matched: &Matched<'p>) -> &'p CapabilityTarget {
    match &matched.rule.action {
        Action::Forward(split) => match &split.destinations()[0].target {
            Target::Capability(target) => target,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// The agents that a request may go to.
fn able(plan: &Plan, authority: &str, call: &Call) -> Vec<String> {
    let head = get(authority, "/");
    let matched = plan.route(&head, call, &caller(80)).unwrap();
    let demand = target(&matched).demand(call).unwrap();
    let able = plan.catalogue().candidates(&demand, Micros(0)).unwrap();
    able.iter().map(|c| c.endpoint.agent.as_deref().unwrap_or_default().to_owned()).collect()
}

#[test]
fn by_host_and_by_header() {
    let plan = plan(&agents());
    assert_eq!(able(&plan, "nlu.capability.mesh", &asking(&["nlu"], None)), ["alpha", "beta"]);
    assert_eq!(able(&plan, "anything", &asking(&["nlu", "search"], None)), ["alpha"]);
    assert_eq!(able(&plan, "127.0.0.1:15001", &asking(&["nlu"], Some("gpu=h100"))), ["beta"]);
    let deny = plan.route(&get("anything", "/"), &asking(&[], None), &caller(80)).unwrap_err();
    assert_eq!(deny.reason, Reason::NoRoute);
}

#[test]
fn a_host_with_rules_of_its_own_keeps_them() {
    let plan = plan(&agents());
    let matched = plan.route(&get("alpha", "/"), &asking(&["nlu"], None), &caller(80)).unwrap();
    assert_eq!(&*matched.rule.name, "default/alpha/default");
}

#[test]
fn a_rule_may_match_on_the_header_and_go_to_a_capability() {
    let rules = "  - {match: [{headers: {agent-capability: {exact: old}}}], route: [{destination: {host: search.capability.mesh}}]}\n  \
                 - {timeout: 3s, route: [{destination: {host: nlu.capability.mesh, subset: gpu}}]}";
    let subset = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: n}\nspec:\n  \
                  host: nlu.capability.mesh\n  subsets: [{name: gpu, labels: {gpu: h100}}]\n  \
                  trafficPolicy: {connectionPool: {http: {http2MaxRequests: 7}}}\n";
    let plan = plan(&(agents() + subset + &virtual_service("v", "[ask, nlu.capability.mesh]", rules)));
    let ask = |call: &Call| {
        let head =
            call.capabilities.iter().fold(get("ask", "/"), |head, name| head.with("agent-capability", name));
        let matched = plan.route(&head, call, &caller(80)).unwrap();
        let demand = target(&matched).demand(call).unwrap();
        let able = plan.catalogue().candidates(&demand, Micros(0)).unwrap();
        able.iter().map(|c| c.endpoint.agent.as_deref().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ask(&asking(&["old"], None)), ["alpha"], "the rule's capability, not the caller's");
    assert_eq!(ask(&asking(&[], None)), ["beta"]);
    let matched = plan.route(&get("nlu.capability.mesh", "/"), &asking(&["nlu"], None), &caller(80)).unwrap();
    assert_eq!(matched.rule.timeout, Some(std::time::Duration::from_secs(3)));
    let settings = target(&matched).settings.map(|id| plan.cluster(id).settings.max_requests);
    assert_eq!(settings, Some(Some(7)));
}

#[test]
fn what_the_caller_asks_besides_the_rules_capability_counts() {
    let rules = "  - route: [{destination: {host: nlu.capability.mesh}}]";
    let plan = plan(&(agents() + &virtual_service("v", "[nlu.capability.mesh]", rules)));
    assert_eq!(able(&plan, "nlu.capability.mesh", &asking(&["nlu", "search"], None)), ["alpha"]);
}

#[test]
fn a_destination_rule_alone_is_enough_for_affinity() {
    let hashed = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: n}\nspec:\n  \
                  host: nlu.capability.mesh\n  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-conversation}}}\n";
    let plan = plan(&(agents() + hashed));
    let matched = plan.route(&get("nlu.capability.mesh", "/"), &asking(&["nlu"], None), &caller(80)).unwrap();
    assert!(matched.rule.affinity.is_some());
    assert_eq!(able(&plan, "nlu.capability.mesh", &asking(&["nlu"], None)), ["alpha", "beta"]);
}

#[test]
fn settings_for_every_capability() {
    let all = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: n}\nspec:\n  \
               host: '*.capability.mesh'\n  trafficPolicy:\n    connectionPool: {http: {http2MaxRequests: 7}}\n    \
               loadBalancer: {consistentHash: {httpHeaderName: x-conversation}}\n";
    let rules = "  - route: [{destination: {host: search.capability.mesh}}]";
    let plan = plan(&(agents() + all + &virtual_service("v", "[ask]", rules)));
    for (host, call) in [
        ("nlu.capability.mesh", asking(&["nlu"], None)),
        ("x", asking(&["nlu"], None)),
        ("ask", asking(&[], None)),
    ] {
        let matched = plan.route(&get(host, "/"), &call, &caller(80)).unwrap();
        let settings = target(&matched).settings.map(|id| plan.cluster(id).settings.max_requests);
        assert_eq!(settings, Some(Some(7)), "{host}");
        assert!(matched.rule.affinity.is_some(), "{host}");
    }
}

#[test]
fn only_what_needs_the_body_peeks_into_it() {
    let by = |host: &str, affinity: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: d\n  \
             annotations: {{pilotfish.dev/affinity: {affinity}}}\nspec:\n  host: '{host}'\n"
        )
    };
    let none = plan(&agents());
    assert!(!none.peeks_body("alpha") && !none.peeks_body("nlu.capability.mesh"));
    let one = plan(&(agents() + &by("alpha", "contextId")));
    assert!(one.peeks_body("alpha:80") && !one.peeks_body("beta") && !one.peeks_body("nlu.capability.mesh"));
    let every = plan(&(agents() + &by("*.capability.mesh", "user")));
    assert!(!every.peeks_body("alpha") && every.peeks_body("nlu.capability.mesh") && every.peeks_body("x"));
}
