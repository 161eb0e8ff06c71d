//! A copy of a request's body for someone who wants all of it, made while it streams. Pieces share their bytes, so nothing is copied.

use tokio::sync::oneshot;

use super::body::Frame;

/// Gives the pieces of a body, trailers last, once its end has come; an error when it never will, or is too large.
pub type BodyCopy = oneshot::Receiver<Vec<Frame>>;

/// Collects the pieces.
#[derive(Debug)]
pub(super) struct Copier {
    limit: usize,
    bytes: usize,
    frames: Vec<Frame>,
    to: Option<oneshot::Sender<Vec<Frame>>>,
}

impl Copier {
    /// For a body of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> (Copier, BodyCopy) {
        let (to, copy) = oneshot::channel();
        (Copier { limit, bytes: 0, frames: Vec::new(), to: Some(to) }, copy)
    }

    /// Takes a piece.
    pub(super) fn note(&mut self, frame: &Frame) {
        if self.to.is_none() {
            return;
        }
        if let Frame::Data(data) = frame {
            self.bytes += data.len();
        }
        if self.bytes > self.limit {
            self.frames = Vec::new();
            self.to = None;
        } else {
            self.frames.push(frame.clone());
        }
    }

    /// The body begins anew.
    pub(super) fn rewind(&mut self) {
        self.bytes = 0;
        self.frames.clear();
    }

    /// The body has ended.
    pub(super) fn end(&mut self) {
        if let Some(to) = self.to.take() {
            // Whoever wanted it may have gone.
            let _ = to.send(std::mem::take(&mut self.frames));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn data(text: &'static str) -> Frame {
        Frame::Data(Bytes::from_static(text.as_bytes()))
    }

    fn copied(mut copy: BodyCopy) -> Option<String> {
        let text = |frame| match frame {
            Frame::Data(data) => String::from_utf8(data.to_vec()).unwrap(),
            Frame::Trailers(_) => "trailers".to_owned(),
        };
        Some(copy.try_recv().ok()?.into_iter().map(text).collect())
    }

    #[test]
    fn a_body_that_begins_anew_is_there_once() {
        let (mut copier, copy) = Copier::new(5);
        copier.note(&data("abc"));
        copier.rewind();
        copier.note(&data("ab"));
        copier.note(&data("cde"));
        copier.end();
        copier.rewind();
        copier.note(&data("again"));
        copier.end();
        assert_eq!(copied(copy).as_deref(), Some("abcde"));
    }

    #[test]
    fn a_body_that_is_too_large_or_never_ends_is_no_copy() {
        let (mut copier, copy) = Copier::new(5);
        copier.note(&data("abcdef"));
        copier.rewind();
        copier.note(&data("a"));
        copier.end();
        assert_eq!(copied(copy), None);
        let (mut copier, copy) = Copier::new(5);
        copier.note(&data("abc"));
        drop(copier);
        assert_eq!(copied(copy), None);
    }
}
