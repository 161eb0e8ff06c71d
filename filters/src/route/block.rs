//! One match block: the conditions that a request must all meet.

use crate::call::{Caller, Head};
use crate::route::text::TextMatch;

/// The condition on the path (without the query, as Envoy does).
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// Every path.
    Any,
    /// A case-sensitive comparison.
    Text(TextMatch),
    /// `ignoreUriCase` with `exact`; ASCII case only.
    ExactNoCase(Box<str>),
    /// `ignoreUriCase` with `prefix`; ASCII case only.
    PrefixNoCase(Box<str>),
}

impl PathMatch {
    /// Whether `path` meets the condition.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            PathMatch::Any => true,
            PathMatch::Text(text) => text.matches(path.as_bytes()),
            PathMatch::ExactNoCase(want) => path.eq_ignore_ascii_case(want),
            PathMatch::PrefixNoCase(want) => path
                .as_bytes()
                .get(..want.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(want.as_bytes())),
        }
    }

    /// How many bytes of a matching `path` a prefix rewrite replaces: the prefix, or all of an exact or regular
    /// expression match. Istio matches `prefix: /` where a rule says nothing, so there it is the first slash.
    pub fn rewritten_len(&self, path: &str) -> usize {
        match self {
            PathMatch::Any | PathMatch::Text(TextMatch::Present) => usize::from(path.starts_with('/')),
            PathMatch::Text(TextMatch::Prefix(prefix)) | PathMatch::PrefixNoCase(prefix) => prefix.len(),
            PathMatch::Text(TextMatch::Exact(_) | TextMatch::Regex(_)) | PathMatch::ExactNoCase(_) => {
                path.len()
            }
        }
    }
}

/// One condition on anything but the path.
#[derive(Debug, Clone)]
pub enum Condition {
    /// The method.
    Method(TextMatch),
    /// `http` or `https`.
    Scheme(TextMatch),
    /// The authority as sent.
    Authority(TextMatch),
    /// A header that must be there and match; the name is lower case.
    Header(Box<str>, TextMatch),
    /// A header that must be absent or not match (`withoutHeaders`); the name is lower case.
    NotHeader(Box<str>, TextMatch),
    /// The first query parameter of that name, not percent-decoded (as Envoy compares it).
    Query(Box<str>, TextMatch),
    /// The port that the caller addressed.
    Port(u16),
}

impl Condition {
    /// Whether the request meets the condition.
    pub fn matches<H: Head + ?Sized>(&self, head: &H, caller: &Caller) -> bool {
        match self {
            Condition::Method(text) => text.matches(head.method().as_bytes()),
            Condition::Scheme(text) => text.matches(head.scheme().as_bytes()),
            Condition::Authority(text) => text.matches(head.authority().as_bytes()),
            Condition::Header(name, text) => head.header(name).is_some_and(|value| text.matches(&value)),
            Condition::NotHeader(name, text) => !head.header(name).is_some_and(|value| text.matches(&value)),
            Condition::Query(name, text) => {
                query_parameter(head.query(), name).is_some_and(|value| text.matches(value.as_bytes()))
            }
            Condition::Port(port) => caller.port == *port,
        }
    }
}

/// The first value of a query parameter as it was sent; `?key` has the value "".
pub(crate) fn query_parameter<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    query?.split('&').find_map(|pair| match pair.split_once('=') {
        Some((key, value)) => (key == name).then_some(value),
        None => (pair == name).then_some(""),
    })
}

/// Conditions that must all hold; `rule` is the position of the rule that they belong to in its virtual host.
#[derive(Debug, Clone)]
pub struct Block {
    /// The rule that matches when this block does.
    pub rule: u32,
    /// The condition on the path.
    pub path: PathMatch,
    /// All other conditions.
    pub rest: Box<[Condition]>,
}

impl Block {
    /// Whether the request meets every condition.
    pub fn matches<H: Head + ?Sized>(&self, head: &H, caller: &Caller) -> bool {
        self.path.matches(head.path()) && self.rest.iter().all(|condition| condition.matches(head, caller))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_are_compared_as_sent() {
        assert_eq!(query_parameter(Some("a=1&b=2&a=3"), "a"), Some("1"));
        assert_eq!(query_parameter(Some("a&b"), "b"), Some(""));
        assert_eq!(query_parameter(Some("a=%20"), "a"), Some("%20"));
        assert_eq!(query_parameter(Some("ab=1"), "a"), None);
        assert_eq!(query_parameter(None, "a"), None);
    }

    #[test]
    fn case_is_ignored_for_exact_and_prefix_only() {
        assert!(PathMatch::ExactNoCase("/Login".into()).matches("/lOGIN"));
        assert!(PathMatch::PrefixNoCase("/API".into()).matches("/api/x"));
        assert!(!PathMatch::PrefixNoCase("/API".into()).matches("/ap"));
    }
}
