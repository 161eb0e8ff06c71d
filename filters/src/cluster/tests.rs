//! Leases, limits, and finding clusters by name.

use super::*;
use crate::fixture::{Make, addr, at, number, pick};
use crate::state::State;

fn limited(max_requests: u32) -> Cluster {
    let mut make = Make::even(Algorithm::LeastRequest, 3);
    make.spec.settings.max_requests = Some(max_requests);
    make.build()
}

fn in_flight(cluster: &Cluster) -> u32 {
    cluster.endpoints().iter().map(|endpoint| endpoint.stats.in_flight()).sum()
}

#[test]
fn dropping_a_lease_gives_its_place_back() {
    let cluster = limited(2);
    let mut rng = fastrand::Rng::with_seed(1);
    let first = cluster.pick(&pick(at(0)), &mut rng).unwrap();
    let mut second = cluster.pick(&pick(at(0)), &mut rng).unwrap();
    assert_eq!((cluster.limits.requests(), in_flight(&cluster)), (2, 2));
    let deny = cluster.pick(&pick(at(0)), &mut rng).unwrap_err();
    assert_eq!(deny.reason, Reason::Overflow);
    assert_eq!((cluster.limits.requests(), in_flight(&cluster)), (2, 2), "a refusal takes no place");
    second.record(at(1), Outcome::Answered(200), Duration::from_millis(1));
    drop(first);
    drop(second);
    assert_eq!((cluster.limits.requests(), in_flight(&cluster)), (0, 0));
}

#[test]
fn a_lease_outlives_its_cluster() {
    let cluster = limited(2);
    let lease = cluster.pick(&pick(at(0)), &mut fastrand::Rng::with_seed(1)).unwrap();
    let (stats, limits) = (Arc::clone(&lease.endpoint().stats), Arc::clone(&cluster.limits));
    drop(cluster);
    drop(lease);
    assert_eq!((stats.in_flight(), limits.requests()), (0, 0));
}

#[test]
fn the_request_limit_holds_for_all_workers_together() {
    let cluster = limited(7);
    let most = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (cluster, most) = (&cluster, &most);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(worker);
                let mut leases = Vec::new();
                for _ in 0..20_000 {
                    match rng.bool() {
                        true => leases.extend(cluster.pick(&pick(at(0)), &mut rng)),
                        false => drop(leases.pop()),
                    }
                    most.fetch_max(cluster.limits.requests(), Relaxed);
                }
            });
        }
    });
    assert_eq!(most.into_inner(), 7);
    assert_eq!((cluster.limits.requests(), in_flight(&cluster)), (0, 0));
}

#[test]
fn a_cluster_without_endpoints_says_so() {
    let deny = Make::even(Algorithm::RoundRobin, 0)
        .build()
        .pick(&pick(at(0)), &mut fastrand::Rng::new())
        .unwrap_err();
    assert_eq!(deny.reason, Reason::NoEndpoint);
    assert!(deny.detail.unwrap().contains("s.default.svc.cluster.local:80"));
}

#[test]
fn a_lease_on_an_address_that_the_request_names_is_counted_too() {
    let cluster = limited(1);
    let lease = cluster.lease_to(addr(99), at(0)).unwrap();
    assert_eq!((number(&lease), cluster.limits.requests()), (99, 1));
    assert_eq!(cluster.lease_to(addr(98), at(0)).unwrap_err().reason, Reason::Overflow);
}

#[test]
fn permits_follow_the_settings() {
    let mut make = Make::even(Algorithm::RoundRobin, 1);
    make.spec.settings.max_connections = Some(1);
    make.spec.settings.max_pending = Some(0);
    let cluster = make.build();
    let permit = cluster.connection_permit().unwrap();
    assert!(cluster.connection_permit().is_err() && cluster.pending_permit().is_err());
    drop(permit);
    assert!(cluster.connection_permit().is_ok());
}

/// Adds a cluster without endpoints.
fn add(clusters: &mut Clusters, state: &State, host: &str, port: u16, subset: Option<&str>) {
    let spec = ClusterSpec { host: host.into(), port, subset: subset.map(Box::from), ..Default::default() };
    clusters.add(Cluster::new(spec, Vec::new(), &[], &mut state.begin(at(0))));
}

#[test]
fn clusters_are_found_by_host_port_and_subset() {
    let (state, mut clusters) = (State::default(), Clusters::default());
    add(&mut clusters, &state, "a.example", 80, None);
    add(&mut clusters, &state, "a.example", 80, Some("v1"));
    add(&mut clusters, &state, "a.example", 443, None);
    add(&mut clusters, &state, "b.example", 8080, None);
    clusters.alias("b.example", 9, 8080);
    let name = |host, port, subset| {
        clusters
            .find(host, port, subset)
            .and_then(|id| clusters.get(id))
            .map(|cluster| cluster.name.to_string())
    };
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(name("a.example", Some(80), None), some("a.example:80"));
    assert_eq!(name("a.example", Some(80), Some("v1")), some("a.example:80|v1"));
    assert_eq!(name("a.example", Some(80), Some("v2")), None);
    assert_eq!(name("a.example", Some(443), Some("v1")), None);
    assert_eq!(name("a.example", None, None), None, "it has two ports");
    assert_eq!(name("b.example", None, None), some("b.example:8080"));
    assert_eq!(name("b.example", Some(9), None), some("b.example:8080"));
    assert_eq!(name("c.example", None, None), None);
    assert_eq!(
        clusters.by_port("a.example", None).iter().map(|(port, _)| *port).collect::<Vec<_>>(),
        [80, 443]
    );
    assert_eq!(clusters.by_port("a.example", Some("v1")).len(), 1);
    assert_eq!(clusters.into_list().len(), 4);
}

#[test]
fn exact_hosts_come_before_wildcards_and_longer_wildcards_first() {
    let (state, mut clusters) = (State::default(), Clusters::default());
    for host in ["*", "*.org", "*.wiki.org", "en.wiki.org"] {
        add(&mut clusters, &state, host, 443, None);
    }
    for (host, expected) in [
        ("en.wiki.org", "en.wiki.org"),
        ("de.wiki.org", "*.wiki.org"),
        ("wiki.org", "*.org"),
        ("example.com", "*"),
    ] {
        let found = clusters.find(host, Some(443), None).and_then(|id| clusters.get(id)).unwrap();
        assert_eq!(&*found.host, expected, "{host}");
    }
    assert!(clusters.knows("x") && !Clusters::default().knows("x"));
}
