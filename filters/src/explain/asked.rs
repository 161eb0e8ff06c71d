//! A request that somebody describes instead of sending it.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::call::{Call, Caller, Head};
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

    /// What a sidecar would learn of the headers and the body, as far as routing depends on it.
    pub fn call(&self) -> Call {
        let text = |name: &str| Some(std::str::from_utf8(&Head::header(self, name)?).ok()?.to_owned());
        let capabilities = text("agent-capability").unwrap_or_default();
        let names = capabilities.split(',').map(str::trim).filter(|name| !name.is_empty());
        let body: Value =
            self.body.as_deref().and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default();
        let stated = |value: &Value| value.as_str().map(Box::from);
        Call {
            capabilities: names.map(Box::from).collect(),
            constraint: text("agent-constraint").map(String::into_boxed_str),
            session: text("mcp-session-id").map(String::into_boxed_str),
            context_id: stated(&body["params"]["message"]["contextId"])
                .or_else(|| stated(&body["params"]["contextId"])),
            user: stated(&body["user"]),
            ..Call::default()
        }
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
