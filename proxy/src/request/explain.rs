//! explain: a call with `agent-explain: 1`, from a caller who may ask for it, notes everything that its decisions weighed. Any
//! other call passes by with one look at its head.

use std::cell::Cell;
use std::net::SocketAddr;

use pilotfish_config::wire::{Explained, LONGEST_EXPLAINED, PassedOver};
use pilotfish_filters::call::Caller;
use pilotfish_filters::explain::choice::{self, Asking};
use pilotfish_filters::plan::Plan;

use crate::http::{Known, RequestHead, ResponseHead};
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::request::guard::Hop;
use crate::request::select::Wish;
use crate::worker::Worker;

/// The header.
const EXPLAIN: &str = "agent-explain";
/// Names a call.
const REQUEST_ID: &str = "x-request-id";
/// Calls of one worker that are explained within a second: looking at all candidates takes time that others wait for.
const MOST: u32 = 20;
/// Choices of endpoints that are told; more tries are rare.
const CHOICES: usize = 8;

/// How many calls were explained in this second.
#[derive(Debug, Default)]
pub struct Pace(Cell<(u64, u32)>);

impl Pace {
    fn admits(&self, second: u64) -> bool {
        let (last, count) = self.0.get();
        let count = if last == second { count + 1 } else { 1 };
        self.0.set((second, count));
        count <= MOST
    }
}

/// Takes the wish out of the head; begins to note when the caller may ask. Such a call's trace is kept.
pub fn enter(worker: &Worker, plan: &Plan, ctx: &mut Ctx<'_>, caller: &Caller, head: &mut RequestHead) {
    if head.headers.may_have(Known::AgentExplain.bit()) {
        begin(worker, plan, ctx, caller, head);
    }
}

#[cold]
fn begin(worker: &Worker, plan: &Plan, ctx: &mut Ctx<'_>, caller: &Caller, head: &mut RequestHead) {
    let asked = head.headers.known(Known::AgentExplain).next() == Some(b"1");
    head.headers.remove(EXPLAIN);
    let callers = &worker.shared.settings.telemetry.explain_callers;
    let may = match ctx.direction {
        Direction::Outbound => callers.admits_own(),
        Direction::Inbound => callers.admits(ctx.mesh.and_then(|peer| peer.agent.as_deref())),
    };
    let second = worker.shared.clock.now().0 / 1_000_000;
    if !asked || !may || !worker.explaining.admits(second) {
        return;
    }
    let mut explained = Explained::default();
    if ctx.direction == Direction::Outbound {
        let passed = plan.passed_over(head, caller).into_iter();
        explained.passed_over = passed.map(|(rule, why)| PassedOver { rule: rule.to_owned(), why }).collect();
    }
    ctx.explained = Some(Box::new(explained));
    ctx.call.sampled = true;
}

/// The next sidecar decides for itself whether it explains; the agent may hand the wish on; nobody else sees it.
pub fn leave(ctx: &Ctx<'_>, head: &mut RequestHead, to: Hop) {
    if ctx.explained.is_none() {
        return;
    }
    match to {
        Hop::Mesh | Hop::Agent => head.headers.set(EXPLAIN, b"1"),
        Hop::Outside => head.headers.remove(EXPLAIN),
    };
}

/// The agent that asked is told by which id to ask on, unless its callee said one.
pub fn tell(ctx: &Ctx<'_>, head: &mut ResponseHead) {
    if ctx.explained.is_some() && ctx.direction == Direction::Outbound && !head.headers.contains(REQUEST_ID) {
        head.headers.set(REQUEST_ID, ctx.call.request_id.as_str().as_bytes());
    }
}

/// An endpoint is about to be chosen.
pub fn look(worker: &Worker, ctx: &mut Ctx<'_>, plan: &Plan, wish: &Wish<'_>) {
    if let Some(explained) = &mut ctx.explained {
        note(worker, explained, plan, wish);
    }
}

#[cold]
fn note(worker: &Worker, explained: &mut Explained, plan: &Plan, wish: &Wish<'_>) {
    if explained.choices.len() >= CHOICES {
        explained.cut = true;
        return;
    }
    let Wish { target, call, caller, key, tried, .. } = *wish;
    let asking =
        Asking { target, call, caller, by_key: key.is_some(), tried, now: worker.shared.clock.now() };
    explained.choices.push(choice::look(plan, &asking));
}

/// It was this one.
pub fn chosen(ctx: &mut Ctx<'_>, endpoint: SocketAddr) {
    let choice = ctx.explained.as_mut().and_then(|explained| explained.choices.last_mut());
    if let Some(choice) = choice.filter(|choice| choice.chosen.is_empty()) {
        choice::settle(choice, endpoint);
    }
}

/// The call is over: what was noted goes into its record, as JSON of a bounded length.
pub fn finish(ctx: &mut Ctx<'_>) {
    if let Some(explained) = ctx.explained.take() {
        ctx.call.extra().explained = json(*explained);
    }
}

#[cold]
fn json(mut explained: Explained) -> Option<Box<str>> {
    // Each time less: fewer candidates, then fewer choices and rules, then nothing but that there was more.
    for (candidates, choices, rules) in [(20, usize::MAX, usize::MAX), (5, 8, 10), (3, 2, 3), (0, 0, 0)] {
        for choice in &mut explained.choices {
            choice::shorten(choice, candidates);
        }
        explained.cut |= explained.choices.len() > choices || explained.passed_over.len() > rules;
        explained.choices.truncate(choices);
        explained.passed_over.truncate(rules);
        let text = serde_json::to_string(&explained).ok()?;
        if text.len() <= LONGEST_EXPLAINED {
            return Some(text.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_config::wire::{Candidate, Choice};

    #[test]
    fn an_account_is_cut_to_its_length() {
        let candidate = Candidate { why_not: vec!["x".repeat(500)], ..Candidate::default() };
        let choice = Choice { candidates: vec![candidate; 100], ..Choice::default() };
        let passed = PassedOver { rule: "r".into(), why: vec!["y".repeat(300)] };
        let explained = Explained { choices: vec![choice; 8], passed_over: vec![passed; 100], cut: false };
        let text = json(explained).unwrap();
        assert!(text.len() <= LONGEST_EXPLAINED, "{}", text.len());
        let read: Explained = serde_json::from_str(&text).unwrap();
        assert!(read.cut && read.choices[0].left_off > 90, "{read:?}");
    }

    #[test]
    fn only_so_many_in_a_second() {
        let pace = Pace::default();
        assert_eq!((0..100).filter(|_| pace.admits(7)).count(), MOST as usize);
        assert!(pace.admits(8));
    }
}
