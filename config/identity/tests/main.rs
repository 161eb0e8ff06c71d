//! Tests from outside: certificates of a throw-away authority, and whole handshakes in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests fail by it, and have a clock"
)]

mod certificates;
mod handshakes;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pilotfish_identity::{Bundles, Credentials, SpiffeId, TrustDomain};
use pilotfish_testkit::ca::{Ca, Issued, Leaf};

const ID: &str = "spiffe://mesh.test/ns/default/agent/planner";

fn leaf() -> Leaf {
    Leaf::agent("mesh.test", "default", "planner")
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn bundles(of: &[(&str, String)]) -> Bundles {
    let texts: BTreeMap<_, _> =
        of.iter().map(|(name, pem)| (TrustDomain::parse(name).unwrap(), pem.clone())).collect();
    Bundles::from_pem(&texts).unwrap()
}

fn mesh(ca: &Ca) -> Bundles {
    bundles(&[("mesh.test", ca.root_pem())])
}

fn credentials(issued: &Issued) -> Credentials {
    Credentials::from_pem(&issued.chain, &issued.key).unwrap()
}

fn after(seconds: i64) -> SystemTime {
    let now = SystemTime::now();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { now - distance } else { now + distance }
}
