//! The open connections of one worker by peer, in both directions: what is to be done with them when trust changes.
//!
//! A connection is verified once, by its handshake. Afterwards a revocation or the removal of a root cuts it, in-flight
//! requests included; the end of the peer's certificate lets nothing new begin, and cuts a little later.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime};

use pilotfish_filters::clock::Micros;
use pilotfish_filters::held::{Grip, Held};
use pilotfish_identity::{LiveIdentity, Refused};

use super::MeshPeer;
use crate::http::Closing;
use crate::http::io::Fuse;
use crate::telemetry::log;

/// How long a connection may outlive its peer's certificate.
pub const GRACE: Duration = Duration::from_secs(300);
/// Connections below which nobody looks for closed ones before the next second.
const FEW: usize = 64;

/// One open connection.
#[derive(Debug)]
struct Open {
    peer: Rc<MeshPeer>,
    fuse: Weak<Fuse>,
    /// Tells an accepted connection to end after its present request.
    closing: Option<Closing>,
}

/// The open mesh connections of one worker.
#[derive(Debug, Default)]
pub struct Peers {
    open: RefCell<Vec<Open>>,
    /// When the list is so long, closed connections are looked for.
    tidy_at: Cell<usize>,
    /// The version of the identity by which all were judged last.
    judged: Cell<u64>,
}

impl Peers {
    /// Watches a connection until it is closed.
    pub fn add(&self, peer: Rc<MeshPeer>, fuse: &Rc<Fuse>, closing: Option<Closing>) {
        let mut open = self.open.borrow_mut();
        if open.len() >= self.tidy_at.get().max(FEW) {
            open.retain(|one| one.fuse.strong_count() > 0);
            self.tidy_at.set(2 * open.len());
        }
        open.push(Open { peer, fuse: Rc::downgrade(fuse), closing });
    }

    /// Judges every connection by what is trusted now. Called once a second, and at once when trust changes.
    pub fn judge(&self, live: &LiveIdentity) {
        self.judge_at(live, live.now());
    }

    fn judge_at(&self, live: &LiveIdentity, now: SystemTime) {
        let version = live.version();
        let changed = self.judged.replace(version) != version;
        let mut cut: Vec<(Rc<Fuse>, Rc<MeshPeer>, Refused)> = Vec::new();
        self.open.borrow_mut().retain(|one| {
            let Some(fuse) = one.fuse.upgrade() else { return false };
            let trusted = if changed { live.still_trusted(&one.peer.peer) } else { Ok(()) };
            match trusted.and_then(|()| one.age(&fuse, now)) {
                Ok(()) => true,
                Err(why) => {
                    cut.push((fuse, one.peer.clone(), why));
                    false
                }
            }
        });
        // Outside of the borrow: a woken task may close what it holds.
        for (fuse, _, _) in &cut {
            fuse.blow();
        }
        if let Some((_, peer, why)) = cut.first() {
            let (peer, reason) = (&peer.peer.id, why.reason());
            log::warn!("connections cut", connections = cut.len(), peer = peer, reason = reason);
        }
    }

    /// Cuts the connections of those who are held now, and were not `before`: all of them, or of who is restricted those by which it
    /// calls. Gives how many those are.
    pub fn cut(&self, held: &Held, before: Option<&Held>, now: Micros) -> usize {
        let own = held.own_since(before, now);
        let mut cut = Vec::new();
        self.open.borrow_mut().retain(|one| {
            let Some(fuse) = one.fuse.upgrade() else { return false };
            let peer = held.agent_since(before, &one.peer.principal.id, now);
            // Of a connection that was accepted the peer is who calls.
            let caller = if one.closing.is_some() { peer } else { own };
            if [own, peer].contains(&Some(Grip::Quarantined)) || caller.is_some() {
                cut.push(fuse);
                return false;
            }
            true
        });
        // Outside of the borrow: a woken task may close what it holds.
        cut.iter().for_each(|fuse| fuse.blow());
        cut.len()
    }

    /// Lets every accepted connection end after its present request: the process drains.
    pub fn close(&self) {
        for one in self.open.borrow().iter() {
            one.closing.iter().for_each(Closing::start);
        }
    }
}

impl Open {
    fn age(&self, fuse: &Fuse, now: SystemTime) -> Result<(), Refused> {
        let peer = &self.peer.peer;
        let Ok(over) = now.duration_since(peer.not_after) else { return Ok(()) };
        if over > GRACE {
            return Err(Refused::Expired(peer.id.clone()));
        }
        if !over.is_zero() && !fuse.is_retired() {
            fuse.retire();
            self.closing.iter().for_each(Closing::start);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::sync::Arc;

    use pilotfish_identity::{Bundles, Credentials, Identity, SpiffeId, TrustDomain, Usage};
    use pilotfish_testkit::ca::{Ca, Leaf};

    use super::*;

    /// What is trusted, and a connection of this agent.
    fn connection(ca: &Ca, live: &LiveIdentity, peers: &Peers, leaf: &Leaf) -> (Rc<Fuse>, Closing) {
        let issued = ca.issue(leaf);
        let credentials = Credentials::from_pem(&issued.chain, &issued.key).unwrap();
        let peer = live.verify(&credentials.chain, Usage::Client).unwrap();
        let (fuse, closing) = (Rc::new(Fuse::default()), Closing::new());
        peers.add(Rc::new(MeshPeer::new(peer, None)), &fuse, Some(closing.clone()));
        (fuse, closing)
    }

    fn trusting(ca: &Ca) -> Arc<LiveIdentity> {
        let domain = TrustDomain::parse("mesh.test").unwrap();
        let bundles = Arc::new(Bundles::from_pem(&BTreeMap::from([(domain, ca.root_pem())])).unwrap());
        LiveIdentity::new(Identity { bundles, ..Identity::default() })
    }

    #[test]
    fn a_revoked_peers_connections_are_cut_and_no_others() {
        let ca = Ca::new("mesh.test");
        let (live, peers) = (trusting(&ca), Peers::default());
        let (bad, _) = connection(&ca, &live, &peers, &Leaf::agent("mesh.test", "default", "bad"));
        let (good, closing) = connection(&ca, &live, &peers, &Leaf::agent("mesh.test", "default", "good"));
        peers.judge(&live);
        assert!(!bad.is_blown() && !good.is_blown());
        let id = SpiffeId::parse("spiffe://mesh.test/ns/default/agent/bad").unwrap();
        live.update(|identity| identity.revoked = Arc::new(HashSet::from([id.clone()])));
        peers.judge(&live);
        assert!(bad.is_blown() && !good.is_blown() && !good.is_retired());
        assert!(!closing.is_started());
    }

    #[test]
    fn without_its_root_a_connection_is_cut() {
        let (ca, other) = (Ca::new("mesh.test"), Ca::new("mesh.test"));
        let (live, peers) = (trusting(&ca), Peers::default());
        let (fuse, _) = connection(&ca, &live, &peers, &Leaf::agent("mesh.test", "default", "a"));
        let both = format!("{}{}", ca.root_pem(), other.root_pem());
        let domain = TrustDomain::parse("mesh.test").unwrap();
        let trust = |pem: &str| {
            let bundles = Arc::new(Bundles::one(&domain, pem).unwrap());
            live.update(|identity| identity.bundles = bundles.clone());
        };
        trust(&both);
        peers.judge(&live);
        assert!(!fuse.is_blown(), "two roots at once close nothing");
        trust(&other.root_pem());
        peers.judge(&live);
        assert!(fuse.is_blown());
    }

    #[test]
    fn after_expiry_nothing_new_begins_and_five_minutes_later_it_is_cut() {
        let ca = Ca::new("mesh.test");
        let (live, peers) = (trusting(&ca), Peers::default());
        let (fuse, closing) = connection(&ca, &live, &peers, &Leaf::agent("mesh.test", "default", "a"));
        let end = peers.open.borrow()[0].peer.peer.not_after;
        let at = |offset: i64| {
            let time = if offset < 0 {
                end - Duration::from_secs(1)
            } else {
                end + Duration::from_secs(offset as u64)
            };
            peers.judge_at(&live, time);
        };
        at(-1);
        assert!(!fuse.is_retired());
        at(1);
        assert!(fuse.is_retired() && closing.is_started() && !fuse.is_blown());
        at(300);
        assert!(!fuse.is_blown());
        at(301);
        assert!(fuse.is_blown());
    }
}
