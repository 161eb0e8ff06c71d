//! The sidecar, module by module in the order in which a request meets them.

pub mod http;
