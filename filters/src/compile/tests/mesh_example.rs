//! The project's first example, applied as it is: Istio would leave it dead.

use super::*;
use crate::affinity::{HashPolicy, key};

const EXAMPLE: &str = r#"
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: agent-communication-mesh
spec:
  hosts:
  - agent-communication
  http:
  - match:
    - headers:
        agent-type:
          exact: nlp-agent
    route:
    - destination:
        host: nlp-agent-service
        subset: v1
      weight: 80
    - destination:
        host: nlp-agent-service
        subset: v2
      weight: 20
    timeout: 30s
    retries:
      attempts: 3
      perTryTimeout: 10s

  - match:
    - headers:
        communication-pattern:
          exact: streaming
    route:
    - destination:
        host: streaming-agent-service
    websocketUpgrade: true
    timeout: 300s

---
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata:
  name: agent-load-balancing
spec:
  host: agent-communication
  trafficPolicy:
    loadBalancer:
      consistentHash:
        httpHeaderName: "agent-affinity-key"
  subsets:
  - name: gpu-agents
    labels:
      resource-type: gpu
    trafficPolicy:
      connectionPool:
        tcp:
          maxConnections: 50
        http:
          http1MaxPendingRequests: 100
          maxRequestsPerConnection: 10
"#;

fn endpoints() -> String {
    let nlp = service("nlp-agent-service", 8080).replace(
        "endpoints: [{address: 127.0.0.1, labels: {version: v1}}]",
        "endpoints:\n  - {address: 127.0.0.1, labels: {version: v1}}\n  - {address: 127.0.0.2, labels: {version: v2}}\n  \
         - {address: 127.0.0.3, labels: {version: v2}}",
    );
    nlp + &service("streaming-agent-service", 8081)
}

#[test]
fn it_routes_splits_and_hashes() {
    let plan = plan(&(EXAMPLE.to_owned() + &endpoints()));
    let nlp = get("agent-communication", "/").with("agent-type", "nlp-agent");
    assert_eq!(
        targets(&plan, &nlp),
        [
            "nlp-agent-service.default.svc.cluster.local:8080|v1 80",
            "nlp-agent-service.default.svc.cluster.local:8080|v2 20"
        ]
    );
    let stream = get("agent-communication", "/").with("communication-pattern", "streaming");
    assert_eq!(targets(&plan, &stream), ["streaming-agent-service.default.svc.cluster.local:8081 1"]);
    assert_eq!(rule(&plan, &get("agent-communication", "/")), "-");
    let matched = route(&plan, &nlp).unwrap();
    assert_eq!(&*matched.rule.name, "default/agent-communication-mesh/0");
    assert_eq!(matched.rule.timeout, Some(std::time::Duration::from_secs(30)));
    let affinity = matched.rule.affinity.as_ref().unwrap();
    assert_eq!(*affinity.policies, [HashPolicy::Header("agent-affinity-key".into())]);
}

#[test]
fn a_conversation_stays_in_one_subset_and_keys_split_eighty_to_twenty() {
    let plan = plan(&(EXAMPLE.to_owned() + &endpoints()));
    let mut rng = fastrand::Rng::with_seed(1);
    let mut first = 0;
    for conversation in 0..5_000 {
        let head = get("agent-communication", "/")
            .with("agent-type", "nlp-agent")
            .with("agent-affinity-key", &format!("conversation-{conversation}"));
        let rule = route(&plan, &head).unwrap().rule;
        let Action::Forward(split) = &rule.action else { panic!("{rule:?}") };
        let mut choose = || {
            let key = key(rule.affinity.as_ref().unwrap(), &head, &Call::default(), &caller(80), &mut rng);
            split.choose(key.hash, &mut rng).weight
        };
        let weight = choose();
        assert!((0..3).all(|_| choose() == weight));
        first += usize::from(weight == 80);
    }
    assert!((3_850..4_150).contains(&first), "{first} of 5,000");
}
