//! Agents that registered with the control plane, as workloads of the model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_config::wire;

use super::*;
use crate::balance::Pick;
use crate::cluster::Outcome;
use crate::fixture;

/// The registration of instance `n` of an agent in `default`, at `10.0.0.0 + n`.
fn endpoint(agent: &str, n: u32) -> wire::Endpoint {
    wire::Endpoint {
        capacity: 0,
        id: format!("default/{agent}/{n}"),
        agent: agent.to_owned(),
        namespace: "default".to_owned(),
        trust_domain: None,
        address: (std::net::Ipv4Addr::from_bits(0x0a00_0000 + n), 15_006).into(),
        labels: BTreeMap::from([("app".to_owned(), agent.to_owned())]),
        locality: Some("eu/a".to_owned()),
        weight: 1,
        capabilities: vec!["search@1.2".to_owned()],
        status: wire::Status::Ready,
        dedup_epoch: None,
    }
}

fn options() -> CompileOptions {
    CompileOptions { trust_domain: Some("mesh.example".to_owned()), ..super::options() }
}

fn compiled(yaml: &str, endpoints: &[wire::Endpoint], state: &State, now: Micros) -> Plan {
    let model = model(yaml).with_endpoints(endpoints);
    compile(&model, &options(), &Resolved::default(), state, now).unwrap()
}

fn plan(yaml: &str, endpoints: &[wire::Endpoint]) -> Plan {
    compiled(yaml, endpoints, &State::with_seed(1), Micros(0))
}

fn cluster<'p>(plan: &'p Plan, name: &str) -> &'p Arc<crate::cluster::Cluster> {
    plan.clusters().iter().find(|cluster| *cluster.name == *name).unwrap()
}

#[test]
fn an_agent_is_a_service_of_its_own_at_its_sidecars_port() {
    let plan = plan("", &[endpoint("planner", 1), endpoint("planner", 2)]);
    let cluster = cluster(&plan, "planner.default.svc.cluster.local:80");
    let first = &cluster.endpoints()[0];
    assert_eq!(cluster.endpoints().len(), 2);
    assert_eq!((first.addr.port(), first.mesh, first.agent.as_deref()), (15_006, true, Some("planner")));
    assert_eq!(first.identity.as_deref(), Some("spiffe://mesh.example/ns/default/agent/planner"));
    assert_eq!(first.capabilities[0].to_string(), "search@1.2.0");
    assert_eq!((&*first.locality.region, first.label("app")), ("eu", Some("planner")));
    assert_eq!(plan.catalogue().all().len(), 2);
    assert_eq!(targets(&plan, &get("planner:8080", "/")), ["planner.default.svc.cluster.local:80 1"]);
}

#[test]
fn its_dedup_window_is_what_the_control_plane_says_until_its_sidecar_says_another() {
    let with = |epoch: Option<&str>| wire::Endpoint {
        dedup_epoch: epoch.map(str::to_owned),
        ..endpoint("planner", 1)
    };
    let state = State::with_seed(1);
    let known = |plan: &Plan| {
        let cluster = cluster(plan, "planner.default.svc.cluster.local:80");
        cluster.endpoints()[0].dedup_epoch().map(|epoch| epoch.to_string())
    };
    let plan = compiled("", &[with(Some("one"))], &state, Micros(0));
    assert_eq!(known(&plan).as_deref(), Some("one"));
    let cluster = cluster(&plan, "planner.default.svc.cluster.local:80");
    assert!(cluster.endpoints()[0].stats.learn_epoch("two"));
    assert!(!cluster.endpoints()[0].stats.learn_epoch("two"));
    assert_eq!(known(&plan).as_deref(), Some("two"));
    let plan = compiled("", &[with(None)], &state, Micros(0));
    assert_eq!(known(&plan), None, "another sidecar at its address, which does not deduplicate");
}

#[test]
fn a_service_selects_it_by_labels_and_the_port_stays_its_sidecars() {
    let service = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec:\n  \
                   hosts: [s.example]\n  resolution: STATIC\n  location: MESH_INTERNAL\n  \
                   ports: [{number: 9000, name: http, protocol: HTTP, targetPort: 7000}]\n  \
                   workloadSelector: {labels: {app: planner}}\n";
    let plan = plan(service, &[endpoint("planner", 1), endpoint("other", 2)]);
    let cluster = cluster(&plan, "s.example:9000");
    let addresses: Vec<String> = cluster.endpoints().iter().map(|e| e.addr.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1:15006"]);
    assert!(!plan.knows("planner.default.svc.cluster.local"), "it has a service already");
    assert!(plan.knows("other.default.svc.cluster.local"));
}

#[test]
fn identities_follow_trust_domain_service_account_and_subject_alt_names() {
    let yaml = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec:\n  \
                hosts: [s.example]\n  resolution: STATIC\n  location: MESH_INTERNAL\n  \
                ports: [{number: 80, name: http, protocol: HTTP}]\n  endpoints:\n  \
                - {address: 10.1.0.1, serviceAccount: robot}\n  \
                - {address: 10.1.0.2, labels: {pilotfish.dev/agent: a, pilotfish.dev/trust-domain: far.example}}\n  \
                - {address: 10.1.0.3}\n";
    let identities = |plan: &Plan| -> Vec<Option<String>> {
        let cluster = cluster(plan, "s.example:80");
        cluster.endpoints().iter().map(|e| e.identity.as_deref().map(str::to_owned)).collect()
    };
    let robot = "spiffe://mesh.example/ns/default/sa/robot".to_owned();
    let far = "spiffe://far.example/ns/default/agent/a".to_owned();
    assert_eq!(identities(&plan(yaml, &[])), [Some(robot.clone()), Some(far), None]);
    let named = format!("{yaml}  subjectAltNames: [other.example, {robot}]\n");
    let other = "other.example".to_owned();
    let plan = plan(&named, &[]);
    assert_eq!(identities(&plan), [Some(robot), Some(other.clone()), Some(other)]);
    assert_eq!(cluster(&plan, "s.example:80").settings.subject_alt_names.len(), 2);
    let without =
        compile(&model(yaml), &super::options(), &Resolved::default(), &State::default(), Micros(0));
    assert_eq!(identities(&without.unwrap()), [None, None, None]);
}

#[test]
fn a_degraded_one_is_chosen_only_when_no_other_is_ready() {
    let degraded = wire::Endpoint { status: wire::Status::Degraded, ..endpoint("planner", 1) };
    let plan = plan("", &[degraded, endpoint("planner", 2)]);
    let cluster = cluster(&plan, "planner.default.svc.cluster.local:80");
    let mut rng = fastrand::Rng::with_seed(1);
    let now = fixture::at(0);
    let chosen =
        |rng: &mut fastrand::Rng| cluster.pick(&fixture::pick(now), rng).unwrap().endpoint().addr.to_string();
    assert!((0..50).all(|_| chosen(&mut rng) == "10.0.0.2:15006"));
    let ready = &cluster.endpoints()[1];
    crate::fixture::lease(cluster, ready, now).record(now, Outcome::Unreachable, Duration::from_millis(1));
    assert!((0..50).all(|_| chosen(&mut rng) == "10.0.0.1:15006"));
    let demand = crate::capability::Demand { wanted: vec![wanted()], ..Default::default() };
    let pick = Pick { key: None, now, tried: &[], remote: false, compared: None };
    let by_capability = plan.catalogue().choose(&demand, &pick, &mut rng).unwrap();
    assert_eq!(by_capability.endpoint.id.as_deref(), Some("default/planner/1"));
}

fn wanted() -> crate::capability::Wanted {
    crate::capability::Wanted::parse("search").unwrap()
}

#[test]
fn one_that_may_not_be_chosen_is_nowhere() {
    for status in [wire::Status::Initializing, wire::Status::Draining, wire::Status::Quarantined] {
        let plan = plan("", &[wire::Endpoint { status, ..endpoint("planner", 1) }]);
        assert!(!plan.knows("planner.default.svc.cluster.local"), "{status:?}");
    }
}

#[test]
fn what_was_measured_outlives_updates_and_reports_come_in_by_id() {
    let state = State::with_seed(1);
    let now = fixture::at(0);
    let first = compiled("", &[endpoint("planner", 1)], &state, now);
    let mut lease = cluster(&first, "planner.default.svc.cluster.local:80")
        .pick(&fixture::pick(now), &mut fastrand::Rng::with_seed(1))
        .unwrap();
    lease.record(now, Outcome::Answered(200), Duration::from_millis(40));
    let second = compiled("", &[endpoint("planner", 1), endpoint("planner", 2)], &state, now);
    let measured: Vec<_> = second.measured(now).collect();
    assert_eq!(measured.len(), 1, "what was never called is not reported");
    assert_eq!((measured[0].id, measured[0].calls, measured[0].in_flight), ("default/planner/1", 1, 1));
    assert!(measured[0].latency > Duration::ZERO && measured[0].success > 0.9);
    let own = measured[0].latency;
    second.merge_report(now, "default/planner/1", Duration::from_secs(2), 0.5);
    second.merge_report(now, "no/such/one", Duration::from_secs(2), 0.5);
    let stats = &second.endpoint_by_id("default/planner/1")[0].stats;
    assert!(stats.latency(now) > own, "others' reports count for the choice");
    assert_eq!(second.measured(now).next().unwrap().latency, own, "and are not reported on");
}

#[test]
fn ten_thousand_registered_endpoints_compile_quickly() {
    let endpoints: Vec<wire::Endpoint> =
        (0..10_000).map(|n| endpoint(&format!("agent-{}", n % 500), n)).collect();
    let state = State::with_seed(1);
    let base = model("");
    let start = Instant::now();
    let merged = base.with_endpoints(&endpoints);
    let plan = compile(&merged, &options(), &Resolved::default(), &state, Micros(0)).unwrap();
    let took = start.elapsed();
    assert_eq!((plan.clusters().len(), plan.catalogue().all().len()), (500, 10_000));
    // 0.3 s unoptimized; the bound is for a busy machine.
    assert!(took < Duration::from_secs(10), "{took:?}");
}
