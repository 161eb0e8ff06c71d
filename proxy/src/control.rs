//! The sidecar's side of the control plane: it joins, keeps its identity fresh, follows the stream of updates, says
//! how its agent is, and keeps all of that on disk so that it starts without the control plane too.

pub mod backoff;
pub mod connect;
pub mod disk;
pub mod join;
pub mod member;
pub mod reports;
pub mod set;
pub mod stream;
