//! Custom tags of Telemetry documents: attributes of a call's SERVER span.

use pilotfish_filters::redact;
use pilotfish_filters::telemetry::{Tag, TagSource};

use super::CallRecord;
use crate::http::RequestHead;

/// Bytes of a header that a tag tells, as Envoy's `max_path_tag_length`.
const LONGEST: usize = 256;

impl CallRecord {
    /// Notes the tags of a call that is told of. Credentials in headers are hidden.
    pub fn tag(&mut self, tags: &[Tag], head: &RequestHead) {
        let noted = &mut self.extra().tags;
        noted.reserve_exact(tags.len());
        for tag in tags {
            let value: Box<str> = match &tag.source {
                TagSource::Literal(value) => value.clone(),
                TagSource::Header(name, default) => match (head.headers.get(name), default) {
                    (Some(value), _) => shown(name, &String::from_utf8_lossy(value)),
                    (None, Some(default)) => default.clone(),
                    (None, None) => continue,
                },
            };
            noted.push((tag.name.clone(), value));
        }
    }
}

fn shown(name: &str, value: &str) -> Box<str> {
    let shown = redact::header(name, value);
    let mut end = shown.len().min(LONGEST);
    while !shown.is_char_boundary(end) {
        end -= 1;
    }
    shown[..end].into()
}
