//! The sidecar, module by module in the order in which a request meets them.

pub mod admin;
pub mod bootstrap;
pub mod http;
pub mod listen;
pub mod resolve;
pub mod server;
pub mod shutdown;
pub mod snapshot;
pub mod source;
pub mod telemetry;
pub mod worker;
