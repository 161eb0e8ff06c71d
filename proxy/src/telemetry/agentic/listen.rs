//! Listens to a model's answer as it goes by. Nothing is held back; of what has passed, the beginning and the end are kept.

use pilotfish_filters::clock::Micros;

use super::usage::Usage;
use crate::clock::Clock;
use crate::http::{ResponseHead, Watch};

/// What is kept of a JSON answer's beginning: most are shorter, and then that is all of it.
const JSON: usize = 64 * 1024;
/// What is kept of a stream's beginning: its first event, as a rule.
const FIRST: usize = 4 * 1024;
/// What is kept of the end, where both kinds tell of their tokens.
const LAST: usize = 16 * 1024;
/// Events at the beginning that are read.
const EVENTS: usize = 4;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One JSON value.
    Json,
    /// One JSON value on each line, after `data:` in a stream of events.
    Lines,
    /// Not to be read: compressed, an error, no JSON.
    Opaque,
}

impl Shape {
    fn of(head: &ResponseHead) -> Shape {
        let coded = head.headers.get("content-encoding");
        if !head.status.is_success() || coded.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity"))
        {
            return Shape::Opaque;
        }
        let kind = head.headers.get("content-type").unwrap_or_default();
        let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        if kind.eq_ignore_ascii_case(b"application/json") {
            Shape::Json
        } else if [&b"text/event-stream"[..], b"application/x-ndjson"]
            .iter()
            .any(|lines| kind.eq_ignore_ascii_case(lines))
        {
            Shape::Lines
        } else {
            Shape::Opaque
        }
    }
}

/// What is kept of an answer.
#[derive(Debug)]
pub struct Listening {
    shape: Shape,
    clock: Clock,
    /// When its first bytes came.
    first: Option<Micros>,
    head: Vec<u8>,
    /// Bytes after the head.
    beyond: u64,
    tail: Vec<u8>,
}

impl Listening {
    /// To the answer with this head.
    pub fn to(head: &ResponseHead, clock: Clock) -> Listening {
        Listening {
            shape: Shape::of(head),
            clock,
            first: None,
            head: Vec::new(),
            beyond: 0,
            tail: Vec::new(),
        }
    }

    /// When its first bytes came.
    pub fn first(&self) -> Option<Micros> {
        self.first
    }

    /// Whether it is a stream.
    pub fn is_stream(&self) -> bool {
        self.shape == Shape::Lines
    }

    /// What it said of itself.
    pub fn learn(&self) -> Usage {
        let mut usage = Usage::default();
        let whole = self.beyond == self.tail.len() as u64;
        let joined;
        let head = if whole && self.beyond > 0 {
            joined = [&self.head[..], &self.tail].concat();
            &joined
        } else {
            &self.head
        };
        match self.shape {
            Shape::Opaque => {}
            Shape::Json => usage.read(head),
            Shape::Lines => {
                let events = head.split(|b| *b == b'\n').filter_map(event);
                events.take(if whole { usize::MAX } else { EVENTS }).for_each(|event| usage.read(event));
            }
        }
        if whole {
            return usage;
        }
        if self.shape == Shape::Lines {
            // The first line of the tail began before it.
            let torn = memchr::memchr(b'\n', &self.tail);
            let lines = torn.map_or(&[][..], |end| &self.tail[end + 1..]);
            lines.split(|b| *b == b'\n').filter_map(event).for_each(|event| usage.read(event));
        }
        if usage.output.is_none() {
            usage.read_last(&self.tail);
        }
        usage
    }
}

/// The JSON of a line, when it has some.
fn event(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii();
    let json = line.strip_prefix(b"data:").unwrap_or(line).trim_ascii_start();
    json.starts_with(b"{").then_some(json)
}

impl Watch for Listening {
    fn data(&mut self, data: &[u8]) {
        if self.first.is_none() {
            self.first = Some(self.clock.now());
        }
        let most = match self.shape {
            Shape::Opaque => return,
            Shape::Json => JSON,
            Shape::Lines => FIRST,
        };
        let (start, rest) = data.split_at(data.len().min(most - self.head.len()));
        self.head.extend_from_slice(start);
        self.beyond += rest.len() as u64;
        let rest = &rest[rest.len().saturating_sub(LAST)..];
        // Moved together seldom, so that each byte is copied once or twice and not for each event.
        if self.tail.len() + rest.len() > 2 * LAST {
            let lost = self.tail.len().saturating_sub(LAST - rest.len().min(LAST));
            self.tail.drain(..lost);
        }
        self.tail.extend_from_slice(rest);
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn listening(kind: &str) -> Listening {
        let head = ResponseHead::new(StatusCode::OK).with("content-type", kind);
        Listening::to(&head, Clock::start())
    }

    fn heard(kind: &str, pieces: &[&[u8]]) -> Usage {
        let mut listening = listening(kind);
        pieces.iter().for_each(|piece| listening.data(piece));
        assert!(listening.head.len() <= JSON && listening.tail.len() <= 2 * LAST);
        listening.learn()
    }

    fn stream(events: usize) -> String {
        let chunk = |text: &str| format!("data: {{\"id\":\"c1\",\"model\":\"m\",\"choices\":[{text}]}}\n\n");
        let body = chunk("{\"delta\":{\"content\":\"word \"},\"finish_reason\":null}").repeat(events);
        let last = chunk("{\"delta\":{},\"finish_reason\":\"stop\"}");
        let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":77}}\n\ndata: [DONE]\n\n";
        format!("{body}{last}{usage}")
    }

    #[tokio::test]
    async fn a_stream_is_understood_however_it_is_cut_into_pieces() {
        for events in [0, 1, 30, 3000] {
            let text = stream(events);
            for size in [1, 7, 1000, 20_000, 1 << 20] {
                let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                let usage = heard("text/event-stream; charset=utf-8", &pieces);
                assert_eq!((usage.input, usage.output), (Some(5), Some(77)), "{events} {size}");
                assert_eq!(usage.finish_reasons, ["stop".into()], "{events} {size}");
                assert_eq!((usage.id.as_deref(), usage.model.as_deref()), (Some("c1"), Some("m")));
            }
        }
    }

    #[tokio::test]
    async fn anthropics_stream_says_both_ends_of_it() {
        let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-x\",\
                     \"stop_reason\":null,\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n";
        let middle = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"x\"}}\n\n";
        let end = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\
                   \"usage\":{\"output_tokens\":15}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        let text = format!("{start}{}{end}", middle.repeat(1000));
        let usage = heard("text/event-stream", &[text.as_bytes()]);
        assert_eq!((usage.input, usage.output), (Some(25), Some(15)));
        assert_eq!(
            (usage.model.as_deref(), &usage.finish_reasons[..]),
            (Some("claude-x"), &["end_turn".into()][..])
        );
    }

    #[tokio::test]
    async fn a_long_answer_tells_of_its_tokens_at_its_end() {
        let embeddings = format!(
            "{{\"model\":\"e\",\"data\":[{}0],\"usage\":{{\"prompt_tokens\":8,\"total_tokens\":8}}}}",
            "0.123456,".repeat(50_000)
        );
        let usage = heard("application/json", &embeddings.as_bytes().chunks(1400).collect::<Vec<_>>());
        assert_eq!((usage.model.as_deref(), usage.input), (Some("e"), Some(8)));
        let completed = format!(
            "data: {{\"type\":\"response.created\",\"response\":{{\"id\":\"r\",\"model\":\"m\"}}}}\n\n{}data: {{\"response\":{{\"output\":\"{}\",\
             \"usage\":{{\"input_tokens\":1,\"output_tokens\":2}}}}}}\n\n",
            "data: {\"type\":\"delta\"}\n\n".repeat(1000),
            "y".repeat(40_000)
        );
        let usage = heard("text/event-stream", &completed.as_bytes().chunks(900).collect::<Vec<_>>());
        assert_eq!((usage.id.as_deref(), usage.output), (Some("r"), Some(2)));
    }

    #[tokio::test]
    async fn hostile_answers_are_bounded() {
        let long = vec![b'a'; 3 << 20];
        assert_eq!(heard("text/event-stream", &[&long, &long]), Usage::default());
        assert_eq!(heard("application/json", &[&[b'['; 2 << 20]]), Usage::default());
        let lines = "data: {\n".repeat(100_000);
        assert_eq!(heard("text/event-stream", &[lines.as_bytes()]), Usage::default());
        assert_eq!(
            heard("text/event-stream", &[b"data: {\"model\":\"\xff\"}\n\xff\xfe\n\n"]),
            Usage::default()
        );
    }

    #[tokio::test]
    async fn what_is_compressed_or_an_error_is_left_alone() {
        let json = br#"{"model":"m"}"#;
        let coded = ResponseHead::new(StatusCode::OK)
            .with("content-type", "application/json")
            .with("content-encoding", "gzip");
        let failed = ResponseHead::new(StatusCode::BAD_GATEWAY).with("content-type", "application/json");
        for head in [coded, failed] {
            let mut listening = Listening::to(&head, Clock::start());
            listening.data(json);
            assert_eq!((listening.learn(), listening.head.len()), (Usage::default(), 0));
            assert!(listening.first().is_some());
        }
    }
}
