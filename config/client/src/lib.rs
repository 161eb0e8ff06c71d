//! The way to a control plane, the same for sidecars and nodes.
//!
//! | to | use |
//! |---|---|
//! | say where one is | [`Address`]; whoever connects resolves the name |
//! | connect, and know that it is one of this mesh | [`connect`], by a [`Proof`] |
//! | do so over a stream that is open already | [`peer`], then [`speak`] |
//! | send a message and read the answer | [`Connection::post`] |
//! | talk for longer | [`Connection::messages`], [`Messages`] |
//! | get an identity by a token, and the next by the one before | [`Owner`], [`renewal`] |
//! | try again, not all at the same moment | [`Backoff`] |

mod address;
mod backoff;
mod connect;
mod connection;
mod issue;
mod messages;
mod problem;

pub use address::{Address, PORT};
pub use backoff::Backoff;
pub use connect::{CONNECT, HANDSHAKE, Proof, connect, peer};
pub use connection::{Answer, Connection, speak};
pub use issue::{Issued, Owner, Stored, expired, renewal};
pub use messages::Messages;
pub use problem::{Cut, Problem};
