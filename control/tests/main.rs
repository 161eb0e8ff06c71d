//! Tests from outside: the real process, real sockets, real files.

mod server;
mod support;
