//! The identity that is in force, replaceable while connections live.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, Guard};
use rustls::pki_types::CertificateDer;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

use crate::bundles::Bundles;
use crate::credentials::Credentials;
use crate::refused::Refused;
use crate::seen::Seen;
use crate::spiffe::SpiffeId;
use crate::verify::{Peer, Usage};

/// Who we are and whom we trust.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// Own certificate and key; none before the first is there: then nothing is accepted and nobody is called.
    pub credentials: Option<Arc<Credentials>>,
    /// Whom to trust.
    pub bundles: Arc<Bundles>,
    /// Whose certificates are not taken any more.
    pub revoked: Arc<HashSet<SpiffeId>>,
}

/// An [`Identity`] that every handshake reads anew, so that a rotation closes nothing.
pub struct LiveIdentity {
    current: ArcSwap<Identity>,
    version: AtomicU64,
    changed: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
    seen: Seen,
    clock: Arc<dyn TimeProvider>,
}

impl LiveIdentity {
    /// Starts with an identity, by the machine's clock.
    pub fn new(identity: Identity) -> Arc<LiveIdentity> {
        LiveIdentity::with_clock(identity, Arc::new(DefaultTimeProvider))
    }

    /// Starts with an identity, by another clock.
    pub fn with_clock(identity: Identity, clock: Arc<dyn TimeProvider>) -> Arc<LiveIdentity> {
        Arc::new(LiveIdentity {
            current: ArcSwap::from_pointee(identity),
            version: AtomicU64::new(1),
            changed: Mutex::default(),
            seen: Seen::default(),
            clock,
        })
    }

    /// What is in force now.
    pub fn load(&self) -> Guard<Arc<Identity>> {
        self.current.load()
    }

    /// Puts another identity in force, then tells those that watch.
    pub fn replace(&self, identity: Identity) {
        self.update(|current| *current = identity.clone());
    }

    /// Changes a part of what is in force, also when others change other parts at the same time.
    pub fn update(&self, change: impl Fn(&mut Identity)) {
        self.current.rcu(|current| {
            let mut next = Identity::clone(current);
            change(&mut next);
            next
        });
        self.version.fetch_add(1, Ordering::Release);
        for watcher in self.changed.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            watcher();
        }
    }

    /// Counts up with each replacement, after it: who remembers it knows whether to look again at open connections.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Calls `watcher` after each replacement, on the thread that made it: it must be quick, and replace nothing itself.
    pub fn watch(&self, watcher: impl Fn() + Send + Sync + 'static) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(watcher));
    }

    /// Verifies a chain by what is in force now: bundles, revocations, clock.
    ///
    /// # Errors
    /// Why the peer is not taken.
    pub fn verify(&self, chain: &[CertificateDer<'_>], usage: Usage) -> Result<Peer, Refused> {
        self.verify_at(chain, usage, self.now())
    }

    pub(crate) fn verify_at(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: SystemTime,
    ) -> Result<Peer, Refused> {
        let identity = self.load();
        let peer = self.seen.verify(chain, &identity.bundles, usage, now)?;
        if identity.revoked.contains(&peer.id) { Err(Refused::Revoked(peer.id)) } else { Ok(peer) }
    }

    /// Whether a peer that was verified earlier would still be taken: neither revoked nor without its root. How long
    /// it may outlive [`Peer::not_after`] is for the connection's owner to say.
    ///
    /// # Errors
    /// Why not.
    pub fn still_trusted(&self, peer: &Peer) -> Result<(), Refused> {
        let identity = self.load();
        if identity.revoked.contains(&peer.id) {
            return Err(Refused::Revoked(peer.id.clone()));
        }
        if !identity.bundles.has_root(peer.id.trust_domain(), &peer.root) {
            return Err(Refused::Untrusted(peer.id.clone()));
        }
        Ok(())
    }

    /// The clock's time. A clock that fails gives 1970, when no certificate is valid.
    pub fn now(&self) -> SystemTime {
        let since = self.clock.current_time().map_or(0, |time| time.as_secs());
        SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(since)
    }

    pub(crate) fn clock(&self) -> Arc<dyn TimeProvider> {
        self.clock.clone()
    }
}

impl fmt::Debug for LiveIdentity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "LiveIdentity({:?}, version {})", self.load(), self.version())
    }
}
