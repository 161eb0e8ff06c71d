//! Calls of tools by MCP and of agents by A2A.

use std::time::Duration;

use pilotfish_filters::call::Call;

use crate::http::RequestHead;
use crate::telemetry::call::{CallRecord, Value};
use crate::telemetry::metrics::agentic::Told;

/// The longest version that is told.
const VERSION: usize = 16;

/// An MCP request. Its session's id is left out: who knows it is in the session.
#[derive(Debug)]
pub struct Mcp {
    method: Box<str>,
    /// Of a tool or a prompt; a resource's URI may hold anything.
    name: Option<Box<str>>,
    id: Option<Box<str>>,
    version: Option<Box<str>>,
}

impl Mcp {
    /// `None`: it is not known what is asked for.
    pub(super) fn of(head: &RequestHead, call: &Call) -> Option<Mcp> {
        let method = call.rpc_method.clone()?;
        let named = matches!(&*method, "tools/call" | "prompts/get");
        Some(Mcp {
            name: call.tool.clone().filter(|_| named),
            id: call.rpc_id.clone(),
            version: version(head, "mcp-protocol-version"),
            method,
        })
    }

    pub(super) fn finish(&self, record: &mut CallRecord, took: Duration) -> Told<'_> {
        if record.sampled {
            let name = if &*self.method == "prompts/get" { "gen_ai.prompt.name" } else { "gen_ai.tool.name" };
            let pairs = [
                ("mcp.method.name", Some(&*self.method)),
                (name, self.name.as_deref()),
                ("jsonrpc.request.id", self.id.as_deref()),
                ("mcp.protocol.version", self.version.as_deref()),
            ];
            add(record, &pairs);
            if &*self.method == "tools/call" {
                add(record, &[("gen_ai.operation.name", Some("execute_tool"))]);
            }
        }
        Told::Mcp { method: &self.method, name: self.name.as_deref(), took }
    }
}

/// An A2A request.
#[derive(Debug)]
pub struct A2a {
    method: Box<str>,
    id: Option<Box<str>>,
    task: Option<Box<str>>,
    message: Option<Box<str>>,
    context: Option<Box<str>>,
    version: Option<Box<str>>,
}

impl A2a {
    /// `None`: it is not known what is asked for.
    pub(super) fn of(head: &RequestHead, call: &Call) -> Option<A2a> {
        let method = call.rpc_method.as_deref()?;
        Some(A2a {
            method: newest_name(method).into(),
            id: call.rpc_id.clone(),
            task: call.task_id.clone(),
            message: call.message_id.clone(),
            context: call.context_id.clone(),
            version: version(head, "a2a-version"),
        })
    }

    pub(super) fn finish(&self, record: &mut CallRecord) -> Told<'_> {
        if record.sampled {
            let pairs = [
                ("a2a.method.name", Some(&*self.method)),
                ("a2a.task.id", self.task.as_deref()),
                ("a2a.message.id", self.message.as_deref()),
                ("gen_ai.conversation.id", self.context.as_deref()),
                ("jsonrpc.request.id", self.id.as_deref()),
                ("a2a.protocol.version", self.version.as_deref()),
            ];
            add(record, &pairs);
        }
        Told::Nothing
    }
}

fn add(record: &mut CallRecord, pairs: &[(&'static str, Option<&str>)]) {
    let known = pairs.iter().filter_map(|(name, value)| Some((*name, Value::Text((*value)?.into()))));
    record.extra().attributes.extend(known);
}

fn version(head: &RequestHead, name: &str) -> Option<Box<str>> {
    let version = std::str::from_utf8(head.headers.get(name)?).ok()?;
    let fits = version.len() <= VERSION && version.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| version.into())
}

/// A2A's methods by the names of version 1.0, which are those of the attribute.
fn newest_name(method: &str) -> &str {
    match method {
        "message/send" => "SendMessage",
        "message/stream" => "SendStreamingMessage",
        "tasks/get" => "GetTask",
        "tasks/list" => "ListTasks",
        "tasks/cancel" => "CancelTask",
        "tasks/resubscribe" => "SubscribeToTask",
        "tasks/pushNotificationConfig/set" => "CreateTaskPushNotificationConfig",
        "tasks/pushNotificationConfig/get" => "GetTaskPushNotificationConfig",
        "tasks/pushNotificationConfig/list" => "ListTaskPushNotificationConfigs",
        "tasks/pushNotificationConfig/delete" => "DeleteTaskPushNotificationConfig",
        "agent/getAuthenticatedExtendedCard" => "GetExtendedAgentCard",
        newest => newest,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use pilotfish_filters::call::Protocol;

    use super::super::asked;
    use super::*;

    fn attributes(call: &Call, sampled: bool) -> Vec<(&'static str, String)> {
        let mut head = RequestHead::new(Method::POST, "tools", "/mcp");
        head.headers.append("mcp-protocol-version", b"2026-07-28");
        head.headers.append("mcp-session-id", b"secret");
        let mut record = CallRecord { sampled, ..CallRecord::default() };
        asked(&head, call).unwrap().finish(&mut record);
        let extra = record.extra.take().unwrap_or_default();
        let text = |(name, value)| match value {
            Value::Text(text) => (name, String::from(text)),
            other => panic!("{other:?}"),
        };
        extra.attributes.into_iter().map(text).collect()
    }

    #[test]
    fn a_tools_call_is_told_without_its_session_and_only_when_it_is_kept() {
        let call = Call {
            protocol: Protocol::Mcp,
            rpc_method: Some("tools/call".into()),
            rpc_id: Some("7".into()),
            tool: Some("search".into()),
            session: Some("secret".into()),
            ..Call::default()
        };
        let wanted = [
            ("mcp.method.name", "tools/call"),
            ("gen_ai.tool.name", "search"),
            ("jsonrpc.request.id", "7"),
            ("mcp.protocol.version", "2026-07-28"),
            ("gen_ai.operation.name", "execute_tool"),
        ];
        assert_eq!(attributes(&call, true), wanted.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(attributes(&call, false), []);
    }

    #[test]
    fn an_agents_call_has_the_newest_name() {
        let call = Call {
            protocol: Protocol::A2a,
            rpc_method: Some("message/send".into()),
            task_id: Some("t".into()),
            context_id: Some("c".into()),
            ..Call::default()
        };
        let wanted =
            [("a2a.method.name", "SendMessage"), ("a2a.task.id", "t"), ("gen_ai.conversation.id", "c")];
        assert_eq!(attributes(&call, true), wanted.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        let head = RequestHead::new(Method::GET, "tools", "/mcp");
        assert!(asked(&head, &Call { protocol: Protocol::Mcp, ..Call::default() }).is_none());
        assert!(asked(&head, &Call::default()).is_none());
    }
}
