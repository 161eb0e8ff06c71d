//! May this caller call this? In this order: response actions, the external authorizer, AuthorizationPolicies, AgentSecurityPolicies; then
//! the record of it.

use std::sync::Arc;

use pilotfish_filters::authz::{Asking, Judgement, Who};
use pilotfish_filters::verdict::Deny;
use serde_json::Value;

use super::{Asked, action, client, custom};
use crate::audit;
use crate::authorizers::{Edit, How};
use crate::http::headers::alike;
use crate::http::{RequestHead, ResponseHead};
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::request::narrow::{self, Narrow};
use crate::worker::Worker;

/// What a call that was allowed still owes: used by the stages after admit.
#[derive(Debug, Default)]
pub struct Due {
    /// Headers that replace those of the request before it is sent on (an external authorizer's).
    pub to_upstream: Vec<(Box<str>, Box<[u8]>)>,
    /// Headers that are taken from the request before that (the same's).
    pub remove_upstream: Vec<Box<str>>,
    /// The target that it is sent on with (the same's).
    pub target: Option<Box<str>>,
    /// Headers of the answer (the same's).
    pub to_downstream: Vec<Edit>,
    /// What the authorizer says besides, for conditions of policies.
    pub metadata: Option<Arc<Value>>,
    /// The highest class of an answer that the caller may get.
    pub clearance: Option<usize>,
    /// The class of an answer that does not say its own.
    pub class: Option<usize>,
    /// The answer is a list that is narrowed to what the caller may use.
    pub narrow: Option<Box<Narrow>>,
}

impl Due {
    /// Does to the request what it owes.
    pub fn apply(&mut self, head: &mut RequestHead) {
        for name in std::mem::take(&mut self.remove_upstream) {
            head.headers.remove(&name);
        }
        for (name, value) in std::mem::take(&mut self.to_upstream) {
            head.headers.remove_disguised(|own| alike(own, name.as_bytes()));
            head.headers.set(&name, &value);
        }
        if let Some(target) = self.target.take() {
            head.set_path_and_query(&target);
        }
    }

    /// The head as an external authorizer has changed it: what is sent on is what is decided on.
    fn changed(&self, head: &RequestHead) -> Option<Box<RequestHead>> {
        if self.to_upstream.is_empty() && self.remove_upstream.is_empty() && self.target.is_none() {
            return None;
        }
        let mut head = Box::new(head.clone());
        let (to_upstream, remove_upstream) = (self.to_upstream.clone(), self.remove_upstream.clone());
        Due { to_upstream, remove_upstream, target: self.target.clone(), ..Due::default() }.apply(&mut head);
        Some(head)
    }

    /// Does to the answer what it owes.
    pub fn add_to(&mut self, head: &mut ResponseHead) {
        for Edit { name, value, how } in std::mem::take(&mut self.to_downstream) {
            let there = head.headers.get(&name).is_some();
            match how {
                How::Append => head.headers.append(&name, &value),
                How::AddIfAbsent if !there => head.headers.append(&name, &value),
                How::Overwrite => head.headers.set(&name, &value),
                How::OverwriteIfThere if there => head.headers.set(&name, &value),
                How::Remove => head.headers.remove(&name),
                How::AddIfAbsent | How::OverwriteIfThere => false,
            };
        }
    }
}

/// Decides, and records the decision.
///
/// # Errors
/// `quarantined`, `restricted`, `access-denied`, `unauthenticated`, `not-decidable`, `authorizer-unavailable`, `audit-unavailable`.
pub async fn authorize(worker: &Worker, ctx: &mut Ctx<'_>, asked: &Asked<'_>) -> Result<(), Deny> {
    action::check(worker, ctx, asked)?;
    if ctx.direction != Direction::Inbound {
        return Ok(());
    }
    let plan = &asked.snapshot.plan;
    let claims = ctx.proven.claims.clone();
    let chain = ctx.proven.chain.clone();
    let rules = ctx.mesh.and_then(|peer| peer.rules(asked.snapshot));
    let who = Who {
        principal: ctx.mesh.map(|peer| &peer.principal),
        remote_ip: client::address(asked.head, worker.shared.settings.reading.trusted_hops),
        destination: asked.snapshot.agent,
        arrived: Some(ctx.local.ip()),
        sni: ctx.mesh.and_then(|peer| peer.server_name.as_deref()),
        claims: claims.as_ref(),
        chain: chain.as_deref(),
        metadata: None,
        unix: if claims.is_some() { unix_seconds(worker) } else { 0 },
        rules: rules.as_deref(),
    };
    let asking = Asking { head: asked.head, call: asked.call, caller: asked.caller, who: &who };
    let custom = match plan.custom(&asking) {
        // On the heap, as whatever is rare here: the future of every call is as large as its largest branch.
        Some(wanted) => Box::pin(custom::ask(worker, ctx, asked, &asking, wanted)).await,
        None => Ok(None),
    };
    let changed = ctx.due.changed(asked.head);
    let metadata = ctx.due.metadata.clone();
    let (who, seen);
    let (asked, asking) = if changed.is_none() && metadata.is_none() {
        (asked, asking)
    } else {
        seen = Asked { head: changed.as_deref().unwrap_or(asked.head), ..*asked };
        let remote_ip = client::address(seen.head, worker.shared.settings.reading.trusted_hops);
        who = Who { remote_ip, metadata: metadata.as_deref(), ..*asking.who };
        (&seen, Asking { head: seen.head, who: &who, ..asking })
    };
    let judgement: Judgement<'_> = match custom {
        Ok(would_refuse) => {
            let judgement = plan.authorize(&asking);
            Judgement { dry_run: judgement.dry_run.or(would_refuse), ..judgement }
        }
        Err(judgement) => judgement,
    };
    let judgement = narrow::one_model(ctx, plan, asked, asking.who, judgement);
    (ctx.due.clearance, ctx.due.class) = (judgement.clearance, judgement.class);
    audit::decided(worker, ctx, asked, &asking, &judgement)?;
    match judgement.deny {
        Some(deny) => Err(deny),
        None => {
            ctx.due.narrow = narrow::due(plan, asked, asking.who, &mut ctx.due.remove_upstream);
            Ok(())
        }
    }
}

fn unix_seconds(worker: &Worker) -> u64 {
    let clock = &worker.shared.clock;
    clock.epoch().nanos(clock.now()) / 1_000_000_000
}
