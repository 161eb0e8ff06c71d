//! A whole small mesh in one process: simulated network and clock, reproducible from a seed.
//!
//! ```text
//! caller -> sidecar a (outbound) -> sidecar b (inbound) -> agent b
//!                                -> sidecar c (inbound) -> agent c
//! ```
//!
//! Each of them is a host of `turmoil`, on one thread, with a clock that moves only when nothing is left to do. A seed
//! decides everything: calls, their timing, how agents fail, delays of single messages, partitions, restarts, reloads.
//! After each run [`check`] looks at what happened; the same seed gives the same events, to the microsecond.
//!
//! **Production code**: everything of a sidecar between its sockets and its configuration: accept loops, handshake
//! policy, HTTP engine, request path, pools, balancers, limits, the publisher that loads, validates and compiles YAML.
//! **Not production code**: the callers and agents ([`caller`], [`agent`]), the network below a byte stream
//! ([`network`]), TLS, in whose place each side shows its certificate chain in plaintext (the chain is verified by the
//! production code), and what brings the documents ([`mesh`] in place of a folder or a control plane).

pub mod agent;
pub mod caller;
pub mod check;
pub mod http;
pub mod journal;
pub mod mesh;
pub mod network;
pub mod scenario;
pub mod sidecar;
pub mod sweep;
pub mod world;

pub use mesh::{Run, simulate};
pub use scenario::Options;
pub use sweep::{Sweep, sweep};
