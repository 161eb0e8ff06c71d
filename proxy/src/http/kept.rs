//! What was taken of a request's body, kept while it streams so that another try can send it again.

use super::body::Frame;

/// The pieces of a body so far, up to a number of bytes.
#[derive(Debug)]
pub(super) struct Kept {
    limit: usize,
    bytes: usize,
    frames: Vec<Frame>,
}

/// What is kept of a body.
#[derive(Debug, Clone, Copy)]
pub struct KeptBody<'a> {
    /// Its pieces in order, trailers last.
    pub frames: &'a [Frame],
    /// Whether they are all of it.
    pub complete: bool,
}

impl Kept {
    pub(super) fn new(limit: usize) -> Self {
        Kept { limit, bytes: 0, frames: Vec::new() }
    }

    /// A higher limit, unless it is too late for it.
    pub(super) fn raise(&mut self, limit: usize) {
        if !self.is_over() {
            self.limit = self.limit.max(limit);
        }
    }

    /// Whether more came than may be kept, so that nothing is.
    pub(super) fn is_over(&self) -> bool {
        self.bytes > self.limit
    }

    pub(super) fn note(&mut self, frame: &Frame) {
        if self.is_over() {
            return;
        }
        if let Frame::Data(data) = frame {
            self.bytes += data.len();
        }
        if self.is_over() {
            self.frames = Vec::new();
        } else {
            self.frames.push(frame.clone());
        }
    }

    pub(super) fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// All pieces; they will be noted again when they are read again.
    pub(super) fn take(&mut self) -> Vec<Frame> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }
}
