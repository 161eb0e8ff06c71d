//! Message heads as the stages see them, the same for HTTP/1.1 and HTTP/2.
//!
//! A head handed out by the engine is already free of hop-by-hop fields, and its framing is decided: nothing that a stage adds
//! or removes can change where the message ends.

use std::borrow::Cow;

use http::{Method, StatusCode, Version};
use pilotfish_filters::call;

use super::headers::{Headers, Span, is_value};
use super::known::Known;

/// The form of a request target (RFC 9112 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// `/path?query`, and every HTTP/2 request.
    #[default]
    Origin,
    /// `http://host/path?query`, as sent to a proxy.
    Absolute,
    /// `host:port`, CONNECT only.
    Authority,
    /// `*`, OPTIONS only.
    Asterisk,
}

/// The scheme of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// `http`
    #[default]
    Http,
    /// `https`
    Https,
}

/// Where the parts of a request target lie in the head's buffer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Target {
    pub(crate) form: Form,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Span,
    /// Path and query; empty for CONNECT.
    pub(crate) path_and_query: Span,
    /// Bytes of the path; what follows is `?` and the query.
    pub(crate) path_len: u32,
}

/// A request head.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The version that the client spoke.
    pub version: Version,
    /// The fields, `host` included (HTTP/2: made from `:authority`), hop-by-hop fields excluded.
    pub headers: Headers,
    pub(crate) target: Target,
    pub(crate) upgrade: bool,
    pub(crate) expect_continue: bool,
    pub(crate) te_trailers: bool,
}

impl RequestHead {
    /// A request of our own, in origin form. `path_and_query` and `authority` are taken as they are when they are valid, else
    /// as `/` and empty.
    pub fn new(method: Method, authority: &str, path_and_query: &str) -> Self {
        let mut head = RequestHead {
            method,
            version: Version::HTTP_11,
            headers: Headers::new(),
            target: Target::default(),
            upgrade: false,
            expect_continue: false,
            te_trailers: false,
        };
        if !head.set_path_and_query(path_and_query) {
            head.set_path_and_query("/");
        }
        head.set_authority(authority);
        head
    }

    /// The target's form.
    pub fn form(&self) -> Form {
        self.target.form
    }

    /// `http` or `https`, as the client used it (`http` when it could not say).
    pub fn scheme(&self) -> &'static str {
        match self.target.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The authority: from the absolute form or `:authority`, else the Host field; empty only for HTTP/1.0 without Host.
    pub fn authority(&self) -> &str {
        self.headers.text(self.target.authority)
    }

    /// The path, starting with `/`; `*` for the asterisk form, empty for CONNECT.
    pub fn path(&self) -> &str {
        self.headers.text(Span { at: self.target.path_and_query.at, len: self.target.path_len })
    }

    /// What follows `?`, without it.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query().get(self.target.path_len as usize + 1..)
    }

    /// Path and query as they are sent upstream.
    pub fn path_and_query(&self) -> &str {
        self.headers.text(self.target.path_and_query)
    }

    /// Replaces the authority and with it the Host field. False, and nothing changed, when it has characters that no authority
    /// has.
    pub fn set_authority(&mut self, authority: &str) -> bool {
        if !super::target::is_authority(authority.as_bytes()) {
            return false;
        }
        self.headers.set_first(Known::Host, b"host", authority.as_bytes());
        if let Some(span) = self.headers.known_span(Known::Host) {
            self.target.authority = span;
        }
        true
    }

    /// Replaces path and query; the form becomes the origin form unless it is `*`. False, and nothing changed, when it does not
    /// start with `/` or has characters that no target has.
    pub fn set_path_and_query(&mut self, path_and_query: &str) -> bool {
        if !super::target::is_path_and_query(path_and_query.as_bytes()) {
            return false;
        }
        self.target.path_and_query = self.headers.stash(path_and_query.as_bytes());
        self.target.path_len = path_and_query.find('?').unwrap_or(path_and_query.len()) as u32;
        true
    }

    /// The protocol that the client wants to change to, when it may: by `Upgrade` in HTTP/1.1 (named in `Connection`, no body, not
    /// h2c), or by extended CONNECT in HTTP/2, which looks the same here.
    pub fn upgrade(&self) -> Option<&[u8]> {
        if self.upgrade { self.headers.known(Known::Upgrade).next() } else { None }
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expect_continue
    }
}

impl call::Head for RequestHead {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn scheme(&self) -> &str {
        RequestHead::scheme(self)
    }

    fn authority(&self) -> &str {
        RequestHead::authority(self)
    }

    fn path(&self) -> &str {
        RequestHead::path(self)
    }

    fn query(&self) -> Option<&str> {
        RequestHead::query(self)
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.headers.joined(name)
    }

    fn each_header(&self, name: &str, take: &mut dyn FnMut(&[u8])) {
        self.headers.get_all(name).for_each(take);
    }
}

/// A response head, final or interim.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The fields, hop-by-hop fields excluded.
    pub headers: Headers,
    /// The reason phrase as received over HTTP/1; the usual one is written when there is none.
    pub(crate) phrase: Span,
}

impl ResponseHead {
    /// A head without fields.
    pub fn new(status: StatusCode) -> Self {
        ResponseHead { status, headers: Headers::new(), phrase: Span::default() }
    }

    /// Adds a field; for building answers in one expression. An invalid field is left out (see [`Headers::append`]).
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.append(name, value.as_ref());
        self
    }

    /// The reason phrase to write.
    pub(crate) fn phrase(&self) -> &[u8] {
        let phrase = self.headers.bytes(self.phrase);
        if !phrase.is_empty() && is_value(phrase) {
            return phrase;
        }
        self.status.canonical_reason().unwrap_or("Unknown").as_bytes()
    }
}
