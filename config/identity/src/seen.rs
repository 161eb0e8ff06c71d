//! Chains that were verified before: the next handshake of a known peer skips the signatures of its chain.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::pki_types::CertificateDer;

use crate::bundles::{Bundles, Fingerprint};
use crate::refused::Refused;
use crate::verify::{Peer, Usage, Verified, check_size, verify};

/// Chains in each of the two generations. With some 1.6 KB for each entry, most of it the chain itself: 6.5 MiB at most.
const GENERATION: usize = 2048;

/// Verified chains, by digest of chain, usage and bundles. What time changes is checked on every use.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    generations: Mutex<Generations>,
}

/// Entries of the older one move to the newer one when they are used; a full newer one becomes the older.
#[derive(Debug, Default)]
struct Generations {
    newer: HashMap<Fingerprint, Arc<Verified>>,
    older: HashMap<Fingerprint, Arc<Verified>>,
}

impl Seen {
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        bundles: &Bundles,
        usage: Usage,
        now: SystemTime,
    ) -> Result<Peer, Refused> {
        check_size(chain)?;
        let key = key(chain, bundles, usage);
        if let Some(known) = self.lock().get(&key) {
            return known.at(now).cloned();
        }
        let verified = Arc::new(verify(chain, bundles, usage, now)?);
        let peer = verified.peer.clone();
        self.lock().put(key, verified);
        Ok(peer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        // A map is whole whenever a panic could have happened.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn get(&mut self, key: &Fingerprint) -> Option<Arc<Verified>> {
        if let Some(found) = self.newer.get(key) {
            return Some(found.clone());
        }
        let found = self.older.remove(key)?;
        self.put(*key, found.clone());
        Some(found)
    }

    fn put(&mut self, key: Fingerprint, verified: Arc<Verified>) {
        if self.newer.len() >= GENERATION {
            self.older = mem::take(&mut self.newer);
        }
        self.newer.insert(key, verified);
    }
}

fn key(chain: &[CertificateDer<'_>], bundles: &Bundles, usage: Usage) -> Fingerprint {
    let mut context = Context::new(&SHA256);
    context.update(bundles.digest());
    context.update(&[match usage {
        Usage::Client => 0,
        Usage::Server => 1,
    }]);
    for der in chain {
        context.update(&(der.len() as u64).to_be_bytes());
        context.update(der);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_forgets_the_oldest_and_keeps_what_is_used() {
        let verified = Arc::new(Verified {
            peer: Peer {
                id: crate::SpiffeId::parse("spiffe://d/p").unwrap(),
                not_after: SystemTime::UNIX_EPOCH,
                root: [0; 32],
                leaf: [0; 32],
                chain: Arc::new([]),
            },
            valid: SystemTime::UNIX_EPOCH..=SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        });
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        let mut generations = Generations::default();
        for number in 0..10 * GENERATION {
            generations.put(key(number), verified.clone());
            assert!(generations.get(&key(0)).is_some(), "{number}");
        }
        assert!(generations.newer.len() + generations.older.len() <= 2 * GENERATION);
        assert!(generations.get(&key(5)).is_none());
        assert!(generations.get(&key(10 * GENERATION - 1)).is_some());
    }
}
