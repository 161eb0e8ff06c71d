//! Scripted origins, recording origins and raw clients for tests from outside.
//!
//! Nothing here knows the proxy's code: a test drives the real process through sockets and judges by what came out of it.
//!
//! | what | where |
//! |---|---|
//! | the process under test, its YAML and its end | [`sidecar`] |
//! | an origin that records every byte and answers from a script, well or badly | [`origin`] |
//! | a well-behaved agent (HTTP/1.1 and h2c) that echoes, streams, delays, upgrades | [`agent`] |
//! | an agent that asks another one for each call | [`relay`] |
//! | a collector that keeps every span that it was sent | [`collector`] |
//! | a throw-away certificate authority, good and bad certificates | [`ca`] |
//! | a control plane that says what a test says, and records what it received | [`control`] |
//! | a DNS server whose answers a test writes | [`dns`] |
//! | a port where nobody listens | [`nobody`] |
//! | a raw HTTP/1 client | [`h1`] |
//! | a raw HTTP/2 client and origin: frames and HPACK by hand | [`h2`] |
//! | a SPIFFE Workload API | [`workload_api`] |
//! | signers of JSON Web Tokens | [`tokens`] |
//! | the judge: a parser that refuses whatever two parsers could read differently | [`strict`] |
//! | Python clients (gRPC, WebSocket) in a virtual environment made on demand | [`python`] |

#![allow(clippy::disallowed_methods, reason = "tests may wait and measure")]
// A test kit reports a broken precondition by failing the test that asked for it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod agent;
pub mod ca;
pub mod collector;
pub mod control;
pub mod dns;
pub mod h1;
pub mod h2;
pub mod nobody;
pub mod origin;
pub mod python;
pub mod relay;
pub mod sidecar;
pub mod strict;
pub mod tokens;
pub mod workload_api;

pub use agent::Agent;
pub use collector::Collector;
pub use control::Control;
pub use dns::Dns;
pub use h1::H1;
pub use h2::H2;
pub use nobody::Nobody;
pub use origin::{Origin, Step};
pub use relay::Relay;
pub use sidecar::Sidecar;
