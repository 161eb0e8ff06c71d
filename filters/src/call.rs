//! What a decision may know of a request: its head, what the body's first bytes said, and who sent it.

use std::borrow::Cow;
use std::net::IpAddr;

/// A filter's view of a request head, so that no HTTP engine's types reach the filters.
pub trait Head {
    /// The method as sent, `GET`.
    fn method(&self) -> &str;
    /// `http` or `https`, as the client used it.
    fn scheme(&self) -> &str;
    /// The Host header or `:authority`, port included when it was sent.
    fn authority(&self) -> &str;
    /// The path without the query, starting with `/` (or `*`).
    fn path(&self) -> &str;
    /// What follows `?`, without it.
    fn query(&self) -> Option<&str>;
    /// All values of a header joined by `,` (as Envoy matches them); `name` is lower case.
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>>;
    /// Calls `take` with each value of a header, in order; `name` is lower case.
    fn each_header(&self, name: &str, take: &mut dyn FnMut(&[u8]));
}

/// The protocol that an agent speaks in this call, as far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Plain HTTP, or a body that was not read or not understood.
    #[default]
    Http,
    /// `content-type: application/grpc*`.
    Grpc,
    /// An upgrade to WebSocket.
    WebSocket,
    /// JSON-RPC that is neither MCP nor A2A.
    JsonRpc,
    /// Model Context Protocol.
    Mcp,
    /// Agent2Agent.
    A2a,
    /// An OpenAI-compatible API.
    OpenAi,
}

impl Protocol {
    /// The word in logs, conditions and spans.
    pub const fn word(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
            Protocol::WebSocket => "websocket",
            Protocol::JsonRpc => "jsonrpc",
            Protocol::Mcp => "mcp",
            Protocol::A2a => "a2a",
            Protocol::OpenAi => "openai",
        }
    }

    /// A2A by its method names, of version 1.0 and of 0.3; MCP by its own; the rest is plain JSON-RPC. A method that both have counts as
    /// A2A's ([`Protocol::other_of_rpc`]).
    pub fn of_rpc(method: &str) -> Protocol {
        const A2A: [&str; 12] = [
            "SendMessage",
            "SendStreamingMessage",
            "GetTask",
            "ListTasks",
            "CancelTask",
            "SubscribeToTask",
            "CreateTaskPushNotificationConfig",
            "GetTaskPushNotificationConfig",
            "ListTaskPushNotificationConfigs",
            "DeleteTaskPushNotificationConfig",
            "GetExtendedAgentCard",
            "agent/getAuthenticatedExtendedCard",
        ];
        const MCP: [&str; 15] = [
            "initialize",
            "ping",
            "tasks/result",
            "tasks/update",
            "tools/",
            "resources/",
            "prompts/",
            "completion/",
            "logging/",
            "notifications/",
            "server/",
            "subscriptions/",
            // What servers ask clients for: from a client they mean nothing, and are nobody else's.
            "sampling/",
            "elicitation/",
            "roots/",
        ];
        let is_a2a = |method: &str| method.starts_with("message/") || method.starts_with("tasks/");
        if A2A.contains(&method) || is_a2a(method) && !MCP.contains(&method) {
            Protocol::A2a
        } else if MCP
            .iter()
            .any(|known| method == *known || (known.ends_with('/') && method.starts_with(known)))
        {
            Protocol::Mcp
        } else {
            Protocol::JsonRpc
        }
    }

    /// The other protocol that has a method of this name: tasks are asked for and cancelled in A2A 0.3 as in MCP (2025-11-25, and the
    /// extension of 2026-07-28).
    pub fn other_of_rpc(method: &str) -> Option<Protocol> {
        matches!(method, "tasks/get" | "tasks/cancel" | "tasks/list").then_some(Protocol::Mcp)
    }
}

/// How much of a body was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Understood {
    /// There is none.
    #[default]
    Empty,
    /// It was not read: nothing hangs on it, or it is of a kind that says nothing of agents' protocols.
    Unread,
    /// All that decisions hang on.
    Whole,
    /// It could mean several things, or is too long or coded in a way that cannot be read: what hangs on it is refused.
    Doubtful,
}

/// What a call may say where nobody reads it: rules that hang on it are decided for refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unsure {
    /// Which skill an A2A message is for: it came in gRPC.
    pub skill: bool,
    /// Which model is meant: the path is one of those of models' APIs, and neither it nor the body says.
    pub model: bool,
}

/// What `decode` learned. Everything unknown is `None`; that is never an error.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// The protocol of the call.
    pub protocol: Protocol,
    /// `agent-capability`, or the host `<capability>.capability.mesh`: all that are asked for.
    pub capabilities: Vec<Box<str>>,
    /// `agent-constraint`, unparsed (see [`crate::capability`]).
    pub constraint: Option<Box<str>>,
    /// The RPC method: JSON-RPC `method`, `Mcp-Method`.
    pub rpc_method: Option<Box<str>>,
    /// The JSON-RPC id, as JSON text.
    pub rpc_id: Option<Box<str>>,
    /// MCP tool, prompt or resource name (`Mcp-Name`, `params.name`).
    pub tool: Option<Box<str>>,
    /// `Mcp-Session-Id`, or another session header.
    pub session: Option<Box<str>>,
    /// A2A `contextId`.
    pub context_id: Option<Box<str>>,
    /// A2A `taskId`.
    pub task_id: Option<Box<str>>,
    /// A2A `messageId`.
    pub message_id: Option<Box<str>>,
    /// OpenAI `model`.
    pub model: Option<Box<str>>,
    /// OpenAI `user`.
    pub user: Option<Box<str>>,
    /// Whether the caller asked for a stream (`stream: true`, `Accept: text/event-stream`, `message/stream`).
    pub streaming: bool,
    /// The capability of an A2A agent that a message asks for: `params.metadata.skillId` or `params.message.metadata.skillId`.
    pub skill: Option<Box<str>>,
    /// How much of the body was understood.
    pub body: Understood,
    /// What of it stays unknown although the rest is understood.
    pub unsure: Unsure,
    /// It may just as well be a call of this protocol (by a method that both have, or by a path): where that leads to a refusal it counts.
    pub also: Option<Protocol>,
    /// What the body says of the trace (MCP `params._meta`).
    pub meta: Option<Box<TraceMeta>>,
}

/// Trace context in the body of an MCP call, for transports without headers; each part as its header would be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceMeta {
    /// `traceparent`.
    pub traceparent: Box<str>,
    /// `tracestate`.
    pub tracestate: Option<Box<str>>,
    /// `baggage`.
    pub baggage: Option<Box<str>>,
}

/// Who sent the request and to which port, as `identify` established it.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The downstream peer's address.
    pub ip: IpAddr,
    /// The port of the service that the caller addressed: the authority's port, else the scheme's default.
    pub port: u16,
}

#[cfg(test)]
pub(crate) mod test_head {
    //! A head made of text, for the tests of this crate.

    use super::*;

    /// A request head from its parts.
    #[derive(Debug, Clone)]
    pub(crate) struct TestHead {
        pub(crate) method: String,
        pub(crate) scheme: String,
        pub(crate) authority: String,
        pub(crate) target: String,
        pub(crate) headers: Vec<(String, String)>,
    }

    impl TestHead {
        /// `GET target`, without headers.
        pub(crate) fn get(scheme: &str, authority: &str, target: &str) -> Self {
            TestHead {
                method: "GET".into(),
                scheme: scheme.into(),
                authority: authority.into(),
                target: target.into(),
                headers: Vec::new(),
            }
        }

        /// With one more header.
        pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
            self.headers.push((name.into(), value.into()));
            self
        }
    }

    impl Head for TestHead {
        fn method(&self) -> &str {
            &self.method
        }
        fn scheme(&self) -> &str {
            &self.scheme
        }
        fn authority(&self) -> &str {
            &self.authority
        }
        fn path(&self) -> &str {
            self.target.split('?').next().unwrap_or_default()
        }
        fn query(&self) -> Option<&str> {
            self.target.split_once('?').map(|(_, query)| query)
        }
        fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
            let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_bytes());
            let first = values.next()?;
            Some(values.fold(Cow::Borrowed(first), |all, next| Cow::Owned([&all, &b","[..], next].concat())))
        }
        fn each_header(&self, name: &str, take: &mut dyn FnMut(&[u8])) {
            self.headers.iter().filter(|(n, _)| n == name).for_each(|(_, v)| take(v.as_bytes()));
        }
    }

    /// A local caller that addressed `port`.
    pub(crate) fn caller(port: u16) -> Caller {
        Caller { ip: IpAddr::from([127, 0, 0, 1]), port }
    }
}
