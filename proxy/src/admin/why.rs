//! `/why`: what would happen to a request, by the same router and plan that serve it. Nothing is sent.
//!
//! `GET /why?host=nlp-agent-service&path=/v1/chat&method=POST&header=x-user:anna&header=agent-capability:nlu`

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use pilotfish_filters::call::{Call, Caller, Head};
use pilotfish_filters::plan::{Action, CapabilityTarget, Matched, Plan, Target};
use pilotfish_filters::verdict::Deny;
use serde_json::{Value, json};

use super::responder::Answer;
use crate::server::Shared;

/// A request as the question describes it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    method: String,
    host: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    /// Reads a query string.
    ///
    /// # Errors
    /// What is missing or unknown, for the one who asks.
    fn parse(query: &str) -> Result<Self, String> {
        let mut asked = Asked { method: "GET".into(), path: "/".into(), ..Asked::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value).ok_or_else(|| format!("{key} is not percent-encoded UTF-8"))?;
            match key {
                "method" => asked.method = value,
                "host" => asked.host = value,
                "path" => asked.path = value,
                "header" => {
                    let (name, value) = value.split_once(':').ok_or("header is name:value")?;
                    asked.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
                }
                _ => return Err(format!("{key} is none of host, path, method, header")),
            }
        }
        if asked.host.is_empty() { Err("host is missing".into()) } else { Ok(asked) }
    }

    fn port(&self) -> u16 {
        self.host.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(80)
    }

    /// What `decode` would say of the headers, as far as routing depends on it.
    fn call(&self) -> Call {
        let text = |name: &str| {
            self.header(name).and_then(|value| Some(std::str::from_utf8(&value).ok()?.to_owned()))
        };
        let capabilities = text("agent-capability").unwrap_or_default();
        Call {
            capabilities: capabilities
                .split(',')
                .map(str::trim)
                .filter(|c| !c.is_empty())
                .map(Box::from)
                .collect(),
            constraint: text("agent-constraint").map(String::into_boxed_str),
            ..Call::default()
        }
    }
}

impl Head for Asked {
    fn method(&self) -> &str {
        &self.method
    }
    fn scheme(&self) -> &str {
        "http"
    }
    fn authority(&self) -> &str {
        &self.host
    }
    fn path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }
    fn query(&self) -> Option<&str> {
        self.path.split_once('?').map(|(_, query)| query)
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let values: Vec<&str> =
            self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        (!values.is_empty()).then(|| Cow::Owned(values.join(",").into_bytes()))
    }
}

/// Turns `%41` and `+` back into characters.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits =
                    std::str::from_utf8(&digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
                u8::from_str_radix(digits, 16).ok()?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The answer to one question.
pub(super) fn answer(shared: &Shared, query: &str) -> Answer {
    let asked = match Asked::parse(query) {
        Ok(asked) => asked,
        Err(why) => {
            return Answer::text(400, &format!("{why}; /why?host=H&path=P&method=M&header=name:value\n"));
        }
    };
    let snapshot = shared.snapshots.newest();
    let mut value = explain(shared, &snapshot.plan, &asked);
    value["snapshot"] = snapshot.version.into();
    Answer::new(200, "application/json", format!("{value:#}\n"))
}

fn explain(shared: &Shared, plan: &Plan, asked: &Asked) -> Value {
    let caller = Caller { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: asked.port() };
    let call = asked.call();
    let matched = match plan.route(asked, &call, &caller) {
        Ok(matched) => matched,
        Err(deny) => return refusal(&deny),
    };
    let mut value = json!({
        "rule": matched.rule.name,
        "timeout_ms": matched.rule.timeout.map(|timeout| timeout.as_millis() as u64),
        "path_upstream": matched.rewritten_path(asked.path()),
        "host_upstream": matched.rewritten_authority(),
    });
    match &matched.rule.action {
        Action::Redirect(redirect) => value["redirect"] = matched.location(redirect, asked, &caller).into(),
        Action::Respond(response) => value["respond"] = response.status.into(),
        Action::Forward(_) => value["destinations"] = destinations(shared, plan, &matched, &call, &caller),
    }
    value
}

fn destinations(shared: &Shared, plan: &Plan, matched: &Matched<'_>, call: &Call, caller: &Caller) -> Value {
    let Action::Forward(split) = &matched.rule.action else { return Value::Null };
    let one = |target: &Target| match target {
        Target::Capability(target) => capability(shared, plan, target, call),
        target => match target.cluster(caller.port) {
            Ok(Some(id)) => super::config::cluster(plan.cluster(id), shared.clock.now()),
            Ok(None) => Value::Null,
            Err(deny) => refusal(&deny),
        },
    };
    split.destinations().iter().map(|d| json!({"weight": d.weight, "to": one(&d.target)})).collect()
}

/// Who qualifies; when nobody does, why not, candidate by candidate.
fn capability(shared: &Shared, plan: &Plan, target: &CapabilityTarget, call: &Call) -> Value {
    let chosen = target.demand(call).and_then(|demand| {
        let candidates = plan.catalogue().candidates(&demand, shared.clock.now())?;
        Ok(candidates.iter().map(|candidate| candidate.endpoint.addr.to_string()).collect::<Vec<_>>())
    });
    match chosen {
        Ok(addresses) => json!({"capability": call.capabilities, "candidates": addresses}),
        Err(deny) => refusal(&deny),
    }
}

fn refusal(deny: &Deny) -> Value {
    let extra: Value =
        deny.extra.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    json!({"refused": deny.reason.word(), "status": deny.reason.status(), "detail": deny.detail, "more": extra})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_decoded() {
        let asked = Asked::parse("host=a%3A81&path=/x%3Fy%3D1&method=POST&header=X-User:%20anna+b").unwrap();
        assert_eq!((asked.host.as_str(), asked.port(), asked.method.as_str()), ("a:81", 81, "POST"));
        assert_eq!((asked.path(), asked.query()), ("/x", Some("y=1")));
        assert_eq!(asked.header("x-user").as_deref(), Some(&b"anna b"[..]));
    }

    #[test]
    fn bad_questions_say_what_is_wrong() {
        for (query, what) in [
            ("path=/", "host is missing"),
            ("host=a&url=b", "url is none of"),
            ("host=%4", "percent"),
            ("host=%+1", "percent"),
            ("host=%ff", "percent"),
            ("host=a&header=x", "name:value"),
        ] {
            let error = Asked::parse(query).unwrap_err();
            assert!(error.contains(what), "{query}: {error}");
        }
    }
}
