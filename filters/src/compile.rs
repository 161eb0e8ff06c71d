//! A validated model -> a plan.

pub mod cluster;
