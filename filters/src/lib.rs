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
//! | may it go on: hops, cycles, deadline, priority | [`call_path`], [`deadline`], [`correlate`] | guard |
//! | for whom does the agent act | [`delegation`] | delegation |
//! | which path is meant | [`normalize`] | normalize |
//! | whose tokens are valid | [`tokens`] | authenticate |
//! | what is called, as far as the path says | [`binding`] | decode |
//! | may this caller do this | [`authz`], [`authorizer`] | admit |
//! | is anybody quarantined or restricted | [`held`] | admit, dial |
//! | what is shown on the agent's behalf | [`credentials`] | dial |
//! | is it too often | [`rate_limit`] | admit |
//! | is there too much | [`concurrency`], [`shed`] | admit, select |
//! | is it answered here, or spoilt on purpose | [`cors`], [`fault`] | route |
//! | where copies go | [`mirror`] | repeat |
//! | may it be tried again, and when | [`retry`], [`budget`], [`hedge`] | repeat |
//! | was it done already | [`dedup`] | repeat, the receiving sidecar |
//! | is an endpoint well | [`breaker`], [`outlier`] | select, record |
//! | which trace, and is it kept | [`trace`], [`sampling`] | trace |
//! | what is told of it, and what never | [`telemetry`], [`expression`], [`redact`] | record |
//! | what concerns a sidecar at all | [`scope`] | the control plane, before it sends anything |
//! | what would happen, and why | [`explain`] | `/why`, `pilotfish explain` |
//!
//! [`compile`] turns a validated model into a [`plan::Plan`]; [`state`] keeps the counters that outlive it.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may wait and measure"))]

pub mod affinity;
pub mod authorizer;
pub mod authz;
pub mod balance;
pub mod binding;
pub mod breaker;
pub mod budget;
pub mod call;
pub mod call_path;
pub mod capability;
pub mod clock;
pub mod cluster;
pub mod compile;
pub mod concurrency;
pub mod correlate;
pub mod cors;
pub mod credentials;
pub mod deadline;
pub mod dedup;
pub mod delegation;
pub mod endpoint;
pub mod explain;
pub mod expression;
pub mod fault;
#[cfg(test)]
mod fixture;
mod fuzzing;
pub mod grpc;
pub mod headers;
pub mod hedge;
pub mod held;
pub mod inflight;
pub mod mirror;
pub mod normalize;
pub mod on_demand;
pub mod outlier;
pub mod plan;
pub mod rate_limit;
pub mod redact;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod sampling;
pub mod scope;
pub mod share;
pub mod shed;
pub mod state;
pub mod telemetry;
pub mod text;
pub mod tokens;
pub mod trace;
pub mod verdict;
mod view;
