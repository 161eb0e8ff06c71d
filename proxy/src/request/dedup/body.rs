//! The body of a call with a key: hashed as it is read; a small one is read before anything is done, a larger one streams.

use std::cell::Cell;
use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use aws_lc_rs::digest::{self, SHA256};
use pilotfish_filters::dedup::window::BodyDigest;

use super::{key, pipe};
use crate::http::{Downstream, Error, Frame, Source};

/// How much is read before the key is claimed, in bytes. Up to here a caller that goes away never cuts a call that was begun.
const HELD: usize = 64 * 1024;

/// A body as far as it was read.
pub struct Body {
    hash: digest::Context,
    frames: Vec<Frame>,
    read: Read,
}

#[derive(Clone, Copy)]
enum Read {
    /// More is to come.
    Part,
    /// All of it is here.
    Whole(BodyDigest),
    /// It was read and not kept.
    Skipped(BodyDigest),
}

impl Body {
    /// Reads all of a small body, and the start of a larger one.
    pub async fn begin(down: &mut Downstream<'_>) -> Result<Body, Error> {
        let mut body = Body { hash: digest::Context::new(&SHA256), frames: Vec::new(), read: Read::Part };
        let mut size = 0;
        while size <= HELD {
            let Some(frame) = poll_fn(|cx| down.poll_frame(cx)).await.transpose()? else {
                body.read = Read::Whole(key::bytes(body.hash.clone()));
                break;
            };
            if let Frame::Data(data) = &frame {
                body.hash.update(data);
                size += data.len();
            }
            body.frames.push(frame);
        }
        Ok(body)
    }

    /// Reads the rest, and keeps nothing: for a call that was done before.
    pub async fn skip(&mut self, down: &mut Downstream<'_>) -> Result<(), Error> {
        self.frames.clear();
        while let Some(frame) = poll_fn(|cx| down.poll_frame(cx)).await.transpose()? {
            if let Frame::Data(data) = frame {
                self.hash.update(&data);
            }
        }
        self.read = Read::Skipped(key::bytes(self.hash.clone()));
        Ok(())
    }

    /// The digest, once all of it was read.
    pub fn digest(&self) -> Option<BodyDigest> {
        match self.read {
            Read::Part => None,
            Read::Whole(digest) | Read::Skipped(digest) => Some(digest),
        }
    }

    /// Whether it is all there, or will be.
    pub fn can_be_sent(&self) -> bool {
        !matches!(self.read, Read::Skipped(_))
    }

    /// The way from the caller's connection to the task that does the call.
    pub fn into_upload(self) -> (Upload, Incoming) {
        let (sender, receiver) = pipe::pipe();
        let digest = Rc::new(Cell::new(None));
        let mut upload = Upload {
            hash: self.hash,
            sender: Some(sender),
            digest: Rc::clone(&digest),
            bytes: 0,
            last: None,
        };
        for frame in self.frames {
            upload.send(frame);
        }
        if matches!(self.read, Read::Whole(_)) {
            upload.finish();
        }
        (upload, Incoming { receiver, digest, ended: false })
    }
}

/// The caller's end.
pub struct Upload {
    hash: digest::Context,
    sender: Option<pipe::Sender<Frame>>,
    digest: Rc<Cell<Option<BodyDigest>>>,
    /// Bytes so far.
    pub bytes: u64,
    last: Option<Frame>,
}

impl Upload {
    /// Moves what is there. Ready when there is nothing more to move, also because the other end wants no more.
    pub fn poll(&mut self, cx: &mut Context<'_>, down: &mut Downstream<'_>) -> Poll<Result<(), Error>> {
        while let Some(sender) = &self.sender {
            if ready!(sender.poll_ready(cx)).is_err() {
                self.sender = None;
                break;
            }
            match ready!(down.poll_frame(cx)).transpose()? {
                Some(frame) => {
                    if let Frame::Data(data) = &frame {
                        self.hash.update(data);
                    }
                    self.send(frame);
                }
                None => self.finish(),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, frame: Frame) {
        let Some(sender) = &self.sender else { return };
        match frame {
            Frame::Data(data) => {
                self.bytes += data.len() as u64;
                let size = data.len();
                sender.send(Frame::Data(data), size);
            }
            // They are the last, and who gets them asks no more: the digest has to be there first.
            Frame::Trailers(_) => self.last = Some(frame),
        }
    }

    fn finish(&mut self) {
        let hash = mem::replace(&mut self.hash, digest::Context::new(&SHA256));
        self.digest.set(Some(key::bytes(hash)));
        if let Some(sender) = self.sender.take() {
            if let Some(trailers) = self.last.take() {
                sender.send(trailers, 0);
            }
            sender.finish();
        }
    }
}

/// The end of the task that does the call.
pub struct Incoming {
    receiver: pipe::Receiver<Frame>,
    digest: Rc<Cell<Option<BodyDigest>>>,
    ended: bool,
}

impl Incoming {
    /// The digest, once, when the caller has sent all of it.
    pub fn digest(&self) -> Option<BodyDigest> {
        self.digest.take()
    }
}

impl Source for Incoming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.receiver.poll_next(cx)) {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if self.receiver.is_finished() => {
                self.ended = true;
                Poll::Ready(None)
            }
            None => Poll::Ready(Some(Err(Error::ClientGone))),
        }
    }

    fn is_ended(&self) -> bool {
        self.ended || self.receiver.is_finished()
    }
}
