//! AuthorizationProviders: who is asked by the action CUSTOM, and how; what is taken from the answers.

use std::time::Duration;

use pilotfish_config::model::{AuthorizerTls, CheckedBody};

/// Those that a sidecar may have to ask, by name.
#[derive(Debug, Default)]
pub struct Authorizers {
    pub(crate) list: Box<[Authorizer]>,
}

impl Authorizers {
    /// That of this name, `namespace/name`.
    pub fn get(&self, name: &str) -> Option<&Authorizer> {
        // A workload has one, or a few while policies change.
        self.list.iter().find(|one| *one.name == *name)
    }

    /// How many bytes of a body the questions need at most; `None`: none.
    pub fn body(&self) -> Option<usize> {
        self.list.iter().filter_map(|one| one.body).map(|body| body.max).max()
    }
}

/// One of them.
#[derive(Debug)]
pub struct Authorizer {
    /// `namespace/name`.
    pub name: Box<str>,
    /// Differs when anything that is written of it does.
    pub fingerprint: u64,
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub origin: Box<str>,
    /// Files of TLS.
    pub tls: AuthorizerTls,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// For one question.
    pub timeout: Duration,
    /// Calls go on when it cannot be asked.
    pub fail_open: bool,
    /// The status of what is refused because it cannot be asked.
    pub status_on_error: u16,
    /// The body goes along.
    pub body: Option<CheckedBody>,
    /// Answers are remembered.
    pub cache: Option<Cache>,
}

/// How an authorizer is spoken to.
#[derive(Debug)]
pub enum Protocol {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc {
        /// `context_extensions`.
        context: Box<[(String, String)]>,
    },
    /// The call's own method and path.
    Http(Box<Http>),
}

/// What goes to an authorizer that speaks HTTP, and what is taken from its answers.
#[derive(Debug, Default)]
pub struct Http {
    /// Before the call's path.
    pub path_prefix: Box<str>,
    /// Headers of the call that go along.
    pub include: Names,
    /// Headers that are added.
    pub add: Box<[(String, String)]>,
    /// Headers that replace the call's.
    pub to_upstream: Names,
    /// Headers of a refusal that the caller gets; `None`: all.
    pub to_downstream_on_deny: Option<Names>,
    /// Headers that are added to the answer.
    pub to_downstream_on_allow: Names,
}

/// What is remembered.
#[derive(Debug)]
pub struct Cache {
    /// How long an answer holds.
    pub ttl: Duration,
    /// Headers that it hangs on, in lower case.
    pub headers: Box<[Box<str>]>,
}

/// Names of headers, in lower case, `*` at one end.
#[derive(Debug, Default)]
pub struct Names(Box<[Box<str>]>);

impl Names {
    /// These, in lower case already.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Names {
        Names(names.into_iter().map(Box::from).collect())
    }

    /// Whether this name, in any case, is one of them.
    pub fn has(&self, name: &str) -> bool {
        let starts = |start: &str| name.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start));
        let ends = |end: &str| {
            let own = name.len().checked_sub(end.len()).and_then(|at| name.get(at..));
            own.is_some_and(|own| own.eq_ignore_ascii_case(end))
        };
        self.0.iter().any(|one| match (one.strip_suffix('*'), one.strip_prefix('*')) {
            (Some(start), _) => starts(start),
            (_, Some(end)) => ends(end),
            _ => name.eq_ignore_ascii_case(one),
        })
    }
}

/// Whether an authorizer may set this header of a call or of an answer: not what delimits or routes a message, and not what only
/// sidecars write.
pub fn may_set(name: &str) -> bool {
    const NEVER: [&str; 14] = [
        "host",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "content-encoding",
        "x-forwarded-client-cert",
        "agent-hops",
    ];
    let name = name.to_ascii_lowercase();
    !(name.is_empty()
        || name.starts_with(':')
        || name.starts_with("x-pilotfish-")
        || name.starts_with("pilotfish-")
        // What the call is was read from these already.
        || name.starts_with("agent-")
        || name.starts_with("mcp-")
        || NEVER.contains(&&*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_a_star_at_one_end() {
        let names = Names::new(["x-user", "x-auth-*", "*-id"]);
        for (name, has) in [
            ("X-User", true),
            ("x-users", false),
            ("X-AUTH-a", true),
            ("x-auth", false),
            ("Req-ID", true),
            ("id", false),
        ] {
            assert_eq!(names.has(name), has, "{name}");
        }
        assert!(Names::new(["*"]).has("anything") && !Names::default().has("anything"));
    }

    #[test]
    fn what_sidecars_write_is_not_an_authorizers_to_set() {
        for name in [
            "Host",
            ":path",
            "Agent-Capability",
            "mcp-name",
            "X-Pilotfish-Delegation",
            "pilotfish-reason",
            "Content-Length",
            "",
        ] {
            assert!(!may_set(name), "{name}");
        }
        assert!(may_set("x-user") && may_set("set-cookie") && may_set("authorization"));
    }
}
