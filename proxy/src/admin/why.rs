//! `/why`: what happened to calls that the workers remember, and what would happen to a request, by the same router and plan
//! that serve it. Nothing is sent.
//!
//! `GET /why?request=ID`, `/why?trace=ID`, `/why?last=N`
//! `GET /why?host=nlp-agent-service&path=/v1/chat&method=POST&header=x-user:anna&header=agent-capability:nlu`

use pilotfish_config::wire::Why;
use pilotfish_filters::call::{Call, Caller, Head};
use pilotfish_filters::explain::Asked;
use pilotfish_filters::plan::{Action, CapabilityTarget, Matched, Plan, Target};
use pilotfish_filters::verdict::Deny;
use serde_json::{Value, json};

use super::responder::Answer;
use crate::server::Shared;
use crate::telemetry::account;

/// Calls in one answer.
const MOST_CALLS: usize = 1000;

/// Reads a question's query string.
///
/// # Errors
/// What is missing or unknown, for the one who asks.
fn parse(query: &str) -> Result<Asked, String> {
    let (mut method, mut host, mut path) = ("GET".to_owned(), String::new(), "/".to_owned());
    let mut headers = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or_else(|| format!("{key} is not percent-encoded UTF-8"))?;
        match key {
            "method" => method = value,
            "host" => host = value,
            "path" => path = value,
            "header" => {
                let (name, value) = value.split_once(':').ok_or("header is name:value")?;
                headers.push((name.to_owned(), value.to_owned()));
            }
            _ => return Err(format!("{key} is none of host, path, method, header")),
        }
    }
    let asked = Asked::to(&method, &host, &path)?;
    Ok(headers.iter().fold(asked, |asked, (name, value)| asked.header(name, value)))
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
pub(super) async fn answer(shared: &Shared, query: &str) -> Answer {
    match remembered(query) {
        Ok(None) => supposed(shared, query),
        Ok(Some(why)) => match account::question(&why) {
            Ok(question) => {
                let (calls, left_off) = account::accounts(shared, &question, MOST_CALLS).await;
                let value = json!({"calls": calls, "left_off": left_off});
                Answer::new(200, "application/json", format!("{value:#}\n"))
            }
            Err(error) => Answer::text(400, &format!("{error}\n")),
        },
        Err(error) => Answer::text(400, &format!("{error}; /why?request=ID, /why?trace=ID, /why?last=N\n")),
    }
}

/// A question about calls that were made; none: it is about one that was not.
///
/// # Errors
/// What is wrong with it.
fn remembered(query: &str) -> Result<Option<Why>, String> {
    let mut why = Why::default();
    let (mut found, mut other) = (false, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !matches!(key, "request" | "trace" | "last") {
            other = Some(key);
            continue;
        }
        found = true;
        let value = decode(value).ok_or_else(|| format!("{key} is not percent-encoded UTF-8"))?;
        match key {
            "request" => why.request = Some(value),
            "trace" => why.trace = Some(value),
            _ => why.last = Some(value.parse().map_err(|_| "last is no whole number".to_owned())?),
        }
    }
    if let Some(other) = other.filter(|_| found) {
        return Err(format!("{other} does not go with request, trace or last"));
    }
    Ok(found.then_some(why))
}

/// What would become of a request.
fn supposed(shared: &Shared, query: &str) -> Answer {
    let asked = match parse(query) {
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
    let caller = asked.caller();
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
        "policies": plan.describe_rule(matched.rule),
        "rate_limits": plan.describe_limits(matched.rule),
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
        let asked = parse("host=a%3A81&path=/x%3Fy%3D1&method=POST&header=X-User:%20anna+b").unwrap();
        assert_eq!((asked.authority(), asked.caller().port, asked.method()), ("a:81", 81, "POST"));
        assert_eq!((asked.path(), asked.query()), ("/x", Some("y=1")));
        assert_eq!(Head::header(&asked, "x-user").as_deref(), Some(&b"anna b"[..]));
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
            let error = parse(query).unwrap_err();
            assert!(error.contains(what), "{query}: {error}");
        }
    }
}
