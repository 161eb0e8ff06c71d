//! YAML text to a located tree. The only user of the YAML crate, and the place where hostile text is stopped.
//!
//! The tree is flat: nodes in one vector, linked by index, so neither building nor dropping it recurses.
//! Text without escapes is borrowed from the input. Aliases are copies, counted against [`Limits::nodes`]
//! and [`Limits::copied_bytes`], so an alias bomb ends at a fixed cost.

mod compose;
mod place;
mod print;
mod tree;

pub use compose::{Limits, Problem, compose, compose_at};
pub use print::print;
pub use tree::{At, Entries, Node, Scalar, Tree, Type};

/// The start of a text, for messages.
pub(crate) fn clip_text(text: &str) -> std::borrow::Cow<'_, str> {
    tree::clip(text, 64)
}
