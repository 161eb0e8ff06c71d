//! Why a request goes where it goes: each rule of its host in order, and what keeps it from matching. For `/why`
//! and the command line; the answer is that of [`Plan::route`].

use serde_json::{Value, json};

use super::Plan;
use crate::call::{Call, Caller, Head};
use crate::redact;
use crate::route::block::{Block, Condition, PathMatch, query_parameter};
use crate::route::text::TextMatch;

/// At most this many rules are explained.
const EXPLAINED: usize = 100;

impl Plan {
    /// What [`Plan::route`] answers for this request, and why not one of the rules before.
    pub fn why<H: Head>(&self, head: &H, call: &Call, caller: &Caller) -> Value {
        let answer = match self.route(head, call, caller) {
            Ok(matched) => self.describe_rule(matched.rule),
            Err(deny) => json!({"refused": deny.reason.word(), "detail": deny.detail.as_deref()}),
        };
        let before = self.passed_over(head, caller).into_iter();
        let before: Vec<Value> = before.map(|(rule, why)| json!({"rule": rule, "why_not": why})).collect();
        let known = self.routes.host(head.authority()).is_some();
        json!({"virtual_host": known, "answer": answer, "before": before})
    }

    /// The rules of the request's host that come before the one that matches: the name of each, and for each of its
    /// alternatives the first condition that does not hold.
    pub fn passed_over<H: Head>(&self, head: &H, caller: &Caller) -> Vec<(&str, Vec<String>)> {
        let Some(host) = self.routes.host(head.authority()) else { return Vec::new() };
        let matched = host.route(head, caller).map_or(usize::MAX, |(_, block)| block.rule as usize);
        host.rules()
            .iter()
            .enumerate()
            .take(matched.min(EXPLAINED))
            .map(|(at, rule)| {
                let blocks = host.blocks().iter().filter(|block| block.rule as usize == at);
                (&*rule.name, blocks.filter_map(|block| why_not(block, head, caller)).collect())
            })
            .collect()
    }
}

/// The first condition of a block that does not hold.
fn why_not<H: Head>(block: &Block, head: &H, caller: &Caller) -> Option<String> {
    if !block.path.matches(head.path()) {
        let want = match &block.path {
            PathMatch::Any => "anything".to_owned(),
            PathMatch::Text(text) => shown(text),
            PathMatch::ExactNoCase(path) => format!("exactly `{path}` in any case"),
            PathMatch::PrefixNoCase(path) => format!("`{path}` in any case at its start"),
        };
        return Some(format!("the path is `{}`, not {want}", redact::path(head.path())));
    }
    block
        .rest
        .iter()
        .find(|condition| !condition.matches(head, caller))
        .map(|failed| reason(failed, head, caller))
}

fn reason<H: Head>(failed: &Condition, head: &H, caller: &Caller) -> String {
    let not = |what: &str, own: &str, text: &TextMatch| format!("{what} is `{own}`, not {}", shown(text));
    match failed {
        Condition::Method(text) => not("the method", head.method(), text),
        Condition::Scheme(text) => not("the scheme", head.scheme(), text),
        Condition::Authority(text) => not("the authority", head.authority(), text),
        Condition::Header(name, text) => match head.header(name) {
            Some(_) if redact::is_sensitive_header(name) => format!("the header {name} is another"),
            Some(value) => {
                not(&format!("the header {name}"), &redact::value(&String::from_utf8_lossy(&value)), text)
            }
            None => format!("the header {name} is not there"),
        },
        Condition::NotHeader(name, _) if redact::is_sensitive_header(name) => {
            format!("the header {name} is what it must not be")
        }
        Condition::NotHeader(name, text) => format!("the header {name} is {}", shown(text)),
        Condition::Query(name, text) => match query_parameter(head.query(), name) {
            Some(_) if redact::is_sensitive_parameter(name) => {
                format!("the query parameter {name} is another")
            }
            Some(value) => not(&format!("the query parameter {name}"), &redact::value(value), text),
            None => format!("the query parameter {name} is not there"),
        },
        Condition::Port(port) => format!("the port is {}, not {port}", caller.port),
    }
}

fn shown(text: &TextMatch) -> String {
    match text {
        TextMatch::Exact(want) => format!("exactly `{want}`"),
        TextMatch::Prefix(want) => format!("`{want}` at its start"),
        TextMatch::Regex(pattern) => format!("the expression `{}`", pattern.source()),
        TextMatch::Present => "there".to_owned(),
    }
}
