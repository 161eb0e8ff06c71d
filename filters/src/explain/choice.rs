//! One choice of an endpoint for a real call: everybody who is looked at, and what speaks for and against each.

use std::net::SocketAddr;

use pilotfish_config::wire::{Candidate, Choice};

use crate::call::{Call, Caller};
use crate::clock::Micros;
use crate::endpoint::Endpoint;
use crate::plan::{CapabilityTarget, Plan, Target};

/// At most this many candidates are listed.
const LISTED: usize = 20;
/// At most this many are kept until one of them is chosen.
const MOST: usize = 1000;
/// How calls by capability choose, and clusters with `peak-ewma`.
const CHEAPER_OF_TWO: &str = "peak-ewma";

/// What is known when an endpoint is about to be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Where the rule sends the call.
    pub target: &'a Target,
    /// What the call is.
    pub call: &'a Call,
    /// Who sends it.
    pub caller: &'a Caller,
    /// A key decides, so that a conversation stays where it is.
    pub by_key: bool,
    /// Endpoints that earlier tries failed on.
    pub tried: &'a [SocketAddr],
    /// Now.
    pub now: Micros,
}

/// Everybody who could be chosen now, and why not; [`settle`] says later who it was.
pub fn look(plan: &Plan, asking: &Asking<'_>) -> Choice {
    let mut choice = Choice { target: plan.target_name(asking.target), ..Choice::default() };
    match (asking.target, asking.target.cluster(asking.caller.port)) {
        (Target::Capability(target), _) => capability(&mut choice, plan, target, asking),
        (_, Ok(Some(id))) => {
            let cluster = plan.cluster(id);
            choice.target = cluster.name.to_string();
            choice.by = if asking.by_key { "key" } else { cluster.balancing() }.to_owned();
            let all = cluster.endpoints().iter();
            choice.candidates = all.map(|endpoint| candidate(endpoint, Vec::new(), asking)).collect();
        }
        _ => {}
    }
    choice.candidates.sort_by(|a, b| {
        let cost = |one: &Candidate| one.cost.unwrap_or(0.0);
        let rank = |one: &Candidate| !one.why_not.is_empty();
        rank(a).cmp(&rank(b)).then(cost(a).total_cmp(&cost(b)))
    });
    // Nobody who could be chosen is far down.
    shorten(&mut choice, MOST);
    choice
}

fn capability(choice: &mut Choice, plan: &Plan, target: &CapabilityTarget, asking: &Asking<'_>) {
    choice.by = if asking.by_key { "key" } else { CHEAPER_OF_TWO }.to_owned();
    let Ok(demand) = target.demand(asking.call) else { return };
    let names: Vec<&str> = demand.wanted.iter().map(|wanted| &*wanted.name).collect();
    choice.target = names.join(" and ");
    let judged = plan.catalogue().judged(&demand, asking.now).into_iter();
    choice.candidates = judged.map(|(one, why)| candidate(&one.endpoint, why, asking)).collect();
}

fn candidate(endpoint: &Endpoint, mut why_not: Vec<String>, asking: &Asking<'_>) -> Candidate {
    let (stats, now) = (&endpoint.stats, asking.now);
    if let Some(health) = stats.health_if_out(now) {
        why_not.push(health.to_string());
    }
    if asking.tried.contains(&endpoint.addr) {
        why_not.push("an earlier try failed there".to_owned());
    }
    if endpoint.degraded {
        why_not.push("degraded: only when no other is ready".to_owned());
    }
    if !stats.has_room() {
        why_not.push(format!("it has {} calls, as many as it may", stats.in_flight()));
    }
    let cost = stats.cost(now);
    Candidate {
        endpoint: endpoint.addr.to_string(),
        agent: endpoint
            .agent
            .as_deref()
            .map(|agent| format!("{}/{agent}", endpoint.namespace))
            .unwrap_or_default(),
        chosen: false,
        cost: (cost > 0.0 && cost.is_finite()).then_some(cost),
        latency_us: u64::try_from(stats.latency(now).as_micros()).unwrap_or(u64::MAX),
        success: stats.success(now),
        in_flight: stats.in_flight(),
        why_not,
    }
}

/// This endpoint was chosen; the others get a word of why not, and what is too much is left off.
pub fn settle(choice: &mut Choice, chosen: SocketAddr) {
    choice.chosen = chosen.to_string();
    let at = choice.candidates.iter().position(|one| one.endpoint == choice.chosen);
    let mut won = at.map(|at| choice.candidates.remove(at)).unwrap_or_default();
    (won.chosen, won.endpoint) = (true, choice.chosen.clone());
    // What spoke against it did not outweigh.
    won.why_not.clear();
    for other in choice.candidates.iter_mut().filter(|other| other.why_not.is_empty()) {
        other.why_not.push(lost(&choice.by, other, &won).to_owned());
    }
    choice.candidates.insert(0, won);
    shorten(choice, LISTED);
}

/// Leaves off what is more than `most`.
pub fn shorten(choice: &mut Choice, most: usize) {
    choice.left_off += choice.candidates.len().saturating_sub(most);
    choice.candidates.truncate(most);
}

/// Why an endpoint that would have done was not chosen.
fn lost(by: &str, other: &Candidate, won: &Candidate) -> &'static str {
    match by {
        "key" | "ring" | "maglev" => "the key leads elsewhere",
        "round-robin" => "it was another's turn",
        "random" => "not drawn",
        "least-request" if other.in_flight > won.in_flight => "more calls in flight",
        CHEAPER_OF_TWO if other.cost > won.cost => "costs more",
        _ => "not one of the two that were drawn",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(endpoint: &str, cost: f32, why: &[&str]) -> Candidate {
        let why_not = why.iter().map(|why| (*why).to_owned()).collect();
        Candidate { endpoint: endpoint.into(), cost: Some(cost), why_not, ..Candidate::default() }
    }

    #[test]
    fn the_chosen_comes_first_and_each_other_has_a_reason() {
        let candidates = vec![
            named("1.1.1.1:1", 1.0, &[]),
            named("2.2.2.2:2", 2.0, &[]),
            named("3.3.3.3:3", 3.0, &["out"]),
        ];
        let mut choice = Choice { by: CHEAPER_OF_TWO.into(), candidates, ..Choice::default() };
        settle(&mut choice, "2.2.2.2:2".parse().unwrap());
        let told: Vec<(&str, bool, &str)> = choice
            .candidates
            .iter()
            .map(|one| (&*one.endpoint, one.chosen, one.why_not.first().map_or("", |why| why)))
            .collect();
        assert_eq!(
            told,
            [
                ("2.2.2.2:2", true, ""),
                ("1.1.1.1:1", false, "not one of the two that were drawn"),
                ("3.3.3.3:3", false, "out")
            ]
        );
    }

    #[test]
    fn only_so_many_are_listed_and_the_chosen_is_one_of_them() {
        let candidates = (0..100).map(|n| named(&format!("1.1.1.1:{}", n + 1), n as f32, &[])).collect();
        let mut choice = Choice { by: "random".into(), candidates, ..Choice::default() };
        settle(&mut choice, "1.1.1.1:99".parse().unwrap());
        assert_eq!((choice.candidates.len(), choice.left_off), (LISTED, 100 - LISTED));
        assert_eq!(
            (choice.candidates[0].endpoint.as_str(), choice.candidates[0].chosen),
            ("1.1.1.1:99", true)
        );
    }
}
