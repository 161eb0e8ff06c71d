//! HTTP/2 by the `h2` crate, both sides; prior knowledge, no server push.

pub mod client;
pub(crate) mod convert;
pub(crate) mod guard;
pub mod server;
pub(crate) mod stream;
pub(crate) mod wire;

#[cfg(test)]
mod tests;
