//! respond: the answer's head with the rule's edits, then its body as it comes; or an answer of the sidecar's own.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pilotfish_filters::call::Caller;
use pilotfish_filters::cluster::ClusterSettings;
use pilotfish_filters::fault::Abort;
use pilotfish_filters::plan::{FixedResponse, Matched, WeightedDestination};
use pilotfish_filters::rewrite::Redirect;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::audit;
use crate::bootstrap::RefusalDetail;
use crate::http::{Downstream, Error, Framing, Pump, RequestHead, ResponseHead, Watch, relay};
use crate::request::ctx::Ctx;
use crate::request::repeat::Sent;
use crate::request::{answer, classify, cors, explain, forward, narrow, trace, tunnel};
use crate::worker::Worker;

/// How long a client that asked for `100 Continue` waits for the upstream to say so before the sidecar says it
/// (curl waits 1 s before it sends its body unasked).
pub const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Why a request did not get a whole answer from an upstream.
#[derive(Debug)]
pub enum Failed {
    /// The sidecar refused, or found nobody.
    Refused(Deny),
    /// One side broke.
    Broken(Error),
    /// The rule injects this fault.
    Aborted(Abort),
}

impl From<Deny> for Failed {
    fn from(deny: Deny) -> Self {
        Failed::Refused(deny)
    }
}

impl From<Reason> for Failed {
    fn from(reason: Reason) -> Self {
        Failed::Refused(reason.into())
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Broken(error)
    }
}

impl Failed {
    fn into_deny(self) -> Deny {
        match self {
            Failed::Refused(deny) => deny,
            Failed::Broken(error) => Deny::with(error.reason(), error.to_string()),
            Failed::Aborted(_) => Deny::with(Reason::FaultInjected, "the rule aborts a share of its calls"),
        }
    }
}

/// What is changed in an answer's head.
#[derive(Debug, Clone, Copy, Default)]
pub struct Edits<'a> {
    /// The rule's edits.
    pub matched: Option<&'a Matched<'a>>,
    /// The destination's.
    pub destination: Option<&'a WeightedDestination>,
    /// The cookie of an affinity that was just begun.
    pub cookie: Option<&'a str>,
    /// The endpoint is another sidecar that proved so, whose reasons are as good as ours.
    pub from_sidecar: bool,
}

impl Edits<'_> {
    fn apply(&self, head: &mut ResponseHead) {
        // The reason is for sidecars' refusals: an agent that sends the header must not look like one.
        if !self.from_sidecar {
            head.headers.remove("pilotfish-reason");
        }
        if let Some(matched) = self.matched {
            forward::edit_response(matched, self.destination, self.cookie, head);
        }
    }
}

/// Passes an upstream's answer on, and keeps its connection if it can be used again.
///
/// # Errors
/// One side broke; when the head was sent already, the caller of the sidecar sees a broken-off answer.
pub async fn respond(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    sent: Sent,
    down: &mut Downstream<'_>,
    edits: &Edits<'_>,
    settings: &ClusterSettings,
) -> Result<(), Failed> {
    let Sent { mut head, mut dialed, mut upload } = sent;
    // As the upstream gave it: a rule that edits headers takes no class away.
    classify::check(ctx, &mut head)?;
    edits.apply(&mut head);
    ctx.due.add_to(&mut head);
    cors::finish(ctx, &mut head);
    explain::tell(ctx, &mut head);
    ctx.status = Some(head.status.as_u16());
    if let Some(answered) = &ctx.answered {
        answered.set(true);
    }
    trace::head_answered(worker, ctx, &head);
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        down.respond(&head, Framing::None);
        let upstream = dialed.upstream.into_tunnel().ok_or(Error::UpstreamReset)?;
        return tunnel::run(ctx, down, upstream, settings.tunnel_idle_timeout).await;
    }
    let narrow = ctx.due.narrow.take();
    if let Some(narrow) = narrow.filter(|narrow| narrow::concerns(narrow, &head, dialed.upstream.framing())) {
        let sent = Sent { head, dialed, upload };
        return Box::pin(narrow::respond(worker, ctx, narrow, sent, down)).await;
    }
    down.respond(&head, dialed.upstream.framing());
    down.release();
    let mut download = Pump::new();
    let clock = worker.shared.clock;
    let watch = ctx.agentic.as_mut().and_then(|agentic| agentic.answered(&head, clock));
    let watch = watch.map(|listening| listening as &mut dyn Watch);
    let relayed = relay(down, &mut dialed.upstream, &mut upload, &mut download, watch).await;
    ctx.sent = upload.bytes;
    ctx.received = download.bytes;
    relayed?;
    dialed.keep(worker);
    Ok(())
}

/// Sends the caller elsewhere.
///
/// # Errors
/// The caller has gone.
pub async fn redirect(
    ctx: &mut Ctx<'_>,
    matched: &Matched<'_>,
    redirect: &Redirect,
    request: &RequestHead,
    caller: &Caller,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::MOVED_PERMANENTLY);
    let mut head = ResponseHead::new(status);
    let location = matched.location(redirect, request, caller);
    head.headers.append("location", location.as_bytes());
    forward::edit_response(matched, None, None, &mut head);
    answer_with(ctx, down, head, Bytes::new()).await
}

/// Answers a preflight.
///
/// # Errors
/// The caller has gone.
pub async fn preflight(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    head: ResponseHead,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    worker.metrics.preflights.add(1);
    answer_with(ctx, down, head, Bytes::new()).await
}

/// Answers as the rule says (`directResponse`).
///
/// # Errors
/// The caller has gone.
pub async fn fixed(
    ctx: &mut Ctx<'_>,
    matched: &Matched<'_>,
    fixed: &FixedResponse,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let status = StatusCode::from_u16(fixed.status).unwrap_or(StatusCode::OK);
    let mut head = ResponseHead::new(status);
    if !fixed.body.is_empty() {
        head.headers.append("content-type", b"text/plain");
    }
    forward::edit_response(matched, None, None, &mut head);
    answer_with(ctx, down, head, Bytes::copy_from_slice(&fixed.body)).await
}

/// Refuses, as long as nothing of an answer was sent; afterwards the answer breaks off when `down` is dropped.
pub async fn fail(worker: &Worker, ctx: &mut Ctx<'_>, down: &mut Downstream<'_>, failed: Failed, grpc: bool) {
    let abort = match failed {
        Failed::Aborted(abort) => Some(abort),
        _ => None,
    };
    let mut deny = failed.into_deny();
    ctx.reason = Some(deny.reason);
    audit::refused(worker, ctx, &deny);
    note(ctx, &deny);
    if deny.reason == Reason::ClientGone {
        ctx.status = None;
        return;
    }
    if !down.has_answered() {
        if worker.shared.settings.access.refusals == RefusalDetail::Brief {
            deny = answer::brief(deny, ctx.call.trace, grpc);
        }
        let answer = match abort {
            None => answer::refusal(&deny, grpc),
            Some(Abort::Http2(code)) => return down.reset(code),
            Some(abort) => answer::aborted(&deny, abort, grpc),
        };
        // Not an error of its own: a caller that is gone now was going to be refused.
        let _ = answer_with(ctx, down, answer.head, answer.body).await;
    }
}

/// What `why` tells of a refusal: the first words of its detail.
fn note(ctx: &mut Ctx<'_>, deny: &Deny) {
    const LONGEST: usize = 512;
    if let Some(detail) = deny.detail.as_deref() {
        ctx.call.extra().detail = detail.get(..detail.floor_char_boundary(LONGEST)).map(Box::from);
    }
}

async fn answer_with(
    ctx: &mut Ctx<'_>,
    down: &mut Downstream<'_>,
    mut head: ResponseHead,
    body: Bytes,
) -> Result<(), Failed> {
    cors::finish(ctx, &mut head);
    ctx.status = Some(head.status.as_u16());
    ctx.received = body.len() as u64;
    down.send(&head, body).await?;
    Ok(())
}
