//! A request that somebody describes instead of sending it.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::binding::{self, Binding, Path, Said};
use crate::call::{Call, Caller, Head, Protocol, Understood};
use crate::normalize::{Normalization, normalize};
use crate::route::split_authority;

/// A request as a question describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    method: String,
    scheme: &'static str,
    authority: String,
    /// Path and query.
    target: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    body: Option<String>,
}

impl Asked {
    /// A request to `url`, `http://host/path` or `host/path`.
    ///
    /// # Errors
    /// What is wrong with it, for the one who asks.
    pub fn new(method: &str, url: &str) -> Result<Asked, String> {
        let (scheme, rest) = match url.split_once("://") {
            None => ("http", url),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
            Some((scheme, _)) => return Err(format!("{scheme} is neither http nor https")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = target.split('#').next().unwrap_or_default();
        let slash = if target.starts_with('/') { "" } else { "/" };
        let asked = Asked::to(method, authority, &format!("{slash}{target}"))?;
        Ok(Asked { scheme, ..asked })
    }

    /// A request for path and query of a host.
    ///
    /// # Errors
    /// There is no host, or the method is none.
    pub fn to(method: &str, authority: &str, target: &str) -> Result<Asked, String> {
        if authority.is_empty() {
            return Err("host is missing".into());
        }
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
            return Err(format!("`{}` is not a method", method.escape_debug()));
        }
        Ok(Asked {
            method: method.to_owned(),
            scheme: "http",
            authority: authority.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
        })
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Asked {
        self.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: Option<String>) -> Asked {
        self.body = body;
        self
    }

    /// The agent that asks, at the port that it addresses.
    pub fn caller(&self) -> Caller {
        let default = if self.scheme == "https" { 443 } else { 80 };
        let port = split_authority(&self.authority).1.unwrap_or(default);
        Caller { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port }
    }

    /// With the path as a sidecar would send it on.
    ///
    /// # Errors
    /// A sidecar refuses it; in words.
    pub fn normalized(mut self, how: Normalization) -> Result<Asked, &'static str> {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target.as_str(), None),
        };
        let path = normalize(path, how)?.into_owned();
        self.target = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        Ok(self)
    }

    /// The method of A2A and the model that the path names.
    fn by_path(&self) -> (Option<Box<str>>, Option<Box<str>>) {
        let says_a2a = self.headers.iter().any(|(name, _)| name == "a2a-version");
        match binding::read(&self.method, Head::path(self)) {
            // Paths that others have too are A2A's only when the call says so.
            Path::Said(Said::A2a(_, Binding::Perhaps { usual })) if !usual || !says_a2a => (None, None),
            Path::Said(Said::A2a(method, _)) => (Some(method.into_owned().into()), None),
            Path::Said(Said::Model(name)) => (None, name),
            _ => (None, None),
        }
    }

    /// What a sidecar would learn of the headers and the body. Of what several servers could read differently, members that are there
    /// twice and batches are looked for here; bytes that are no JSON text cannot be described.
    pub fn call(&self) -> Call {
        let text = |name: &str| Some(std::str::from_utf8(&Head::header(self, name)?).ok()?.to_owned());
        let boxed = |name: &str| text(name).map(String::into_boxed_str);
        let capabilities = text("agent-capability").unwrap_or_default();
        let names = capabilities.split(',').map(str::trim).filter(|name| !name.is_empty());
        let read: Option<Value> = self.body.as_deref().and_then(|body| serde_json::from_str(body).ok());
        let understood = match (&self.body, &read) {
            (None, _) => Understood::Empty,
            (Some(body), _) if body.is_empty() => Understood::Empty,
            (Some(body), Some(object @ Value::Object(_))) if colons(body) == members(object) => {
                Understood::Whole
            }
            (Some(body), None) if !body.trim_start().starts_with(['{', '[']) => Understood::Unread,
            _ => Understood::Doubtful,
        };
        let body = read.unwrap_or_default();
        let stated = |value: &Value| value.as_str().map(Box::from);
        let (params, message) = (&body["params"], &body["params"]["message"]);
        let is_rpc = body["jsonrpc"].is_string();
        let (by_path, model_by_path) = self.by_path();
        let rpc_method = boxed("mcp-method")
            .or_else(|| stated(&body["method"]).filter(|_| is_rpc))
            .or_else(|| by_path.clone());
        let model: Option<Box<str>> = stated(&body["model"]).filter(|_| !is_rpc).or(model_by_path);
        let task = |name: &str| stated(&params[name]).filter(|_| is_rpc);
        let mcp = ["mcp-session-id", "mcp-method", "mcp-protocol-version"];
        let protocol = if by_path.is_some() {
            Protocol::A2a
        } else if text("content-type").is_some_and(|kind| kind.starts_with("application/grpc")) {
            Protocol::Grpc
        } else if mcp.iter().any(|name| text(name).is_some()) {
            Protocol::Mcp
        } else if text("a2a-version").is_some() {
            Protocol::A2a
        } else if is_rpc {
            let method = rpc_method.as_deref().unwrap_or_default();
            // MCP names a task by `taskId`, A2A by `id`.
            let other = Protocol::other_of_rpc(method).filter(|_| task("taskId").is_some());
            other.unwrap_or_else(|| Protocol::of_rpc(method))
        } else if model.is_some() {
            Protocol::OpenAi
        } else {
            Protocol::Http
        };
        let skill =
            || stated(&params["metadata"]["skillId"]).or_else(|| stated(&message["metadata"]["skillId"]));
        Call {
            protocol,
            capabilities: names.map(Box::from).collect(),
            constraint: boxed("agent-constraint"),
            session: boxed("mcp-session-id"),
            tool: boxed("mcp-name").or_else(|| stated(&params["name"])),
            skill: skill().filter(|_| protocol == Protocol::A2a),
            rpc_method,
            context_id: stated(&message["contextId"]).or_else(|| stated(&params["contextId"])),
            task_id: stated(&message["taskId"]).or_else(|| task("taskId")).or_else(|| task("id")),
            model,
            user: stated(&body["user"]),
            body: understood,
            ..Call::default()
        }
    }
}

/// Members that the text of a JSON value names.
fn colons(json: &str) -> usize {
    let (mut found, mut quoted, mut escaped) = (0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b':' if !quoted => found += 1,
            _ => {}
        }
    }
    found
}

/// Members that are left of it: of two with one name there is one.
fn members(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.len() + map.values().map(members).sum::<usize>(),
        Value::Array(list) => list.iter().map(members).sum(),
        _ => 0,
    }
}

impl Head for Asked {
    fn method(&self) -> &str {
        &self.method
    }
    fn scheme(&self) -> &str {
        self.scheme
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
        let values: Vec<&str> =
            self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        (!values.is_empty()).then(|| Cow::Owned(values.join(",").into_bytes()))
    }
    fn each_header(&self, name: &str, take: &mut dyn FnMut(&[u8])) {
        self.headers.iter().filter(|(n, _)| n == name).for_each(|(_, v)| take(v.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_there_twice_leaves_doubt() {
        let of = |body: &str| {
            Asked::to("POST", "a", "/").map(|asked| asked.body(Some(body.to_owned())).call().body)
        };
        assert_eq!(of(r#"{"a":1,"b":[{"a":"x:\\\"y:"},{"a":{}}],"c:":{"a":2}}"#), Ok(Understood::Whole));
        for twice in
            [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"b":2}}"#, r#"{"a":[{"b":1,"\u0062":2}]}"#, "[{}]", "{"]
        {
            assert_eq!(of(twice), Ok(Understood::Doubtful), "{twice}");
        }
    }
}
