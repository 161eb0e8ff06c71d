//! Connections that the inbound port turns away before a request: plaintext where mTLS is required, certificates that prove nothing.
//! One record for each address and second, and only so many; of the others is told how many they were, so that whoever knocks without
//! end pushes no other record out.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use pilotfish_config::wire::AuditWhat;

use super::now;
use crate::worker::Worker;

/// Addresses of which a worker tells within a second.
const MOST: usize = 16;
/// A second, nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Of whom a worker told within this second.
#[derive(Debug, Default)]
pub struct Turned(RefCell<Told>);

#[derive(Debug, Default)]
struct Told {
    since: u64,
    addresses: Vec<IpAddr>,
}

impl Turned {
    /// Whether this one is told of.
    fn may_tell(&self, address: IpAddr, now: u64) -> bool {
        let mut told = self.0.borrow_mut();
        if now.abs_diff(told.since) >= SECOND {
            told.since = now;
            told.addresses.clear();
        }
        let is_new = told.addresses.len() < MOST && !told.addresses.contains(&address);
        if is_new {
            told.addresses.push(address);
        }
        is_new
    }
}

/// Records that a connection was turned away for `reason`, the word of the metric; what it said is in no record.
pub fn turned_away(worker: &Worker, address: IpAddr, reason: &str) {
    let audit = &worker.shared.audit;
    let asks = || worker.shared.snapshots.newest().plan.governance().audit_all;
    if audit.queue.get().is_none() || !(audit.takes_refusals() || asks()) {
        return;
    }
    let at = now();
    if !worker.turned.may_tell(address, at) {
        if audit.state.turned.fetch_add(1, Relaxed) == 0 {
            audit.wake();
        }
        return;
    }
    let detail = match reason {
        "mtls-required" => "plaintext, where mutual TLS is required",
        _ => "the TLS handshake proved no identity that is known here",
    };
    audit.note(AuditWhat::Decision, fields(address.to_canonical().to_string(), reason, detail.to_owned()));
}

/// What a record of connections says; `caller` is empty when they were of several.
pub(super) fn fields(caller: String, reason: &str, detail: String) -> Vec<(&'static str, String)> {
    vec![
        ("direction", "inbound".into()),
        ("caller", caller),
        ("action", "connect".into()),
        ("outcome", "denied".into()),
        ("reason", reason.into()),
        ("detail", detail),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_told_of_once_a_second_and_not_all_are() {
        let (turned, address) = (Turned::default(), |n: u8| IpAddr::from([10, 0, 0, n]));
        let told = |now: u64| (0..100).filter(|n| turned.may_tell(address(n % 50), now)).count();
        assert_eq!([told(5 * SECOND), told(5 * SECOND + 9), told(6 * SECOND)], [MOST, 0, MOST]);
        assert!(!turned.may_tell(address(0), 6 * SECOND + 1));
        assert!(turned.may_tell(address(0), SECOND), "the clock was set back");
    }
}
