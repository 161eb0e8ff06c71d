//! A call's record as spans: one SERVER span for what arrived, one CLIENT span for each try. Names are those of the semantic
//! conventions (HTTP 1.44; gen_ai, mcp and a2a as in development), or begin with `pilotfish.`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{Display, Write as _};
use std::net::{IpAddr, SocketAddr};

use pilotfish_filters::authz::Chain;
use pilotfish_filters::clock::Micros;
use pilotfish_filters::redact;
use pilotfish_filters::verdict::{Fault, Reason};

use super::pb::{self, Attributes};
use crate::clock::Epoch;
use crate::telemetry::call::{CallRecord, Ended, Extra, TRIES, Try, Value};
use crate::telemetry::export::Why;

/// Attributes that others bring (tags, what is known of a gen-AI call) in one span: OpenTelemetry's limit. More are counted.
const MOST_ATTRIBUTES: usize = 128;

/// Addresses whose text is remembered.
const MOST_ADDRESSES: usize = 512;

/// `SpanKind` of the protocol.
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

/// `SpanFlags`: the trace's flag, that it is known whether the parent is remote, and that it is.
const SAMPLED: u32 = 1;
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// Field numbers of `Span`.
mod field {
    pub const TRACE_ID: u32 = 1;
    pub const SPAN_ID: u32 = 2;
    pub const TRACE_STATE: u32 = 3;
    pub const PARENT: u32 = 4;
    pub const NAME: u32 = 5;
    pub const KIND: u32 = 6;
    pub const START: u32 = 7;
    pub const END: u32 = 8;
    pub const ATTRIBUTES: u32 = 9;
    pub const DROPPED_ATTRIBUTES: u32 = 10;
    pub const EVENTS: u32 = 11;
    pub const STATUS: u32 = 15;
    pub const FLAGS: u32 = 16;
}

/// Makes spans. Its buffers and what it remembers are used again for each call.
#[derive(Debug, Default)]
pub struct Spans {
    span: Vec<u8>,
    part: Vec<u8>,
    text: String,
    addresses: HashMap<Address, Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Address {
    Ip(IpAddr),
    Socket(SocketAddr),
}

/// For whom a call is; records keep chains of a bounded size.
fn delegation(attributes: &mut Attributes<'_>, chain: &Chain) {
    attributes.text("pilotfish.delegation.origin", &redact::value(&chain.origin));
    attributes.number("pilotfish.delegation.depth", i64::try_from(chain.agents.len()).unwrap_or(i64::MAX));
    if !chain.agents.is_empty() {
        attributes.list("pilotfish.delegation.agents", chain.agents.iter().map(|agent| &*agent.id));
    }
    if chain.uncertain {
        attributes.flag("pilotfish.delegation.uncertain", true);
    }
}

impl Spans {
    /// Appends the call's spans to `out`, as fields 2 (`spans`) of a `ScopeSpans`; says how many.
    pub fn append(&mut self, out: &mut Vec<u8>, call: &CallRecord, why: Why, epoch: Epoch) -> usize {
        let facts = Facts::of(call, why, epoch);
        self.server(&facts);
        pb::bytes(out, 2, &self.span);
        for place in 0..call.tried().len() {
            self.client(&facts, place);
            pb::bytes(out, 2, &self.span);
        }
        1 + call.tried().len()
    }

    fn server(&mut self, facts: &Facts<'_>) {
        let call = facts.call;
        // An agent that does not say whose call it serves is joined by this very process.
        let remote = !call.parent.is_none() && !call.inferred;
        let parent = (!call.parent.is_none()).then_some(&call.parent.0);
        self.begin(facts, &call.span.0, parent.map(|id| &id[..]), SERVER, remote);
        facts.push_name(&mut self.text, SERVER);
        pb::bytes(&mut self.span, field::NAME, self.text.as_bytes());
        let (start, end) = (call.started, Micros(call.started.0.saturating_add(call.stages.ended)));
        self.times(facts.epoch, start, end);
        self.peer_attributes("network.peer.address", "network.peer.port", call.peer);
        self.ip_attribute("client.address", call.peer.ip());
        let mut attributes = Attributes::new(&mut self.span, field::ATTRIBUTES);
        facts.asked(&mut attributes);
        attributes.text("url.path", &facts.path);
        attributes.text("url.scheme", facts.scheme());
        attributes.text("network.protocol.name", "http");
        attributes.text("network.protocol.version", if call.h2 { "2" } else { "1.1" });
        if call.status != 0 {
            attributes.number("http.response.status_code", call.status.into());
        }
        if call.sent != 0 {
            attributes.number("http.request.body.size", call.sent.cast_signed());
        }
        if call.received != 0 {
            attributes.number("http.response.body.size", call.received.cast_signed());
        }
        facts.own(&mut attributes);
        attributes.text("pilotfish.request_id", call.request_id.as_str());
        attributes.text("pilotfish.caller", call.caller.as_str());
        attributes.text("pilotfish.capability", call.capability.as_str());
        attributes.text("pilotfish.workflow.id", call.workflow.as_str());
        attributes.text("pilotfish.reason", call.reason.map_or("", Reason::word));
        if let Some(chain) = call.chain.as_deref() {
            delegation(&mut attributes, chain);
        }
        if call.inferred {
            attributes.flag("pilotfish.trace.inferred", true);
        }
        if call.acted.0 != 0 {
            attributes.list("pilotfish.policies", call.acted.words().collect::<Vec<_>>().iter().copied());
        }
        if call.tries as usize > TRIES {
            attributes.number("pilotfish.tries", call.tries.into());
        }
        let mut dropped = 0;
        if let Some(extra) = facts.extra {
            // Of a call without a try nobody else would tell it.
            let all = call.tries == 0;
            dropped = others(&mut attributes, extra, |key| all || !of_the_answer(key));
            for (at, (name, value)) in extra.tags.iter().enumerate() {
                if at < MOST_ATTRIBUTES { attributes.text(name, value) } else { dropped += 1 }
            }
        }
        let outcome = facts.of_call();
        self.outcome(&outcome, call.status);
        self.dropped(dropped);
        let stages = call.stages;
        for (name, at) in [
            ("pilotfish.decoded", stages.decoded),
            ("pilotfish.routed", stages.routed),
            ("pilotfish.admitted", stages.admitted),
            ("pilotfish.answered", stages.answered),
        ] {
            if at != 0 {
                self.event(name, facts.at(at.into()), "", "");
            }
        }
        if let Some(explained) = facts.extra.and_then(|extra| extra.explained.as_deref()) {
            self.event("pilotfish.explained", facts.at(stages.ended), "pilotfish.explained", explained);
        }
    }

    fn client(&mut self, facts: &Facts<'_>, place: usize) {
        let call = facts.call;
        let Some(attempt) = call.tried().get(place) else { return };
        let won = facts.won == Some(place);
        self.begin(facts, &attempt.span.0, Some(&call.span.0), CLIENT, false);
        facts.push_name(&mut self.text, CLIENT);
        pb::bytes(&mut self.span, field::NAME, self.text.as_bytes());
        let end = match attempt.answered {
            0 => call.stages.ended,
            _ if won => call.stages.ended,
            answered => answered.into(),
        };
        let start = u64::from(attempt.began);
        self.times(facts.epoch, facts.after(start), facts.after(end.max(start)));
        if let Some(endpoint) = attempt.endpoint {
            self.peer_attributes("network.peer.address", "network.peer.port", endpoint);
            let text = known(&mut self.addresses, Address::Socket(endpoint));
            Attributes::new(&mut self.span, field::ATTRIBUTES).text("pilotfish.endpoint", text);
        }
        self.text.clear();
        let _ = write!(self.text, "{}://{}", facts.scheme(), facts.authority);
        self.text.push_str(&facts.path);
        let mut attributes = Attributes::new(&mut self.span, field::ATTRIBUTES);
        facts.asked(&mut attributes);
        attributes.text("url.full", &self.text);
        attributes.text("network.protocol.name", "http");
        if attempt.status != 0 {
            attributes.number("http.response.status_code", attempt.status.into());
        }
        match facts.resends(place) {
            0 => {}
            resends => attributes.number("http.request.resend_count", resends),
        }
        facts.own(&mut attributes);
        attributes.text("pilotfish.agent", attempt.agent.as_str());
        attributes.text("pilotfish.try.ended", attempt.ended.word());
        if attempt.candidates.1 != 0 {
            attributes.number("pilotfish.candidates", attempt.candidates.1.into());
        }
        if attempt.cost.is_finite() {
            attributes.float("pilotfish.cost", attempt.cost.into());
        }
        let mut dropped = 0;
        if let Some(extra) = facts.extra {
            // What the answer said is told once, by the try that it came from: tokens are counted by adding.
            dropped = others(&mut attributes, extra, |key| won || !of_the_answer(key));
        }
        let outcome = facts.of_try(attempt, won);
        self.outcome(&outcome, attempt.status);
        self.dropped(dropped);
        let began = u64::from(attempt.began);
        if attempt.connected > attempt.began && !attempt.reused {
            self.event("pilotfish.connected", facts.at(attempt.connected.into()), "", "");
        }
        if won && u64::from(attempt.answered) > began {
            self.event("pilotfish.answered", facts.at(attempt.answered.into()), "", "");
        }
    }

    /// What every span begins with.
    fn begin(&mut self, facts: &Facts<'_>, id: &[u8], parent: Option<&[u8]>, kind: u64, remote: bool) {
        let span = &mut self.span;
        span.clear();
        pb::bytes(span, field::TRACE_ID, &facts.call.trace.0);
        pb::bytes(span, field::SPAN_ID, id);
        if let Some(state) = facts.extra.map(|extra| &*extra.tracestate).filter(|state| !state.is_empty()) {
            pb::bytes(span, field::TRACE_STATE, state.as_bytes());
        }
        let mut flags = PARENT_IS_KNOWN;
        if facts.call.sampled {
            flags |= SAMPLED;
        }
        if remote {
            flags |= PARENT_IS_REMOTE;
        }
        if let Some(parent) = parent {
            pb::bytes(span, field::PARENT, parent);
        }
        pb::fixed32(span, field::FLAGS, flags);
        pb::number(span, field::KIND, kind);
    }

    fn times(&mut self, epoch: Epoch, start: Micros, end: Micros) {
        pb::fixed64(&mut self.span, field::START, epoch.nanos(start));
        pb::fixed64(&mut self.span, field::END, epoch.nanos(end));
    }

    fn ip_attribute(&mut self, key: &str, ip: IpAddr) {
        let text = known(&mut self.addresses, Address::Ip(ip.to_canonical()));
        Attributes::new(&mut self.span, field::ATTRIBUTES).text(key, text);
    }

    fn peer_attributes(&mut self, address: &str, port: &str, peer: SocketAddr) {
        self.ip_attribute(address, peer.ip());
        Attributes::new(&mut self.span, field::ATTRIBUTES).number(port, peer.port().into());
    }

    /// `error.type` and the status.
    fn outcome(&mut self, outcome: &Outcome, status: u16) {
        let (kind, message) = match outcome {
            Outcome::Unset => return,
            Outcome::Status => {
                self.text.clear();
                let _ = write!(self.text, "{status}");
                (&*self.text, "")
            }
            Outcome::Word(word) => (*word, *word),
        };
        Attributes::new(&mut self.span, field::ATTRIBUTES).text("error.type", kind);
        self.part.clear();
        if !message.is_empty() {
            pb::bytes(&mut self.part, 2, message.as_bytes());
        }
        pb::number(&mut self.part, 3, 2);
        pb::bytes(&mut self.span, field::STATUS, &self.part);
    }

    fn dropped(&mut self, attributes: usize) {
        if attributes > 0 {
            pb::number(&mut self.span, field::DROPPED_ATTRIBUTES, attributes as u64);
        }
    }

    fn event(&mut self, name: &str, at: u64, key: &str, value: &str) {
        self.part.clear();
        pb::fixed64(&mut self.part, 1, at);
        pb::bytes(&mut self.part, 2, name.as_bytes());
        if !key.is_empty() {
            Attributes::new(&mut self.part, 3).text(key, value);
        }
        pb::bytes(&mut self.span, field::EVENTS, &self.part);
    }
}

/// The text of an address, made once for as long as there are not too many of them.
fn known(addresses: &mut HashMap<Address, Box<str>>, address: Address) -> &str {
    if addresses.len() >= MOST_ADDRESSES && !addresses.contains_key(&address) {
        addresses.clear();
    }
    addresses.entry(address).or_insert_with(|| {
        let shown: &dyn Display = match &address {
            Address::Ip(ip) => ip,
            Address::Socket(socket) => socket,
        };
        shown.to_string().into()
    })
}

/// What is known only once the answer is there.
fn of_the_answer(key: &str) -> bool {
    key.starts_with("gen_ai.usage.") || key.starts_with("gen_ai.response.")
}

/// Appends what others know of the call, as far as it is wanted; says how many there was no room for.
fn others(attributes: &mut Attributes<'_>, extra: &Extra, wanted: impl Fn(&str) -> bool) -> usize {
    let mut count = 0;
    for (key, value) in extra.attributes.iter().filter(|(key, _)| wanted(key)) {
        count += 1;
        if count > MOST_ATTRIBUTES {
            continue;
        }
        match value {
            Value::Text(text) => attributes.text(key, text),
            Value::Number(number) => attributes.number(key, *number),
            Value::Float(number) => attributes.float(key, *number),
            Value::List(list) => attributes.list(key, list.iter().map(|text| &**text)),
        }
    }
    count.saturating_sub(MOST_ATTRIBUTES)
}

/// How a span ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Well, as far as its status goes.
    Unset,
    /// Its status is an error.
    Status,
    /// It failed in another way.
    Word(&'static str),
}

/// What spans of one call share.
#[derive(Debug)]
struct Facts<'a> {
    call: &'a CallRecord,
    extra: Option<&'a Extra>,
    why: Why,
    epoch: Epoch,
    /// The authority without what could be a password.
    authority: &'a str,
    host: &'a str,
    port: u16,
    /// The path, without what could be a credential.
    path: Cow<'a, str>,
    /// The try whose answer went down.
    won: Option<usize>,
}

impl<'a> Facts<'a> {
    fn of(call: &'a CallRecord, why: Why, epoch: Epoch) -> Self {
        let extra = call.extra.as_deref();
        let path = call.whole_path();
        let path = redact::path(if path.is_empty() { "/" } else { path });
        let authority = call.whole_host();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
        let (host, port) = split(authority);
        let port = port.unwrap_or(if call.https { 443 } else { 80 });
        let won = call.tried().iter().rposition(|attempt| attempt.ended == Ended::Answered);
        Facts { call, extra, why, epoch, authority, host, port, path, won }
    }

    fn scheme(&self) -> &'static str {
        if self.call.https { "https" } else { "http" }
    }

    fn after(&self, micros: u64) -> Micros {
        Micros(self.call.started.0.saturating_add(micros))
    }

    fn at(&self, micros: u64) -> u64 {
        self.epoch.nanos(self.after(micros))
    }

    /// What was asked for, in both kinds of span.
    fn asked(&self, attributes: &mut Attributes<'_>) {
        match method(self.call.method.as_str()) {
            Some(method) => attributes.text("http.request.method", method),
            None => {
                attributes.text("http.request.method", "_OTHER");
                attributes.text("http.request.method_original", self.call.method.as_str());
            }
        }
        if !self.host.is_empty() {
            attributes.text("server.address", self.host);
            attributes.number("server.port", self.port.into());
        }
    }

    /// Our own attributes, in both kinds of span.
    fn own(&self, attributes: &mut Attributes<'_>) {
        let call = self.call;
        attributes.text("pilotfish.direction", call.direction.word());
        attributes.text("pilotfish.rule", call.rule.as_str());
        attributes.text("pilotfish.cluster", call.cluster.as_str());
        if self.why == Why::Partial {
            attributes.flag("pilotfish.trace.partial", true);
        }
    }

    /// Tries before this one.
    fn resends(&self, place: usize) -> i64 {
        if place + 1 == TRIES { i64::from(self.call.tries) - 1 } else { place as i64 }
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        let found = self.extra?.attributes.iter().find(|(name, _)| *name == key);
        match found {
            Some((_, Value::Text(text))) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// What kind of thing was done, of few kinds: never the path.
    fn push_name(&self, name: &mut String, kind: u64) {
        name.clear();
        let (what, of) = if let Some(method) = self.text("mcp.method.name") {
            (method, self.text("gen_ai.tool.name").or_else(|| self.text("gen_ai.prompt.name")))
        } else if let Some(method) = self.text("a2a.method.name") {
            (method, None)
        } else if let Some(operation) = self.text("gen_ai.operation.name") {
            let of = match operation {
                "invoke_agent" | "create_agent" => self.text("gen_ai.agent.name"),
                "execute_tool" => self.text("gen_ai.tool.name"),
                "invoke_workflow" => self.text("gen_ai.workflow.name"),
                _ => self.text("gen_ai.request.model"),
            };
            (operation, of)
        } else {
            let known = method(self.call.method.as_str()).unwrap_or("HTTP");
            let route = self.text("http.route").filter(|_| kind == SERVER);
            let rule = Some(self.call.rule.as_str()).filter(|rule| !rule.is_empty());
            (known, route.or(rule))
        };
        name.push_str(what);
        if let Some(of) = of {
            name.push(' ');
            name.push_str(of);
        }
    }

    /// Of the SERVER span: 5xx, and what broke after its head was sent. A 4xx is the caller's fault.
    fn of_call(&self) -> Outcome {
        let call = self.call;
        match (call.status, call.reason) {
            (0, reason) => Outcome::Word(reason.unwrap_or(Reason::ClientGone).word()),
            (500.., Some(reason)) => Outcome::Word(reason.word()),
            (500.., None) => Outcome::Status,
            // Those who have seen enough of a stream hang up.
            (400..500, _) | (_, None | Some(Reason::ClientGone)) => Outcome::Unset,
            (_, Some(reason)) => Outcome::Word(reason.word()),
        }
    }

    /// Of a CLIENT span: 4xx and 5xx, no answer at all, or one that broke off.
    fn of_try(&self, attempt: &Try, won: bool) -> Outcome {
        let broke = self.call.reason.filter(|reason| reason.fault() == Fault::Upstream);
        match attempt.ended {
            Ended::Answered if attempt.status >= 400 => Outcome::Status,
            Ended::Answered if won => broke.map_or(Outcome::Unset, |reason| Outcome::Word(reason.word())),
            Ended::Answered | Ended::Cancelled => Outcome::Unset,
            Ended::Open => broke.map_or(Outcome::Unset, |reason| Outcome::Word(reason.word())),
            failed => Outcome::Word(failed.word()),
        }
    }
}

/// Methods that the conventions know.
fn method(method: &str) -> Option<&str> {
    let known = matches!(
        method,
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" | "QUERY"
    );
    known.then_some(method)
}

/// Host and port of an authority.
fn split(authority: &str) -> (&str, Option<u16>) {
    let whole = (authority, None);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => port.parse().map_or(whole, |port| (host, Some(port))),
        _ => whole,
    };
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    (host, port)
}

#[cfg(test)]
mod tests;
