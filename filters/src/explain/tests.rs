//! Explanations agree with what the plan does.

use pilotfish_config::{Options, load_texts};

use super::*;
use crate::compile::{CompileOptions, Resolved, compile};
use crate::state::State;

const MESH: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [api]
  http:
  - {name: post, match: [{method: {exact: POST}}], redirect: {uri: /other}}
  - {name: far, match: [{uri: {prefix: /far}}], route: [{destination: {host: nowhere}}]}
  - {name: able, match: [{uri: {prefix: /able}}], route: [{destination: {host: nlu.capability.mesh}}]}
  - name: rest
    timeout: 3s
    route:
    - {destination: {host: svc}, weight: 90}
    - {destination: {host: svc, subset: v2}, weight: 10}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: svc}
spec:
  host: svc
  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}
  subsets: [{name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: svc}
spec:
  hosts: [svc]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
  - {address: 10.0.0.1, labels: {pilotfish.dev/agent: one}}
  - {address: 10.0.0.2, weight: 5, labels: {pilotfish.dev/agent: two, version: v2}}
---
apiVersion: pilotfish.dev/v1
kind: AgentCluster
metadata: {name: agents}
spec:
  agents: [{name: one, capabilities: [nlu]}, {name: two, capabilities: [search]}]
";

const NOW: Micros = Micros(1_000_000);

fn plan(extra: &str) -> Plan {
    let loaded = load_texts(&[("mesh.yaml", &format!("{MESH}{extra}"))], &Options::default());
    let model = loaded.model.unwrap_or_else(|| panic!("{}", loaded.report));
    let options = CompileOptions { namespace: "default".into(), ..CompileOptions::default() };
    compile(&model, &options, &Resolved::default(), &State::with_seed(1), NOW).unwrap()
}

fn explained(method: &str, url: &str, headers: &[(&str, &str)]) -> Explanation {
    let asked = Asked::new(method, url).unwrap();
    let asked = headers.iter().fold(asked, |asked, (name, value)| asked.header(name, value));
    explain(&plan(""), &asked, NOW)
}

#[test]
fn the_rule_the_shares_and_the_endpoints_are_told() {
    let told = explained("GET", "http://api/x?q=1", &[]);
    let text = told.lines.join("\n");
    assert_eq!(told.rule.as_deref(), Some("default/v/rest"));
    assert_eq!(told.cluster.as_deref(), Some("svc.default.svc.cluster.local:80"));
    for part in [
        "not the rule default/v/post: the method is `GET`, not exactly `POST`",
        "not the rule default/v/far: the path is `/x`, not `/far` at its start",
        "its time limit is 3s",
        "90 % go to svc.default.svc.cluster.local:80",
        "svc.default.svc.cluster.local:80 has 2 endpoints",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(told.candidates.len(), 2);
    assert!(told.candidates.iter().any(|c| c.0 == "two at 10.0.0.2:80" && c.1.contains("weight 5")));
    assert_eq!(told.refused, None);
}

#[test]
fn a_conversation_is_told_its_own_endpoint() {
    let plan = plan("");
    for user in ["anna", "ben", "carl", "dora", "emil"] {
        let asked = Asked::new("GET", "api/x").unwrap().header("X-User", user);
        let told = explain(&plan, &asked, NOW);
        let call = asked.call();
        let rule = plan.route(&asked, &call, &asked.caller()).unwrap().rule;
        let Action::Forward(split) = &rule.action else { panic!("{rule:?}") };
        let mut rng = fastrand::Rng::with_seed(9);
        let key =
            affinity::key(rule.affinity.as_ref().unwrap(), &asked, &call, &asked.caller(), &mut rng).hash;
        let Ok(Some(id)) = split.choose(key, &mut rng).target.cluster(80) else { panic!("no cluster") };
        let lease = plan
            .cluster(id)
            .pick(&Pick { key, now: NOW, tried: &[], remote: false, compared: None }, &mut rng)
            .unwrap();
        assert!(told.candidates[0].0.ends_with(&lease.endpoint().addr.to_string()), "{user}: {told:?}");
    }
}

#[test]
fn capabilities_are_judged_one_by_one() {
    let told = explained("GET", "api/able", &[]);
    assert_eq!((told.candidates[0].0.as_str(), told.refused), ("one at 10.0.0.1:80", None));
    assert!(told.candidates[1].1.contains("lacks the capability `nlu`"), "{:?}", told.candidates);
    assert!(told.lines.contains(&"1 of 2 candidates qualify".to_owned()));
    let nobody = explained("GET", "any.capability.mesh/", &[("Agent-Capability", "translate")]);
    assert_eq!(nobody.refused.as_deref(), Some("nobody-qualifies"));
    assert_eq!(nobody.candidates.len(), 2);
    let bad =
        explained("GET", "nlu.capability.mesh/", &[("agent-capability", "nlu"), ("agent-constraint", "a~b")]);
    assert_eq!(bad.refused.as_deref(), Some("bad-constraint"));
}

#[test]
fn answers_and_refusals_are_told() {
    assert!(explained("POST", "api/", &[]).lines.concat().contains("answered with 301 to "));
    let nowhere = explained("GET", "api/far", &[]);
    assert_eq!(
        (nowhere.rule.as_deref(), nowhere.refused.as_deref()),
        (Some("default/v/far"), Some("no-cluster"))
    );
    let unknown = explained("GET", "https://who.example/x", &[]);
    assert!(unknown.lines.concat().contains("no rule and no service is for who.example"), "{unknown:?}");
    assert_eq!(unknown.refused, None);
    let closed = plan(
        "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s}\nspec: {outboundTrafficPolicy: {mode: \
         REGISTRY_ONLY}}\n",
    );
    let refused = explain(&closed, &Asked::new("GET", "who.example").unwrap(), NOW);
    assert_eq!(refused.refused.as_deref(), Some("no-route"));
}

#[test]
fn urls_that_are_none_are_refused() {
    for (method, url) in
        [("GET", ""), ("GET", "/x"), ("GET", "ftp://a/"), ("", "a"), ("G T", "a"), ("GET", "http://")]
    {
        assert!(Asked::new(method, url).is_err(), "{method} {url}");
    }
    let asked = Asked::new("GET", "HTTP://a:81?x=1#f").unwrap();
    assert_eq!((asked.authority(), asked.path(), asked.query()), ("a:81", "/", Some("x=1")));
    assert_eq!(asked.caller().port, 81);
    assert_eq!(Asked::new("GET", "https://a").unwrap().caller().port, 443);
}

#[test]
fn a_body_says_which_conversation_it_is() {
    let body = "{\"jsonrpc\":\"2.0\",\"params\":{\"message\":{\"contextId\":\"c1\"}},\"user\":\"anna\"}";
    let call = Asked::new("POST", "a").unwrap().body(Some(body.into())).call();
    assert_eq!((call.context_id.as_deref(), call.user.as_deref()), (Some("c1"), Some("anna")));
    assert_eq!(Asked::new("POST", "a").unwrap().body(Some("{".into())).call().user, None);
}
