//! LEAST_REQUEST: of two endpoints by chance the one with fewer requests in flight.
//!
//! With unequal weights both are drawn by weight and requests are compared per weight; idle endpoints tie and the first
//! drawn wins, so shares follow the weights. Envoy schedules by weight / (requests + 1) there, which needs a lock or a
//! heap per worker; what results is the same: shares by weight when idle, equal requests per weight when busy.

use super::{Accept, Choice, Weights};

pub(super) fn choose(
    choice: &Choice<'_, '_>,
    weights: &Weights,
    accept: Accept,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    choice.better_of_two(weights, accept, rng, |a, b| {
        let (a_load, b_load) = (u64::from(a.stats.in_flight()), u64::from(b.stats.in_flight()));
        a_load * u64::from(b.weight) <= b_load * u64::from(a.weight)
    })
}
