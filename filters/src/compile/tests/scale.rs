//! Large configurations: what a plan of ten thousand routes costs to compile and to look up.

use std::time::Instant;

use pilotfish_config::model::{
    self, DestinationRule, ExportTo, HeaderEdits, HttpMatch, HttpRoute, Kind, Location, Meta, PortProtocol,
    Resolution, ResourceKey, RouteDestination, ServiceEntry, ServicePort, StringMatch, Subset, TrafficPolicy,
    VirtualService, Workload,
};

use super::*;

fn source() -> Source {
    Source { file: "scale".into(), line: 1, column: 1 }
}

fn prefix_route(at: usize) -> HttpRoute {
    let to = |subset: &str| RouteDestination {
        destination: model::Destination {
            host: Host::resolve(&format!("s{}", at % 100), "default"),
            subset: Some(subset.to_owned()),
            port: None,
        },
        weight: 1,
        headers: HeaderEdits::default(),
    };
    HttpRoute {
        name: None,
        matches: vec![HttpMatch {
            uri: Some(StringMatch::Prefix(format!("/api/tenant-{at:05}/"))),
            ..HttpMatch::default()
        }],
        action: model::Action::Route(vec![to("v1"), to("v2")]),
        rewrite: None,
        timeout: None,
        headers: HeaderEdits::default(),
        retries: None,
        fault: None,
        mirrors: Vec::new(),
        cors: None,
        source: source(),
    }
}

fn meta(kind: Kind, name: &str) -> Meta {
    let key = ResourceKey { kind, namespace: "default".into(), name: name.into() };
    Meta { key, labels: StringMap::new(), annotations: StringMap::new(), source: source() }
}

fn entry(name: &str) -> ServiceEntry {
    let workload = |version: &str, last: u8| Workload {
        address: model::Address::Ip([127, 0, 0, last].into()),
        ports: Default::default(),
        labels: [("version".to_owned(), version.to_owned())].into(),
        network: None,
        locality: Locality::default(),
        weight: 1,
        service_account: None,
        agent: None,
        mesh: false,
        trust_domain: None,
    };
    ServiceEntry {
        health_check: Default::default(),
        meta: meta(Kind::ServiceEntry, name),
        hosts: vec![Host::resolve(name, "default")],
        addresses: Vec::new(),
        ports: vec![ServicePort {
            number: 80,
            protocol: PortProtocol::Http,
            name: "http".to_owned(),
            target_port: None,
        }],
        location: Location::Internal,
        resolution: Resolution::Static,
        endpoints: vec![workload("v1", 1), workload("v2", 2)],
        workload_selector: None,
        export_to: ExportTo::All,
        subject_alt_names: Vec::new(),
    }
}

fn destination_rule(name: &str) -> DestinationRule {
    let subset = |version: &str| Subset {
        name: version.to_owned(),
        labels: [("version".to_owned(), version.to_owned())].into(),
        policy: None,
    };
    DestinationRule {
        meta: meta(Kind::DestinationRule, name),
        host: Host::resolve(name, "default"),
        policy: TrafficPolicy::default(),
        subsets: vec![subset("v1"), subset("v2")],
        export_to: ExportTo::All,
        workload_selector: StringMap::new(),
        merged: Vec::new(),
    }
}

/// One VirtualService with `routes` rules over a hundred services with two subsets each.
fn large(routes: usize) -> Model {
    let names: Vec<String> = (0..100).map(|at| format!("s{at}")).collect();
    Model {
        service_entries: names.iter().map(|name| entry(name)).collect(),
        destination_rules: names.iter().map(|name| destination_rule(name)).collect(),
        virtual_services: vec![VirtualService {
            meta: meta(Kind::VirtualService, "large"),
            hosts: vec![Host::resolve("api", "default")],
            gateways: vec!["mesh".to_owned()],
            http: (0..routes).map(prefix_route).collect(),
            tls: Vec::new(),
            tcp: Vec::new(),
            export_to: ExportTo::All,
            delegates: Vec::new(),
        }],
        ..Model::default()
    }
}

#[test]
fn ten_thousand_routes_are_all_found() {
    let plan = plan_of(&large(10_000), &options());
    assert!(plan.warnings().is_empty(), "{:?}", plan.warnings().first());
    for at in [0, 1, 4_999, 9_999] {
        assert_eq!(rule(&plan, &get("api", &format!("/api/tenant-{at:05}/x"))), at.to_string());
    }
    assert_eq!(rule(&plan, &get("api", "/api/tenant-10000/x")), "-");
}

/// As many VirtualServices as hosts, each over a service of its own, and as many services without.
fn many_hosts(hosts: usize) -> Model {
    let mut model = large(1);
    for at in 0..hosts {
        let mut service = model.virtual_services[0].clone();
        service.meta = meta(Kind::VirtualService, &format!("v{at}"));
        service.hosts = vec![Host::resolve(&format!("web{at}"), "default")];
        model.virtual_services.push(service);
        model.service_entries.push(entry(&format!("own{at}")));
    }
    model
}

#[test]
fn many_hosts_are_all_found() {
    let plan = plan_of(&many_hosts(500), &options());
    for at in [0, 1, 499] {
        assert_eq!(rule(&plan, &get(&format!("web{at}.default.svc"), "/api/tenant-00000/x")), "0");
        assert_eq!(rule(&plan, &get(&format!("own{at}"), "/")), "default");
    }
    assert_eq!(rule(&plan, &get("web500", "/")), "-");
}

fn measured(model: &Model, heads: impl Iterator<Item = TestHead>, what: &str) -> f64 {
    let started = Instant::now();
    let plan = plan_of(model, &options());
    let compiled = started.elapsed();
    let heads: Vec<TestHead> = heads.collect();
    let rounds = 1_000_000 / heads.len();
    let started = Instant::now();
    for _ in 0..rounds {
        for head in &heads {
            std::hint::black_box(route(&plan, head).is_ok());
        }
    }
    let nanos = started.elapsed().as_nanos() as f64 / (rounds * heads.len()) as f64;
    let started = Instant::now();
    drop(plan);
    println!("{what}: compiled in {compiled:?}, {nanos:.0} ns a look-up, dropped in {:?}", started.elapsed());
    nanos
}

/// Prints what it costs; for a release build: `cargo test --release -p pilotfish-filters scale -- --ignored --nocapture`.
#[test]
#[ignore = "measures; meaningful in a release build only"]
fn cost() {
    let path = |at: usize| get("api", &format!("/api/tenant-{at:05}/chat?x=1"));
    let few = measured(&large(10), (0..10).map(path), "10 routes");
    let many = measured(&large(10_000), (0..10_000).step_by(10).map(path), "10,000 routes");
    let host = |at: usize| get(&format!("web{at}"), "/api/tenant-00000/chat?x=1");
    let hosts = measured(&many_hosts(10_000), (0..10_000).step_by(10).map(host), "10,000 hosts and services");
    assert!(
        many.max(hosts) < few + 500.0,
        "a request costs thousands of nanoseconds; a large table may add 500 at most"
    );
}
