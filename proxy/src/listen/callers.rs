//! How many connections one caller of the inbound listener may have open: by its address until it proved who it is, then by its
//! identity. So whoever opens connections fast takes no room from others. One lock for each connection, none for a request.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who opens connections.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// Nobody knows more than where it comes from.
    Address(IpAddr),
    /// It proved to have this SPIFFE ID.
    Agent(Box<str>),
}

/// The open connections of each caller, for the whole process.
#[derive(Debug)]
pub struct Callers {
    limit: usize,
    open: Mutex<BTreeMap<Caller, usize>>,
    refused: AtomicU64,
}

impl Callers {
    /// Nobody has a connection; each may have `limit`.
    pub fn new(limit: usize) -> Arc<Callers> {
        Arc::new(Callers { limit: limit.max(1), open: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// One more connection of `caller`; `None`: it has as many as it may.
    pub fn take(self: &Arc<Self>, caller: Caller) -> Option<Held> {
        let mut all = self.lock();
        let open = all.entry(caller.clone()).or_default();
        if *open >= self.limit {
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        *open += 1;
        drop(all);
        Some(Held { callers: Arc::clone(self), caller })
    }

    /// Connections that were refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Caller, usize>> {
        // Counters are whole whatever a thread did before it panicked.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection of a caller; counted until it is dropped.
#[derive(Debug)]
pub struct Held {
    callers: Arc<Callers>,
    caller: Caller,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.callers.lock();
        if let Some(open) = all.get_mut(&self.caller) {
            *open -= 1;
            if *open == 0 {
                all.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_limit_and_closed_connections_do_not_count() {
        let callers = Callers::new(2);
        let address = |last: u8| Caller::Address(IpAddr::from([10, 0, 0, last]));
        let agent = || Caller::Agent("spiffe://mesh/ns/a/agent/b".into());
        let first = callers.take(address(1)).unwrap();
        let _second = callers.take(address(1)).unwrap();
        assert!(callers.take(address(1)).is_none());
        let _other = callers.take(address(2)).unwrap();
        let _agents = [callers.take(agent()).unwrap(), callers.take(agent()).unwrap()];
        assert!(callers.take(agent()).is_none());
        drop(first);
        let again = callers.take(address(1));
        assert!(again.is_some());
        assert_eq!(callers.refused(), 2);
    }

    #[test]
    fn nothing_is_kept_of_callers_that_have_gone() {
        let callers = Callers::new(1);
        for last in 0..=255 {
            drop(callers.take(Caller::Address(IpAddr::from([10, 0, 0, last]))).unwrap());
        }
        assert!(callers.lock().is_empty());
    }
}
