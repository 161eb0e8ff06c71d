//! AuthorizationProvider: who is asked by AuthorizationPolicies with the action CUSTOM.

use std::time::Duration;

use super::Meta;

/// Who is asked.
#[derive(Debug, Clone)]
pub struct AuthorizationProvider {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// Its host: a name of DNS or an address, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// It speaks TLS.
    pub tls: Option<AuthorizerTls>,
    /// How it is spoken to.
    pub protocol: AuthorizerProtocol,
    /// For one question.
    pub timeout: Duration,
    /// Calls go on when it cannot be asked.
    pub fail_open: bool,
    /// The status of what is refused because it cannot be asked.
    pub status_on_error: u16,
    /// The body goes along.
    pub body: Option<CheckedBody>,
    /// Answers are remembered.
    pub cache: Option<AuthorizerCache>,
}

/// Files of TLS with an authorizer.
#[derive(Debug, Clone, Default)]
pub struct AuthorizerTls {
    /// Root certificates (PEM); the system's without it.
    pub ca_certificates: Option<String>,
    /// The client's chain and its key (PEM).
    pub client: Option<(String, String)>,
}

/// How an authorizer is spoken to.
#[derive(Debug, Clone)]
pub enum AuthorizerProtocol {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc {
        /// `context_extensions`.
        context: Vec<(String, String)>,
    },
    /// The call's own method and path. Names of headers are in lower case, `*` at one end.
    Http(Box<HttpAuthorizer>),
}

/// What goes to an authorizer that speaks HTTP, and what is taken from its answers.
#[derive(Debug, Clone, Default)]
pub struct HttpAuthorizer {
    /// Before the call's path.
    pub path_prefix: String,
    /// Headers of the call that go along.
    pub include: Vec<String>,
    /// Headers that are added.
    pub add: Vec<(String, String)>,
    /// Headers that replace the call's.
    pub to_upstream: Vec<String>,
    /// Headers of a refusal that the caller gets; `None`: all.
    pub to_downstream_on_deny: Option<Vec<String>>,
    /// Headers that are added to the answer.
    pub to_downstream_on_allow: Vec<String>,
}

/// How much of a body goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckedBody {
    /// Bytes.
    pub max: usize,
    /// The beginning of a longer one goes along.
    pub partial: bool,
    /// As bytes.
    pub as_bytes: bool,
}

/// What is remembered.
#[derive(Debug, Clone)]
pub struct AuthorizerCache {
    /// How long an answer holds.
    pub ttl: Duration,
    /// Headers that it hangs on, in lower case.
    pub headers: Vec<String>,
}
