//! How busy replicas are, for the other control planes of the store: the one that leads placement stops those that are idle.
//!
//! Each control plane keeps what it knows of the replicas of agents on demand at it under `placement/busy/<control>/<replica>`, written
//! only when one becomes busy or idle, and only while another control plane lives. How long it is idle grows by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Duration, MissedTickBehavior, interval};

use super::replicas::replica;
use super::{Shared, demand};
use crate::store::{Batch, Change};

/// Where it is.
pub(super) const PREFIX: &str = "placement/busy/";
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// One that had a call within this time is busy: one with a call now and then is not told of every time.
const BUSY: u64 = 30_000;
/// At most this many in a batch; the store takes 100 operations.
const MOST: usize = 64;

/// What another control plane says of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    /// Milliseconds without a call when it was said; `None`: busy.
    idle: Option<u64>,
    /// When it came, milliseconds since the fleet started.
    at: u64,
}

impl Word {
    /// Milliseconds without a call.
    pub(super) fn idle(self, now: u64) -> u64 {
        self.idle.map_or(0, |idle| idle.saturating_add(now.saturating_sub(self.at)))
    }
}

/// Tells the others until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Whether each was said to be busy.
    let mut told: BTreeMap<String, bool> = BTreeMap::new();
    loop {
        ticks.tick().await;
        let here = if shared.peers.others(&shared) { here(&shared) } else { BTreeMap::new() };
        let key = |replica: &str| format!("{PREFIX}{}/{replica}", shared.id);
        let mut changes: Vec<(String, Option<u64>)> = Vec::new();
        for (replica, idle) in &here {
            if told.get(replica) != Some(&(*idle < BUSY)) {
                changes.push((replica.clone(), Some(*idle)));
            }
        }
        changes
            .extend(told.keys().filter(|known| !here.contains_key(*known)).map(|gone| (gone.clone(), None)));
        for some in changes.chunks(MOST) {
            let mut batch = Batch::default();
            for (replica, idle) in some {
                match idle {
                    Some(idle) => batch.put.push((key(replica), written(*idle))),
                    None => batch.delete.push(key(replica)),
                }
            }
            // What does not arrive is told the next time.
            if shared.store.batch(batch).await.is_err() {
                break;
            }
            for (replica, idle) in some {
                match idle {
                    Some(idle) => told.insert(replica.clone(), *idle < BUSY),
                    None => told.remove(replica),
                };
            }
        }
    }
}

fn written(idle: u64) -> Bytes {
    if idle < BUSY { "busy".into() } else { idle.to_string().into() }
}

/// Milliseconds without a call, of each replica of an agent on demand that is connected here.
fn here(shared: &Shared) -> BTreeMap<String, u64> {
    let (view, now) = (shared.view(), shared.now());
    let mut found = BTreeMap::new();
    shared.registry.each(|registration| {
        let Some(replica) = replica(registration) else { return };
        let live = registration.live();
        if live.owner == shared.id
            && view.on_demand.contains_key(&registration.facts.agent())
            && let Some(idle) = live.idle_at(now)
        {
            found.insert(replica.to_owned(), idle);
        }
    });
    found
}

/// Another control plane says something.
pub(super) fn heard(shared: &Shared, change: &Change) {
    let Some((control, replica)) = change.key.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/'))
    else {
        return;
    };
    if *control == *shared.id {
        return;
    }
    let text = change.value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
    let word = text.map(|text| Word { idle: text.parse().ok(), at: shared.now() });
    shared.replicas.elsewhere(replica, word);
}

/// Clears away what a control plane said.
pub(super) async fn clear(shared: &Shared, control: &str) {
    let own = |key: &str| key.ends_with(&format!("/{control}"));
    for (prefix, all) in [(format!("{PREFIX}{control}/"), true), (demand::ASKED.to_owned(), false)] {
        let Ok(listed) = shared.store.list(&prefix).await else { return };
        let keys: Vec<String> =
            listed.entries.into_iter().map(|entry| entry.key).filter(|key| all || own(key)).collect();
        for some in keys.chunks(MOST) {
            let _ = shared.store.batch(Batch { delete: some.to_vec(), ..Batch::default() }).await;
        }
    }
}
