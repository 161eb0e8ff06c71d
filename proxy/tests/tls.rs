//! Mutual TLS between sidecars: real processes with certificates of a throw-away authority, raw TLS clients and servers.

mod bad;
mod hostile;
mod mesh;
mod policy;
mod rotation;
pub mod setup;
mod tunnels;
