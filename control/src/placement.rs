//! Where replicas run: pure decisions over a [`World`]. No clocks, no sockets, no store; the same world gives the same outcome.
//!
//! `demand` makes groups of documents, `place` gives them nodes and cards; [`crate::orchestrator`] makes it so.

mod books;
mod cards;
pub mod demand;
mod explain;
mod fill;
mod filter;
mod moves;
pub mod place;
mod preempt;
mod rebalance;
mod score;
mod search;
mod surplus;
mod value;
mod verdict;
pub mod world;

pub use demand::{Demand, demand};
pub use place::{Limits, Outcome, place};
pub use world::World;
