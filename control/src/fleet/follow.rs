//! What changes in the store: registrations that other control planes have, their signs of life, their ranks.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::{Duration, sleep};

use super::registration::{Record, Registration};
use super::{Shared, busy, demand, peers, record, replicas, share};
use crate::log;
use crate::store::{Change, Entry, Revision, StoreError, Watch};

/// How long a store that ended a watch is left alone.
const REST: Duration = Duration::from_millis(500);

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Registrations,
    Signs,
    Ranks,
    Silence,
    Asked,
    NotStarted,
    Busy,
}

impl What {
    const fn prefix(self) -> &'static str {
        match self {
            What::Registrations => record::PREFIX,
            What::Signs => peers::PREFIX,
            What::Ranks => share::PREFIX,
            What::Silence => replicas::SILENT,
            What::Asked => demand::ASKED,
            What::NotStarted => demand::NOT_STARTED,
            What::Busy => busy::PREFIX,
        }
    }
}

/// Open watches.
#[derive(Debug)]
pub(super) struct Follow {
    shared: Arc<Shared>,
    watches: Vec<(What, Watch)>,
}

/// Loads what the store holds, and watches it from there.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn start(shared: &Arc<Shared>) -> Result<Follow, StoreError> {
    let mut watches = Vec::new();
    let all = [
        What::Signs,
        What::Registrations,
        What::Ranks,
        What::Silence,
        What::Asked,
        What::NotStarted,
        What::Busy,
    ];
    for what in all {
        let (entries, watch) = open(shared, what).await?;
        match what {
            What::Registrations => entries.into_iter().for_each(|entry| load(shared, entry)),
            _ => listed(shared, what, entries),
        }
        watches.push((what, watch));
    }
    Ok(Follow { shared: shared.clone(), watches })
}

async fn open(shared: &Shared, what: What) -> Result<(Vec<Entry>, Watch), StoreError> {
    let listed = shared.store.list(what.prefix()).await?;
    let watch = shared.store.watch(what.prefix(), listed.revision).await?;
    Ok((listed.entries, watch))
}

impl Follow {
    /// Follows until the task is aborted.
    pub(super) async fn run(self) {
        let shared = &self.shared;
        let follow = self.watches.into_iter().map(|(what, watch)| follow(shared, what, watch));
        futures_util::future::join_all(follow).await;
    }
}

async fn follow(shared: &Shared, what: What, mut watch: Watch) {
    loop {
        while let Some(Ok(changes)) = watch.recv().await {
            changes.into_iter().for_each(|change| changed(shared, what, change));
        }
        if what == What::Signs {
            shared.peers.blind();
        }
        watch = loop {
            sleep(REST).await;
            if let Ok((entries, watch)) = open(shared, what).await {
                listed(shared, what, entries);
                break watch;
            }
        };
    }
}

/// What is there now; what is not there is gone.
fn listed(shared: &Shared, what: What, entries: Vec<Entry>) {
    if what == What::Signs {
        let ids = entries.iter().filter_map(|entry| entry.key.strip_prefix(peers::PREFIX));
        return shared.peers.listed(ids.map(str::to_owned));
    }
    if what == What::Silence {
        let nodes = entries.iter().filter_map(|entry| entry.key.strip_prefix(replicas::SILENT));
        return shared.listed_silence(&nodes.collect());
    }
    if what == What::Registrations {
        let there: HashSet<&str> =
            entries.iter().filter_map(|e| e.key.strip_prefix(record::PREFIX)).collect();
        let gone = shared.revisions.ids().into_iter().filter(|id| !there.contains(&**id));
        gone.for_each(|id| removed(shared, &id));
    }
    for Entry { key, value, revision } in entries {
        changed(shared, what, Change { key, value: Some(value), revision });
    }
}

fn changed(shared: &Shared, what: What, change: Change) {
    match what {
        What::Ranks => share::heard(shared, &change),
        What::Asked => shared.heard_asked(&change),
        What::NotStarted => shared.heard_not_started(&change),
        What::Busy => busy::heard(shared, &change),
        What::Silence => {
            if let Some(node) = change.key.strip_prefix(replicas::SILENT) {
                shared.heard_silence(node, change.value.is_some());
            }
        }
        What::Signs => {
            if let Some(id) = change.key.strip_prefix(peers::PREFIX) {
                shared.peers.sign(id, change.value.is_some());
            }
        }
        What::Registrations => {
            let Some(id) = change.key.strip_prefix(record::PREFIX) else { return };
            match &change.value {
                None => removed(shared, id),
                Some(value) => {
                    if let Some(record) = read(id, value) {
                        written(shared, id, record, change.revision);
                    }
                }
            }
        }
    }
}

fn read(id: &str, value: &[u8]) -> Option<Record> {
    match serde_json::from_slice::<Record>(value) {
        Ok(record) if record.facts.id() == id => Some(record),
        Ok(_) => {
            log::warn!("a stored registration is under another's name; it is left out", key = id);
            None
        }
        Err(error) => {
            log::warn!("a stored registration cannot be read; it is left out", key = id, why = error);
            None
        }
    }
}

/// At the start: whoever was registered is, with a full lease.
fn load(shared: &Shared, entry: Entry) {
    let Some(id) = entry.key.strip_prefix(record::PREFIX) else { return };
    if let Some(record) = read(id, &entry.value) {
        shared.revisions.set(id, entry.revision);
        shared.registry.put(Arc::new(Registration::stored(record, shared.now())), false);
    }
}

/// A registration was written, here or elsewhere.
fn written(shared: &Shared, id: &str, record: Record, revision: Revision) {
    shared.revisions.set(id, revision);
    let ours = *record.owner == *shared.id;
    let Some(known) = shared.registry.get(id) else {
        let registration = Arc::new(Registration::stored(record, shared.now()));
        match ours {
            // It is gone here; then it has to go there.
            true => shared.registry.to_be_stored(&registration.id),
            false => shared.registry.put(registration, false),
        }
        return;
    };
    let known_owner = known.live().owner.clone();
    if known_owner == shared.id {
        // The higher claim is the newer stream; of two alike any will do, as long as all choose the same.
        let newer = (record.claim, record.owner.as_str()) > (known.claim, &*shared.id);
        match (ours, newer) {
            (true, _) => return,
            (false, false) => return shared.registry.to_be_stored(&known.id),
            (false, true) => shared.streams().get(&known.stream).iter().for_each(|stream| stream.supersede()),
        }
    } else if record.claim < known.claim {
        return;
    }
    shared.registry.put(Arc::new(Registration::stored(record, shared.now())), false);
}

/// A registration was removed, here or elsewhere.
fn removed(shared: &Shared, id: &str) {
    shared.revisions.remove(id);
    let Some(known) = shared.registry.get(id) else { return };
    if known.live().owner == shared.id {
        // Somebody thought that this control plane was dead.
        shared.registry.to_be_stored(&known.id);
    } else if shared.registry.remove(&known) {
        shared.ranks.forget(id);
    }
}
