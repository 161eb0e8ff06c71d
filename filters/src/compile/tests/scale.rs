//! Large configurations: what a plan of ten thousand routes costs to compile and to look up.

use std::sync::Arc;
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
    };
    ServiceEntry {
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

/// Prints what it costs; for a release build: `cargo test --release -p pilotfish-filters scale -- --ignored --nocapture`.
#[test]
#[ignore = "measures; meaningful in a release build only"]
fn cost() {
    let state = Arc::new(State::with_seed(1));
    let mut nanos = Vec::new();
    for routes in [10, 10_000] {
        let model = large(routes);
        let started = Instant::now();
        let plan = compile(&model, &options(), &Resolved::default(), &state, Micros(0)).unwrap();
        let compiled = started.elapsed();
        let heads: Vec<TestHead> = (0..routes)
            .step_by(routes.div_ceil(1000))
            .map(|at| get("api", &format!("/api/tenant-{at:05}/chat?x=1")))
            .collect();
        let started = Instant::now();
        let rounds = 1_000_000 / heads.len();
        for _ in 0..rounds {
            for head in &heads {
                std::hint::black_box(route(&plan, head).is_ok());
            }
        }
        let per = started.elapsed().as_nanos() as f64 / (rounds * heads.len()) as f64;
        println!("{routes} routes: compiled in {compiled:?}, {per:.0} ns a look-up");
        nanos.push(per);
        let started = Instant::now();
        drop(plan);
        println!("dropped in {:?}", started.elapsed());
    }
    assert!(
        nanos[1] < nanos[0] + 500.0,
        "a request costs thousands of nanoseconds; a large table may add 500 at most"
    );
}
