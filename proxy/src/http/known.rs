//! The few header names that the engine itself, or every request's guard, acts on: recognised once when a head is parsed.

/// A header name with a meaning to the engine; everything else is [`Known::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    /// A name without a meaning here.
    Other = 0,
    /// `connection`
    Connection,
    /// `content-length`
    ContentLength,
    /// `transfer-encoding`
    TransferEncoding,
    /// `host`
    Host,
    /// `expect`
    Expect,
    /// `upgrade`
    Upgrade,
    /// `te`
    Te,
    /// `keep-alive`
    KeepAlive,
    /// `proxy-connection`
    ProxyConnection,
    /// `http2-settings`
    Http2Settings,
    /// `cookie`
    Cookie,
    /// `proxy-authorization`
    ProxyAuthorization,
    /// `agent-deadline-ms`
    AgentDeadline,
    /// `grpc-timeout`
    GrpcTimeout,
    /// `agent-priority`
    AgentPriority,
    /// `x-pilotfish-path`
    CallPath,
    /// `x-pilotfish-call`
    CallId,
    /// `idempotency-key`
    IdempotencyKey,
    /// `x-pilotfish-idempotency-key`
    MessageKey,
    /// `x-pilotfish-dedup-epoch`
    DedupEpoch,
    /// `origin`
    Origin,
    /// `traceparent`
    Traceparent,
    /// `tracestate`
    Tracestate,
    /// `baggage`
    Baggage,
    /// `b3`
    B3,
    /// `x-b3-traceid`, `x-b3-spanid`, `x-b3-parentspanid`, `x-b3-sampled`, `x-b3-flags`
    B3Part,
    /// `agent-workflow`
    AgentWorkflow,
    /// `x-request-id`
    RequestId,
    /// `agent-explain`
    AgentExplain,
}

impl Known {
    /// Recognises a name, in any case.
    #[inline]
    pub fn of(name: &[u8]) -> Known {
        let (known, word): (Known, &[u8]) = match (name.len(), name.first().map_or(0, |b| b | 0x20)) {
            (2, b't') => (Known::Te, b"te"),
            (4, b'h') => (Known::Host, b"host"),
            (6, b'e') => (Known::Expect, b"expect"),
            (6, b'c') => (Known::Cookie, b"cookie"),
            (6, b'o') => (Known::Origin, b"origin"),
            (7, b'u') => (Known::Upgrade, b"upgrade"),
            (10, b'c') => (Known::Connection, b"connection"),
            (10, b'k') => (Known::KeepAlive, b"keep-alive"),
            (14, b'c') => (Known::ContentLength, b"content-length"),
            (14, b'h') => (Known::Http2Settings, b"http2-settings"),
            (16, b'p') => (Known::ProxyConnection, b"proxy-connection"),
            (19, b'p') => (Known::ProxyAuthorization, b"proxy-authorization"),
            (17, b'a') => (Known::AgentDeadline, b"agent-deadline-ms"),
            (12, b'g') => (Known::GrpcTimeout, b"grpc-timeout"),
            (14, b'a') if name.get(6).is_some_and(|b| b | 0x20 == b'w') => {
                (Known::AgentWorkflow, b"agent-workflow")
            }
            (13, b'a') => (Known::AgentExplain, b"agent-explain"),
            (14, b'a') => (Known::AgentPriority, b"agent-priority"),
            (11, b't') => (Known::Traceparent, b"traceparent"),
            (10, b't') => (Known::Tracestate, b"tracestate"),
            (7, b'b') => (Known::Baggage, b"baggage"),
            (2, b'b') => (Known::B3, b"b3"),
            (12, b'x') => match name.get(5).map_or(0, |b| b | 0x20) {
                b't' => (Known::B3Part, b"x-b3-traceid"),
                b's' => (Known::B3Part, b"x-b3-sampled"),
                _ => (Known::RequestId, b"x-request-id"),
            },
            (11, b'x') => (Known::B3Part, b"x-b3-spanid"),
            (17, b'x') => (Known::B3Part, b"x-b3-parentspanid"),
            (10, b'x') => (Known::B3Part, b"x-b3-flags"),
            (16, b'x') if name.last() == Some(&b'h') => (Known::CallPath, b"x-pilotfish-path"),
            (16, b'x') => (Known::CallId, b"x-pilotfish-call"),
            (15, b'i') => (Known::IdempotencyKey, b"idempotency-key"),
            (27, b'x') => (Known::MessageKey, b"x-pilotfish-idempotency-key"),
            (23, b'x') => (Known::DedupEpoch, b"x-pilotfish-dedup-epoch"),
            (17, b't') => (Known::TransferEncoding, b"transfer-encoding"),
            _ => return Known::Other,
        };
        if name.eq_ignore_ascii_case(word) { known } else { Known::Other }
    }

    /// This name's bit in a set of known names.
    #[inline]
    pub const fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

/// The names that never travel further than one hop (RFC 9110 section 7.6.1), as a set. `te` and `upgrade` are handled apart.
/// `proxy-authorization` is for the first proxy (section 11.7.2): with `HTTP_PROXY=http://user:pass@...` that is us, and the
/// origin must not learn it.
pub const HOP_BY_HOP: u32 = Known::Connection.bit()
    | Known::TransferEncoding.bit()
    | Known::KeepAlive.bit()
    | Known::ProxyConnection.bit()
    | Known::ProxyAuthorization.bit()
    | Known::Http2Settings.bit();

/// Names that a `Connection` header must not make disappear: a client could otherwise unmake what policy, framing or the
/// upstream's authentication rely on.
pub fn essential(name: &[u8]) -> bool {
    const NAMES: &[&str] = &[
        "host",
        "content-length",
        "content-type",
        "content-encoding",
        "authorization",
        "cookie",
        "set-cookie",
        "forwarded",
        "te",
        "trailer",
        "expect",
        "cache-control",
        "date",
        "via",
        "traceparent",
        "tracestate",
        "baggage",
        "idempotency-key",
    ];
    const PREFIXES: &[&str] =
        &["x-forwarded-", "x-real-", "x-request-", "x-pilotfish-", "agent-", "pilotfish-", "mcp-", "a2a-"];
    NAMES.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
        || PREFIXES
            .iter()
            .any(|p| name.get(..p.len()).is_some_and(|start| start.eq_ignore_ascii_case(p.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_only_whole() {
        assert_eq!(Known::of(b"Content-Length"), Known::ContentLength);
        assert_eq!(Known::of(b"TRANSFER-ENCODING"), Known::TransferEncoding);
        assert_eq!(Known::of(b"transfer_encoding"), Known::Other);
        assert_eq!(Known::of(b"content-lengthx"), Known::Other);
        assert_eq!(Known::of(b""), Known::Other);
        for name in ["x-b3-TraceId", "X-B3-SpanId", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"] {
            assert_eq!(Known::of(name.as_bytes()), Known::B3Part, "{name}");
        }
        assert_eq!(Known::of(b"X-Request-Id"), Known::RequestId);
        assert_eq!(Known::of(b"Agent-Workflow"), Known::AgentWorkflow);
        assert_eq!(Known::of(b"agent-priority"), Known::AgentPriority);
        assert_eq!(Known::of(b"x-b2-traceid"), Known::Other);
    }

    #[test]
    fn policy_headers_are_essential() {
        assert!(essential(b"X-Forwarded-For"));
        assert!(essential(b"Authorization"));
        assert!(!essential(b"x-debug"));
    }
}
