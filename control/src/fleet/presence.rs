//! Agents that are there, and those that were and went without a word: what the rules for unavailable agents look at.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pilotfish_config::wire::Status;

use super::Shared;

/// Lost agents that are remembered; the oldest are forgotten first.
const MOST_LOST: usize = 10_000;
/// How long a lost agent is remembered, milliseconds: a day.
const REMEMBERED: u64 = 24 * 3_600_000;

/// One agent, all its instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// `namespace/name`.
    pub agent: String,
    /// Instances that are registered.
    pub instances: u32,
    /// Instances that may be chosen.
    pub routable: u32,
    /// Instances that are connected to this control plane.
    pub here: u32,
    /// Calls in flight at those.
    pub in_flight: u64,
    /// It is out of use on purpose: all instances drain, or its certificates are revoked.
    pub retired: bool,
    /// Its last instance went without a word, milliseconds since the fleet started.
    pub lost: Option<u64>,
}

/// Agents whose last instance went without a word, with the time.
#[derive(Debug, Default)]
pub(super) struct Lost {
    agents: Mutex<HashMap<String, u64>>,
}

impl Lost {
    /// The lease of an instance ran out.
    pub(super) fn lost(&self, agent: String, now: u64) {
        let mut agents = self.lock();
        agents.retain(|_, at| now.saturating_sub(*at) <= REMEMBERED);
        if agents.len() >= MOST_LOST
            && let Some(oldest) = agents.iter().min_by_key(|(_, at)| **at).map(|(agent, _)| agent.clone())
        {
            agents.remove(&oldest);
        }
        agents.entry(agent).or_insert(now);
    }

    /// An instance of it said good-bye: it does not have to come back.
    pub(super) fn left(&self, agent: &str) {
        self.lock().remove(agent);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Every agent that is there or lost, by name.
    pub(super) fn presence(&self) -> Vec<Presence> {
        let mut agents: BTreeMap<String, Presence> = BTreeMap::new();
        self.registry.each(|registration| {
            let facts = &registration.facts;
            let name = format!("{}/{}", facts.namespace, facts.agent);
            let own = agents.entry(name.clone());
            let own = own.or_insert_with(|| Presence { agent: name, retired: true, ..Presence::default() });
            let status = self.registry.status(registration);
            own.instances += 1;
            own.routable += u32::from(status.is_routable());
            own.retired &= matches!(status, Status::Draining | Status::Quarantined);
            let live = registration.live();
            if live.owner == self.id {
                own.here += 1;
                own.in_flight += u64::from(live.in_flight);
            }
        });
        let (mut lost, now) = (self.lost.lock(), self.now());
        lost.retain(|agent, at| !agents.contains_key(agent) && now.saturating_sub(*at) <= REMEMBERED);
        for (agent, at) in lost.iter() {
            let own = Presence { agent: agent.clone(), lost: Some(*at), ..Presence::default() };
            agents.insert(agent.clone(), own);
        }
        agents.into_values().collect()
    }
}
