//! What a rule changes in the request's target: rewriting the path and the authority, or answering with a redirect.

use std::borrow::Cow;

use crate::call::{Caller, Head};
use crate::route::host::split_authority;

/// A change of the request's path and authority on its way upstream.
#[derive(Debug, Clone, Default)]
pub struct Rewrite {
    /// What becomes of the path.
    pub path: PathRewrite,
    /// The new authority, if it changes.
    pub authority: Option<Box<str>>,
}

/// What becomes of a path. The query is kept.
#[derive(Debug, Clone, Default)]
pub enum PathRewrite {
    /// It stays.
    #[default]
    Keep,
    /// What the rule matched (its prefix, or all of an exact match) is replaced by this.
    Matched(Box<str>),
    /// Every match of an expression is replaced.
    Regex(Box<RegexRewrite>),
}

/// `uriRegexRewrite`: every match is replaced, as Envoy does.
#[derive(Debug, Clone)]
pub struct RegexRewrite {
    /// What is replaced; not anchored.
    pub pattern: regex::Regex,
    /// By what, `${1}` being a group.
    pub replacement: Box<str>,
}

impl PathRewrite {
    /// The new path, without the query; `matched` is how many bytes of it the rule's condition covers.
    /// `None` when it stays as it is.
    pub fn apply(&self, path: &str, matched: usize) -> Option<String> {
        let new = match self {
            PathRewrite::Keep => return None,
            PathRewrite::Matched(with) => format!("{with}{}", path.get(matched..).unwrap_or_default()),
            PathRewrite::Regex(regex) => regex.pattern.replace_all(path, &*regex.replacement).into_owned(),
        };
        // A request line needs a path: what was rewritten to nothing is the root.
        Some(if new.starts_with('/') { new } else { format!("/{new}") })
    }
}

/// `redirect`: an answer that sends the caller elsewhere.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The new scheme; `None` keeps the request's.
    pub scheme: Option<Box<str>>,
    /// The new host, with a port when it has one; `None` keeps the request's.
    pub authority: Option<Box<str>>,
    /// The new port.
    pub port: RedirectPort,
    /// The new path.
    pub path: RedirectPath,
}

/// Which port a redirect names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RedirectPort {
    /// The request's own, dropped when it was the default of a scheme that changes.
    #[default]
    Keep,
    /// This one.
    Number(u16),
    /// `FROM_REQUEST_PORT`: the port that the caller addressed.
    Request,
}

/// Which path a redirect names.
#[derive(Debug, Clone, Default)]
pub enum RedirectPath {
    /// The request's own, with its query.
    #[default]
    Keep,
    /// This whole path; the request's query follows unless this has one.
    Whole(Box<str>),
    /// What the rule matched is replaced by this; the rest and the query follow.
    Matched(Box<str>),
}

impl Redirect {
    /// The `Location`, as Envoy forms it; `matched` is how many bytes of the path the rule's condition covers.
    pub fn location<H: Head>(&self, head: &H, caller: &Caller, matched: usize) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(head.scheme());
        let port = match self.port {
            RedirectPort::Keep => None,
            RedirectPort::Number(port) => Some(port),
            RedirectPort::Request => Some(caller.port),
        };
        let host = self.authority.as_deref().unwrap_or_else(|| kept_host(head, scheme, port.is_some()));
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        let path = match &self.path {
            RedirectPath::Keep => Cow::Borrowed(head.path()),
            RedirectPath::Whole(path) => Cow::Borrowed(&**path),
            RedirectPath::Matched(with) => {
                Cow::Owned(format!("{with}{}", head.path().get(matched..).unwrap_or_default()))
            }
        };
        let query = head.query().filter(|_| !path.contains('?'));
        let mark = if query.is_some() { "?" } else { "" };
        format!("{scheme}://{host}{port}{path}{mark}{}", query.unwrap_or_default())
    }
}

fn kept_host<'h, H: Head>(head: &'h H, scheme: &str, port_given: bool) -> &'h str {
    let (host, port) = split_authority(head.authority());
    let was_default = matches!((head.scheme(), port), ("http", Some(80)) | ("https", Some(443)));
    if port_given || (scheme != head.scheme() && was_default) { host } else { head.authority() }
}

#[cfg(test)]
mod tests;
