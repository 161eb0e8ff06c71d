//! The attributes of a call that conditions may name.

/// What an attribute, or a part of a condition, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A text.
    Text,
    /// A whole number.
    Int,
    /// A number.
    Double,
    /// A span of time.
    Duration,
    /// Yes or no.
    Bool,
}

impl Type {
    /// The word in errors.
    pub const fn word(self) -> &'static str {
        match self {
            Type::Text => "a text",
            Type::Int => "a whole number",
            Type::Double => "a number",
            Type::Duration => "a duration",
            Type::Bool => "true or false",
        }
    }
}

macro_rules! attributes {
    ($($(#[doc = $doc:literal])* $attribute:ident: $kind:ident = $($name:literal)|+;)*) => {
        /// Something that is known of a call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Attribute {
            $($(#[doc = $doc])* $attribute,)*
        }

        impl Attribute {
            /// Each with its names; the first is the usual one.
            pub const ALL: &[(Attribute, &[&str])] = &[$((Attribute::$attribute, &[$($name),+]),)*];

            /// What it is.
            pub const fn kind(self) -> Type {
                match self {
                    $(Attribute::$attribute => Type::$kind,)*
                }
            }
        }
    };
}

attributes! {
    /// The method as sent.
    Method: Text = "request.method";
    /// The path; in what is told of a call, without its query, which may hold secrets.
    Path: Text = "request.path" | "request.url_path";
    /// The host that was asked for, with its port if that was sent.
    Host: Text = "request.host";
    /// `http` or `https`.
    Scheme: Text = "request.scheme";
    /// `x-request-id`.
    RequestId: Text = "request.id";
    /// `HTTP/1.1` or `HTTP/2`, as the caller spoke it.
    HttpVersion: Text = "request.protocol";
    /// Bytes of the request's body.
    RequestSize: Int = "request.size";
    /// From the request's head to the end of its answer.
    Duration: Duration = "request.duration";
    /// The status of the answer.
    Status: Int = "response.code";
    /// Bytes of the answer's body.
    ResponseSize: Int = "response.size";
    /// The word with which the sidecar itself refused or gave up.
    Reason: Text = "response.flags" | "call.reason";
    /// Who sent it: address and port.
    SourceAddress: Text = "source.address";
    /// The caller's SPIFFE ID, when its sidecar proved it.
    SourcePrincipal: Text = "source.principal";
    /// The namespace of a caller that proved who it is.
    SourceNamespace: Text = "source.namespace";
    /// The calling agent, `namespace/name`, when its sidecar proved who it is.
    Caller: Text = "call.caller";
    /// Whether the caller proved who it is.
    Mtls: Bool = "connection.mtls";
    /// The endpoint of the last try: address and port.
    Endpoint: Text = "destination.address" | "upstream.address" | "call.endpoint";
    /// The cluster that the rule led to.
    Cluster: Text = "upstream.cluster" | "call.cluster";
    /// The agent of the endpoint, `namespace/name`.
    Agent: Text = "call.agent";
    /// `inbound` or `outbound`.
    Direction: Text = "call.direction";
    /// The rule that matched.
    Rule: Text = "call.rule";
    /// The capability that was asked for.
    Capability: Text = "call.capability";
    /// Tries.
    Tries: Int = "call.tries";
    /// What was spoken: `http`, `grpc`, `websocket`, `jsonrpc`, `mcp`, `a2a`, `openai`.
    Protocol: Text = "call.protocol";
    /// The workflow that the call is part of.
    Workflow: Text = "call.workflow";
    /// The trace, as 32 hexadecimal digits.
    Trace: Text = "call.trace";
    /// Whether the trace is sampled.
    Sampled: Bool = "call.sampled";
}

impl Attribute {
    /// The attribute with this name.
    pub fn named(name: &str) -> Option<Attribute> {
        Attribute::ALL.iter().find(|(_, names)| names.contains(&name)).map(|(attribute, _)| *attribute)
    }

    /// Its usual name.
    pub fn name(self) -> &'static str {
        let names = Attribute::ALL.iter().find(|(attribute, _)| *attribute == self);
        names.and_then(|(_, names)| names.first().copied()).unwrap_or_default()
    }

    /// All names, for whoever mistyped one.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Attribute::ALL.iter().flat_map(|(_, names)| names.iter().copied())
    }
}
