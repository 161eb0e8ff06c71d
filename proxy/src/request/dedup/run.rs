//! Does a call with a key, whether its caller waits or not, and keeps the answer while it streams to the caller.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use pilotfish_filters::dedup::{Ending, LONGEST_ANSWER, Ticket};
use tokio::sync::Notify;

use super::body::Incoming;
use super::{Answer, Waiting, pipe, unknown};
use crate::http::{Error, Frame, Framing, Headers, Pump, RequestHead, ResponseHead, Source, Upstream};
use crate::request::admit::Permit;
use crate::request::dial::{self, Protocol, Way};
use crate::request::respond::Failed;
use crate::tls::dial::Secure;
use crate::worker::Worker;

/// A part of an answer on its way to the caller.
pub enum Piece {
    /// An interim answer.
    Inform(ResponseHead),
    /// The head.
    Head(ResponseHead, Framing),
    /// Some of the body.
    Data(Bytes),
    /// The end.
    End(Option<Headers>),
    /// It broke off, or never began.
    Failed(Failed),
}

/// A call that is to be done.
pub struct Execution {
    /// Where the agent is.
    pub agent: SocketAddr,
    /// What it gets.
    pub head: RequestHead,
    /// How long its body is.
    pub framing: Framing,
    /// Whether the caller speaks HTTP/2, as the agent then does.
    pub is_h2: bool,
    /// The body.
    pub body: Incoming,
    /// The right to do it.
    pub ticket: Ticket<Answer, Waiting>,
    /// The places that it takes while it lasts.
    pub permit: Permit,
    /// Who waits for the answer.
    pub caller: pipe::Sender<Piece>,
}

/// How many calls with a key a worker does; it ends after they have.
#[derive(Debug, Default)]
pub struct Executions(Rc<Running>);

#[derive(Debug, Default)]
struct Running {
    count: Cell<usize>,
    ended: Notify,
}

struct Counted(Rc<Running>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.ended.notify_one();
    }
}

impl Executions {
    /// Starts one, in a task of its own.
    pub fn start(&self, execution: impl Future<Output = ()> + 'static) {
        self.0.count.set(self.0.count.get() + 1);
        let counted = Counted(Rc::clone(&self.0));
        tokio::task::spawn_local(async move {
            execution.await;
            drop(counted);
        });
    }

    /// Waits until none runs.
    pub async fn idle(&self) {
        while self.0.count.get() > 0 {
            self.0.ended.notified().await;
        }
    }
}

/// Does a call. Once its caller has gone it may take as long as keys are remembered; a caller decides itself how long it waits.
pub async fn run(worker: Rc<Worker>, execution: Execution) {
    let Execution { agent, head, framing, is_h2, mut body, mut ticket, permit, caller } = execution;
    let protocol = if is_h2 { Protocol::Http2 } else { Protocol::Http1 };
    // A kept connection may turn out to be closed, and then nobody could tell whether the call had begun.
    let way = Way::to_address(agent, &worker.plain_settings, None, protocol, Secure::Plain).unused();
    let ending = match dial::dial(&worker, &way).await {
        Err(deny) => Err((Ending::NotStarted, Failed::Refused(deny))),
        Ok(mut dialed) => {
            dialed.upstream.request(&head, framing);
            let patience = ticket.remember();
            let mut call =
                Call { up: &mut dialed.upstream, body: &mut body, ticket: &mut ticket, caller: &caller };
            let answered = tokio::select! {
                biased;
                answered = call.answer() => answered,
                () = async { caller.gone().await; tokio::time::sleep(patience).await } => Err(Error::ClientGone),
            };
            match answered {
                Ok((ending, end)) => {
                    dialed.keep(&worker);
                    Ok((ending, end))
                }
                Err(error @ Error::NotProcessed) => Err((Ending::NotStarted, error.into())),
                Err(error) => Err((Ending::Unknown, unknown(error).into())),
            }
        }
    };
    // The agent is done: others may have its place before the caller has read all of the answer.
    drop(permit);
    let (ending, last) = match ending {
        Ok((ending, trailers)) => (ending, Piece::End(trailers)),
        Err((ending, failed)) => (ending, Piece::Failed(failed)),
    };
    // First the window, so that a caller that repeats at once finds what it was told.
    ticket.end(ending, worker.shared.clock.now());
    caller.send(last, 0);
    caller.finish();
}

/// One exchange with the agent.
struct Call<'a> {
    up: &'a mut Upstream,
    body: &'a mut Incoming,
    ticket: &'a mut Ticket<Answer, Waiting>,
    caller: &'a pipe::Sender<Piece>,
}

impl Call<'_> {
    /// The answer, sent on as it comes: how the call ended, and the trailers.
    async fn answer(&mut self) -> Result<(Ending<Answer>, Option<Headers>), Error> {
        let mut upload = Pump::new();
        let mut head = poll_fn(|cx| self.poll_head(cx, &mut upload)).await?;
        // Both are for sidecars to say.
        head.headers.remove("pilotfish-reason");
        head.headers.remove(super::EPOCH);
        let framing = self.up.framing();
        self.caller.send(Piece::Head(head.clone(), framing), 0);
        let mut kept = Kept::new(head, framing, self.ticket);
        loop {
            let next = poll_fn(|cx| self.poll_piece(cx, &mut upload, kept.is_some())).await?;
            match next {
                Some(Frame::Data(data)) => {
                    kept = kept.and_then(|kept| kept.with(&data, self.ticket));
                    let size = data.len();
                    self.caller.send(Piece::Data(data), size);
                }
                Some(Frame::Trailers(trailers)) => {
                    let ending = match kept {
                        Some(kept) => kept.whole(Some(trailers.clone())),
                        None => Ending::NotKept,
                    };
                    return Ok((ending, Some(trailers)));
                }
                None => return Ok((kept.map_or(Ending::NotKept, |kept| kept.whole(None)), None)),
            }
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, upload: &mut Pump) -> Poll<Result<ResponseHead, Error>> {
        self.poll_upload(cx, upload)?;
        while let Poll::Ready(head) = self.up.poll_response(cx)? {
            if !head.status.is_informational() {
                return Poll::Ready(Ok(head));
            }
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                // Nobody asked for it.
                return Poll::Ready(Err(Error::UpstreamReset));
            }
            if head.status != StatusCode::CONTINUE {
                self.caller.send(Piece::Inform(head), 0);
            }
        }
        Poll::Pending
    }

    /// The next part of the body when the caller has room for it, or is gone. An answer that nobody waits for and nobody will
    /// ask for again ends here.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Pump,
        keeps: bool,
    ) -> Poll<Result<Option<Frame>, Error>> {
        self.poll_upload(cx, upload)?;
        match self.caller.poll_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(pipe::Gone)) if keeps => {}
            Poll::Ready(Err(pipe::Gone)) => return Poll::Ready(Ok(None)),
            Poll::Pending => return Poll::Pending,
        }
        self.up.poll_frame(cx).map(Option::transpose)
    }

    /// One step of the request's body. What the agent does not take is no error: it may have answered all the same.
    fn poll_upload(&mut self, cx: &mut Context<'_>, upload: &mut Pump) -> Result<(), Error> {
        let polled = upload.poll(cx, self.body, self.up);
        if let Some(digest) = self.body.digest() {
            self.ticket.body_is(digest);
        }
        match polled {
            Poll::Ready(Err(error)) if error.is_downstream() => Err(error),
            Poll::Ready(Err(_)) => {
                upload.abandon();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// An answer as far as it has come.
struct Kept {
    head: ResponseHead,
    body: Vec<u8>,
}

impl Kept {
    /// `None`: it will not be kept, and the window knows.
    fn new(head: ResponseHead, framing: Framing, ticket: &mut Ticket<Answer, Waiting>) -> Option<Kept> {
        let is_stream = head.headers.get("content-type").is_some_and(|kind| {
            kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
        });
        let fields: usize = head.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let body = match framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            _ => 0,
        };
        let fits = fields.saturating_add(body) <= LONGEST_ANSWER;
        if !is_stream && fits && ticket.reserve(fields) {
            return Some(Kept { head, body: Vec::new() });
        }
        ticket.will_not_keep();
        None
    }

    fn with(mut self, data: &[u8], ticket: &mut Ticket<Answer, Waiting>) -> Option<Kept> {
        if self.body.len() + data.len() <= LONGEST_ANSWER && ticket.reserve(data.len()) {
            self.body.extend_from_slice(data);
            return Some(self);
        }
        ticket.will_not_keep();
        None
    }

    fn whole(self, trailers: Option<Headers>) -> Ending<Answer> {
        Ending::Answered(Answer { head: self.head, body: self.body.into(), trailers })
    }
}
