//! What happens to a request, from top to bottom. One function calls the stages in their order; one file per stage.
//!
//! listen (the caller of [`Service`]) -> identify -> normalize -> decode -> guard -> trace -> (cors) -> authenticate -> delegation -> explain -> route -> cors -> admit -> fault -> (select -> start -> dial -> repeat) -> respond
//! -> record. `ARCHITECTURE.md`, "Life of a request", has the same names.

pub mod admit;
pub mod answer;
pub mod authenticate;
pub mod classify;
pub mod cors;
pub mod credential;
pub mod ctx;
pub mod cut;
pub mod decode;
pub mod dedup;
pub mod delegation;
pub mod dial;
pub mod egress;
pub mod explain;
pub mod fault;
pub mod forward;
pub mod guard;
pub mod identify;
pub mod local_secret;
pub mod mirror;
pub mod narrow;
pub mod normalize;
pub mod query;
pub mod record;
pub mod repeat;
pub mod replay;
pub mod request_id;
pub mod respond;
pub mod route;
pub mod select;
pub mod serving;
pub mod start;
pub mod time;
pub mod trace;
pub mod tunnel;

use std::pin::pin;
use std::rc::Weak;

use bytes::Bytes;
use pilotfish_filters::call::{Call, Caller};
use pilotfish_filters::plan::Action;
use pilotfish_filters::trace::TraceId;
use pilotfish_filters::verdict::Deny;

use crate::bootstrap::RefusalDetail;
use crate::http::{Bad, ConnContext, Downstream, Handler, RequestHead, ResponseHead};
use crate::listen::Direction;
use crate::snapshot::Snapshot;
use crate::telemetry::agentic;
use crate::worker::Worker;
use ctx::Ctx;
use respond::Failed;
use route::Way;
use start::Later;

/// Answers the requests of one listener on one worker.
#[derive(Debug)]
pub struct Service {
    /// The worker owns its services, and outlives every connection.
    worker: Weak<Worker>,
    direction: Direction,
}

impl Service {
    /// A service for one direction.
    pub fn new(worker: Weak<Worker>, direction: Direction) -> Self {
        Service { worker, direction }
    }
}

impl Handler for Service {
    async fn handle<'a>(&'a self, conn: &'a ConnContext, head: RequestHead, mut down: Downstream<'a>) {
        let Some(worker) = self.worker.upgrade() else { return };
        let worker = &*worker;
        let snapshot = worker.pin();
        let later = Later::default();
        let mut ctx = Ctx::begin(worker, (&snapshot, &later), self.direction, conn, &head);
        let grpc = answer::is_grpc(&head);
        if let Err(failed) = serve(worker, &snapshot, &mut ctx, head, &mut down).await {
            respond::fail(worker, &mut ctx, &mut down, failed, grpc).await;
        }
        record::record(worker, &snapshot, ctx);
    }

    fn refuse(&self, conn: &ConnContext, bad: Bad) -> (ResponseHead, Bytes) {
        let mut deny = Deny::with(bad.reason(), bad.what);
        if let Some(worker) = self.worker.upgrade() {
            record::refused(&worker, self.direction, conn, &deny);
            if worker.shared.settings.access.refusals == RefusalDetail::Brief {
                deny = answer::brief(deny, TraceId::default(), false);
            }
        }
        let answer = answer::refusal(&deny, false);
        (answer.head, answer.body)
    }
}

/// The stages.
async fn serve<'p>(
    worker: &Worker,
    snapshot: &'p Snapshot,
    ctx: &mut Ctx<'p>,
    mut head: RequestHead,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let plan = &snapshot.plan;
    // Who opened the tunnel has shown it.
    let secret = worker.shared.local_secret.as_ref().filter(|_| !ctx.within);
    local_secret::check(secret, ctx.direction, &mut head)?;
    let caller = identify::identify(ctx, &mut head);
    normalize::normalize(worker, plan, ctx, &mut head, down)?;
    let call = decode::decode(worker, ctx, &head, down, plan).await;
    trace::decoded(ctx, &call);
    guard::enter(worker, snapshot, ctx, &call, &mut head)?;
    trace::enter(worker, plan, ctx, &call, &mut head);
    if let Some(preflight) = cors::arrive(ctx, plan, &head, &caller) {
        return respond::preflight(worker, ctx, preflight, down).await;
    }
    authenticate::authenticate(worker, snapshot, ctx, &mut head).await?;
    delegation::enter(worker, ctx, &mut head)?;
    explain::enter(worker, plan, ctx, &caller, &mut head);
    guard::remember(worker, ctx, &call, &head);
    ctx.agentic = agentic::asked(&head, &call);
    let way = route::route(worker, plan, ctx, &head, &call, &caller)?;
    trace::routed(worker, ctx);
    guard::by_rule(plan, ctx, &way)?;
    if let Way::Rule(matched) = &way
        && let Some(preflight) = cors::enter(ctx, matched.rule, &head)
    {
        return respond::preflight(worker, ctx, preflight, down).await;
    }
    let limits = time::Limits::of(ctx);
    down.limit_silence(time::silence(plan, ctx));
    let watch = cut::watch(worker, ctx);
    let rest = pin!(follow(worker, snapshot, ctx, way, Asker { call: &call, caller: &caller }, head, down));
    let rest = pin!(cut::unless_cut(watch, rest));
    limits.hold(worker, rest).await
}

/// Who asks for what.
#[derive(Clone, Copy)]
struct Asker<'a> {
    call: &'a Call,
    caller: &'a Caller,
}

/// The stages after the rule is known, which the call's time limits.
async fn follow<'p>(
    worker: &Worker,
    snapshot: &'p Snapshot,
    ctx: &mut Ctx<'p>,
    way: Way<'p>,
    Asker { call, caller }: Asker<'_>,
    mut head: RequestHead,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let plan = &snapshot.plan;
    let asked = admit::Asked { snapshot, caller, call, way: &way, head: &head };
    let permit = down.unless_gone(pin!(admit::admit(worker, ctx, &asked))).await??;
    ctx.due.apply(&mut head);
    trace::admitted(worker, ctx);
    let matched = match way {
        Way::Agent => return dedup::to_agent(worker, plan.own().dedup, ctx, permit, head, down).await,
        // On the heap, as whatever is rare here: the future of every call is as large as its largest branch.
        Way::Unknown => {
            return Box::pin(repeat::to_unknown(worker, plan, ctx, permit, head, down)).await;
        }
        Way::Rule(matched) => matched,
    };
    match &matched.rule.action {
        Action::Redirect(redirect) => respond::redirect(ctx, &matched, redirect, &head, caller, down).await,
        Action::Respond(fixed) => respond::fixed(ctx, &matched, fixed, down).await,
        Action::Forward(split) => {
            fault::inject(worker, ctx, matched.rule, down).await?;
            let task = repeat::Task { plan, matched, split, call, caller, outside: &snapshot.outside };
            let done = repeat::by_rule(worker, task, ctx, head, down).await;
            drop(permit);
            done
        }
    }
}
