//! The control plane as a process, and clients of it.

#![allow(dead_code, reason = "shared by tests that each need a part")]

pub mod http;
pub mod leader;
pub mod node;
pub mod node_process;
pub mod serve;
pub mod sidecar;

pub use http::{Http, Reply};
pub use serve::Serve;
pub use sidecar::Stream;
