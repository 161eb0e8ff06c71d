//! The sidecar, module by module in the order in which a request meets them.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may wait and measure"))]

pub mod actions;
pub mod admin;
pub mod ask;
pub mod audit;
pub mod authorizers;
pub mod bootstrap;
pub mod clock;
pub mod control;
pub mod credentials;
pub mod delegation;
pub mod health;
pub mod http;
pub mod listen;
pub mod memory;
pub mod net;
pub mod request;
pub mod resolve;
pub mod server;
pub mod shutdown;
pub mod snapshot;
pub mod source;
pub mod starts;
pub mod supervise;
pub mod telemetry;
pub mod tls;
pub mod tokens;
pub mod upstream;
pub mod worker;
