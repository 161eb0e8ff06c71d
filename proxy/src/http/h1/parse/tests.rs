//! Heads that are accepted, and heads that are not.
