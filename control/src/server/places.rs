//! How many connections the TLS listener has at a time, so that a few hostile peers do not take every place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at a time whose peer has shown no certificate (also: not yet), together and from one address; more are
/// closed at once. Each costs some 40 KiB. A thousand sidecars behind one address may come back at once.
const STRANGERS: usize = 4096;
const STRANGERS_OF_ONE: usize = 1024;
/// Connections at a time of peers with a certificate: 10,000 sidecars, and as many again while they reconnect.
const MEMBERS: usize = 20_000;

/// The places for connections of the TLS listener.
#[derive(Debug)]
pub(super) struct Places {
    strangers: Mutex<Strangers>,
    members: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Strangers {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A stranger's place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Stranger {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    pub(super) fn new() -> Arc<Places> {
        Arc::new(Places { strangers: Mutex::default(), members: Arc::new(Semaphore::new(MEMBERS)) })
    }

    /// A place for a peer that is not known yet; none when too many are there.
    pub(super) fn stranger(self: &Arc<Places>, address: IpAddr) -> Option<Stranger> {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        if strangers.all >= STRANGERS
            || strangers.by_address.get(&address).is_some_and(|n| *n >= STRANGERS_OF_ONE)
        {
            return None;
        }
        strangers.all += 1;
        *strangers.by_address.entry(address).or_default() += 1;
        Some(Stranger { places: self.clone(), address })
    }

    /// A place for a peer with a certificate.
    pub(super) fn member(&self) -> Option<OwnedSemaphorePermit> {
        self.members.clone().try_acquire_owned().ok()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut strangers = self.places.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.all -= 1;
        if let Some(count) = strangers.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                strangers.by_address.remove(&self.address);
            }
        }
    }
}

/// One owner's addresses: an IPv4 address, or the /64 that an IPv6 host can choose from.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_every_place() {
        let places = Places::new();
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let held: Vec<_> = std::iter::from_fn(|| places.stranger(one)).take(STRANGERS).collect();
        assert_eq!(held.len(), STRANGERS_OF_ONE);
        assert!(places.stranger("2001:db8::2".parse().unwrap()).is_none(), "the same /64");
        assert!(places.stranger("2001:db8:0:1::1".parse().unwrap()).is_some());
        drop(held);
        assert!(places.stranger(one).is_some());
    }
}
