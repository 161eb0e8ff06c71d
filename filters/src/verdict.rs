//! Every refusal of the proxy itself: one closed list, each with one stable word and one status.

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller sent something that cannot be served.
    Caller,
    /// The upstream was unable.
    Upstream,
    /// The mesh itself: its configuration, limits or state.
    Mesh,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:literal, $fault:ident;)+) => {
        /// Why the proxy refused or gave up. The word is the `pilotfish-reason` header, the metric label and the log field.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)+ }
        impl Reason {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];
            /// The stable short word.
            pub const fn word(self) -> &'static str { match self { $(Reason::$name => $word,)+ } }
            /// The HTTP status that the caller gets.
            pub const fn status(self) -> u16 { match self { $(Reason::$name => $status,)+ } }
            /// Whose fault it is.
            pub const fn fault(self) -> Fault { match self { $(Reason::$name => Fault::$fault,)+ } }
        }
    };
}

reasons! {
    /// The request could not be parsed unambiguously (RFC 9112 section 3, 5, 6).
    BadRequest = "bad-request", 400, Caller;
    /// `agent-constraint` has an unknown key or a bad value.
    BadConstraint = "bad-constraint", 400, Caller;
    /// The header section is larger than 64 KiB.
    HeadersTooLarge = "headers-too-large", 431, Caller;
    /// The request line is longer than the header limit allows.
    UriTooLong = "uri-too-long", 414, Caller;
    /// The headers did not arrive in time (10 s).
    HeaderTimeout = "header-timeout", 408, Caller;
    /// The request body did not arrive in time.
    BodyTimeout = "body-timeout", 408, Caller;
    /// HTTP version that is not served.
    VersionNotSupported = "version-not-supported", 505, Caller;
    /// An `Expect` other than `100-continue` (RFC 9110 section 10.1.1).
    ExpectationFailed = "expectation-failed", 417, Caller;
    /// A transfer coding other than chunked (RFC 9112 section 6.1).
    TransferCoding = "transfer-coding-unknown", 501, Caller;
    /// The caller does not show the local agent's secret (`--local-secret-file`).
    LocalSecret = "local-secret-required", 407, Caller;
    /// The caller shows no token where one is needed, or one that is not valid (RFC 6750 section 3.1).
    Unauthenticated = "unauthenticated", 401, Caller;
    /// A policy does not let this caller do this.
    AccessDenied = "access-denied", 403, Caller;
    /// Policies hang on what the body says, and it cannot be understood without doubt.
    NotDecidable = "not-decidable", 403, Caller;
    /// The caller, or who is called, is quarantined.
    Quarantined = "quarantined", 403, Caller;
    /// The caller is restricted to other capabilities.
    Restricted = "restricted", 403, Caller;
    /// The chain of who asked whom is not proved.
    BadDelegation = "bad-delegation", 403, Caller;
    /// The caller's sidecar does not say for whom the call is, and it has to.
    DelegationRequired = "delegation-required", 403, Caller;
    /// The external authorizer cannot be asked, and its provider does not say that calls go on then.
    AuthorizerUnavailable = "authorizer-unavailable", 403, Mesh;
    /// The answer is of a higher class than the caller may get.
    Classified = "classified", 403, Caller;
    /// The policy wants encryption, and there is none.
    EncryptionRequired = "encryption-required", 403, Caller;
    /// The record of this call cannot be kept, and the policy does not let it go on without.
    AuditUnavailable = "audit-unavailable", 503, Mesh;
    /// The token or key that the sidecar has to show on its agent's behalf cannot be had.
    CredentialUnavailable = "credential-unavailable", 503, Mesh;
    /// A list has to be narrowed to what the caller may see, and cannot be.
    ListUnreadable = "list-unreadable", 502, Upstream;
    /// No host or rule matches.
    NoRoute = "no-route", 404, Caller;
    /// The destination is not allowed by the egress rules.
    EgressNotAllowed = "egress-not-allowed", 403, Caller;
    /// A rule's destination is a host that nobody knows.
    NoCluster = "no-cluster", 503, Mesh;
    /// The destination has no endpoint, or none that is healthy.
    NoEndpoint = "no-healthy-endpoint", 503, Upstream;
    /// No candidate has the capabilities or meets the constraints.
    NobodyQualifies = "nobody-qualifies", 503, Upstream;
    /// As many calls wait already until the agent is started as may.
    StartingFull = "starting-queue-full", 503, Mesh;
    /// The agent that is started for the call does not come, and the detail says why.
    NotStarted = "not-started", 503, Mesh;
    /// The agent that is started for the call was not ready in time.
    NotStartedInTime = "not-started-in-time", 504, Mesh;
    /// A `connectionPool` limit is reached.
    Overflow = "connection-pool-overflow", 503, Mesh;
    /// The connection to the endpoint could not be made.
    ConnectFailed = "connect-failed", 503, Upstream;
    /// The connection to the endpoint was not made in time.
    ConnectTimeout = "connect-timeout", 504, Upstream;
    /// The endpoint is not who it should be, or nobody knows who it should be.
    UpstreamIdentity = "upstream-identity", 503, Upstream;
    /// TLS with the endpoint could not be set up.
    TlsHandshakeFailed = "tls-handshake-failed", 503, Upstream;
    /// The breakers of all endpoints that could be chosen are open.
    BreakerOpen = "breaker-open", 503, Upstream;
    /// The route's timeout passed.
    Timeout = "timeout", 504, Upstream;
    /// No try got the head of an answer within `perTryTimeout` or the route's response-header timeout.
    TryTimeout = "try-timeout", 504, Upstream;
    /// Nothing moved on the stream for longer than its idle timeout (5 min).
    StreamIdle = "stream-idle", 504, Upstream;
    /// The caller's own deadline (`agent-deadline-ms`, `grpc-timeout`) has passed.
    DeadlineExceeded = "deadline-exceeded", 504, Caller;
    /// The upstream closed or reset before a whole answer.
    UpstreamReset = "upstream-reset", 502, Upstream;
    /// The upstream's answer could not be parsed unambiguously.
    BadUpstreamAnswer = "bad-upstream-answer", 502, Upstream;
    /// A call may have been done, and nobody can say whether it was: its upstream is lost, or it has a key and its window is. It is not
    /// repeated.
    OutcomeUnknown = "outcome-unknown", 502, Upstream;
    /// The receiving sidecar started anew since the caller's sidecar last heard of it; nothing was done.
    DedupEpoch = "dedup-epoch", 503, Mesh;
    /// The window of the receiving sidecar has no room for another key.
    DedupFull = "dedup-full", 503, Mesh;
    /// A call with this key was done, and its answer was too large to be kept.
    AlreadyDone = "already-done", 409, Caller;
    /// The key was used before, with another body.
    KeyReused = "key-reused", 422, Caller;
    /// A rate limit is reached.
    RateLimited = "rate-limited", 429, Caller;
    /// There are more calls than can be served; this one was the least important, or waited too long.
    Overloaded = "overloaded", 503, Mesh;
    /// The sidecar uses as much memory as it may.
    MemoryPressure = "memory-pressure", 503, Mesh;
    /// The connection is one more than the listener or its caller may have.
    TooManyConnections = "too-many-connections", 503, Caller;
    /// The call went through more sidecars than it may (16).
    TooManyHops = "too-many-hops", 508, Caller;
    /// The call comes back to an agent that is on its path already.
    CallCycle = "call-cycle", 508, Caller;
    /// The call that is being served has made as many calls as it may.
    FanOut = "fan-out", 429, Caller;
    /// The rule injects this fault.
    FaultInjected = "fault-injected", 503, Mesh;
    /// The protocol that the caller speaks cannot be spoken with the upstream (an upgrade over HTTP/2, say).
    UpgradeNotPossible = "upgrade-not-possible", 502, Upstream;
    /// The client went away before the answer; logged, never sent (nginx's 499).
    ClientGone = "client-gone", 499, Caller;
}

impl Reason {
    /// The reason whose word this is.
    pub fn from_word(word: &[u8]) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| reason.word().as_bytes() == word)
    }

    /// Whether a sidecar that refuses for this reason has no connection to its agent at all.
    pub const fn is_no_connection(self) -> bool {
        matches!(self, Reason::ConnectFailed | Reason::ConnectTimeout | Reason::NoEndpoint)
    }

    /// Whether every other sidecar would refuse for this reason too: it is the call that has come too far, or too late.
    pub const fn is_everywhere(self) -> bool {
        matches!(self, Reason::TooManyHops | Reason::CallCycle | Reason::DeadlineExceeded)
    }

    /// Whether a sidecar that refuses for this reason turned the call away before its agent got anything of it, because of
    /// its own state: another sidecar may well take the call.
    pub const fn is_turned_away(self) -> bool {
        matches!(
            self,
            Reason::Overflow
                | Reason::Overloaded
                | Reason::MemoryPressure
                | Reason::TooManyConnections
                | Reason::DedupFull
                | Reason::DedupEpoch
        )
    }
}

/// A refusal on its way to the caller.
#[derive(Debug, Clone)]
pub struct Deny {
    /// Why.
    pub reason: Reason,
    /// What a person should know, without secrets; becomes `detail` of the problem document (RFC 9457).
    pub detail: Option<Box<str>>,
    /// Further members of the problem document, as a JSON object's text (`{"candidates":[...]}`).
    pub extra: Option<Box<str>>,
    /// Header fields that go with it (`retry-after`).
    pub headers: Vec<(&'static str, Box<str>)>,
    /// What the caller gets in place of the reason's status, by the word of somebody else.
    pub answer: Option<Box<Foreign>>,
}

/// A refusal in the words of somebody else: an external authorizer.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// The status.
    pub status: u16,
    /// Header fields, none of which delimits a message or is a sidecar's to write.
    pub headers: Vec<(Box<str>, Box<[u8]>)>,
    /// The body; empty: the problem document.
    pub body: Box<[u8]>,
    /// Nothing says that it is a sidecar's: the caller is not to know that there is anything to refuse.
    pub quiet: bool,
}

impl Foreign {
    /// Nothing but another status.
    pub fn of(status: u16) -> Self {
        Foreign { status, headers: Vec::new(), body: Box::default(), quiet: false }
    }
}

impl From<Reason> for Deny {
    fn from(reason: Reason) -> Self {
        Deny { reason, detail: None, extra: None, headers: Vec::new(), answer: None }
    }
}

impl Deny {
    /// A refusal with a sentence for the reader.
    pub fn with(reason: Reason, detail: impl Into<Box<str>>) -> Self {
        Deny { detail: Some(detail.into()), ..Deny::from(reason) }
    }

    /// The same with one more header field.
    pub fn and_header(mut self, name: &'static str, value: impl Into<Box<str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same in somebody else's words.
    pub fn answered(mut self, answer: Foreign) -> Self {
        self.answer = Some(Box::new(answer));
        self
    }
}
