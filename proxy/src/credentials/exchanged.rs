//! Tokens on behalf of others, by the token that they were exchanged for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pilotfish_filters::clock::Micros;
use pilotfish_filters::credentials::SubjectToken;

use super::flight::{Flight, Seen};

/// For so many tokens others are remembered, of one credential.
const MOST: usize = 1024;

/// All of one credential; audience and scopes are the credential's.
#[derive(Debug, Default)]
pub(super) struct Exchanged(Mutex<BTreeMap<[u8; 32], Entry>>);

#[derive(Debug)]
struct Entry {
    flight: Arc<Flight>,
    used: Micros,
}

impl Exchanged {
    fn table(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That for a token; without one, the one for a file's.
    pub fn of(&self, subject: Option<&SubjectToken>, now: Micros) -> Arc<Flight> {
        let key = subject.map_or([0; 32], |subject| subject.digest);
        let mut table = self.table();
        if let Some(entry) = table.get_mut(&key) {
            entry.used = now;
            return entry.flight.clone();
        }
        if table.len() >= MOST {
            table.retain(|_, entry| !entry.flight.is_over(now));
        }
        if table.len() >= MOST
            && let Some(oldest) = table.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key)
        {
            table.remove(&oldest);
        }
        let flight = Arc::<Flight>::default();
        table.insert(key, Entry { flight: flight.clone(), used: now });
        flight
    }

    /// What they are like now.
    pub fn seen(&self, now: Micros) -> Vec<Seen> {
        self.table().values().map(|entry| entry.flight.seen(now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let table = Exchanged::default();
        let subject = |n: u32| {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&n.to_be_bytes());
            SubjectToken::new("t", digest)
        };
        let first = table.of(Some(&subject(1)), Micros(1));
        for n in 2..3000 {
            // The first is used all the time.
            assert!(Arc::ptr_eq(&first, &table.of(Some(&subject(1)), Micros(u64::from(n)))) || n > 1024);
            table.of(Some(&subject(n)), Micros(u64::from(n)));
            assert!(table.table().len() <= MOST);
        }
    }
}
