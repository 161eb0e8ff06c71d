//! Leases: who was not heard for a lease is taken out. One look over everybody, four times a second.
//!
//! A control plane looks after those that are, or were last, connected to it. Those of a control plane that is dead
//! are looked after by all others: who is not taken over within a lease is taken out.

use std::sync::Arc;

use pilotfish_config::wire::Status;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use super::peers::{PREFIX, SIGN_EVERY};
use super::registration::Registration;
use super::{Shared, busy, share};
use crate::log;
use crate::store::Batch;

/// How often leases are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What a dead control plane left is cleared away after so many leases.
const CLEARED_AFTER: u32 = 6;

/// Looks after leases and signs of life until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    tokio::join!(look(&shared), sign(&shared));
}

async fn look(shared: &Shared) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for registration in expired(shared) {
            if shared.registry.remove(&registration) {
                shared.ranks.forget(&registration.id);
                if registration.live().status != Status::Draining {
                    shared.lost.lost(registration.facts.agent(), shared.now());
                }
                log::info!("a lease ran out", id = registration.id);
            }
        }
    }
}

fn expired(shared: &Shared) -> Vec<Arc<Registration>> {
    let (now, lease) = (shared.now(), u64::try_from(shared.settings.lease.as_millis()).unwrap_or(u64::MAX));
    let mut expired = Vec::new();
    shared.registry.each(|registration| {
        if now.saturating_sub(registration.heard()) > lease && !is_looked_after(shared, registration) {
            expired.push(registration.clone());
        }
    });
    expired
}

/// Whether another control plane lives that looks after it, or lived until less than a lease ago.
fn is_looked_after(shared: &Shared, registration: &Registration) -> bool {
    let owner = registration.live().owner.clone();
    if owner == shared.id {
        return false;
    }
    let dead = shared.peers.dead_since(&owner);
    dead.is_none_or(|since| Instant::now() < since + shared.settings.lease)
}

/// Signs that this control plane lives, and clears away what dead ones left.
async fn sign(shared: &Shared) {
    let mut ticks = interval(SIGN_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let key = format!("{PREFIX}{}", shared.id);
        let put = vec![(key, env!("CARGO_PKG_VERSION").into())];
        // Others notice when it does not arrive; there is nobody else to tell.
        let _ = shared.store.batch(Batch { put, ..Batch::default() }).await;
        shared.edges.forget_old(shared.now());
        for id in shared.peers.long_dead(shared, shared.settings.lease * CLEARED_AFTER) {
            let delete = vec![format!("{PREFIX}{id}")];
            let _ = shared.store.batch(Batch { delete, ..Batch::default() }).await;
            share::clear(shared, &id).await;
            busy::clear(shared, &id).await;
        }
    }
}
