//! Decisions per request. Pure apart from counters: no sockets, no HTTP engine, no clock of its own.
//!
//! | decision | file | asked by the stage |
//! |---|---|---|
//! | which rule | [`route`] | route |
//! | which conversation | [`affinity`] | route |
//! | who is able | [`capability`] | select |
//! | which endpoint | [`balance`] | select |
//! | is there room | [`inflight`] | select, dial |
//! | what to change in a head | [`headers`], [`rewrite`] | dial, respond |
//! | what concerns a sidecar at all | [`scope`] | the control plane, before it sends anything |
//! | what would happen, and why | [`explain`] | `/why`, `pilotfish explain` |
//!
//! [`compile`] turns a validated model into a [`plan::Plan`]; [`state`] keeps the counters that outlive it.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may wait and measure"))]

pub mod affinity;
pub mod balance;
pub mod call;
pub mod capability;
pub mod clock;
pub mod cluster;
pub mod compile;
pub mod endpoint;
pub mod explain;
#[cfg(test)]
mod fixture;
mod fuzzing;
pub mod headers;
pub mod inflight;
pub mod plan;
pub mod rewrite;
pub mod route;
pub mod scope;
pub mod state;
pub mod verdict;
mod view;
