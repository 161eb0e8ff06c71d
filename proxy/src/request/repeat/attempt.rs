//! One try: a connection, then the request and the head of its answer; and what a failed one means.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use pilotfish_filters::cluster::{Outcome, Upstream};
use pilotfish_filters::retry::Happened;
use pilotfish_filters::verdict::{Deny, Fault, Reason};

use crate::http::{Downstream, Error, Frame, Pump, RequestHead, ResponseHead, Source, exchange};
use crate::request::credential::{self, Shown};
use crate::request::ctx::Ctx;
use crate::request::dial::{self, Dialed, Protocol};
use crate::request::repeat::course;
use crate::request::respond::{self, Failed};
use crate::request::time;
use crate::request::{delegation, guard};
use crate::worker::Worker;

/// How much of an answer that nobody will see is read so that its connection can be kept.
const DRAIN: usize = 16 * 1024;

/// A request that has its answer's head.
pub struct Sent {
    /// The answer's head.
    pub head: ResponseHead,
    /// The connection, on which the answer's body follows.
    pub dialed: Dialed,
    /// The request's body, perhaps still on its way.
    pub upload: Pump,
}

impl Sent {
    /// What the answer says of its endpoint. gRPC errors without a message have their status in the head.
    pub fn outcome(&self, protocol: Protocol, by_sidecar: bool) -> Outcome {
        match by_sidecar.then(|| course::refusal(&self.head)).flatten() {
            // The agent is as good as not there, whoever found that out.
            Some(reason) if reason.is_no_connection() => return Outcome::Unreachable,
            // What a caller did wrong says nothing about the endpoint.
            Some(reason) if reason.fault() == Fault::Caller => return Outcome::Answered(400),
            _ => {}
        }
        let grpc = (protocol == Protocol::Http2).then(|| self.head.headers.get("grpc-status")).flatten();
        Outcome::of_answer(self.head.status.as_u16(), grpc)
    }
}

/// A try that got no answer.
pub enum Unsent {
    /// The sidecar itself does not send it.
    Refused(Deny),
    /// There was no connection.
    NotConnected(Deny),
    /// It broke on the way.
    Broken {
        /// How.
        error: Error,
        /// The connection had carried another call before.
        reused: bool,
    },
    /// It took longer than a try may.
    TimedOut(Duration),
    /// It took longer than its rule gives the whole call.
    Overdue(Duration, Reason),
}

impl Unsent {
    /// The client went away before anything was sent.
    fn gone(error: Error) -> Unsent {
        Unsent::Broken { error, reused: false }
    }

    /// What another try depends on; `None`: it is not for the upstream that this failed, so there is none.
    pub fn happened(&self) -> Option<Happened> {
        match self {
            Unsent::Refused(_) | Unsent::Overdue(..) => None,
            Unsent::NotConnected(deny)
                if matches!(deny.reason, Reason::Overflow | Reason::EncryptionRequired) =>
            {
                None
            }
            Unsent::NotConnected(_) => Some(Happened::NotConnected),
            Unsent::Broken { error, .. } if error.is_downstream() => None,
            // Five minutes were enough.
            Unsent::Broken { error: Error::Silent, .. } => None,
            Unsent::Broken { error: Error::NotProcessed, .. } => Some(Happened::NotProcessed),
            // A lost one too: what may be repeated should not wait for `retryOn` to name it.
            Unsent::Broken { error: Error::UpstreamClosed, reused: true }
            | Unsent::Broken { error: Error::UpstreamLost, .. } => Some(Happened::Stale),
            Unsent::Broken { .. } => Some(Happened::Reset),
            Unsent::TimedOut(_) => Some(Happened::TimedOut),
        }
    }

    /// What its endpoint is remembered for, if anything: a kept connection that had been closed says nothing about it.
    pub fn outcome(&self) -> Option<Outcome> {
        if let Unsent::Broken { error: Error::Silent, .. } | Unsent::Overdue(..) = self {
            return Some(Outcome::TimedOut);
        }
        if let Unsent::Broken { error: Error::UpstreamLost, .. } = self {
            return Some(Outcome::Unreachable);
        }
        match self.happened()? {
            Happened::NotConnected => Some(Outcome::Unreachable),
            Happened::Stale => None,
            Happened::TimedOut => Some(Outcome::TimedOut),
            Happened::NotProcessed | Happened::Reset | Happened::Answered(_) => Some(Outcome::Reset),
        }
    }
}

impl From<Unsent> for Failed {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Refused(deny) | Unsent::NotConnected(deny) => Failed::Refused(deny),
            Unsent::Overdue(limit, reason) => Failed::Refused(time::overdue(reason, limit)),
            Unsent::Broken { error, .. } => Failed::Broken(error),
            Unsent::TimedOut(limit) => Failed::Refused(Deny::with(
                Reason::TryTimeout,
                format!("no answer within {limit:?} (perTryTimeout)"),
            )),
        }
    }
}

/// One try: a connection, then the request and the head of its answer, all within `limit`.
pub async fn try_way(
    worker: &Worker,
    ctx: &Ctx<'_>,
    way: &dial::Way<'_>,
    head: &mut RequestHead,
    down: &mut Downstream<'_>,
    limit: Option<Duration>,
) -> Result<Sent, Unsent> {
    let whole = async {
        let shown = match credential::wanted(ctx, way, head).map_err(Unsent::Refused)? {
            // On the heap: few calls have one.
            Some(live) => {
                let mut obtaining = Box::pin(credential::obtain(worker, ctx, live));
                Some(
                    down.unless_gone(obtaining.as_mut())
                        .await
                        .map_err(Unsent::gone)?
                        .map_err(Unsent::Refused)?,
                )
            }
            None => None,
        };
        let dialed = down.unless_gone(pin!(dial::dial(worker, way))).await;
        let dialed = dialed.map_err(Unsent::gone)?.map_err(Unsent::NotConnected)?;
        guard::leave(worker, ctx, head, way.hop(ctx.direction)).map_err(Unsent::Refused)?;
        delegation::leave(worker, delegation::acting(ctx), head, dialed.peer.as_deref());
        let sent = send(head, down, dialed, shown.as_ref()).await;
        if let (Ok(sent), Some(shown)) = (&sent, &shown) {
            shown.answered(worker, sent.head.status.as_u16());
        }
        sent
    };
    // What the rule gives the call is enforced here too, so that the endpoint is remembered for it.
    let (limit, unsent) = match (limit, time::left_to_try(worker, ctx)) {
        (None, None) => return whole.await,
        (Some(limit), left) if left.is_none_or(|(left, ..)| limit < left) => (limit, Unsent::TimedOut(limit)),
        (_, Some((left, of, reason))) => (left, Unsent::Overdue(of, reason)),
        (Some(limit), None) => (limit, Unsent::TimedOut(limit)),
    };
    worker.timers.within(limit, whole).await.unwrap_or(Err(unsent))
}

/// Sends the request and waits for the answer's head.
async fn send(
    head: &mut RequestHead,
    down: &mut Downstream<'_>,
    mut dialed: Dialed,
    shown: Option<&Shown>,
) -> Result<Sent, Unsent> {
    let mut upload = Pump::new();
    match shown {
        None => dialed.upstream.request(head, down.framing()),
        Some(shown) => {
            let framing = down.framing();
            shown.request(head, &mut dialed.upstream, framing).map_err(Unsent::Refused)?;
        }
    }
    match exchange(down, &mut dialed.upstream, &mut upload, respond::CONTINUE_WAIT).await {
        Ok(head) => Ok(Sent { head, dialed, upload }),
        Err(error) => Err(Unsent::Broken { error, reused: dialed.reused }),
    }
}

/// What the upstream speaks for this request. `is_h2`: its caller speaks HTTP/2.
pub fn protocol(wanted: Upstream, head: &RequestHead, is_h2: bool) -> Result<Protocol, Deny> {
    let upgrade = head.upgrade().is_some();
    match wanted {
        Upstream::Http1 => Ok(Protocol::Http1),
        Upstream::Http2 if upgrade => Err(Deny::with(
            Reason::UpgradeNotPossible,
            "the destination is spoken to in HTTP/2 only (h2UpgradePolicy), which has no Upgrade",
        )),
        Upstream::Http2 => Ok(Protocol::Http2),
        // A WebSocket that came by HTTP/2 goes on as the Upgrade that every WebSocket server knows.
        Upstream::Client if is_h2 && !upgrade => Ok(Protocol::Http2),
        Upstream::Client => Ok(Protocol::Http1),
    }
}

/// Gives up a try that will be repeated. A short answer whose body is there already leaves a connection that can be used again;
/// any other is closed, which costs less than reading what nobody wants.
pub async fn put_away(worker: &Worker, tried: Result<Sent, Unsent>) {
    let Ok(Sent { mut dialed, upload, .. }) = tried else { return };
    if !upload.is_finished() {
        return;
    }
    let ended = poll_fn(|cx| {
        let mut read = 0;
        while read <= DRAIN {
            match dialed.upstream.poll_frame(cx) {
                Poll::Ready(Some(Ok(Frame::Data(data)))) => read += data.len(),
                Poll::Ready(Some(Ok(Frame::Trailers(_))) | None) => return Poll::Ready(true),
                Poll::Ready(Some(Err(_))) | Poll::Pending => break,
            }
        }
        Poll::Ready(false)
    })
    .await;
    if ended {
        dialed.keep(worker);
    }
}
