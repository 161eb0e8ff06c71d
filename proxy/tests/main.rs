//! Tests from outside: the real process, real sockets, and origins that record what they received.
//!
//! One file per thing a user relies on; tables of cases where a standard names many. Every failed row of a table is
//! reported, not only the first.
// Helpers of tests fail the test as the tests themselves do; the lint knows only functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod access_log;
mod asked;
mod audit;
mod authorizers;
mod authz;
mod balancing;
mod cancellation;
mod capabilities;
mod chains;
mod control;
mod conversations;
mod cors;
mod credentials;
mod deadlines;
mod dedup;
mod delegation;
mod egress;
mod export;
mod faults;
mod fragments;
mod governance;
mod h1_answers;
mod h1_requests;
mod h2_answers;
mod h2_floods;
mod h2_frames;
mod health_state;
mod hedges;
mod lifecycle;
mod limits;
mod matching;
mod metrics;
mod mirrors;
mod names;
mod node_loss;
mod on_demand;
mod overload;
mod python;
mod rate_limits;
mod repeats;
mod retries;
mod routes;
mod skills;
mod streams;
mod supervise;
mod support;
mod tls;
mod tokens;
mod trace_context;
mod trace_spans;
mod upstreams;
mod why;
