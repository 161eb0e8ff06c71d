//! Models made by hand -> clusters.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_config::model::{
    self, Agent, AgentCluster, Algorithm, Capability, ConnectionPool, ExportTo, Failover, H2Upgrade, Host,
    Kind, LoadBalancer, Locality, LocalityMode, LocalityPolicy, Location, Meta, OutlierDetection,
    PortProtocol, ResourceKey, Resources, ServiceEntry, ServicePort, Source, StringMap, TrafficPolicy,
    Workload, WorkloadEntry,
};

use super::*;
use crate::cluster::Upstream;
use crate::fixture::{at, pick};
use crate::state::State;

fn meta(kind: Kind, namespace: &str, name: &str) -> Meta {
    Meta {
        key: ResourceKey { kind, namespace: namespace.into(), name: name.into() },
        labels: StringMap::new(),
        annotations: StringMap::new(),
        source: Source { file: "test".into(), line: 1, column: 1 },
    }
}

fn map(pairs: &[(&str, &str)]) -> StringMap {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn workload(address: &str, labels: &[(&str, &str)]) -> Workload {
    let address = match (address.parse(), address.strip_prefix("unix://")) {
        (Ok(ip), _) => Address::Ip(ip),
        (_, Some(path)) => Address::Unix(path.to_owned()),
        _ => Address::Name(Host::resolve(address, "default")),
    };
    Workload {
        address,
        ports: BTreeMap::new(),
        labels: map(labels),
        network: None,
        locality: Locality::default(),
        weight: 1,
        service_account: None,
        agent: None,
        mesh: false,
        trust_domain: None,
    }
}

fn port(number: u16, name: &str) -> ServicePort {
    ServicePort { number, protocol: PortProtocol::Http, name: name.into(), target_port: None }
}

fn entry(
    host: &str,
    resolution: Resolution,
    ports: Vec<ServicePort>,
    endpoints: Vec<Workload>,
) -> ServiceEntry {
    ServiceEntry {
        health_check: Default::default(),
        meta: meta(Kind::ServiceEntry, "default", host),
        hosts: vec![Host::resolve(host, "default")],
        addresses: Vec::new(),
        ports,
        location: Location::Internal,
        resolution,
        endpoints,
        workload_selector: None,
        export_to: ExportTo::All,
        subject_alt_names: Vec::new(),
    }
}

fn rule(namespace: &str, host: &str, policy: TrafficPolicy, subsets: Vec<Subset>) -> DestinationRule {
    DestinationRule {
        meta: meta(Kind::DestinationRule, namespace, host),
        host: Host::resolve(host, namespace),
        policy,
        subsets,
        export_to: ExportTo::All,
        workload_selector: StringMap::new(),
        merged: Vec::new(),
    }
}

fn subset(name: &str, labels: &[(&str, &str)], policy: Option<TrafficPolicy>) -> Subset {
    Subset { name: name.into(), labels: map(labels), policy }
}

fn balanced(algorithm: Algorithm) -> TrafficPolicy {
    let balancer = LoadBalancer { algorithm, ..Default::default() };
    TrafficPolicy { load_balancer: Some(balancer), ..Default::default() }
}

fn limited(max_connections: u32) -> TrafficPolicy {
    let mut pool = ConnectionPool::default();
    pool.tcp.max_connections = max_connections;
    TrafficPolicy { connection_pool: Some(pool), ..Default::default() }
}

fn alone(address: &str, agent: &str, ports: &[(&str, u16)]) -> WorkloadEntry {
    let mut workload = workload(address, &[]);
    workload.agent = Some(agent.into());
    workload.ports = ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect();
    WorkloadEntry { meta: meta(Kind::WorkloadEntry, "default", address), workload }
}

/// A model, looked at by a sidecar in namespace `default`.
#[derive(Default)]
struct World {
    model: Model,
    resolved: Resolved,
    place: Place,
    state: State,
}

impl World {
    fn new() -> World {
        World { place: Place { namespace: "default".into(), ..Place::default() }, ..World::default() }
    }

    fn with(entries: Vec<ServiceEntry>, rules: Vec<DestinationRule>) -> World {
        let mut world = World::new();
        world.model.service_entries = entries;
        world.model.destination_rules = rules;
        world
    }

    fn clusters(&self) -> Clusters {
        let view = View::new(&self.model, &self.place.namespace, &self.place.labels);
        let sources = Sources {
            model: &self.model,
            resolved: &self.resolved,
            view: &view,
            place: &self.place,
            trust_domain: None,
            on_demand: &[],
        };
        clusters(sources, &mut self.state.begin(at(0))).0
    }

    fn cluster(&self, host: &str, port: u16, subset: Option<&str>) -> Arc<Cluster> {
        let clusters = self.clusters();
        let found = clusters.find(host, Some(port), subset).and_then(|id| clusters.get(id));
        Arc::clone(found.unwrap_or_else(|| panic!("no cluster {host}:{port} {subset:?}")))
    }

    fn addresses(&self, host: &str, port: u16, subset: Option<&str>) -> Vec<String> {
        self.cluster(host, port, subset)
            .endpoints()
            .iter()
            .map(|endpoint| endpoint.addr.to_string())
            .collect()
    }
}

const NLP: &str = "nlp.default.svc.cluster.local";

#[test]
fn an_endpoints_port_is_its_own_by_name_else_the_target_port_else_the_services() {
    let mut special = workload("10.0.0.2", &[]);
    special.ports.insert("http".into(), 9000);
    let endpoints = vec![workload("10.0.0.1", &[]), special];
    let target = ServicePort { target_port: Some(8000), ..port(80, "http") };
    let world = World::with(
        vec![entry("nlp", Resolution::Static, vec![target, port(81, "admin")], endpoints)],
        vec![],
    );
    assert_eq!(world.addresses(NLP, 80, None), ["10.0.0.1:8000", "10.0.0.2:9000"]);
    assert_eq!(world.addresses(NLP, 81, None), ["10.0.0.1:81", "10.0.0.2:81"]);
}

#[test]
fn subsets_take_endpoints_by_label_and_override_the_policy() {
    let endpoints =
        vec![workload("10.0.0.1", &[("version", "v1")]), workload("10.0.0.2", &[("version", "v2")])];
    let own = TrafficPolicy { port_level: vec![(81, limited(3))], ..balanced(Algorithm::RoundRobin) };
    let subsets = vec![
        subset("v1", &[("version", "v1")], None),
        subset("v2", &[("version", "v2")], Some(own)),
        subset("all", &[], None),
        subset("none", &[("version", "v3")], None),
    ];
    let ports = vec![port(80, "http"), port(81, "http-b")];
    let rules = vec![rule("default", "nlp", limited(7), subsets)];
    let world = World::with(vec![entry("nlp", Resolution::Static, ports, endpoints)], rules);
    assert_eq!(world.addresses(NLP, 80, Some("v1")), ["10.0.0.1:80"]);
    assert_eq!(world.addresses(NLP, 80, Some("all")).len(), 2);
    assert!(world.addresses(NLP, 80, Some("none")).is_empty());
    let limit = |port, subset| world.cluster(NLP, port, subset).settings.max_connections;
    assert_eq!((limit(80, None), limit(80, Some("v1")), limit(80, Some("v2"))), (Some(7), Some(7), Some(7)));
    assert_eq!(limit(81, Some("v2")), Some(3), "settings for the port replace");
    assert_eq!(&*world.cluster(NLP, 80, Some("v2")).name, "nlp.default.svc.cluster.local:80|v2");
}

#[test]
fn selectors_choose_workload_entries_of_their_namespace_by_all_labels() {
    let mut world =
        World::with(vec![entry("nlp", Resolution::Static, vec![port(80, "http")], vec![])], vec![]);
    world.model.service_entries[0].workload_selector = Some(map(&[("app", "nlp"), ("tier", "gpu")]));
    let workloads = [
        ("default", "10.0.0.1", map(&[("app", "nlp"), ("tier", "gpu"), ("x", "y")])),
        ("default", "10.0.0.2", map(&[("app", "nlp")])),
        ("other", "10.0.0.3", map(&[("app", "nlp"), ("tier", "gpu")])),
    ];
    for (namespace, address, labels) in workloads {
        let workload = Workload { labels, ..workload(address, &[]) };
        let meta = meta(Kind::WorkloadEntry, namespace, address);
        world.model.workload_entries.push(WorkloadEntry { meta, workload });
    }
    assert_eq!(world.addresses(NLP, 80, None), ["10.0.0.1:80"]);
}

#[test]
fn names_are_looked_up_and_what_has_no_answer_has_no_endpoint() {
    let by_name = entry(
        "nlp",
        Resolution::Dns,
        vec![port(80, "http")],
        vec![workload("a.example", &[]), workload("gone.example", &[]), workload("10.0.0.9", &[])],
    );
    let target = ServicePort { target_port: Some(8443), ..port(443, "https") };
    let itself = entry("api.example", Resolution::Dns, vec![target], vec![]);
    let first = entry("one.example", Resolution::DnsRoundRobin, vec![port(80, "http")], vec![]);
    let mut world = World::with(vec![by_name, itself, first], vec![]);
    let ips = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    world.resolved.insert("a.example".into(), ips(&["10.1.0.2", "10.1.0.1", "fd00::1"]));
    world.resolved.insert("api.example".into(), ips(&["10.2.0.1"]));
    world.resolved.insert("one.example".into(), ips(&["10.3.0.2", "10.3.0.1"]));
    assert_eq!(world.addresses(NLP, 80, None), ["10.0.0.9:80", "10.1.0.1:80", "10.1.0.2:80", "[fd00::1]:80"]);
    assert_eq!(world.addresses("api.example", 443, None), ["10.2.0.1:8443"]);
    assert_eq!(world.addresses("one.example", 80, None), ["10.3.0.2:80"], "the first address only");
    let hostname = world.cluster(NLP, 80, None).endpoints()[1].hostname.clone();
    assert_eq!(hostname.as_deref(), Some("a.example"));
    let names = dns_names(&world.model, &world.place);
    assert_eq!(
        names.iter().map(|n| &**n).collect::<Vec<_>>(),
        ["a.example", "api.example", "gone.example", "one.example"]
    );
}

#[test]
fn without_resolution_the_callers_address_is_dialled() {
    let wildcard = entry("*.wiki.org", Resolution::None, vec![port(443, "tls")], vec![]);
    let dynamic = entry("*.example", Resolution::DynamicDns, vec![port(80, "http")], vec![]);
    let passthrough =
        entry("p.org", Resolution::Static, vec![port(80, "http")], vec![workload("10.0.0.1", &[])]);
    let rules = vec![rule("default", "p.org", balanced(Algorithm::Passthrough), vec![])];
    let world = World::with(vec![wildcard, dynamic, passthrough], rules);
    for (host, port) in [("en.wiki.org", 443), ("a.example", 80), ("p.org", 80)] {
        assert_eq!(world.cluster(host, port, None).kind, crate::cluster::Kind::Original, "{host}");
    }
    assert!(dns_names(&world.model, &world.place).is_empty());
}

#[test]
fn agents_whose_workloads_stand_alone_are_services_of_their_own() {
    let mut world = World::new();
    world.model.workload_entries =
        vec![alone("10.0.0.1", "nlp", &[("http", 8101)]), alone("10.0.0.2", "nlp", &[("http", 8102)])];
    let mut in_mesh = alone("10.0.0.3", "meshed", &[]);
    in_mesh.workload.mesh = true;
    world.model.workload_entries.push(in_mesh);
    world.model.workload_entries.push(alone("10.0.0.4", "several", &[("grpc", 9000), ("http", 8000)]));
    let capability = Capability { name: "nlu".into(), version: None };
    let agent = Agent {
        runtime: Default::default(),
        rules: Default::default(),
        name: "nlp".into(),
        replicas: None,
        resources: Resources::default(),
        capabilities: vec![capability],
        labels: StringMap::new(),
    };
    world.model.agent_clusters.push(AgentCluster {
        duties: Default::default(),
        circuit_breaker: Default::default(),
        health_check: Default::default(),
        meta: meta(Kind::AgentCluster, "default", "agents"),
        replicas: None,
        orchestrator: None,
        agents: vec![agent],
        regions: Vec::new(),
        auto_scaling: None,
    });
    for port in [80, 8101, 8102] {
        assert_eq!(world.addresses(NLP, port, None), ["10.0.0.1:8101", "10.0.0.2:8102"], "{port}");
    }
    let clusters = world.clusters();
    assert!(clusters.find(NLP, None, None).is_some(), "all numbers are one port");
    let endpoint = &world.cluster(NLP, 80, None).endpoints()[0].clone();
    assert_eq!((endpoint.agent.as_deref(), &*endpoint.namespace), (Some("nlp"), "default"));
    assert_eq!(endpoint.capabilities[0].name, "nlu");
    let meshed = world.cluster("meshed.default.svc.cluster.local", 80, None);
    assert_eq!(meshed.endpoints()[0].addr.port(), 15006);
    assert!(meshed.endpoints()[0].mesh && meshed.endpoints()[0].capabilities.is_empty());
    let several = "several.default.svc.cluster.local";
    assert_eq!(world.addresses(several, 80, None), ["10.0.0.4:8000"]);
    assert_eq!(world.cluster(several, 9000, None).settings.upstream, Upstream::Http2);
}

#[test]
fn an_agent_in_a_service_does_not_stand_alone() {
    let mut world =
        World::with(vec![entry("front", Resolution::Static, vec![port(80, "http")], vec![])], vec![]);
    world.model.service_entries[0].workload_selector = Some(map(&[("app", "nlp")]));
    let mut selected = alone("10.0.0.1", "nlp", &[]);
    selected.workload.labels = map(&[("app", "nlp")]);
    world.model.workload_entries.push(selected);
    assert!(!world.clusters().knows(NLP));
    assert_eq!(world.addresses("front.default.svc.cluster.local", 80, None), ["10.0.0.1:80"]);
}

#[test]
fn unix_sockets_have_an_address_of_their_own() {
    let sockets = vec![workload("unix:///run/a.sock", &[]), workload("unix:///run/b.sock", &[])];
    let world = World::with(vec![entry("nlp", Resolution::Static, vec![port(80, "http")], sockets)], vec![]);
    let cluster = world.cluster(NLP, 80, None);
    let mut paths: Vec<_> = cluster.endpoints().iter().map(|e| e.unix.clone().unwrap()).collect();
    paths.sort();
    assert_eq!(paths, [Path::new("/run/a.sock").into(), Path::new("/run/b.sock").into()]);
    assert!(cluster.endpoints().iter().all(|endpoint| endpoint.addr.to_string().starts_with("[100::")));
}

#[test]
fn an_address_named_twice_is_one_endpoint_and_the_first_mention_counts() {
    let mut heavy = workload("10.0.0.1", &[("version", "v1")]);
    heavy.weight = 5;
    let endpoints = vec![heavy, workload("10.0.0.1", &[("version", "v2")])];
    let subsets = vec![subset("v2", &[("version", "v2")], None)];
    let rules = vec![rule("default", "nlp", TrafficPolicy::default(), subsets)];
    let world = World::with(vec![entry("nlp", Resolution::Static, vec![port(80, "http")], endpoints)], rules);
    assert_eq!(world.cluster(NLP, 80, None).endpoints().len(), 1);
    assert_eq!(world.cluster(NLP, 80, None).endpoints()[0].weight, 5);
    assert_eq!(world.addresses(NLP, 80, Some("v2")), ["10.0.0.1:80"]);
}

#[test]
fn the_own_namespace_s_rule_comes_first_then_the_host_s_then_any_and_exact_before_wildcards() {
    let own = |namespace: &str, host: &str, limit| rule(namespace, host, limited(limit), vec![]);
    let service = || entry(NLP, Resolution::Static, vec![port(80, "http")], vec![]);
    let mut rules = vec![own("third", NLP, 1), own("third", "*.cluster.local", 2)];
    let found = |rules: &[DestinationRule]| {
        let mut world = World::with(vec![service()], rules.to_vec());
        world.place.namespace = "caller".into();
        world.cluster(NLP, 80, None).settings.max_connections
    };
    assert_eq!(found(&rules), Some(1));
    rules.push(own("default", "*.default.svc.cluster.local", 3));
    assert_eq!(found(&rules), Some(3));
    rules.push(own("default", NLP, 4));
    assert_eq!(found(&rules), Some(4));
    rules.push(own("caller", "*", 5));
    assert_eq!(found(&rules), Some(5));
    rules.push(own("caller", "*.svc.cluster.local", 6));
    assert_eq!(found(&rules), Some(6));
    let mut selecting = own("caller", "*.svc.cluster.local", 7);
    selecting.workload_selector = map(&[("app", "web")]);
    rules.push(selecting);
    assert_eq!(found(&rules), Some(6), "the sidecar does not have the label");
    rules.iter_mut().for_each(|rule| rule.export_to = ExportTo::Nobody);
    assert_eq!(found(&rules[..4]), None);
}

#[test]
fn a_rule_that_selects_the_sidecar_beats_one_for_all() {
    let mut selecting = rule("default", "nlp", limited(2), vec![]);
    selecting.workload_selector = map(&[("app", "web")]);
    let rules = vec![rule("default", "nlp", limited(1), vec![]), selecting];
    let mut world =
        World::with(vec![entry("nlp", Resolution::Static, vec![port(80, "http")], vec![])], rules);
    assert_eq!(world.cluster(NLP, 80, None).settings.max_connections, Some(1));
    world.place.labels = map(&[("app", "web"), ("x", "y")]);
    assert_eq!(world.cluster(NLP, 80, None).settings.max_connections, Some(2));
}

#[test]
fn the_upstream_protocol_follows_port_and_policy() {
    let upstream = |protocol, h2_upgrade, use_client_protocol| {
        let mut pool = ConnectionPool::default();
        pool.http.h2_upgrade = h2_upgrade;
        pool.http.use_client_protocol = use_client_protocol;
        policy::settings(&TrafficPolicy { connection_pool: Some(pool), ..Default::default() }, protocol, &[])
            .upstream
    };
    use PortProtocol::{Auto, Grpc, Http, Http2};
    assert_eq!(upstream(Http, H2Upgrade::Default, false), Upstream::Client);
    assert_eq!(upstream(Auto, H2Upgrade::Default, false), Upstream::Client);
    assert_eq!(upstream(Http, H2Upgrade::Upgrade, false), Upstream::Http2);
    assert_eq!(upstream(Http, H2Upgrade::DoNotUpgrade, false), Upstream::Http1);
    assert_eq!(upstream(Http, H2Upgrade::Upgrade, true), Upstream::Client);
    assert_eq!(upstream(Grpc, H2Upgrade::Default, false), Upstream::Http2);
    assert_eq!(upstream(Http2, H2Upgrade::DoNotUpgrade, false), Upstream::Http2);
}

#[test]
fn without_a_policy_settings_are_istios_defaults() {
    let settings = policy::settings(&TrafficPolicy::default(), PortProtocol::Http, &[]);
    assert_eq!(settings, crate::cluster::ClusterSettings::default());
    assert_eq!(settings.connect_timeout, Duration::from_secs(10));
    assert_eq!(settings.idle_timeout, Some(Duration::from_secs(3600)));
}

/// Where the first 100 requests go from region `us` when the policy is that; endpoint 1 is in `us`, 2 in `eu`.
fn regions_used(policy: TrafficPolicy) -> usize {
    let place =
        |address, region: &str| Workload { locality: Locality::parse(region), ..workload(address, &[]) };
    let endpoints = vec![place("10.0.0.1", "us"), place("10.0.0.2", "eu")];
    let rules = vec![rule("default", "nlp", policy, vec![])];
    let mut world =
        World::with(vec![entry("nlp", Resolution::Static, vec![port(80, "http")], endpoints)], rules);
    world.place.locality = Locality::parse("us");
    let cluster = world.cluster(NLP, 80, None);
    let mut rng = fastrand::Rng::with_seed(1);
    let picked = (0..100).map(|_| cluster.pick(&pick(at(0)), &mut rng).unwrap().endpoint().addr);
    picked.collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn nearness_needs_outlier_detection_a_written_failover_does_not_and_both_can_be_disabled() {
    let policy = |mode: Option<LocalityMode>, enabled, detection: bool| {
        let locality = mode.map(|mode| LocalityPolicy { enabled, mode });
        let detection = detection.then(|| OutlierDetection {
            split_external_local_origin_errors: false,
            consecutive_local_origin_failures: None,
            consecutive_gateway_errors: None,
            consecutive_5xx_errors: Some(5),
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
            http_errors: Vec::new(),
        });
        TrafficPolicy {
            load_balancer: Some(LoadBalancer { locality, ..Default::default() }),
            outlier_detection: detection,
            ..Default::default()
        }
    };
    let failover = || Some(LocalityMode::Failover(vec![Failover { from: "us".into(), to: "eu".into() }]));
    let nearest = || Some(LocalityMode::Nearest);
    assert_eq!(regions_used(policy(None, true, false)), 2);
    assert_eq!(regions_used(policy(None, true, true)), 1);
    assert_eq!(regions_used(policy(nearest(), true, false)), 2);
    assert_eq!(regions_used(policy(nearest(), true, true)), 1);
    assert_eq!(regions_used(policy(failover(), true, false)), 1);
    assert_eq!(regions_used(policy(failover(), false, true)), 2);
}

#[test]
fn entries_that_are_not_exported_are_not_seen_and_the_own_namespace_s_win() {
    let at_address = |namespace: &str, address: &str| {
        let mut entry =
            entry("x.org", Resolution::Static, vec![port(80, "http")], vec![workload(address, &[])]);
        entry.meta = meta(Kind::ServiceEntry, namespace, "x");
        entry
    };
    let mut world = World::with(vec![at_address("other", "10.0.0.1")], vec![]);
    assert_eq!(world.addresses("x.org", 80, None), ["10.0.0.1:80"]);
    world.model.service_entries.push(at_address("default", "10.0.0.2"));
    world.model.service_entries.push(at_address("default", "10.0.0.3"));
    assert_eq!(world.addresses("x.org", 80, None), ["10.0.0.2:80", "10.0.0.3:80"]);
    world.model.service_entries.truncate(1);
    world.model.service_entries[0].export_to = ExportTo::Namespaces(vec!["third".into()]);
    assert!(!world.clusters().knows("x.org"));
}

#[test]
fn a_rule_for_a_capability_gives_settings_without_endpoints() {
    let subsets = vec![subset("v2", &[("version", "v2")], Some(limited(9)))];
    let world = World::with(vec![], vec![rule("default", "nlu.capability.mesh", limited(8), subsets)]);
    assert_eq!(world.cluster("nlu.capability.mesh", 80, None).settings.max_connections, Some(8));
    assert_eq!(world.cluster("nlu.capability.mesh", 80, Some("v2")).settings.max_connections, Some(9));
}

#[test]
fn consistent_hash_says_what_is_hashed_and_how() {
    let hash = model::ConsistentHash {
        key: model::HashKey::Header("x-user".into()),
        table: model::HashTable::Maglev { size: 251 },
        balance_factor: Some(1.25),
    };
    let balancing = policy::balancing(&balanced(Algorithm::ConsistentHash(hash.clone())));
    assert_eq!(balancing.algorithm, crate::balance::Algorithm::Maglev { size: 251 });
    assert_eq!((balancing.factor, balancing.hash_key), (Some(125), Some(hash.key)));
}

#[test]
fn a_recompilation_keeps_the_counters_of_every_endpoint() {
    let endpoints = vec![workload("10.0.0.1", &[]), workload("10.0.0.2", &[])];
    let mut world =
        World::with(vec![entry("nlp", Resolution::Static, vec![port(80, "http")], endpoints)], vec![]);
    let before = world.cluster(NLP, 80, None);
    world.model.service_entries[0].endpoints.push(workload("10.0.0.0", &[]));
    let after = world.cluster(NLP, 80, None);
    assert!(Arc::ptr_eq(&before.endpoints()[0].stats, &after.endpoints()[1].stats));
    assert!(Arc::ptr_eq(&before.limits, &after.limits));
}

#[test]
fn thousands_of_services_rules_and_workloads_compile_in_linear_time() {
    let mut world = World::new();
    for n in 0..4000_u32 {
        let host = format!("s{n}");
        let mut service = entry(&host, Resolution::Static, vec![port(80, "http")], vec![]);
        service.workload_selector = Some(map(&[("app", &host), ("mesh", "yes")]));
        world.model.service_entries.push(service);
        world.model.destination_rules.push(rule("default", &host, limited(n + 1), vec![]));
    }
    for n in 0..10_000_u32 {
        let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string();
        let workload = workload(&ip, &[("app", &format!("s{}", n % 4000)), ("mesh", "yes")]);
        world
            .model
            .workload_entries
            .push(WorkloadEntry { meta: meta(Kind::WorkloadEntry, "default", &ip), workload });
    }
    let start = Instant::now();
    let cluster = world.cluster("s3999.default.svc.cluster.local", 80, None);
    let took = start.elapsed();
    assert_eq!((cluster.endpoints().len(), cluster.settings.max_connections), (2, Some(4000)));
    // 0.1 s unoptimized; comparing each selector with each workload would be 40 million comparisons.
    assert!(took < Duration::from_secs(4), "{took:?}");
}
