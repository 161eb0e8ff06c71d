//! Agents that are started when somebody asks for them: who of them could serve a call for which there is nobody now.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::model::Capability;

use crate::capability::constraint::Test;
use crate::capability::{Candidate, Demand};
use crate::clock::Micros;
use crate::cluster::{Cluster, ClusterId};
use crate::endpoint::{Endpoint, EndpointStats, Labels};
use crate::verdict::{Deny, Reason};

/// An agent that documents start on demand, and that this sidecar may call.
#[derive(Debug)]
pub struct OnDemandAgent {
    /// `namespace/name`.
    pub id: Arc<str>,
    /// How long a call waits for one to start.
    pub wait: Duration,
    /// Calls of this sidecar that wait for it at the same time, at most.
    pub most_waiting: u32,
    /// What its instances will have: as an endpoint that is nowhere.
    candidate: Candidate,
}

impl OnDemandAgent {
    /// An agent of this name and namespace.
    pub(crate) fn new(
        (namespace, name): (&str, &str),
        (wait, most_waiting): (Duration, u32),
        (capabilities, labels): (Arc<[Capability]>, Labels),
        now: Micros,
    ) -> OnDemandAgent {
        let endpoint = Endpoint {
            addr: ([0, 0, 0, 0], 0).into(),
            unix: None,
            hostname: None,
            labels,
            locality: Default::default(),
            weight: 1,
            agent: Some(name.into()),
            namespace: namespace.into(),
            capabilities,
            mesh: true,
            identity: None,
            id: None,
            degraded: false,
            dedup: None,
            stats: Arc::new(EndpointStats::new(now)),
            care: None,
        };
        OnDemandAgent {
            id: format!("{namespace}/{name}").into(),
            wait,
            most_waiting,
            candidate: Candidate { endpoint: Arc::new(endpoint), cluster: ClusterId(0) },
        }
    }

    /// Whether an instance of it may meet `demand`: what is known of it does, and the rest depends on where it is placed.
    fn could_meet(&self, demand: &Demand, now: Micros) -> bool {
        let own = &self.candidate;
        let subset = |(key, value): (&str, &str)| match own.endpoint.label(key) {
            Some(known) => known == value,
            None => is_placed(key),
        };
        demand.wanted.iter().all(|wanted| own.offers(wanted))
            && demand.subset.iter().all(subset)
            && demand.constraint.terms.iter().all(|term| match &term.test {
                Test::Value { key, .. } if own.value(key).is_none() => is_placed(key),
                _ => own.meets(term, &demand.wanted, now),
            })
    }
}

/// Whose instance an endpoint is.
fn name(endpoint: &Endpoint) -> (&str, Option<&str>) {
    (&endpoint.namespace, endpoint.agent.as_deref())
}

/// What a replica gets by its place; nobody knows it before it has one.
fn is_placed(key: &str) -> bool {
    matches!(key, "region" | "zone" | "resource-type" | "gpu-model" | "gpu-pool")
        || key.starts_with("pilotfish.dev/")
}

/// All of a plan, with whether some instance is there.
#[derive(Debug, Default)]
pub struct OnDemand(Box<[(Arc<OnDemandAgent>, bool)]>);

impl OnDemand {
    /// These, of which those are there that `endpoints` are instances of.
    pub(crate) fn new<'e>(
        agents: Vec<Arc<OnDemandAgent>>,
        endpoints: impl Iterator<Item = &'e Arc<Endpoint>>,
    ) -> OnDemand {
        if agents.is_empty() {
            return OnDemand::default();
        }
        let there: HashSet<_> = endpoints.map(|endpoint| name(endpoint)).collect();
        let marked = agents.into_iter().map(|agent| {
            let there = there.contains(&name(&agent.candidate.endpoint));
            (agent, there)
        });
        OnDemand(marked.collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who could be started for a call by capability that was refused with `deny`: agents of which nothing runs, or of which more may
    /// run when all that do are full.
    pub fn for_demand<'d>(
        &'d self,
        demand: &'d Demand,
        deny: &Deny,
        now: Micros,
    ) -> impl Iterator<Item = &'d Arc<OnDemandAgent>> {
        let full = deny.reason == Reason::Overloaded;
        // A key that no endpoint carries is refused as bad while there is no endpoint.
        let any = full || matches!(deny.reason, Reason::NobodyQualifies | Reason::BadConstraint);
        let agents = self.0.iter().filter(move |(_, there)| any && (full || !there));
        agents.map(|(agent, _)| agent).filter(move |agent| agent.could_meet(demand, now))
    }

    /// Who could be started for a call to a cluster that was refused with `deny`.
    pub fn for_cluster<'c>(cluster: &'c Cluster, deny: &Deny) -> Option<&'c Arc<OnDemandAgent>> {
        let nobody = deny.reason == Reason::NoEndpoint && cluster.endpoints().is_empty();
        cluster.on_demand.as_ref().filter(|_| nobody || deny.reason == Reason::Overloaded)
    }
}
