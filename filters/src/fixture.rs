//! Clusters for tests, without a configuration.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::model::{Locality, LocalityMode};

use crate::balance::locality::{self, Place};
use crate::balance::{Algorithm, Pick};
use crate::clock::Micros;
use crate::cluster::{self, Cluster, ClusterSpec, Lease, Outcome};
use crate::endpoint::{Care, Endpoint, Labels};
use crate::state::{Pass, State};

/// The point in time that many milliseconds after an arbitrary start.
pub(crate) fn at(millis: u64) -> Micros {
    Micros(1_000_000_000 + millis * 1000)
}

/// A pick without key, at `now`.
pub(crate) fn pick(now: Micros) -> Pick<'static> {
    Pick { key: None, now, tried: &[], remote: false, compared: None }
}

/// A pick by key.
pub(crate) fn by_key(key: u64) -> Pick<'static> {
    Pick { key: Some(key), now: at(0), tried: &[], remote: false, compared: None }
}

/// The address of the endpoint number `n`.
pub(crate) fn addr(n: u32) -> SocketAddr {
    SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into(), 8080)
}

/// What a cluster of a test is made of.
#[derive(Default)]
pub(crate) struct Make {
    pub(crate) spec: ClusterSpec,
    /// Number and weight of each endpoint.
    pub(crate) endpoints: Vec<(u32, u32)>,
    /// The locality of each, when it matters.
    pub(crate) localities: Vec<&'static str>,
    /// The labels of each, when they matter.
    pub(crate) labels: Vec<&'static [(&'static str, &'static str)]>,
    pub(crate) mode: Option<LocalityMode>,
    pub(crate) place: Place,
    pub(crate) care: Option<Arc<Care>>,
}

impl Make {
    /// `count` endpoints of weight 1.
    pub(crate) fn even(algorithm: Algorithm, count: u32) -> Make {
        Make::weighted(algorithm, &vec![1; count as usize])
    }

    /// One endpoint for each weight.
    pub(crate) fn weighted(algorithm: Algorithm, weights: &[u32]) -> Make {
        let spec = ClusterSpec {
            host: "s.default.svc.cluster.local".into(),
            port: 80,
            algorithm,
            ..Default::default()
        };
        Make { spec, endpoints: (0..).zip(weights.iter().copied()).collect(), ..Make::default() }
    }

    pub(crate) fn endpoints(&self, pass: &mut Pass<'_>) -> Vec<Arc<Endpoint>> {
        let name = cluster::name(&self.spec.host, self.spec.port, None);
        let make = |(index, (n, weight)): (usize, &(u32, u32))| {
            Arc::new(Endpoint {
                addr: addr(*n),
                unix: None,
                hostname: None,
                labels: self
                    .labels
                    .get(index)
                    .map_or_else(Labels::default, |labels| labels.iter().copied().collect()),
                locality: self
                    .localities
                    .get(index)
                    .map_or_else(Locality::default, |text| Locality::parse(text)),
                weight: *weight,
                agent: None,
                namespace: "default".into(),
                capabilities: Arc::default(),
                mesh: false,
                identity: None,
                id: None,
                degraded: false,
                dedup: None,
                stats: pass.stats(&name, addr(*n)),
                care: self.care.clone(),
            })
        };
        self.endpoints.iter().enumerate().map(make).collect()
    }

    pub(crate) fn build_in(self, state: &State, now: Micros) -> Cluster {
        let mut pass = state.begin(now);
        let mut endpoints = self.endpoints(&mut pass);
        let mut levels = match &self.mode {
            Some(mode) => locality::levels(&endpoints, &self.place, mode),
            None => locality::all(&endpoints),
        };
        if matches!(self.spec.algorithm, Algorithm::Ring { .. } | Algorithm::Maglev { .. }) {
            locality::merge_groups(&mut endpoints, &mut levels);
        }
        Cluster::new(self.spec, endpoints, &levels, &mut pass)
    }

    pub(crate) fn build(self) -> Cluster {
        self.build_in(&State::with_seed(1), at(0))
    }
}

/// The number of the endpoint of a lease.
pub(crate) fn number(lease: &Lease) -> u32 {
    match lease.endpoint().addr.ip() {
        std::net::IpAddr::V4(ip) => ip.to_bits() - 0x0a00_0000,
        std::net::IpAddr::V6(_) => u32::MAX,
    }
}

/// How often each endpoint number is chosen in `picks` picks, each of which ends at once.
pub(crate) fn counts(cluster: &Cluster, picks: u32, mut pick: impl FnMut(u32) -> Pick<'static>) -> Vec<u32> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut counts = vec![0; cluster.endpoints().len()];
    for n in 0..picks {
        let lease = cluster.pick(&pick(n), &mut rng).unwrap();
        counts[number(&lease) as usize] += 1;
    }
    counts
}

/// A lease on this endpoint.
pub(crate) fn lease(cluster: &Cluster, endpoint: &Arc<Endpoint>, now: Micros) -> Lease {
    cluster.lease(endpoint, now, &mut fastrand::Rng::with_seed(1)).unwrap()
}

/// Makes connects to an endpoint fail.
pub(crate) fn put_out(cluster: &Cluster, n: u32, now: Micros) {
    let endpoint = cluster.endpoints().iter().find(|endpoint| endpoint.addr == addr(n)).unwrap();
    lease(cluster, endpoint, now).record(now, Outcome::Unreachable, Duration::from_millis(1));
}

/// Fails unless every count is within `tolerance` (a part of the expected count) of its weight's share.
pub(crate) fn assert_shares(counts: &[u32], weights: &[u32], tolerance: f64) {
    let (total, sum) = (f64::from(counts.iter().sum::<u32>()), f64::from(weights.iter().sum::<u32>()));
    for (count, weight) in counts.iter().zip(weights) {
        let expected = total * f64::from(*weight) / sum;
        let off = (f64::from(*count) - expected).abs();
        assert!(off <= expected * tolerance, "{count} instead of {expected:.0}: {counts:?} for {weights:?}");
    }
}
