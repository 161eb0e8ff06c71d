//! The chain of who asked whom: `x-pilotfish-delegation`, signed link by link by the sidecars on the way.
//!
//! | file | what |
//! |---|---|
//! | [`link`] | one link: what it says, how it is written, signed and read |
//! | [`verify`] | a whole chain, as its receiver takes it or not |
//! | [`memory`] | chains that were verified and links that were signed, so that a call signs and verifies nothing |
//!
//! A header is `LINK~LINK~...`, first to newest. A link says: this agent calls that agent, now, for what the links before say. It names
//! the digest of those, so none can be left out, added or moved; it names who is called, so nobody else can show it; it lives for two
//! minutes. All but the newest bring their signer's certificate; the newest is checked by the certificate of its connection.

pub mod link;
pub mod memory;
#[cfg(test)]
mod tests;
pub mod verify;

use pilotfish_identity::SpiffeId;

use crate::tls::Tls;

/// The header.
pub const DELEGATION: &str = "x-pilotfish-delegation";
/// The most links of a chain: as many as a call may have hops by default.
pub const MOST_LINKS: usize = 16;
/// The longest header, in bytes: of the 64 KiB that all headers of a request may have.
pub const LONGEST: usize = 40 << 10;
/// How long a link is good for the one who is called, seconds.
pub const LIFETIME: u64 = 120;
/// How wrong clocks may be, seconds: Istio's tolerance of tokens.
pub const SKEW: u64 = 60;
/// How long a call that was received may be acted for with its signed links, seconds. Afterwards the sidecar only says for whom its
/// agent acts, and that nothing proves it.
pub const ACTED_FOR: u64 = 600;

/// The header of a call that the sidecar makes itself, for nobody: a health check. It brings its certificates, since nobody remembers
/// by which its connection was made.
pub fn of_own_accord(tls: &Tls, called: &SpiffeId) -> Option<String> {
    let own = tls.own()?;
    let now = verify::seconds(tls.live.now());
    let mut text = link::write(&own, verify::without_scheme(called), None, now)?;
    link::add_certificates(&mut text, &own.chain);
    Some(text)
}
