//! Mutual TLS between sidecars: real processes with certificates of a throw-away authority, raw TLS clients and servers.

mod bad;
mod mesh;
mod setup;
