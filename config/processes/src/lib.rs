//! Processes of this machine, for those who start agents: the sidecar, and the node that starts sidecars.
//!
//! | to | use |
//! |---|---|
//! | name one process, never mixed up with a later one of the same number | [`Id`]; on the disk, across starts of the machine: [`Which`] |
//! | wait for the end of one that need not be an own child | [`Watched`] |
//! | say how one ended | [`Exit`] |
//! | find all that are an agent's, and end them | [`Traits`], [`Ending`] |
//! | take in orphans that this process has inherited | [`Orphans`] |
//! | say who has a port | [`listener`] |
//!
//! Everything is read from `/proc`, and every signal goes through a pidfd that was compared with the process's start.

mod agent;
mod exit;
mod id;
mod listener;
mod orphans;
mod stat;
mod watched;

pub use agent::{Ending, LOOK, MARK, Traits, members};
pub use exit::Exit;
pub use id::{Id, Which, boot, signal, signal_group};
pub use listener::listener;
pub use orphans::Orphans;
pub use stat::Stat;
pub use watched::Watched;
