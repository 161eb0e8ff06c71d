//! dedup: an inbound call with a key is done once, however often it arrives.
//!
//! The first call of a key is done by a task of its own ([`run`]), which goes on when its caller goes away, so that a repeat
//! gets its answer. What is not safe to do twice is therefore never broken off in the middle, and never begun a second time.

mod body;
pub mod calling;
mod key;
mod pipe;
mod run;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use data_encoding::HEXLOWER;
use pilotfish_filters::dedup::{ANSWER_BYTES, Bell, Claim, DedupSettings, Ending, Pins, Ticket, Window};
use pilotfish_filters::verdict::{Deny, Reason};
use tokio::sync::watch;

use crate::http::{Downstream, Error, Framing, Headers, RequestHead, ResponseHead, Sink};
use crate::net;
use crate::request::admit::Permit;
use crate::request::ctx::Ctx;
use crate::request::guard::{self, Hop};
use crate::request::respond::Failed;
use crate::request::{classify, forward, repeat, trace};
use crate::telemetry::call::Acted;
use crate::worker::Worker;
use body::{Body, Upload};
use run::{Execution, Piece};

pub use key::EPOCH;
pub use run::Executions;

/// The window of this process.
#[derive(Debug)]
pub struct Dedup {
    /// Which window this is: new with each start, since the window starts empty. 32 hexadecimal digits.
    pub epoch: Arc<str>,
    /// What was done here.
    pub window: Arc<Window<Answer, Waiting>>,
    /// Where the agent's own calls went.
    pub pins: Arc<Pins>,
}

impl Dedup {
    /// An empty window.
    pub fn new() -> Dedup {
        let mut epoch = [0; 16];
        net::fill_unique(&mut epoch);
        Dedup {
            epoch: HEXLOWER.encode(&epoch).into(),
            window: Window::new(ANSWER_BYTES),
            pins: Arc::default(),
        }
    }
}

impl Default for Dedup {
    fn default() -> Self {
        Dedup::new()
    }
}

/// An agent's whole answer.
#[derive(Debug)]
pub struct Answer {
    head: ResponseHead,
    body: Box<[u8]>,
    trailers: Option<Headers>,
}

/// What repeats wait on, whichever worker they are on.
#[derive(Debug)]
pub struct Waiting(watch::Sender<()>);

impl Default for Waiting {
    fn default() -> Self {
        Waiting(watch::Sender::new(()))
    }
}

impl Bell for Waiting {
    type Listener = watch::Receiver<()>;

    fn listen(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }

    fn ring(&self) {
        self.0.send_replace(());
    }
}

/// Sends an inbound call to the local agent, unless it was sent before.
///
/// # Errors
/// Those of [`repeat::to_agent`], and for a call with a key: `dedup-epoch`, `dedup-full`, `key-reused`, `already-done`,
/// `outcome-unknown`, `bad-request` for one that is no key.
pub async fn to_agent(
    worker: &Worker,
    settings: DedupSettings,
    ctx: &mut Ctx<'_>,
    permit: Permit,
    mut head: RequestHead,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let key = key::take(&mut head)?;
    // A list is narrowed for each of its callers as it comes, and to ask for it twice does no harm.
    let Some(asked) = key.filter(|_| ctx.due.narrow.is_none()) else {
        return repeat::to_agent(worker, ctx, permit, head, down).await;
    };
    let is_mesh = ctx.mesh.is_some();
    // On the heap: most calls have no key, and every call's future would be larger for it.
    let done = Box::pin(once(worker, settings, ctx, permit, head, down, &asked)).await;
    done.map_err(|failed| match failed {
        Failed::Refused(deny) if is_mesh => {
            Failed::Refused(deny.and_header(EPOCH, &*worker.shared.dedup.epoch))
        }
        failed => failed,
    })
}

/// A call with a key.
async fn once(
    worker: &Worker,
    settings: DedupSettings,
    ctx: &mut Ctx<'_>,
    permit: Permit,
    head: RequestHead,
    down: &mut Downstream<'_>,
    asked: &key::Asked,
) -> Result<(), Failed> {
    let dedup = &worker.shared.dedup;
    if asked.epoch.as_deref().is_some_and(|epoch| epoch != dedup.epoch.as_bytes()) {
        let detail =
            "this sidecar has started anew and does not know what was done before; nothing was done now";
        return Err(Deny::with(Reason::DedupEpoch, detail).into());
    }
    let id = key::id(ctx, &head, &asked.key);
    let mut body = Body::begin(down).await?;
    let mut waited = false;
    loop {
        let now = worker.shared.clock.now();
        match dedup.window.claim(id, body.digest(), settings, now) {
            Claim::First(ticket) if body.can_be_sent() => {
                return first(worker, ctx, permit, head, down, body, ticket).await;
            }
            Claim::First(ticket) => {
                ticket.end(Ending::NotStarted, now);
                let detail =
                    "the call that came before with this key was not begun; its repeat has to be sent again";
                return Err(Deny::with(Reason::ConnectFailed, detail).into());
            }
            Claim::Full => {
                let detail = format!("{} keys are remembered, and none may be forgotten yet", settings.keys);
                return Err(Deny::with(Reason::DedupFull, detail).into());
            }
            // The first's body decides; who has not looked at all of the own has to.
            _ if body.digest().is_none() => body.skip(down).await?,
            Claim::Running(mut bell) => {
                waited = true;
                tokio::select! {
                    biased;
                    () = poll_fn(|cx| down.poll_gone(cx)) => return Err(Error::ClientGone.into()),
                    // An error: the first was not begun, and its bell is gone.
                    _ = bell.changed() => {}
                }
            }
            Claim::Kept(answer) => {
                let metrics = &worker.metrics;
                (if waited { &metrics.dedup_joined } else { &metrics.dedup_answered }).add(1);
                ctx.call.acted.add(if waited { Acted::DEDUP_JOINED } else { Acted::DEDUP_KEPT });
                return again(worker, ctx, &answer, down).await;
            }
            Claim::OtherBody => {
                let detail = "this key came before with another body: a new call needs a new key";
                return Err(Deny::with(Reason::KeyReused, detail).into());
            }
            Claim::NotKept => {
                let detail =
                    "this call was done; its answer was a stream, or too large to be kept for repeats";
                return Err(Deny::with(Reason::AlreadyDone, detail).into());
            }
            Claim::Unknown => return Err(unknown("the agent broke off when this call came first").into()),
        }
    }
}

fn unknown(why: impl std::fmt::Display) -> Deny {
    let detail = format!("{why}; whether it was done is unknown, so it is not done again with this key");
    Deny::with(Reason::OutcomeUnknown, detail)
}

/// Does a call, and passes its answer on as it comes.
async fn first(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    permit: Permit,
    mut head: RequestHead,
    down: &mut Downstream<'_>,
    body: Body,
    ticket: Ticket<Answer, Waiting>,
) -> Result<(), Failed> {
    let (agent, handle) = (worker.pin().agent, worker.handle());
    let (Some(agent), Some(handle)) = (agent, handle) else {
        ticket.end(Ending::NotStarted, worker.shared.clock.now());
        let detail = "this sidecar has no agent, or its name does not resolve (--app)";
        return Err(Deny::with(Reason::NoEndpoint, detail).into());
    };
    ctx.endpoint = Some(agent);
    forward::add_own_headers(worker, ctx, &mut head);
    trace::begin_try(worker, ctx, &mut head, Some(agent), worker.shared.clock.now());
    if let Err(deny) = guard::leave(worker, ctx, &mut head, Hop::Agent) {
        ticket.end(Ending::NotStarted, worker.shared.clock.now());
        return Err(deny.into());
    }
    // The body was asked for already.
    head.expect_continue = false;
    let (upload, incoming) = body.into_upload();
    let (sender, pieces) = pipe::pipe();
    let is_h2 = down.is_h2();
    let framing = if down.framing().is_empty() { Framing::None } else { down.framing() };
    let execution = Execution { agent, head, framing, is_h2, body: incoming, ticket, permit, caller: sender };
    worker.executions.start(run::run(handle, execution));
    follow(worker, ctx, down, upload, pieces).await
}

/// Sends the rest of the body in, and the answer out.
async fn follow(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    down: &mut Downstream<'_>,
    mut upload: Upload,
    mut pieces: pipe::Receiver<Piece>,
) -> Result<(), Failed> {
    let epoch = ctx.mesh.is_some().then(|| worker.shared.dedup.epoch.clone());
    let mut ended = false;
    poll_fn(|cx| {
        if upload.poll(cx, down)?.is_ready() {
            ctx.sent = upload.bytes;
        }
        while !ended {
            let Poll::Ready(()) = down.poll_ready(cx)? else { return Poll::Pending };
            match pieces.poll_next(cx) {
                Poll::Ready(Some(Piece::Inform(head))) => down.inform(&head),
                Poll::Ready(Some(Piece::Head(mut head, framing))) => {
                    classify::check(ctx, &mut head)?;
                    if let Some(epoch) = &epoch {
                        head.headers.set(EPOCH, epoch.as_bytes());
                    }
                    ctx.due.add_to(&mut head);
                    ctx.status = Some(head.status.as_u16());
                    trace::kept_answer(worker, ctx, &head);
                    down.respond(&head, framing);
                }
                Poll::Ready(Some(Piece::Data(data))) => {
                    ctx.received += data.len() as u64;
                    down.push(data);
                }
                Poll::Ready(Some(Piece::End(trailers))) => {
                    down.finish(trailers);
                    ended = true;
                }
                Poll::Ready(Some(Piece::Failed(failed))) => {
                    trace::kept_failure(worker, ctx, &failed);
                    // What came before is still written.
                    let _ = down.poll_flush(cx);
                    return Poll::Ready(Err(failed));
                }
                Poll::Ready(None) => return Poll::Ready(Err(Error::UpstreamReset.into())),
                Poll::Pending => break,
            }
        }
        let flushed = down.poll_flush(cx)?;
        if ended {
            return flushed.map(Ok);
        }
        if down.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Error::ClientGone.into()));
        }
        Poll::Pending
    })
    .await
}

/// The same answer once more.
async fn again(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    answer: &Answer,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let mut head = answer.head.clone();
    classify::check(ctx, &mut head)?;
    if ctx.mesh.is_some() {
        head.headers.set(EPOCH, worker.shared.dedup.epoch.as_bytes());
    }
    ctx.due.add_to(&mut head);
    ctx.status = Some(head.status.as_u16());
    trace::answered(worker, ctx, false);
    ctx.received = answer.body.len() as u64;
    let framing = match &answer.trailers {
        None => Framing::Length(answer.body.len() as u64),
        Some(_) => Framing::Streaming,
    };
    down.respond(&head, framing);
    if !answer.body.is_empty() {
        down.push(bytes::Bytes::copy_from_slice(&answer.body));
    }
    down.finish(answer.trailers.clone());
    poll_fn(|cx| down.poll_flush(cx)).await?;
    Ok(())
}
