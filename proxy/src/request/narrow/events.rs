//! Events of a `text/event-stream`, one after the other, as they arrive: whole events come out, each as it was written.

use std::borrow::Cow;

/// Longest event, bytes.
pub const LONGEST: usize = super::LIMIT;

/// What has arrived of a stream, up to the end of the last whole event.
#[derive(Debug, Default)]
pub struct Events {
    buffer: Vec<u8>,
    /// Up to where no end was found.
    looked: usize,
}

/// An event is longer than any that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl Events {
    /// Takes what has arrived.
    ///
    /// # Errors
    /// The event that is not over yet is too long.
    pub fn push(&mut self, data: &[u8]) -> Result<(), TooLong> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() > LONGEST && self.end().is_none() {
            return Err(TooLong);
        }
        Ok(())
    }

    /// The next whole event, its empty line included.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let end = self.end()?;
        self.looked = 0;
        Some(self.buffer.drain(..end).collect())
    }

    /// What is left when the stream has ended.
    pub fn rest(self) -> Vec<u8> {
        self.buffer
    }

    /// The end of the first whole event: behind an empty line, by any of the three line ends.
    fn end(&mut self) -> Option<usize> {
        let text = &self.buffer;
        let mut line = self.looked;
        for at in self.looked..text.len() {
            let ends = match text[at] {
                b'\n' => true,
                // A CR at the very end may be half of CR LF.
                b'\r' => match text.get(at + 1) {
                    Some(b'\n') => false,
                    Some(_) => true,
                    None => break,
                },
                _ => false,
            };
            if !ends {
                continue;
            }
            let blank = text[line..at].iter().all(|byte| *byte == b'\r');
            if blank {
                return Some(at + 1);
            }
            line = at + 1;
            self.looked = line;
        }
        None
    }
}

/// Fields of one event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event<'e> {
    /// `event`.
    pub name: Option<&'e str>,
    /// The lines of `data`, joined by LF; `None`: there is none.
    pub data: Option<Cow<'e, str>>,
}

/// Reads an event. `None`: it is not UTF-8.
pub fn read(event: &[u8]) -> Option<Event<'_>> {
    let text = std::str::from_utf8(event).ok()?;
    let mut read = Event::default();
    for line in lines(text) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field.trim_start_matches('\u{feff}') {
            "event" => read.name = Some(value),
            "data" => {
                read.data = Some(match read.data.take() {
                    None => Cow::Borrowed(value),
                    Some(before) => Cow::Owned(format!("{before}\n{value}")),
                });
            }
            _ => {}
        }
    }
    Some(read)
}

/// The event with other data.
pub fn with_data(event: &[u8], data: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(event).unwrap_or_default();
    let mut out = Vec::with_capacity(event.len());
    for line in lines(text) {
        let field = line.split_once(':').map_or(line, |(field, _)| field);
        if field.trim_start_matches('\u{feff}') != "data" && !line.is_empty() {
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
    }
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    out
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_they_arrive() {
        let stream = b"event: message\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n: ping\n\ndata: x\r\rid: 7\ndata: last\n\nrest";
        for size in 1..stream.len() {
            let (mut events, mut all) = (Events::default(), Vec::new());
            for piece in stream.chunks(size) {
                events.push(piece).unwrap();
                while let Some(event) = events.take() {
                    all.push(event);
                }
            }
            let data = |event: &[u8]| read(event).unwrap().data.map(Cow::into_owned);
            let read: Vec<_> = all.iter().map(|event| data(event)).collect();
            let text = |text: &str| Some(text.to_owned());
            assert_eq!(read, [text("{\"a\":\n1}"), None, text("x"), text("last")], "{size}");
            all.push(events.rest());
            assert_eq!(all.concat(), stream, "nothing is lost");
        }
    }

    #[test]
    fn only_the_data_changes() {
        let event = b"event: message\nid: 4\ndata: {\ndata: }\n\n";
        assert_eq!(with_data(event, b"{\"a\"\n:1}"), b"event: message\nid: 4\ndata: {\"a\"\ndata: :1}\n\n");
        assert_eq!(read(event).unwrap().name, Some("message"));
    }

    #[test]
    fn an_event_without_end_is_bounded() {
        let mut events = Events::default();
        assert_eq!(events.push(&vec![b'x'; LONGEST]), Ok(()));
        assert_eq!(events.push(b"x"), Err(TooLong));
    }
}
