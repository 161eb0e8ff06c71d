//! Slices of fleet-wide rate limits, four times a second, to those whose slice changed.
//!
//! Of several control planes on one store each shares out the part that its sidecars are of all that keep the limit. A
//! part that grows counts only when it has been so for a while: the other control plane has to have seen it too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use pilotfish_config::model::RateLimit;
use pilotfish_config::wire::{LimitUse, Share};
use tokio::time::{Duration, MissedTickBehavior, interval};

use super::Shared;
use super::limits::{Split, WHOLE};
use super::registration::Registration;

/// How often slices are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A part of the whole grows so late: longer than a store takes to tell.
const GROWS_AFTER: Duration = Duration::from_secs(3);

/// One limit here.
#[derive(Debug)]
struct Portion {
    split: Split,
    part: u32,
    /// Since when it could be larger.
    larger: Option<Duration>,
}

/// Every fleet-wide limit that sidecars reported, by `namespace/name`.
#[derive(Debug, Default)]
pub(super) struct Portions(Mutex<BTreeMap<String, Portion>>);

impl Portions {
    /// Takes in what a sidecar used; only of limits that are for it.
    pub(super) fn report(&self, shared: &Shared, registration: &Registration, limits: &[LimitUse]) {
        let committed = shared.view().committed.clone();
        let now = Duration::from_millis(shared.now());
        let mut portions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for used in limits {
            let document =
                fleet_limits(&committed.model.rate_limits).find(|limit| is_named(limit, &used.name));
            if document.is_some_and(|document| is_for(document, registration)) {
                let portion = portions.entry(used.name.clone()).or_insert_with(|| Portion {
                    split: Split::new(now),
                    part: 0,
                    larger: None,
                });
                portion.split.report(&registration.id, registration.stream, used);
            }
        }
    }
}

fn fleet_limits(limits: &[RateLimit]) -> impl Iterator<Item = &RateLimit> {
    limits.iter().filter(|limit| limit.fleet)
}

fn is_named(limit: &RateLimit, name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(namespace, name)| limit.meta.namespace() == namespace && limit.meta.name() == name)
}

fn is_for(limit: &RateLimit, registration: &Registration) -> bool {
    limit.is_for(&registration.facts.namespace, &registration.facts.labels)
}

/// Shares out until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        look(&shared);
    }
}

fn look(shared: &Shared) {
    let mut portions = shared.portions.0.lock().unwrap_or_else(PoisonError::into_inner);
    if portions.is_empty() {
        return;
    }
    let committed = shared.view().committed.clone();
    let now = Duration::from_millis(shared.now());
    let mut tell: HashMap<u64, Vec<Share>> = HashMap::new();
    portions.retain(|name, portion| {
        let document = fleet_limits(&committed.model.rate_limits).find(|limit| is_named(limit, name));
        let Some(document) = document else { return false };
        let (mut own, mut all) = (HashSet::new(), 0_usize);
        shared.registry.each(|registration| {
            if is_for(document, registration) && !shared.registry.is_revoked(registration) {
                all += 1;
                if registration.live().owner == shared.id {
                    own.insert(registration.id.clone());
                }
            }
        });
        portion.settle(own.len(), all, now);
        portion.split.keep(|id| own.contains(id));
        if portion.part == 0 {
            return true;
        }
        portion.split.share_out(portion.part, own.len(), now, shared.settings.lease);
        for (stream, share, turn) in portion.split.tell() {
            tell.entry(stream).or_default().push(Share { name: name.clone(), share, turn });
        }
        true
    });
    drop(portions);
    let streams = shared.streams();
    for (number, shares) in tell {
        streams.get(&number).iter().for_each(|stream| stream.portion(shares.clone()));
    }
}

impl Portion {
    /// This control plane has `own` of `all` sidecars.
    fn settle(&mut self, own: usize, all: usize, now: Duration) {
        let part = (u64::from(WHOLE) * own as u64 / all.max(1) as u64) as u32;
        let first = own == all && self.part == 0;
        let grows = part > self.part && !first;
        if grows && now < *self.larger.get_or_insert(now) + GROWS_AFTER {
            return;
        }
        (self.part, self.larger) = (part, None);
    }
}
