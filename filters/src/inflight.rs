//! Limits of a cluster (`connectionPool`) that hold for the whole process: counters shared by all workers, no locks.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::budget::Budget;
use crate::clock::Micros;
use crate::cluster::Turn;
use crate::endpoint::health::Tally;
use crate::hedge::Times;
use crate::shed::Line;
use crate::verdict::{Deny, Reason};

/// The counters of one cluster. The limits themselves are in [`crate::cluster::ClusterSettings`]: a reload may
/// change a limit, and what was counted before still counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ClusterLimits {
    requests: AtomicU32,
    connections: AtomicU32,
    pending: AtomicU32,
    /// Grows with every endpoint that goes out, so that the shares of priority levels are reckoned anew.
    outages: AtomicU32,
    /// Microseconds; after it no endpoint of the cluster is out whose end is known.
    out_until: AtomicU64,
    /// Retries.
    pub(crate) budget: Budget,
    /// How long calls wait for their answer; only for rules with `pilotfish.dev/hedge: p95`.
    times: OnceLock<Box<Times>>,
    /// Endpoints that are out until something happens.
    indefinite: AtomicU32,
    /// Endpoints that are ejected, or about to be.
    ejected: AtomicU32,
    /// Calls that wait until an endpoint has room.
    pub(crate) line: Arc<Line<Turn>>,
    /// What is counted over all clusters.
    pub(crate) tally: Arc<Tally>,
}

impl ClusterLimits {
    /// Fresh counters, part of this tally.
    pub(crate) fn counted_in(tally: Arc<Tally>) -> ClusterLimits {
        ClusterLimits { tally, ..ClusterLimits::default() }
    }

    /// Requests counted now. Only clusters with a request limit or a bounded load count them.
    pub fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    /// Open connections that hold a [`ConnectionPermit`].
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Requests that wait for a connection.
    pub fn pending(&self) -> u32 {
        self.pending.load(Relaxed)
    }

    /// The cluster's retries.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// How long its calls wait for the head of their answer, as far as rules that hedge have recorded it.
    pub fn times(&self) -> &Times {
        self.times.get_or_init(Box::default)
    }

    pub(crate) fn outages(&self) -> u32 {
        self.outages.load(Relaxed)
    }

    fn out_until(&self) -> Micros {
        Micros(self.out_until.load(Relaxed))
    }

    /// Whether some endpoint may be out now.
    pub(crate) fn is_troubled(&self, now: Micros) -> bool {
        now < self.out_until() || self.indefinite.load(Relaxed) != 0
    }

    /// An endpoint is out until then, or in again.
    pub(crate) fn note_outage(&self, until: Micros) {
        self.out_until.fetch_max(until.0, Relaxed);
        self.outages.fetch_add(1, Relaxed);
    }

    /// An endpoint is out until something happens; or it happened.
    pub(crate) fn note_indefinite(&self, begins: bool) {
        self.indefinite.fetch_add(if begins { 1 } else { u32::MAX }, Relaxed);
        self.outages.fetch_add(1, Relaxed);
    }

    /// Endpoints that are ejected now, those included whose time is over and that nobody took back yet.
    pub fn ejected(&self) -> u32 {
        self.ejected.load(Relaxed)
    }

    /// Makes room for one more ejection among `allowed`.
    pub(crate) fn reserve_ejection(&self, allowed: u32) -> bool {
        self.ejected.fetch_update(Relaxed, Relaxed, |now| (now < allowed).then_some(now + 1)).is_ok()
    }

    pub(crate) fn release_ejection(&self) {
        self.ejected.fetch_sub(1, Relaxed);
    }
}

macro_rules! permit {
    ($(#[$doc:meta])* $name:ident, $field:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(Arc<ClusterLimits>);

        impl $name {
            /// Takes a place while fewer than `limit` are taken; `None` is no limit.
            ///
            /// # Errors
            /// [`Reason::Overflow`] when all places are taken.
            pub fn try_acquire(limits: &Arc<ClusterLimits>, limit: Option<u32>) -> Result<Self, Deny> {
                acquire(&limits.$field, limit, $what)?;
                Ok($name(Arc::clone(limits)))
            }

            /// The counters that the place is counted in.
            pub fn limits(&self) -> &ClusterLimits {
                &self.0
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.$field.fetch_sub(1, Relaxed);
            }
        }
    };
}

permit! {
    /// One open connection of a cluster; keep it as long as the connection. Dropping it gives the place back.
    ConnectionPermit, connections, "maxConnections"
}
permit! {
    /// One request that waits for a connection (`http1MaxPendingRequests`). Dropping it gives the place back.
    PendingPermit, pending, "http1MaxPendingRequests"
}
permit! {
    /// One request under way (`http2MaxRequests`); a [`crate::cluster::Lease`] holds it.
    RequestPermit, requests, "http2MaxRequests"
}

fn acquire(counter: &AtomicU32, limit: Option<u32>, what: &'static str) -> Result<(), Deny> {
    let Some(limit) = limit else {
        counter.fetch_add(1, Relaxed);
        return Ok(());
    };
    match counter.fetch_update(Relaxed, Relaxed, |taken| (taken < limit).then_some(taken + 1)) {
        Ok(_) => Ok(()),
        Err(_) => Err(Deny::with(Reason::Overflow, format!("connectionPool: {what} {limit} reached"))),
    }
}

#[cfg(test)]
mod tests;
