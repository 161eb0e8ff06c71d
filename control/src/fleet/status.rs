//! What people see of the fleet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilotfish_config::wire::RefusedVersion;
use pilotfish_filters::scope::ScopeClass;

use super::registration::Registration;
use super::scope::Scope;
use super::stream::Stream;
use super::{Fleet, Shared, documents};
use crate::api::types::{Action, Change, FleetStatus, SidecarDiff, SidecarStatus};
use crate::resources::{Planned, default_deny};

impl Fleet {
    /// Every sidecar that is registered.
    pub fn status(&self) -> FleetStatus {
        let streams: BTreeMap<u64, Arc<Stream>> = self.shared.streams().clone();
        let view = self.shared.view();
        let row = |own: &Arc<Registration>| self.shared.row(own, streams.get(&own.stream));
        FleetStatus {
            documents: view.committed.version,
            version: view.version,
            default_deny: default_deny::is_in(&view.committed),
            actions: view.actions.actions.clone(),
            sidecars: self.shared.registry.all().iter().map(row).collect(),
        }
    }

    /// Whether nobody may call whom no ALLOW policy lets in (`--default-deny`).
    pub fn default_deny(&self) -> bool {
        default_deny::is_in(&self.shared.view().committed)
    }

    /// Which documents would change for whom: one row for each agent with connected sidecars that it concerns.
    pub fn preview(&self, planned: &Planned) -> Vec<SidecarDiff> {
        let old = self.shared.view();
        let with = default_deny::is_in(&old.committed).then(|| default_deny::with(&planned.committed));
        let new = with.as_ref().unwrap_or(&planned.committed);
        let differing = documents::differing(&old.committed, new);
        let mut rows: BTreeMap<(String, String), SidecarDiff> = BTreeMap::new();
        let mut made: HashMap<(ScopeClass, ScopeClass), Vec<Change>> = HashMap::new();
        for registration in self.shared.registry.all() {
            let facts = &registration.facts;
            let classes = (Scope::class_of(&old.committed, facts), Scope::class_of(new, facts));
            let changes = made.entry(classes).or_insert_with(|| {
                changes(&Scope::of(&old.committed, facts), &Scope::of(new, facts), &differing)
            });
            if changes.is_empty() {
                continue;
            }
            let row = rows.entry((facts.namespace.clone(), facts.agent.clone()));
            let row = row.or_insert_with(|| SidecarDiff {
                agent: facts.agent.clone(),
                namespace: facts.namespace.clone(),
                instances: 0,
                changes: changes.clone(),
            });
            row.instances += 1;
        }
        rows.into_values().collect()
    }
}

fn changes(before: &Scope, after: &Scope, differing: &[documents::Differing]) -> Vec<Change> {
    let change = |own: &documents::Differing| {
        let seen = own.before.is_some() && before.document(&own.key);
        let sees = own.after.is_some() && after.document(&own.key);
        let action = match (seen, sees) {
            (false, false) => return None,
            (false, true) => Action::Created,
            (true, false) => Action::Removed,
            (true, true) => Action::Changed,
        };
        Some(Change { key: own.key.clone(), action })
    };
    differing.iter().filter_map(change).collect()
}

impl Shared {
    /// A sidecar as people see it. Versions are those of the documents.
    pub(super) fn row(&self, registration: &Registration, stream: Option<&Arc<Stream>>) -> SidecarStatus {
        let (status, live) = (self.registry.status(registration), registration.live().clone());
        let facts = &registration.facts;
        let mut row = SidecarStatus {
            agent: facts.agent.clone(),
            namespace: facts.namespace.clone(),
            instance: facts.instance.clone(),
            connected: stream.is_some(),
            status,
            detail: live.detail,
            address: facts.address.map(|address| address.to_string()),
            rendered: 0,
            distributed: 0,
            accepted: 0,
            serving: 0,
            refused: None,
            last_contact: self.wall(registration.heard()),
            certificate_expires: live.certificate_expires,
            build: facts.build.clone(),
            unsigned: !facts.signs_chains,
        };
        if let Some(stream) = stream {
            let (class, progress) = (stream.class(), stream.progress().clone());
            let documents = |version: u64| class.documents_of(version);
            row.rendered = class.rendered();
            row.distributed = progress.sent.map_or(0, |sent| documents(sent.version));
            row.accepted = documents(progress.accepted);
            row.serving = documents(progress.serving);
            row.refused = progress.refused.map(|refused| RefusedVersion {
                version: documents(refused.version),
                reasons: refused.reasons,
            });
        }
        row
    }

    /// Seconds since 1970 of a time in milliseconds since the start.
    fn wall(&self, at: u64) -> u64 {
        let ago = Duration::from_millis(self.now().saturating_sub(at));
        let at = SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH);
        at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}
