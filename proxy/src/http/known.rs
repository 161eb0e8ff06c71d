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
    /// `x-pilotfish-delegation`
    Delegation,
}

impl Known {
    /// Recognises a name, in any case.
    #[inline]
    pub fn of(name: &[u8]) -> Known {
        // By length first: the compiler makes a jump of that, and most names end there.
        let letter = |at: usize| name.get(at).map_or(0, |byte| byte | 0x20);
        let (known, word): (Known, &[u8]) = match name.len() {
            2 => match letter(0) {
                b't' => (Known::Te, b"te"),
                _ => (Known::B3, b"b3"),
            },
            4 => (Known::Host, b"host"),
            6 => match letter(0) {
                b'e' => (Known::Expect, b"expect"),
                b'c' => (Known::Cookie, b"cookie"),
                _ => (Known::Origin, b"origin"),
            },
            7 => match letter(0) {
                b'u' => (Known::Upgrade, b"upgrade"),
                _ => (Known::Baggage, b"baggage"),
            },
            10 => match letter(0) {
                b'c' => (Known::Connection, b"connection"),
                b'k' => (Known::KeepAlive, b"keep-alive"),
                b't' => (Known::Tracestate, b"tracestate"),
                _ => (Known::B3Part, b"x-b3-flags"),
            },
            11 => match letter(0) {
                b't' => (Known::Traceparent, b"traceparent"),
                _ => (Known::B3Part, b"x-b3-spanid"),
            },
            12 => match (letter(0), letter(5)) {
                (b'g', _) => (Known::GrpcTimeout, b"grpc-timeout"),
                (_, b't') => (Known::B3Part, b"x-b3-traceid"),
                (_, b's') => (Known::B3Part, b"x-b3-sampled"),
                _ => (Known::RequestId, b"x-request-id"),
            },
            13 => (Known::AgentExplain, b"agent-explain"),
            14 => match (letter(0), letter(6)) {
                (b'c', _) => (Known::ContentLength, b"content-length"),
                (b'h', _) => (Known::Http2Settings, b"http2-settings"),
                (_, b'w') => (Known::AgentWorkflow, b"agent-workflow"),
                _ => (Known::AgentPriority, b"agent-priority"),
            },
            15 => (Known::IdempotencyKey, b"idempotency-key"),
            16 => match (letter(0), letter(15)) {
                (b'p', _) => (Known::ProxyConnection, b"proxy-connection"),
                (_, b'h') => (Known::CallPath, b"x-pilotfish-path"),
                _ => (Known::CallId, b"x-pilotfish-call"),
            },
            17 => match letter(0) {
                b'a' => (Known::AgentDeadline, b"agent-deadline-ms"),
                b't' => (Known::TransferEncoding, b"transfer-encoding"),
                _ => (Known::B3Part, b"x-b3-parentspanid"),
            },
            19 => (Known::ProxyAuthorization, b"proxy-authorization"),
            22 => (Known::Delegation, b"x-pilotfish-delegation"),
            23 => (Known::DedupEpoch, b"x-pilotfish-dedup-epoch"),
            27 => (Known::MessageKey, b"x-pilotfish-idempotency-key"),
            _ => return Known::Other,
        };
        if is_word(name, word) { known } else { Known::Other }
    }

    /// This name's bit in a set of known names.
    #[inline]
    pub const fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

/// Whether a header's name, of whatever case, is this word of letters, digits and hyphens that is as long. Eight bytes at a time: of
/// the characters that a name may have (RFC 9110 section 5.6.2) only letters become another one of these by the bit of lower case.
#[inline]
fn is_word(name: &[u8], word: &[u8]) -> bool {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let (names, rest) = name.as_chunks::<8>();
    let (words, end) = word.as_chunks::<8>();
    let same =
        |(a, b): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*a) | LOWER == u64::from_ne_bytes(*b) | LOWER;
    names.iter().zip(words).all(same) && rest.iter().zip(end).all(|(a, b)| a | 0x20 == b | 0x20)
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

    /// The quick comparison says what the slow one says, for every byte that may stand in a name.
    #[test]
    fn a_word_is_compared_as_by_the_standard_library() {
        const TOKEN: &[u8] = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for word in [b"content-length".as_slice(), b"te", b"b3", b"x-b3-flags", b"http2-settings"] {
            for at in 0..word.len() {
                for byte in TOKEN {
                    let mut name = word.to_vec();
                    name[at] = *byte;
                    assert_eq!(is_word(&name, word), name.eq_ignore_ascii_case(word), "{name:?}");
                }
            }
        }
    }

    /// Each variant's name is in its doc comment.
    #[test]
    fn every_name_is_known() {
        let source = include_str!("known.rs");
        let listed = source.split("pub enum Known {").nth(1).and_then(|rest| rest.split("\n}").next());
        let mut doc = "";
        let mut seen = 0;
        for line in listed.unwrap_or_default().lines().map(str::trim) {
            match line.strip_prefix("/// ") {
                Some(words) => doc = words,
                None if line.is_empty() || line.starts_with("Other") => {}
                None => {
                    let variant = line.trim_end_matches(',');
                    for name in doc.split(", ").map(|name| name.trim_matches('`')) {
                        assert_eq!(format!("{:?}", Known::of(name.as_bytes())), variant, "{name}");
                        let upper = name.to_ascii_uppercase();
                        assert_eq!(format!("{:?}", Known::of(upper.as_bytes())), variant, "{upper}");
                        let other = format!("q{}", &name[1..]);
                        assert_eq!(Known::of(other.as_bytes()), Known::Other, "{other}");
                        seen += 1;
                    }
                }
            }
        }
        assert!(seen >= 33, "{seen}");
    }

    #[test]
    fn policy_headers_are_essential() {
        assert!(essential(b"X-Forwarded-For"));
        assert!(essential(b"Authorization"));
        assert!(!essential(b"x-debug"));
    }
}
