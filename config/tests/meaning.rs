//! What documents mean: defaults, names, merged delegates and policies.

use std::time::Duration;

use pilotfish_config::model::{
    Action, Affinity, Algorithm, Capability, HashKey, HashTable, OutboundMode, PathRewrite, ProbeMethod,
    Redirect, StringMap, StringMatch,
};
use pilotfish_config::{Options, load_texts};

use super::{load, model};

/// Every example in one model would clash; these are read alone.
fn example(name: &str) -> pilotfish_config::Model {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    model(&std::fs::read_to_string(file).unwrap())
}

#[test]
fn names_resolve_and_defaults_apply() {
    let model = example("route.yaml");
    let service = &model.virtual_services[0];
    assert_eq!(service.hosts[0].as_str(), "planner.default.svc.cluster.local");
    assert_eq!(service.gateways, ["mesh"]);
    assert!(service.is_for_mesh());
    let Action::Route(route) = &service.http[0].action else { panic!() };
    assert_eq!(route[0].weight, 1);
    assert_eq!(service.http[0].timeout, None);
    let entry = model.service("planner.default.svc.cluster.local", "default").unwrap();
    let port = entry.port(None).unwrap();
    assert_eq!(entry.endpoint_port(&entry.endpoints[1], port), 9002);
    assert_eq!(model.destination_rule("planner.default.svc.cluster.local", "default").map(|_| ()), None);
}

#[test]
fn a_namespace_from_the_caller_or_the_document_is_where_short_names_live() {
    let text = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: a}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: prod}
spec: {host: a}
";
    let options = Options { default_namespace: "team".into(), ..Options::default() };
    let model = load_texts(&[("x", text)], &options).model.unwrap();
    let hosts: Vec<&str> = model.destination_rules.iter().map(|rule| rule.host.as_str()).collect();
    assert_eq!(hosts, ["a.team.svc.cluster.local", "a.prod.svc.cluster.local"]);
}

#[test]
fn delegates_are_merged_into_their_root() {
    let model = example("delegate.yaml");
    let root = &model.virtual_services[0];
    let names: Vec<_> = root.http.iter().map(|route| route.name.as_deref().unwrap_or_default()).collect();
    assert_eq!(names, ["search-vector", "search-other", "everything-else"]);
    assert_eq!(root.http[0].matches[0].uri, Some(StringMatch::Prefix("/search/vector".into())));
    assert_eq!(root.http[1].matches[0].uri, Some(StringMatch::Prefix("/search".into())));
    assert_eq!(root.http[0].timeout, Some(Duration::from_secs(5)));
    assert!(model.virtual_services[1].hosts.is_empty());
}

#[test]
fn matches_are_typed() {
    let model = example("match-request.yaml");
    let first = &model.virtual_services[0].http[0];
    assert_eq!(first.matches[0].headers[1], ("agent-id".to_owned(), StringMatch::Presence));
    assert_eq!(first.matches[0].without_headers[0].0, "agent-debug");
    let Some(StringMatch::Regex(pattern)) = &model.virtual_services[0].http[1].matches[0].method else {
        panic!()
    };
    assert!(pattern.is_match(b"PUT") && !pattern.is_match(b"PUTS"));
    let caller = &example("match-caller.yaml").virtual_services[0].http[0].matches[0];
    assert_eq!((caller.port, caller.source_namespace.as_deref()), (Some(80), Some("default")));
}

#[test]
fn redirects_rewrites_and_answers_are_typed() {
    let model = example("redirect.yaml");
    let Action::Redirect(Redirect { path, status, .. }) = &model.virtual_services[0].http[1].action else {
        panic!()
    };
    assert_eq!((path.clone(), *status), (Some(PathRewrite::Prefix("/v2/".into())), 301));
    let model = example("direct-response.yaml");
    let Action::DirectResponse(answer) = &model.virtual_services[0].http[1].action else { panic!() };
    assert!(answer.body.starts_with(b"GIF89a"));
    let model = example("rewrite.yaml");
    let rewrite = model.virtual_services[0].http[1].rewrite.as_ref().unwrap().uri_regex.as_ref().unwrap();
    let path = rewrite.pattern.replace("/users/ada/tools/search", rewrite.replacement.as_str());
    assert_eq!(path, "/tools/search/of/ada");
    let model = example("headers.yaml");
    let Action::Route(route) = &model.virtual_services[0].http[0].action else { panic!() };
    assert_eq!(route[1].headers.request.set[1], (":authority".to_owned(), "nlp-canary".to_owned()));
    assert_eq!(route[1].headers.response.add[1], ("x-load".to_owned(), "50%".to_owned()));
}

#[test]
fn policies_of_subsets_and_ports_are_merged_as_istio_does() {
    let model = example("load-balancer-simple.yaml");
    let rule = &model.destination_rules[0];
    let algorithm = |subset| rule.effective_policy(subset, 80).load_balancer.unwrap().algorithm;
    assert_eq!(algorithm(None), Algorithm::LeastRequest);
    assert_eq!(algorithm(Some("v1")), Algorithm::RoundRobin);
    let model = example("connection-pool.yaml");
    let rule = &model.destination_rules[0];
    let pool = rule.effective_policy(None, 8080).connection_pool.unwrap();
    assert_eq!((pool.tcp.max_connections, pool.http.http2_max_requests), (50, 200));
    // Settings for a port replace, they do not merge.
    let pool = rule.effective_policy(None, 80).connection_pool.unwrap();
    assert_eq!((pool.tcp.max_connections, pool.http.http2_max_requests), (u32::MAX, 20));
    assert_eq!(pool.tcp.connect_timeout, None);
}

#[test]
fn annotations_change_the_load_balancer() {
    let hash = |name: &str| {
        let model = example(name);
        match model.destination_rules[0].policy.load_balancer.clone().unwrap().algorithm {
            Algorithm::ConsistentHash(hash) => hash,
            other => panic!("{other:?}"),
        }
    };
    let header = hash("hash-header.yaml");
    assert_eq!(header.key, HashKey::Header("agent-affinity-key".into()));
    assert_eq!((header.balance_factor, header.table), (Some(1.25), HashTable::Ring { minimum_size: 4096 }));
    assert_eq!(hash("hash-source-ip-maglev.yaml").table, HashTable::Maglev { size: 65_537 });
    assert_eq!(hash("affinity-context.yaml").key, HashKey::Affinity(Affinity::ContextId));
    assert_eq!(hash("affinity-session.yaml").key, HashKey::Affinity(Affinity::Session));
    let ewma = example("load-balancer-peak-ewma.yaml").destination_rules[0].policy.load_balancer.clone();
    assert_eq!(ewma.unwrap().algorithm, Algorithm::PeakEwma);
}

#[test]
fn agents_have_capabilities_and_endpoints_have_agents() {
    let model = example("agent-cluster.yaml");
    let service = model.service("language.default.svc.cluster.local", "default").unwrap();
    let workload = model.workloads_of(service).next().unwrap();
    assert!(workload.mesh);
    let capabilities = model.capabilities("default", workload);
    assert_eq!(capabilities[0].name, "translation");
    assert_eq!(capabilities[1].version, Some(semver::Version::new(1, 4, 0)));
    let selected = example("workload-entry.yaml");
    let service = selected.service("reviewer.default.svc.cluster.local", "default").unwrap();
    let weights: Vec<_> = selected.workloads_of(service).map(|w| (w.weight, w.mesh)).collect();
    assert_eq!(weights, [(2, false), (1, true)]);
    let outbound = example("sidecar-outbound.yaml").outbound_mode("default", &Default::default());
    assert_eq!(outbound, Some(OutboundMode::RegistryOnly));
}

#[test]
fn strict_istio_leaves_dead_what_istio_leaves_dead() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/agent-service-mesh.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let options = Options { strict_istio: true, ..Options::default() };
    let loaded = load_texts(&[("x", &text)], &options);
    let report = loaded.report.to_string();
    assert!(report.contains("the route is dead") && report.contains("nothing uses this rule"), "{report}");
    let model = loaded.model.unwrap();
    assert!(model.destination_rule("nlp-agent-service.default.svc.cluster.local", "default").is_none());
    let lenient = load(&text).model.unwrap();
    assert!(lenient.destination_rule("nlp-agent-service.default.svc.cluster.local", "default").is_some());
}

#[test]
fn an_http2_error_is_an_addition_of_ours() {
    let text = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a.test]
  http:
  - fault: {abort: {percentage: {value: 100}, http2Error: CANCEL}}
    route: [{destination: {host: a.test}}]
";
    let fault = load(text).model.unwrap().virtual_services[0].http[0].fault.clone().unwrap();
    assert_eq!(fault.abort, Some((100.0, pilotfish_config::model::Abort::Http2(8))));
    let options = Options { strict_istio: true, ..Options::default() };
    let strict = load_texts(&[("x", text)], &options);
    assert!(strict.model.is_none());
    assert!(strict.report.to_string().contains("`http2Error` was never implemented"), "{}", strict.report);
}

#[test]
fn a_policy_is_not_lent_to_a_destination_that_has_its_own() {
    let text = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front}
spec:
  hosts: [front]
  http:
  - route: [{destination: {host: a}, weight: 1}, {destination: {host: b}, weight: 1}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: front}
spec: {host: front, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: a, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
";
    let model = model(text);
    let algorithm = |host: &str| {
        let host = format!("{host}.default.svc.cluster.local");
        let rule = model.destination_rule(&host, "default").unwrap();
        rule.effective_policy(None, 80).load_balancer.unwrap().algorithm
    };
    assert_eq!((algorithm("a"), algorithm("b")), (Algorithm::RoundRobin, Algorithm::Random));
}

#[test]
fn merge_keys_lists_and_byte_order_marks_are_understood() {
    let text = "\u{feff}
apiVersion: v1
kind: List
items:
- apiVersion: networking.istio.io/v1
  kind: ServiceEntry
  metadata: &meta {name: a, labels: {x: y}}
  spec: &spec
    hosts: [a]
    ports: [{number: 80, name: http, protocol: HTTP}]
    resolution: STATIC
- apiVersion: networking.istio.io/v1
  kind: ServiceEntry
  metadata: {<<: *meta, name: b}
  spec: {<<: *spec, hosts: [b]}
";
    let model = model(text);
    let keys: Vec<String> = model.service_entries.iter().map(|entry| entry.meta.key.to_string()).collect();
    assert_eq!(keys, ["ServiceEntry default/a", "ServiceEntry default/b"]);
    assert_eq!(model.service_entries[1].meta.labels["x"], "y");
    assert_eq!(model.service_entries[1].hosts.len(), 1);
}

#[test]
fn a_workload_is_probed_as_the_group_with_most_of_its_labels_says() {
    let group = |name: &str, namespace: &str, labels: &str, probe: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {{name: {name}, namespace: \
             {namespace}}}\nspec:\n  metadata: {{labels: {{tier: gold}}}}\n  template: {{labels: {{{labels}}}}}\n{probe}"
        )
    };
    let tcp = |port: u16| format!("  probe: {{tcpSocket: {{port: {port}}}}}\n");
    let text = group("wide", "default", "app: a", &tcp(1))
        + &group("narrow", "default", "app: a, version: v2", &tcp(2))
        + &group("silent", "default", "app: a, version: v2, zone: z", "")
        + &group(
            "elsewhere",
            "other",
            "app: a",
            "  probe: {exec: {command: [/bin/check]}, periodSeconds: 3}\n",
        );
    let model = model(&text);
    let labels = |pairs: &[(&str, &str)]| -> StringMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let port = |pairs: &[(&str, &str)]| match &model.probe_for("default", &labels(pairs))?.method {
        ProbeMethod::Tcp { port, .. } => Some(*port),
        _ => None,
    };
    assert_eq!(port(&[("app", "a"), ("tier", "gold")]), Some(1));
    assert_eq!(port(&[("app", "a"), ("tier", "gold"), ("version", "v2"), ("zone", "z")]), Some(2));
    assert_eq!(port(&[("app", "a")]), None, "the labels of `metadata` are its workloads' too");
    let probe = model.probe_for("other", &labels(&[("app", "a"), ("tier", "gold")])).unwrap();
    let times = (probe.initial_delay_seconds, probe.timeout_seconds, probe.period_seconds);
    assert_eq!((times, probe.success_threshold, probe.failure_threshold), ((0, 1, 3), 1, 3));
    assert_eq!(probe.method, ProbeMethod::Exec(vec!["/bin/check".into()]));
}

#[test]
fn capabilities_read_as_flags_and_messages_write_them() {
    for (text, printed) in [("NLU", "nlu"), ("nlu@1.2", "nlu@1.2.0"), ("a_b-c@v2", "a_b-c@2.0.0")] {
        let capability = Capability::parse(text).unwrap();
        assert_eq!(capability.to_string(), printed);
        assert_eq!(Capability::parse(printed), Ok(capability));
    }
    for bad in ["", "@1", "a b", "a.b", "a,b", "a@", "a@x", "a@1.2.3.4", "a@^1", &"a".repeat(64)] {
        assert!(Capability::parse(bad).is_err(), "{bad}");
    }
}
