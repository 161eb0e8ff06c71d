//! Upstream connections of one worker: kept ones, and how new ones are made.

pub mod connect;
pub mod pool;
