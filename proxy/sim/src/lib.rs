//! A whole small mesh in one process: simulated network and clock, reproducible from a seed.
//!
//! ```text
//!                 control plane (documents, registrations, trust)
//!                /       |        \
//! callers -> sidecar a   |         |
//!                 \-> sidecar b -> agent b
//!                  \--------------> sidecar c -> agent c
//! ```
//!
//! Each of them is a host of `turmoil`, all on one thread, with clocks that move only when nothing is left to do. A seed
//! decides everything: calls, their timing, how agents fail, delays of single messages, partitions, resets, restarts,
//! changes of the documents. After each run [`check`] looks at what happened; the same seed gives the same events, to
//! the microsecond, and [`sweep`] runs each twice to see that.
//!
//! | | production code | not production code |
//! |---|---|---|
//! | sidecars | all between the sockets and the configuration: accept loops, what a connection has to prove, HTTP engine, request path, retries, deduplication, pools, balancers, limits, publisher; the stream to the control plane and the state on disk | TLS: each side shows its certificates in plaintext, and they are verified by the production code; probes of the agent |
//! | control plane | documents, registrations, leases, versions, what is rendered and pushed; the store in memory | the join, the HTTP server around the streams ([`control`]) |
//! | agents, callers | | all of it ([`agent`], [`caller`]), with parsers of their own ([`http`]) |
//! | network | | [`network`]: `turmoil`, with short writes, resets and what the kernel does to a silent connection |
//!
//! `make sim SEEDS=N FIRST=K` runs as many seeds as one likes; a seed that fails is printed with all its events.

pub mod agent;
pub mod caller;
pub mod check;
pub mod control;
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
