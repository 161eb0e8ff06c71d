//! Shares, keys and targets of a plan.
