//! Placement from outside: worlds in, outcomes out, held against a checker that was written apart.

mod checker;
mod model;
mod properties;
mod reasons;
mod rules;
mod worlds;
