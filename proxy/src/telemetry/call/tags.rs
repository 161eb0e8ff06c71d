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

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn tags_tell_headers_but_no_credentials() {
        let mut head = RequestHead::new(Method::GET, "a", "/");
        let long = "ü".repeat(300);
        for (name, value) in [("x-tenant", "a"), ("x-note", "Bearer abcdef0123456789"), ("x-long", &*long)] {
            head.headers.append(name, value.as_bytes());
        }
        let header =
            |name: &str, default: Option<&str>| TagSource::Header(name.into(), default.map(Into::into));
        let tag = |name: &str, source: TagSource| Tag { name: name.into(), source };
        let tags = [
            tag("literal", TagSource::Literal("x".into())),
            tag("tenant", header("x-tenant", Some("none"))),
            tag("region", header("x-region", Some("none"))),
            tag("absent", header("x-absent", None)),
            tag("note", header("x-note", None)),
            tag("long", header("x-long", None)),
        ];
        let mut call = CallRecord::default();
        call.tag(&tags, &head);
        let told: Vec<(&str, &str)> =
            call.extra().tags.iter().map(|(name, value)| (&**name, &**value)).collect();
        let long = "ü".repeat(128);
        let wanted = [
            ("literal", "x"),
            ("tenant", "a"),
            ("region", "none"),
            ("note", "Bearer REDACTED"),
            ("long", long.as_str()),
        ];
        assert_eq!(told, wanted);
    }
}
