//! admit: may this caller do this now? Each policy has its file; here is their order.

use pilotfish_filters::call::{Call, Caller};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::verdict::Deny;

use crate::http::RequestHead;
use crate::request::ctx::Ctx;
use crate::request::repeat::attempt::{Sent, Unsent};
use crate::request::route::Way;
use crate::snapshot::Snapshot;
use crate::telemetry::call::Acted;
use crate::worker::Worker;

pub mod action;
pub mod authorize;
pub mod client;
pub mod custom;
pub mod rate;
pub mod shed;

/// What the policies may know of a call.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The configuration that the call keeps.
    pub snapshot: &'a Snapshot,
    /// Who sends it.
    pub caller: &'a Caller,
    /// What it is.
    pub call: &'a Call,
    /// Where it goes.
    pub way: &'a Way<'a>,
    /// Its head.
    pub head: &'a RequestHead,
}

/// Proof that a request passed the policies of its way, and the places that it takes while it lasts. Made here and nowhere
/// else.
#[derive(Debug)]
pub struct Permit {
    place: Option<shed::Place>,
}

impl Permit {
    /// How a try went that was sent at `began`, for the limit that follows the latency. Whatever is no answer has no latency.
    pub fn tried(&self, worker: &Worker, began: Micros, tried: &Result<Sent, Unsent>) {
        let Some(place) = &self.place else { return };
        let now = worker.shared.clock.now();
        match tried {
            Ok(_) => place.answered(now, Some(now.since(began))),
            Err(unsent) if unsent.outcome().is_some() => place.answered(now, None),
            Err(_) => {}
        }
    }
}

/// Asks the policies in their order: first whether the caller may at all, then rate limits, since a call that may not be made should not wait for a place.
///
/// # Errors
/// Those of [`authorize::authorize`], `rate-limited`, `overloaded`, `memory-pressure`, `deadline-exceeded` while it waited.
pub async fn admit(worker: &Worker, ctx: &mut Ctx<'_>, asked: &Asked<'_>) -> Result<Permit, Deny> {
    worker.shared.memory.check(ctx.priority)?;
    authorize::authorize(worker, ctx, asked).await?;
    if rate::check(worker, ctx, asked)? {
        ctx.call.acted.add(Acted::RATE_LIMIT);
    }
    let (place, waited) = shed::place(worker, ctx, asked).await?;
    if waited {
        ctx.call.acted.add(Acted::QUEUE);
    }
    Ok(Permit { place })
}
