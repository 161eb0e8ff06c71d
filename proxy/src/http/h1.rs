//! HTTP/1.1 (and 1.0 clients): strict parsing, framing, one connection on either side.

pub mod chunked;
pub mod client;
pub mod framing;
pub mod parse;
pub(crate) mod reader;
pub(crate) mod serialize;
pub mod server;
pub(crate) mod transport;
pub(crate) mod writer;
