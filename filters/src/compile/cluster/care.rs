//! How each endpoint of a cluster is watched: outlier detection, breaker, active check.

use std::sync::Arc;

use pilotfish_config::model::{AgentCluster, CircuitBreaker, HealthCheck, TrafficPolicy, Wish};

use crate::endpoint::Care;
use crate::endpoint::EndpointStats;
use crate::endpoint::health::OutlierCare;

/// Makes the [`Care`] of each endpoint; those who are watched alike share it.
pub(super) struct Careful<'p> {
    outlier: Option<Arc<OutlierCare>>,
    breaker: &'p Wish<CircuitBreaker>,
    check: &'p Wish<HealthCheck>,
    /// By the AgentCluster that has a say.
    made: Vec<(Option<&'p AgentCluster>, Option<Arc<Care>>)>,
}

impl<'p> Careful<'p> {
    pub(super) fn new(
        policy: &'p TrafficPolicy,
        check: &'p Wish<HealthCheck>,
        stats: &[Arc<EndpointStats>],
    ) -> Careful<'p> {
        let outlier = policy
            .outlier_detection
            .as_ref()
            .map(|policy| Arc::new(OutlierCare { policy: policy.clone(), peers: stats.into() }));
        Careful { outlier, breaker: &policy.circuit_breaker, check, made: Vec::new() }
    }

    /// That of an endpoint whose agent's AgentCluster is this.
    pub(super) fn of(&mut self, says: Option<&'p AgentCluster>) -> Option<Arc<Care>> {
        let same = |known: &Option<&AgentCluster>| match (known, says) {
            (Some(known), Some(says)) => std::ptr::eq(*known, says),
            (known, says) => known.is_none() && says.is_none(),
        };
        if let Some((_, care)) = self.made.iter().find(|(known, _)| same(known)) {
            return care.clone();
        }
        let breaker = self.breaker.or(says.map_or(&Wish::Silent, |says| &says.circuit_breaker));
        let check = self.check.or(says.map_or(&Wish::Silent, |says| &says.health_check));
        let watched = self.outlier.is_some() || breaker.is_some() || check.is_some();
        let care = watched.then(|| {
            Arc::new(Care {
                outlier: self.outlier.clone(),
                breaker: breaker.cloned().map(Arc::new),
                check: check.cloned().map(Arc::new),
            })
        });
        self.made.push((says, care.clone()));
        care
    }
}
