//! mirror: copies of a call, whose answers are thrown away; they never slow the call itself.
//!
//! A copy is sent by a task of its own as soon as the call's body is there, through the same selection, limits and connections as
//! any call, once, with nobody waiting for it. It outlives its call, but not the worker: a drain does not wait for copies.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pilotfish_filters::call::{Call, Caller};
use pilotfish_filters::cluster::Outcome;
use pilotfish_filters::delegation::Delegated;
use pilotfish_filters::mirror::{Mirror, is_left_out, shadow_authority};
use pilotfish_filters::plan::{Rule, Target};

use crate::http::{BodyCopy, Downstream, Frame, Framing, Pump, RequestHead, Source, exchange_alone};
use crate::request::ctx::Ctx;
use crate::request::dial::{self, Dialed};
use crate::request::guard::{self, Hop};
use crate::request::repeat::attempt::protocol;
use crate::request::select::{self, Selected, Wish};
use crate::request::{credential, delegation, trace};
use crate::telemetry::call::Acted;
use crate::telemetry::metrics::{Counter, MirrorMetrics};
use crate::worker::{Pinned, Worker};

/// Copies that one worker has under way at most; what comes on top is counted and not sent.
const AT_ONCE: usize = 100;
/// How long a copy may take when its rule has no timeout (Envoy's default for a route).
const PATIENCE: Duration = Duration::from_secs(15);

/// Copies under way on one worker.
#[derive(Debug, Default)]
pub struct UnderWay(Rc<Cell<usize>>);

/// One copy that is counted; dropping it gives its place back.
#[derive(Debug)]
struct Place(Rc<Cell<usize>>);

impl UnderWay {
    fn place(&self) -> Option<Place> {
        let now = self.0.get();
        (now < AT_ONCE).then(|| {
            self.0.set(now + 1);
            Place(Rc::clone(&self.0))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A call as its rule knows it, for copies of it.
pub struct Original<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// What the call is.
    pub call: &'a Call,
    /// Who sends it.
    pub caller: &'a Caller,
    /// The conversation's key.
    pub key: Option<u64>,
    /// Its head as it goes upstream.
    pub head: &'a RequestHead,
}

/// Begins the copies that fall to this call. Its body must not have been polled yet.
pub fn begin(worker: &Worker, ctx: &mut Ctx<'_>, original: &Original<'_>, down: &mut Downstream<'_>) {
    if !original.rule.resilience.mirrors.is_empty() {
        draw(worker, ctx, original, down);
    }
}

#[cold]
fn draw(worker: &Worker, ctx: &mut Ctx<'_>, original: &Original<'_>, down: &mut Downstream<'_>) {
    let Original { rule, head, .. } = original;
    // What follows CONNECT or an upgrade is a conversation, which has two ends.
    if head.method == Method::CONNECT || head.upgrade().is_some() {
        return;
    }
    let mirrors = rule.resilience.mirrors.iter();
    let drawn: Vec<&Mirror> =
        worker.with_rng(|rng| mirrors.filter(|mirror| mirror.share.draw(rng)).collect());
    let counters = &worker.metrics.mirrors;
    let count = |counter: &Counter, copies: usize| counter.add(copies as u64);
    if drawn.is_empty() {
        return;
    }
    let limit = rule.resilience.retry.buffer;
    let body = match down.framing() {
        framing if framing.is_empty() => None,
        Framing::Length(length) if length > limit as u64 => {
            return count(&counters.without_body, drawn.len());
        }
        _ => Some(down.copy_body(limit)),
    };
    let mut targets: Vec<(Target, Place)> = Vec::with_capacity(drawn.len());
    for mirror in drawn {
        match worker.mirrors.place() {
            Some(place) => targets.push((mirror.target.clone(), place)),
            None => count(&counters.dropped, 1),
        }
    }
    let (Some(worker), Some(copy)) = (worker.handle(), Copy::of(worker, ctx, original, down)) else { return };
    if !targets.is_empty() {
        ctx.call.acted.add(Acted::MIRROR);
        tokio::task::spawn_local(copy.send_to(worker, targets, body));
    }
}

/// What all copies of a call have in common.
struct Copy {
    snapshot: Rc<Pinned>,
    call: Call,
    caller: Caller,
    key: Option<u64>,
    /// For other sidecars, and for everyone else.
    to_mesh: RequestHead,
    to_others: RequestHead,
    /// For whom the call is.
    acting: Option<Arc<Delegated>>,
    framing: Framing,
    is_h2: bool,
    patience: Duration,
}

impl Copy {
    /// `None` when there is no time left for the call.
    fn of(worker: &Worker, ctx: &Ctx<'_>, original: &Original<'_>, down: &Downstream<'_>) -> Option<Copy> {
        let mut to_others = original.head.clone();
        to_others.set_authority(&shadow_authority(original.head.authority()));
        to_others.headers.retain(|name, _| !is_left_out(name));
        to_others.expect_continue = false;
        // A copy has no span of its own: what it causes hangs on the call itself.
        trace::tell(worker, ctx, &mut to_others.headers, ctx.call.span);
        let mut to_mesh = to_others.clone();
        guard::leave(worker, ctx, &mut to_others, Hop::Outside).ok()?;
        guard::leave(worker, ctx, &mut to_mesh, Hop::Mesh).ok()?;
        // Nobody waits for it.
        to_mesh.headers.set("agent-priority", b"sheddable");
        Some(Copy {
            snapshot: Rc::clone(ctx.snapshot),
            call: original.call.clone(),
            caller: *original.caller,
            key: original.key,
            to_mesh,
            to_others,
            acting: delegation::acting(ctx).cloned(),
            framing: down.framing(),
            is_h2: down.is_h2(),
            patience: original.rule.timeout.unwrap_or(PATIENCE),
        })
    }

    /// Waits for the body, then sends all copies side by side.
    async fn send_to(self, worker: Rc<Worker>, targets: Vec<(Target, Place)>, body: Option<BodyCopy>) {
        let body = match body {
            None => Vec::new(),
            Some(body) => match body.await {
                Ok(body) => body,
                Err(_) => return worker.metrics.mirrors.without_body.add(targets.len() as u64),
            },
        };
        let copy = Rc::new(self);
        for (target, place) in targets {
            let (copy, worker, body) = (Rc::clone(&copy), Rc::clone(&worker), body.iter().cloned().collect());
            tokio::task::spawn_local(async move {
                let _place = place;
                if let Err(ended) = copy.send(&worker, &target, body).await {
                    ended(&worker.metrics.mirrors).add(1);
                }
            });
        }
    }

    /// One copy, its answer read and dropped.
    async fn send(&self, worker: &Worker, target: &Target, body: VecDeque<Frame>) -> Result<(), Ended> {
        let plan = &self.snapshot.plan;
        let wish = Wish {
            target,
            call: &self.call,
            caller: &self.caller,
            key: self.key,
            tried: &[],
            remote: false,
            compared: None,
        };
        let Ok(Selected::Endpoint(cluster, mut lease)) = select::select(worker, plan, &wish) else {
            return Err(|mirrors| &mirrors.no_endpoint);
        };
        let protocol =
            protocol(cluster.settings.upstream, &self.to_others, self.is_h2).map_err(|_| FAILED)?;
        let way = dial::Way::to_endpoint(worker, &self.snapshot.outside, cluster, lease.endpoint(), protocol);
        let way = way.map_err(|_| FAILED)?;
        let head = if way.secure.is_mesh() { &self.to_mesh } else { &self.to_others };
        let shown = match credential::of_copy(&self.snapshot, &way, head).map_err(|_| FAILED)? {
            Some(live) => {
                let shown = tokio::time::timeout(self.patience, credential::for_copy(worker, live)).await;
                Some(shown.map_err(|_| FAILED)?.map_err(|_| FAILED)?)
            }
            None => None,
        };
        let began = worker.shared.clock.now();
        let asked = tokio::time::timeout(self.patience, async {
            let mut dialed = dial::dial(worker, &way).await.map_err(|_| Outcome::Unreachable)?;
            match (&dialed.peer, &shown) {
                (None, None) => dialed.upstream.request(head, self.framing),
                (None, Some(shown)) => {
                    let mut head = head.clone();
                    let shown = shown.request(&mut head, &mut dialed.upstream, self.framing);
                    shown.map_err(|_| Outcome::Unreachable)?;
                }
                (Some(peer), _) => {
                    let mut head = head.clone();
                    delegation::leave(worker, self.acting.as_ref(), &mut head, Some(peer));
                    dialed.upstream.request(&head, self.framing);
                }
            }
            let answered = exchange_alone(&mut dialed.upstream, &mut Pump::new(), body).await;
            let head = answered.map_err(|_| Outcome::Reset)?;
            Ok((head.status.as_u16(), dialed))
        });
        let asked = asked.await.unwrap_or(Err(Outcome::TimedOut));
        let now = worker.shared.clock.now();
        let took = now.since(began);
        let outcome = match &asked {
            Ok((status, _)) => Outcome::Answered(*status),
            Err(outcome) => *outcome,
        };
        lease.record(now, outcome, took);
        let (_, dialed) = asked.map_err(|_| FAILED)?;
        worker.metrics.mirrors.answered.add(1);
        // What is not there in time is not read: the connection closes.
        let _ = tokio::time::timeout(self.patience.saturating_sub(took), discard(worker, dialed)).await;
        Ok(())
    }
}

/// The counter of what became of a copy.
type Ended = fn(&MirrorMetrics) -> &Counter;

const FAILED: Ended = |mirrors| &mirrors.failed;

/// Reads an answer to its end, so that its connection can be kept.
async fn discard(worker: &Worker, mut dialed: Dialed) {
    loop {
        match poll_fn(|cx| dialed.upstream.poll_frame(cx)).await {
            Some(Ok(_)) => {}
            None => return dialed.keep(worker),
            Some(Err(_)) => return,
        }
    }
}
