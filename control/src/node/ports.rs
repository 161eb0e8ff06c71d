//! Ports of sidecars and agents: chosen from a range, kept for as long as the replica is there.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// The ports of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ports {
    /// Where the agent sends its calls.
    pub(super) outbound: u16,
    /// Where other sidecars call.
    pub(super) inbound: u16,
    /// The sidecar's own pages.
    pub(super) admin: u16,
    /// Where the agent listens.
    pub(super) app: u16,
}

impl Ports {
    fn all(self) -> [u16; 4] {
        [self.outbound, self.inbound, self.admin, self.app]
    }
}

/// All ports that replicas of this node may have.
#[derive(Debug)]
pub(super) struct Pool {
    range: RangeInclusive<u16>,
    /// Whose each is.
    taken: Mutex<HashMap<u16, String>>,
}

impl Pool {
    /// An empty one.
    pub(super) fn new(range: RangeInclusive<u16>) -> Pool {
        Pool { range, taken: Mutex::default() }
    }

    /// Keeps ports of an earlier start.
    pub(super) fn keep(&self, replica: &str, ports: Ports) {
        let mut taken = self.lock();
        for port in ports.all() {
            taken.entry(port).or_insert_with(|| replica.to_owned());
        }
    }

    /// Gives all ports of a replica back.
    pub(super) fn free(&self, replica: &str) {
        self.lock().retain(|_, owner| owner != replica);
    }

    /// The ports that a replica starts with, and those of `kept` that somebody else has by now. `agent_lives`: its port is its own, and
    /// not looked at.
    ///
    /// # Errors
    /// No port of the range is free.
    pub(super) fn choose(
        &self,
        replica: &str,
        kept: Option<Ports>,
        agent_lives: bool,
    ) -> Result<(Ports, Vec<u16>), String> {
        let mut taken = self.lock();
        let mut lost = Vec::new();
        let mut one = |before: Option<u16>, looked_at: bool| {
            if let Some(port) = before {
                let own = taken.get(&port).is_none_or(|owner| owner == replica);
                if own && (!looked_at || is_free(port)) {
                    taken.insert(port, replica.to_owned());
                    return Ok(port);
                }
                lost.push(port);
            }
            let (first, last) = (*self.range.start(), *self.range.end());
            let many = u32::from(last - first) + 1;
            let start = fastrand::u32(0..many);
            let found = (0..many)
                .filter_map(|step| u16::try_from(u32::from(first) + (start + step) % many).ok())
                .find(|port| !taken.contains_key(port) && is_free(*port));
            let port = found.ok_or_else(|| {
                format!("no port is free from {first} to {last}: give the node more (--ports)")
            })?;
            taken.insert(port, replica.to_owned());
            Ok::<u16, String>(port)
        };
        let ports = Ports {
            outbound: one(kept.map(|kept| kept.outbound), true)?,
            inbound: one(kept.map(|kept| kept.inbound), true)?,
            admin: one(kept.map(|kept| kept.admin), true)?,
            app: one(kept.map(|kept| kept.app), !agent_lives)?,
        };
        Ok((ports, lost))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u16, String>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nobody listens there, on whatever address.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stay_a_replica_s_until_somebody_else_has_them() {
        let pool = Pool::new(20_000..=29_999);
        let (first, lost) = pool.choose("a", None, false).unwrap();
        assert!(lost.is_empty());
        assert_eq!(pool.choose("a", Some(first), false).unwrap(), (first, vec![]));
        let (other, _) = pool.choose("b", None, false).unwrap();
        assert!(first.all().iter().all(|port| !other.all().contains(port)));
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first.admin)).unwrap();
        let agent = TcpListener::bind((Ipv4Addr::LOCALHOST, first.app)).unwrap();
        let (moved, lost) = pool.choose("a", Some(first), true).unwrap();
        assert_eq!(lost, [first.admin]);
        assert_eq!(Ports { admin: first.admin, ..moved }, first, "only what was taken is another");
        drop((taken, agent));
    }

    #[test]
    fn a_range_that_is_used_up_is_named() {
        let pool = Pool::new(20_000..=20_002);
        let error = pool.choose("a", None, false).unwrap_err();
        assert!(error.contains("20000 to 20002") && error.contains("--ports"), "{error}");
        pool.free("a");
        assert!(pool.lock().is_empty());
    }
}
