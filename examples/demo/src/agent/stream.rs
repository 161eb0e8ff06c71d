//! A token stream as server-sent events: one token at a time, with a pause between, like a language model.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::Body;

const TOKENS: &[&str] = &[
    "A", " pilot", " fish", " swims", " beside", " a", " shark", ",", " guides", " it", " and", " keeps",
    " it", " clean", ".",
];

/// Answers with `tokens` events (default 15), `gap_ms` apart (default 60), then `[DONE]`.
pub fn tokens(query: &str) -> Response<Body> {
    let count = number(query, "tokens", TOKENS.len() as u64).min(10_000);
    let gap = Duration::from_millis(number(query, "gap_ms", 60).min(10_000));
    let events = stream::unfold(0, move |index| async move {
        if index > count {
            return None;
        }
        if index > 0 {
            tokio::time::sleep(gap).await;
        }
        let event = match TOKENS.get(usize::try_from(index).unwrap_or_default() % TOKENS.len()) {
            Some(token) if index < count => format!("data: {{\"token\":\"{token}\"}}\n\n"),
            _ => "data: [DONE]\n\n".to_string(),
        };
        Some((Ok(Frame::data(Bytes::from(event))), index + 1))
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache"));
    response
}

fn number(query: &str, name: &str, default: u64) -> u64 {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(default)
}
