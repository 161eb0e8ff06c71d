//! Who can do something, the best first: the sidecars' own rules, on what all sidecars together measured.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::model::{Capability, Locality};
use pilotfish_config::wire::Status;
use pilotfish_filters::capability::{Candidate, Catalogue, Constraint, Demand, parse_wanted};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::cluster::ClusterId;
use pilotfish_filters::endpoint::{Endpoint, EndpointStats};
use pilotfish_filters::verdict::{Deny, Reason};
use tokio::time::Instant;

use super::ranks::Ranked;
use super::registration::Registration;
use super::{Fleet, Shared};
use crate::api::types::{AgentRow, Agents};

/// One instance, as it is listed and as it is judged.
struct Instance {
    row: AgentRow,
    candidate: Option<Candidate>,
}

impl Fleet {
    /// Agents that have `capability` and meet `constraint` (as the headers `agent-capability` and `agent-constraint`
    /// say it), ranked by the cost that sidecars reckon with; then all others with the reasons.
    ///
    /// # Errors
    /// What cannot be read of the two, for a person.
    pub fn agents(&self, capability: Option<&str>, constraint: Option<&str>) -> Result<Agents, String> {
        let said = |deny: Deny| deny.detail.map_or_else(|| deny.reason.word().into(), String::from);
        let demand = Demand {
            wanted: capability.map_or(Ok(Vec::new()), parse_wanted).map_err(said)?,
            constraint: constraint.map_or(Ok(Constraint::default()), Constraint::parse).map_err(said)?,
            ..Demand::default()
        };
        let now = Micros(self.shared.now().saturating_mul(1000));
        let instances = self.shared.instances(now);
        let catalogue = Catalogue::new(instances.iter().filter_map(|own| own.candidate.clone()).collect());
        if let Err(deny) = catalogue.candidates(&demand, now)
            && deny.reason == Reason::BadConstraint
        {
            return Err(said(deny));
        }
        let actions = self.shared.view().actions.actions.clone();
        Ok(Agents { actions, ..ranked(instances, &demand, now) })
    }
}

impl Fleet {
    /// The names of all capabilities that an agent says it has, or that documents give one.
    pub fn capability_names(&self) -> BTreeSet<String> {
        let view = self.shared.view();
        let mut all: BTreeSet<String> = view.given.values().flatten().cloned().collect();
        self.shared.registry.each(|own| all.extend(own.facts.capabilities.iter().cloned()));
        all.iter().filter_map(|one| Some(Capability::parse(one).ok()?.name)).collect()
    }
}

fn ranked(instances: Vec<Instance>, demand: &Demand, now: Micros) -> Agents {
    let (mut able, mut others) = (Vec::new(), Vec::new());
    for Instance { mut row, candidate } in instances {
        let Some(candidate) = candidate else {
            row.why_not = Some(match row.status {
                status if status.is_routable() && !row.address.is_empty() => "its node is silent".into(),
                status if status.is_routable() => "it calls others only".into(),
                status => format!("it is {}", status.word()),
            });
            others.push(row);
            continue;
        };
        let why_not = candidate.why_not(demand, now);
        if why_not.is_empty() {
            let cost = candidate.endpoint.stats.cost(now) / row_weight(&candidate);
            able.push((row.status != Status::Ready, cost, row));
        } else {
            row.why_not = Some(why_not.join("; "));
            others.push(row);
        }
    }
    // Instances come in the order of their ids, which is what equal ones keep.
    able.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let place = |(at, (_, _, row)): (usize, (bool, f32, AgentRow))| AgentRow { rank: Some(at + 1), ..row };
    Agents { agents: able.into_iter().enumerate().map(place).collect(), others, actions: Vec::new() }
}

fn row_weight(candidate: &Candidate) -> f32 {
    candidate.endpoint.weight.max(1) as f32
}

impl Shared {
    fn instances(&self, now: Micros) -> Vec<Instance> {
        let (view, instant) = (self.view(), Instant::now());
        let nothing = Vec::new();
        let instance = |registration: &Arc<Registration>| {
            let facts = &registration.facts;
            let further = view.given.get(&format!("{}/{}", facts.namespace, facts.agent)).unwrap_or(&nothing);
            let status = self.registry.status(registration);
            let measured = self.ranks.of(&registration.id, instant);
            let row = AgentRow {
                agent: facts.agent.clone(),
                namespace: facts.namespace.clone(),
                instance: facts.instance.clone(),
                address: facts.address.map(|address| address.to_string()).unwrap_or_default(),
                locality: facts.locality.clone().unwrap_or_default(),
                capabilities: registration.capabilities(further),
                labels: facts.labels.clone(),
                status,
                latency_us: measured.as_ref().map(|measured| measured.rank.latency_us),
                success: measured.as_ref().map(|measured| measured.rank.success),
                in_flight: measured.as_ref().map_or(0, |measured| measured.rank.in_flight),
                rank: None,
                why_not: None,
                usage: registration.live().usage,
                health: self.ranks.out(&registration.id, instant).map(|(health, by)| {
                    let sidecars = if by == 1 { "1 sidecar".to_owned() } else { format!("{by} sidecars") };
                    format!("{} ({sidecars})", health.reason)
                }),
            };
            let candidate = match self.replicas.is_silent(registration) {
                true => None,
                false => candidate(registration, &row, measured.as_ref(), now),
            };
            Instance { row, candidate }
        };
        self.registry.all().iter().map(instance).collect()
    }
}

/// As a sidecar would judge it; none for one that is not chosen.
fn candidate(
    registration: &Registration,
    row: &AgentRow,
    measured: Option<&Ranked>,
    now: Micros,
) -> Option<Candidate> {
    let facts = &registration.facts;
    let addr = facts.address.filter(|_| row.status.is_routable())?;
    let stats = match measured {
        Some(Ranked { rank, calls, .. }) => {
            let latency = Duration::from_micros(rank.latency_us);
            EndpointStats::measured(now, latency, rank.success, rank.in_flight, *calls)
        }
        None => EndpointStats::new(now),
    };
    let endpoint = Endpoint {
        addr,
        unix: None,
        hostname: None,
        labels: facts.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        locality: facts.locality.as_deref().map(Locality::parse).unwrap_or_default(),
        weight: facts.weight,
        agent: Some(facts.agent.as_str().into()),
        namespace: facts.namespace.as_str().into(),
        capabilities: row.capabilities.iter().filter_map(|text| Capability::parse(text).ok()).collect(),
        mesh: true,
        identity: None,
        id: Some(registration.id.clone()),
        degraded: row.status == Status::Degraded,
        dedup: facts.dedup_epoch.as_deref().map(Into::into),
        stats: Arc::new(stats),
        care: None,
    };
    Some(Candidate { endpoint: Arc::new(endpoint), cluster: ClusterId(0) })
}
