//! The demo's parts as processes: an agent and a caller, and then the whole demo with real sidecars.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod agents;
mod docs;
mod whole;
