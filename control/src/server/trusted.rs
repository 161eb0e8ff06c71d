//! Whom this control plane trusts, kept up to date: the store's roots and revocations for its own connections, and the
//! TrustDomain documents for what sidecars are told of other meshes.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};

use pilotfish_config::Model;
use pilotfish_config::wire;
use pilotfish_identity::{Bundles, Identity, LiveIdentity, SpiffeId, TrustDomain};

use super::Control;
use crate::ca::trust::Trust;
use crate::log;
use crate::resources::Resources;

/// Puts roots and revocations of the own domain in force for this control plane's connections. Certificates of
/// federated domains are for sidecars: nobody of another mesh has anything to ask here.
pub(super) fn apply(live: &LiveIdentity, domain: &TrustDomain, trust: &wire::Trust) {
    let own = trust.bundles.get(domain.as_str()).cloned().unwrap_or_default();
    let bundles = match Bundles::one(domain, &own) {
        Ok(bundles) => Arc::new(bundles),
        Err(error) => {
            log::error!("the mesh's roots cannot be read; those before stay in force", why = error);
            live.load().bundles.clone()
        }
    };
    let revoked: HashSet<SpiffeId> = trust.revoked.iter().filter_map(|id| SpiffeId::parse(id).ok()).collect();
    let revoked = Arc::new(revoked);
    live.update(|identity: &mut Identity| {
        identity.bundles = bundles.clone();
        identity.revoked = revoked.clone();
    });
}

/// Follows the store for as long as the control plane is there.
pub(super) async fn follow_store(control: Weak<Control>) {
    let Some(mut changes) = control.upgrade().map(|control| control.trust.watch()) else { return };
    loop {
        let Some(control) = control.upgrade() else { return };
        let trust = changes.borrow_and_update().clone();
        apply(&control.live, &control.trust_domain, &trust);
        drop(control);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Follows the TrustDomain documents for as long as the control plane is there.
pub(super) async fn follow_documents(resources: Arc<Resources>, trust: Weak<Trust>) {
    let mut documents = resources.watch();
    let mut known = None;
    loop {
        let Some(trust) = trust.upgrade() else { return };
        let now = federated(&documents.borrow_and_update().model);
        if known.as_ref() != Some(&now) {
            trust.federate(now.clone());
            known = Some(now);
        }
        drop(trust);
        if documents.changed().await.is_err() {
            return;
        }
    }
}

/// Roots by trust domain; documents that name the same domain add up.
fn federated(model: &Model) -> BTreeMap<String, String> {
    let mut bundles: BTreeMap<String, String> = BTreeMap::new();
    for other in &model.trust_domains {
        let text = bundles.entry(other.name.clone()).or_default();
        text.push_str(&other.bundle);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    bundles
}
