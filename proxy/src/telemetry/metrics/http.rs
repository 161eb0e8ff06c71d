//! `http.server.request.duration` and `http.client.request.duration`: one value for each call, and one for each of its tries.

use std::borrow::Cow;

use pilotfish_filters::verdict::Reason;

use super::BUCKETS;
use super::family::Label;
use super::table::{Key, Table, Traced};
use crate::listen::Direction;
use crate::telemetry::call::{CallRecord, Ended, Try};
use crate::telemetry::series::Slot;

/// The most that a worker tells apart; what comes later is told together, with the label by which OpenTelemetry's SDKs say so.
pub(super) const MOST: usize = 512;

/// Methods that have a name of their own (RFC 9110, 5789 and 10008), all others are `_OTHER`.
const METHODS: [&str; 11] =
    ["_OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];

/// How tries end without an answer, as `error.type`; after the reasons of refusals.
const ENDS: [Ended; 4] = [Ended::NotConnected, Ended::Reset, Ended::TimedOut, Ended::Cancelled];

/// `error.type` is the status.
const BY_STATUS: u64 = 127;

const _: () = assert!(Reason::ALL.len() + ENDS.len() < BY_STATUS as usize);

/// Whose view it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Of the one that is called.
    Server = 0,
    /// Of the one that calls.
    Client = 1,
}

/// Where a call's rule and cluster are among the names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Places {
    /// The rule that matched.
    pub rule: Option<Slot>,
    /// The cluster that it led to.
    pub cluster: Option<Slot>,
}

struct Parts {
    side: Side,
    direction: u64,
    method: u64,
    status: u16,
    /// 0: none; else the slot and one more.
    place: u64,
    /// 0: none.
    error: u64,
    /// 0: not known; 1: 1.1; 2: 2.
    version: u64,
    https: u64,
}

impl Parts {
    fn key(&self) -> Key {
        Key::of(self.side as u8)
            .with(1, self.direction)
            .with(4, self.method)
            .with(10, self.status.into())
            .with(9, self.place)
            .with(7, self.error)
            .with(2, self.version)
            .with(1, self.https)
    }

    fn of(mut key: Key) -> Parts {
        let (https, version, error) = (key.take(1), key.take(2), key.take(7));
        let (place, status, method, direction) = (key.take(9), key.take(10), key.take(4), key.take(1));
        let side = if key == Key::of(Side::Server as u8) { Side::Server } else { Side::Client };
        Parts { side, direction, method, status: status as u16, place, error, version, https }
    }
}

pub(super) fn place(slot: Option<Slot>) -> u64 {
    slot.map_or(0, |slot| slot.index() as u64 + 1)
}

fn method(name: &str) -> u64 {
    METHODS.iter().position(|known| *known == name).unwrap_or(0) as u64
}

/// Counts a call that has ended, and its tries.
pub(super) fn ended(table: &Table, call: &CallRecord, places: Places) {
    let micros = call.stages.ended;
    let at = |span, after: u64| {
        let at = pilotfish_filters::clock::Micros(call.started.0.saturating_add(after));
        call.sampled.then_some(Traced { trace: call.trace, span, at })
    };
    let server = Parts {
        side: Side::Server,
        direction: call.direction as u64,
        method: method(call.method.as_str()),
        status: call.status,
        place: place(places.rule),
        error: error_of_call(call.status, call.reason),
        version: 1 + u64::from(call.h2),
        https: call.https.into(),
    };
    let count = |parts: &Parts, micros, traced| {
        table.record(parts.key(), Key::of(parts.side as u8), &BUCKETS, micros, traced);
    };
    count(&server, micros, at(call.span, micros));
    // The answer of the last try that has one is the caller's: it took until the call's end.
    let last = call.tried().iter().rposition(|one| one.ended == Ended::Answered);
    for (number, one) in call.tried().iter().enumerate() {
        let end = match one.ended {
            Ended::Answered if last == Some(number) => micros,
            Ended::Open => micros,
            _ => one.answered.into(),
        };
        let took = end.saturating_sub(one.began.into());
        let client = Parts {
            side: Side::Client,
            status: one.status,
            place: place(places.cluster),
            error: error_of_try(one),
            version: 0,
            ..server
        };
        count(&client, took, at(one.span, end));
    }
}

/// Counts a request of which nothing is known but how it was refused.
pub(super) fn refused(table: &Table, direction: Direction, h2: bool, reason: Reason) {
    let parts = Parts {
        side: Side::Server,
        direction: direction as u64,
        method: 0,
        status: reason.status(),
        place: 0,
        error: error_of_call(reason.status(), Some(reason)),
        version: 1 + u64::from(h2),
        https: 0,
    };
    table.record(parts.key(), Key::of(parts.side as u8), &BUCKETS, 0, None);
}

/// What a caller did wrong is no error of a server.
pub(super) fn error_of_call(status: u16, reason: Option<Reason>) -> u64 {
    match (status, reason) {
        (1..500, _) => 0,
        (_, Some(reason)) => reason as u64 + 1,
        (0, None) => error_of_end(Ended::Cancelled),
        _ => BY_STATUS,
    }
}

fn error_of_try(one: &Try) -> u64 {
    match one.status {
        0 if one.ended == Ended::Answered => 0,
        0 => error_of_end(one.ended),
        400.. => BY_STATUS,
        _ => 0,
    }
}

fn error_of_end(end: Ended) -> u64 {
    let end = ENDS.iter().position(|known| *known == end).unwrap_or(ENDS.len() - 1);
    (Reason::ALL.len() + end) as u64 + 1
}

pub(super) fn error_word(error: u64, status: u16) -> Option<Cow<'static, str>> {
    let number = usize::try_from(error).ok()?.checked_sub(1)?;
    if error == BY_STATUS {
        return Some(status.to_string().into());
    }
    let reason = Reason::ALL.get(number).map(|reason| reason.word());
    reason.or_else(|| ENDS.get(number - Reason::ALL.len()).map(|end| end.word())).map(Cow::Borrowed)
}

/// Names by slot.
pub(super) struct Naming<'a> {
    pub(super) rules: &'a [Box<str>],
    pub(super) clusters: &'a [Box<str>],
}

/// What a distribution is of, in labels; and whose view, of calls which way. Those that are shared have only the label that says so.
pub(super) fn labels(key: Key, shared: bool, names: &Naming<'_>) -> (Side, Option<Direction>, Vec<Label>) {
    if shared {
        let side = if key == Key::of(Side::Server as u8) { Side::Server } else { Side::Client };
        return (side, None, vec![("otel.metric.overflow", "true".into())]);
    }
    let parts = Parts::of(key);
    let direction = Direction::ALL[usize::from(parts.direction == Direction::Inbound as u64)];
    let mut labels: Vec<Label> = Vec::with_capacity(8);
    let method = METHODS.get(parts.method as usize).copied().unwrap_or(METHODS[0]);
    labels.push(("http.request.method", method.into()));
    if parts.status != 0 {
        labels.push(("http.response.status_code", parts.status.to_string().into()));
    }
    if let Some(word) = error_word(parts.error, parts.status) {
        labels.push(("error.type", word));
    }
    let (name, names) = match parts.side {
        Side::Server => ("http.route", names.rules),
        Side::Client => ("server.address", names.clusters),
    };
    if let Some(place) = (parts.place as usize).checked_sub(1) {
        labels.push((name, names.get(place).map_or("other", |name| &**name).to_owned().into()));
    }
    if let Some(version) = [None, Some("1.1"), Some("2")].get(parts.version as usize).copied().flatten() {
        labels.push(("network.protocol.version", version.into()));
    }
    labels.push(("url.scheme", if parts.https == 1 { "https" } else { "http" }.into()));
    labels.push(("pilotfish.direction", direction.word().into()));
    (parts.side, Some(direction), labels)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::series::Names;

    fn call(status: u16, reason: Option<Reason>) -> CallRecord {
        let mut call = CallRecord { status, reason, ..CallRecord::default() };
        call.method.set("GET");
        call.stages.ended = 7000;
        call
    }

    fn told(calls: &[CallRecord]) -> Vec<String> {
        let (table, rules) = (Table::new(MOST), Names::default());
        let slot = rules.slot("default/a/0");
        for one in calls {
            ended(&table, one, Places { rule: Some(slot), cluster: Some(slot) });
        }
        let names = Naming { rules: &rules.list(), clusters: &rules.list() };
        let mut told = Vec::new();
        table.each(Duration::ZERO, |key, shared, values| {
            let (side, _, labels) = labels(key, shared, &names);
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            told.push(format!("{side:?} {} {} {}", values.count(), values.sum, labels.join(" ")));
        });
        told.sort();
        told
    }

    #[test]
    fn a_call_and_each_of_its_tries_are_told() {
        let mut call = call(200, None);
        for (n, (ended, status)) in
            [(Ended::NotConnected, 0), (Ended::Answered, 503), (Ended::Answered, 200)].into_iter().enumerate()
        {
            let n = n as u64;
            let one = call.begin_try(Default::default(), None, pilotfish_filters::clock::Micros(n * 1000));
            (one.ended, one.status, one.answered) = (ended, status, (n as u32 + 1) * 1000);
        }
        let end = "url.scheme=http pilotfish.direction=outbound";
        let to = "server.address=default/a/0";
        assert_eq!(
            told(&[call]),
            [
                format!("Client 1 1000 http.request.method=GET error.type=not-connected {to} {end}"),
                format!(
                    "Client 1 1000 http.request.method=GET http.response.status_code=503 error.type=503 {to} {end}"
                ),
                format!("Client 1 5000 http.request.method=GET http.response.status_code=200 {to} {end}"),
                format!(
                    "Server 1 7000 http.request.method=GET http.response.status_code=200 http.route=default/a/0 \
                     network.protocol.version=1.1 {end}"
                ),
            ]
        );
    }

    #[test]
    fn an_error_is_the_reason_or_the_status_and_never_what_a_caller_did_wrong() {
        let errors: Vec<String> = [
            (503, Some(Reason::NoEndpoint)),
            (502, None),
            (0, Some(Reason::ClientGone)),
            (404, Some(Reason::NoRoute)),
            (0, None),
        ]
        .into_iter()
        .map(|(status, reason)| {
            let told = told(&[call(status, reason)]).remove(0);
            told.split(' ').find(|word| word.starts_with("error")).unwrap_or("none").to_owned()
        })
        .collect();
        let wanted = [
            "error.type=no-healthy-endpoint",
            "error.type=502",
            "error.type=client-gone",
            "none",
            "error.type=cancelled",
        ];
        assert_eq!(errors, wanted);
    }

    #[test]
    fn a_made_up_method_is_other() {
        let mut odd = call(200, None);
        odd.method.set("BREW");
        assert!(told(&[odd])[0].contains("http.request.method=_OTHER"));
    }
}
