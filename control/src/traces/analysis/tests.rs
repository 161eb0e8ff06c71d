//! Traces made by hand with numbers that can be checked, traces made by chance with sums that have to hold, and hostile ones.

use std::sync::Arc;
use std::time::Instant;

use pilotfish_filters::trace::{SpanId, TraceId};

use super::compare::{Sample, compare};
use super::workflow::Sum;
use super::*;
use crate::api::analysis::{ChangeKind, Recommendation, Severity, Window};
use crate::traces::span::Resource;

const MS: u64 = 1_000_000;

fn id(number: u64) -> SpanId {
    SpanId(number.to_be_bytes())
}

fn resource(agent: &str, host: &str) -> Arc<Resource> {
    let (namespace, service) = agent.split_once('/').unwrap_or(("", agent));
    let attributes = vec![("host.name".to_owned(), Value::Text(host.into()))];
    Arc::new(Resource { service: service.into(), namespace: namespace.into(), attributes })
}

/// A span of `agent` from `start` for `length` milliseconds.
fn span(number: u64, parent: u64, kind: Kind, agent: &str, start: u64, length: u64) -> Span {
    Span {
        id: id(number),
        parent: (parent > 0).then(|| id(parent)),
        name: format!("s{number}"),
        kind,
        start: (1_000_000 + start) * MS,
        end: (1_000_000 + start + length) * MS,
        error: false,
        message: String::new(),
        attributes: Vec::new(),
        events: Vec::new(),
        resource: resource(agent, "one"),
    }
}

impl Span {
    fn with(mut self, name: &str, value: Value) -> Span {
        self.attributes.push((name.to_owned(), value));
        self
    }

    fn says(self, name: &str, text: &str) -> Span {
        self.with(name, Value::Text(text.into()))
    }

    fn failed(mut self, message: &str) -> Span {
        (self.error, self.message) = (true, message.into());
        self
    }

    fn on(mut self, host: &str) -> Span {
        let agent = format!("{}/{}", self.resource.namespace, self.resource.service);
        self.resource = resource(&agent, host);
        self
    }
}

fn trace(mut spans: Vec<Span>) -> Trace {
    spans.sort_by_key(|span| (span.start, span.id.0));
    Trace { id: TraceId([7; 16]), spans }
}

/// The four spans of a call of `from` to `to` as their sidecars tell it; the innermost is the agent's own work.
fn call(first: u64, parent: u64, from: &str, to: &str, start: u64, length: u64, hop: u64) -> Vec<Span> {
    let spans = [
        (Kind::Server, "outbound", from),
        (Kind::Client, "outbound", from),
        (Kind::Server, "inbound", to),
        (Kind::Client, "inbound", to),
    ];
    let mut above = parent;
    let mut all = Vec::new();
    for (at, (kind, direction, agent)) in (0_u64..).zip(spans) {
        let (start, length) = (start + at * hop, length - 2 * at * hop);
        all.push(span(first + at, above, kind, agent, start, length).says("pilotfish.direction", direction));
        above = first + at;
    }
    all
}

fn sums_hold(analysis: &TraceAnalysis) {
    let path: u64 = analysis.critical_path.iter().map(|piece| piece.duration_ns).sum();
    if analysis.left_out == 0 {
        assert_eq!(path, analysis.total_ns, "the path has no gap");
        let mut at = 0;
        for piece in &analysis.critical_path {
            assert_eq!(piece.at_ns, at, "pieces are in order");
            at += piece.duration_ns;
        }
    }
    let time = analysis.time;
    assert_eq!(time.agent_ns + time.mesh_ns + time.outside_ns + time.nobody_ns, analysis.total_ns);
    let own = total(analysis.agents.iter().map(|agent| agent.self_ns));
    assert!(
        own <= analysis.total_ns.saturating_mul(analysis.width.max(1) as u64),
        "no more at once than the width"
    );
    let critical: u64 = analysis.agents.iter().map(|agent| agent.critical_ns).sum();
    assert_eq!(critical, time.agent_ns + time.outside_ns);
    for found in &analysis.recommendations {
        assert!(found.saving_ns <= analysis.total_ns, "{found:?}");
        assert!(!found.finding.is_empty() && !found.advice.is_empty());
    }
}

fn found<'a>(analysis: &'a TraceAnalysis, id: &str) -> Option<&'a Recommendation> {
    analysis.recommendations.iter().find(|found| found.id == id)
}

#[test]
fn the_time_of_a_call_is_its_agents_and_the_mesh_between() {
    let analysis = analyse(&trace(call(1, 0, "default/planner", "default/coder", 0, 1000, 10)));
    sums_hold(&analysis);
    assert_eq!((analysis.total_ns, analysis.depth, analysis.width), (1000 * MS, 1, 1));
    assert_eq!((analysis.time.agent_ns, analysis.time.mesh_ns), (940 * MS, 60 * MS));
    let first = &analysis.agents[0];
    assert_eq!(
        (first.agent.as_str(), first.self_ns, first.critical_ns),
        ("default/coder", 940 * MS, 940 * MS)
    );
    let advice = found(&analysis, "bottleneck").unwrap();
    assert_eq!(
        advice.finding,
        "own work of default/coder takes 940 ms of 1 s (94 %): `s3`, 1 call, the longest 940 ms"
    );
    assert_eq!(advice.evidence, ["0000000000000004"]);
    let path: Vec<&str> = analysis.critical_path.iter().map(|piece| piece.name.as_str()).collect();
    assert_eq!(path, ["s1", "s1", "s3", "s3", "s3", "s1", "s1"]);
}

#[test]
fn calls_in_a_row_could_be_at_once_and_overlapping_ones_are() {
    let root = || span(1, 0, Kind::Server, "default/planner", 0, 1000).says("pilotfish.direction", "inbound");
    let calls = |starts: [u64; 3]| {
        let mut spans = vec![root()];
        for (at, start) in (0..).zip(starts) {
            spans.extend(call(10 + at * 10, 1, "default/planner", "default/coder", start, 300, 1));
        }
        analyse(&trace(spans))
    };
    let analysis = calls([0, 300, 600]);
    sums_hold(&analysis);
    let advice = found(&analysis, "sequential").unwrap();
    assert_eq!(advice.saving_ns, 600 * MS);
    assert!(
        advice.finding.starts_with("default/planner made 3 calls one after the other, 900 ms"),
        "{advice:?}"
    );
    assert_eq!((analysis.fan_out.calls, analysis.width), (3, 1));
    let analysis = calls([0, 100, 200]);
    sums_hold(&analysis);
    assert!(found(&analysis, "sequential").is_none());
    assert_eq!(analysis.width, 3);
}

#[test]
fn retries_refusals_tokens_and_the_same_again_are_counted_once() {
    let tokens = |span: Span| {
        span.with("gen_ai.usage.input_tokens", Value::Number(900))
            .with("gen_ai.usage.output_tokens", Value::Number(100))
    };
    let url = "https://api.example.com/v1/models?x=1";
    let mut spans =
        vec![span(1, 0, Kind::Server, "default/planner", 0, 1000).says("pilotfish.direction", "inbound")];
    for at in 0..2 {
        let (own, start) = (10 + 10 * at, at * 450);
        let call =
            span(own, 1, Kind::Server, "default/planner", start, 400).says("pilotfish.direction", "outbound");
        spans.push(tokens(call.says("pilotfish.capability", "chat")));
        for resend in 0..2 {
            let one = span(own + 1 + resend, own, Kind::Client, "default/planner", start + 200 * resend, 200)
                .says("pilotfish.direction", "outbound")
                .says("http.request.method", "GET")
                .says("url.full", url)
                .says("server.address", "api.example.com");
            let one = if resend > 0 {
                tokens(one.with("http.request.resend_count", Value::Number(1)))
            } else {
                one
            };
            spans.push(one);
        }
    }
    let refused =
        span(40, 1, Kind::Server, "default/planner", 950, 1).says("pilotfish.direction", "outbound");
    spans.push(refused.says("pilotfish.reason", "rate-limited").failed(""));
    let analysis = analyse(&trace(spans));
    sums_hold(&analysis);
    assert_eq!((analysis.retries, analysis.retried_ns), (2, 400 * MS));
    assert_eq!(analysis.refusals, [("rate-limited".to_owned(), 1)].into());
    let planner = analysis.agents.iter().find(|agent| agent.agent == "default/planner").unwrap();
    assert_eq!((planner.input_tokens, planner.output_tokens, planner.retries), (1800, 200, 2));
    assert_eq!(analysis.capabilities, [("chat".to_owned(), 800 * MS)].into());
    let host = &analysis.agents[0];
    assert_eq!((host.agent.as_str(), host.critical_ns), ("api.example.com", 800 * MS));
    assert!(found(&analysis, "outside").is_some() && found(&analysis, "retries").is_some());
    let advice = found(&analysis, "repeated").unwrap();
    assert!(advice.finding.contains(&format!("2 times for the same, `GET {url}`")), "{advice:?}");
    assert_eq!(advice.saving_ns, 400 * MS);
    assert_eq!(found(&analysis, "refusals").unwrap().finding, "sidecars refused 1 call: 1 x rate-limited");
}

#[test]
fn the_first_error_is_where_it_began() {
    let mut spans = call(1, 0, "default/planner", "default/coder", 0, 1000, 10);
    spans.extend(call(11, 4, "default/coder", "default/store", 100, 200, 10));
    spans.extend(call(21, 4, "default/coder", "default/other", 400, 200, 10));
    for span in &mut spans {
        span.error = true;
    }
    let at = spans.iter().position(|span| span.id == id(14)).unwrap();
    spans[at].message = "disk full".into();
    let analysis = analyse(&trace(spans));
    sums_hold(&analysis);
    let cause = analysis.root_cause.as_ref().unwrap();
    assert_eq!((cause.agent.as_str(), cause.span.as_str()), ("default/store", "000000000000000e"));
    assert_eq!(cause.spread, ["default/coder", "default/planner"]);
    assert_eq!(cause.why, "disk full");
    assert_eq!(analysis.recommendations[0].id, "error");
    assert_eq!(analysis.errors, 12);
}

#[test]
fn an_error_that_was_got_over_is_not_where_it_began() {
    let fails = |number, start, kind| span(number, 1, kind, "default/a", start, 10).failed("reset");
    let mut spans = vec![span(1, 0, Kind::Server, "default/a", 0, 100), fails(2, 10, Kind::Client)];
    let analysis = analyse(&trace(spans.clone()));
    assert!(analysis.root_cause.as_ref().is_some_and(|cause| cause.recovered && cause.why == "reset"));
    assert_eq!(found(&analysis, "error").unwrap().severity, Severity::Info);
    spans.push(span(3, 2, Kind::Server, "default/b", 12, 2).failed("earlier"));
    spans.push(span(5, 4, Kind::Server, "default/c", 60, 10).failed("later"));
    spans.push(span(4, 1, Kind::Client, "default/a", 50, 30).failed("later"));
    spans[0].error = true;
    spans[1].error = false;
    let analysis = analyse(&trace(spans));
    let cause = analysis.root_cause.as_ref().unwrap();
    assert_eq!((cause.why.as_str(), cause.recovered), ("later", false), "b's was got over, c's was not");
    assert_eq!(found(&analysis, "error").unwrap().severity, Severity::Critical);
}

#[test]
fn a_clock_that_is_off_is_corrected_for_its_machine() {
    let mut spans = call(1, 0, "default/planner", "default/coder", 0, 1000, 100);
    // The other machine is an hour ahead, and so is what is below.
    for span in &mut spans[2..] {
        (span.start, span.end) = (span.start + 3_600_000 * MS, span.end + 3_600_000 * MS);
        *span = span.clone().on("two");
    }
    let analysis = analyse(&trace(spans));
    sums_hold(&analysis);
    assert_eq!((analysis.total_ns, analysis.shape.shifted), (1000 * MS, 2));
    assert_eq!(analysis.shape.largest_shift_ns, 3_600_000 * MS);
    assert_eq!((analysis.time.agent_ns, analysis.time.mesh_ns), (400 * MS, 600 * MS));
    assert!(found(&analysis, "clock").is_some());
    // On one machine a child may begin when its parent is done: nothing is shifted.
    let late = vec![span(1, 0, Kind::Server, "a", 0, 10), span(2, 1, Kind::Internal, "a", 50, 5)];
    let analysis = analyse(&trace(late));
    assert_eq!((analysis.shape.shifted, analysis.total_ns, analysis.time.nobody_ns), (0, 55 * MS, 45 * MS));
}

#[test]
fn circles_orphans_duplicates_and_shared_ids_are_taken() {
    let circle = vec![
        span(1, 3, Kind::Server, "a", 0, 30),
        span(2, 1, Kind::Client, "a", 5, 10),
        span(3, 2, Kind::Server, "b", 6, 8),
    ];
    let analysis = analyse(&trace(circle));
    sums_hold(&analysis);
    assert_eq!((analysis.shape.cycles, analysis.shape.roots, analysis.total_ns), (1, 1, 30 * MS));
    let own = analyse(&trace(vec![span(1, 1, Kind::Server, "a", 0, 30)]));
    sums_hold(&own);
    assert_eq!((own.shape.cycles, own.shape.roots), (1, 1));
    let odd = vec![
        span(1, 99, Kind::Server, "a", 0, 30),
        span(2, 98, Kind::Server, "b", 40, 30),
        span(2, 98, Kind::Server, "b", 40, 30),
        span(3, 1, Kind::Client, "a", 5, 20),
        span(3, 1, Kind::Server, "c", 6, 18),
        span(4, 3, Kind::Internal, "c", 7, 5).with("pilotfish.trace.partial", Value::Bool(true)),
    ];
    let analysis = analyse(&trace(odd));
    sums_hold(&analysis);
    let shape = analysis.shape;
    assert_eq!((shape.orphans, shape.duplicates, shape.roots, shape.partial), (2, 1, 2, true));
    assert_eq!((analysis.spans, analysis.time.nobody_ns), (5, 10 * MS));
    assert!(found(&analysis, "incomplete").is_some());
    let nothing = analyse(&trace(Vec::new()));
    sums_hold(&nothing);
    assert_eq!((nothing.total_ns, nothing.spans), (0, 0));
}

#[test]
fn sums_hold_for_whatever_spans_say() {
    let mut rng = fastrand::Rng::with_seed(42);
    let kinds = [Kind::Internal, Kind::Server, Kind::Client, Kind::Producer, Kind::Consumer];
    for round in 0..600 {
        let count = rng.u64(1..40);
        let mut spans: Vec<Span> = Vec::new();
        for number in 1..=count {
            let agent = format!("default/a{}", rng.u32(0..4));
            let parent = if rng.f32() < 0.1 { rng.u64(0..60) } else { rng.u64(0..number + 1) };
            let mut one = span(
                rng.u64(1..=number),
                parent,
                *rng.choice(&kinds).unwrap(),
                &agent,
                rng.u64(0..500),
                rng.u64(0..300),
            );
            one.error = rng.f32() < 0.2;
            one = one.on(["one", "two", "three"][rng.usize(0..3)]);
            if rng.bool() {
                one = one.says("pilotfish.direction", if rng.bool() { "inbound" } else { "outbound" });
            }
            if rng.f32() < 0.2 {
                one = one.with("http.request.resend_count", Value::Number(rng.i64(-1..3)));
            }
            if rng.f32() < 0.1 {
                (one.start, one.end) = (rng.u64(..), rng.u64(..));
            }
            if round % 7 == 0 {
                (one.start, one.end) = (one.start.max(one.end), one.start.min(one.end));
            }
            spans.push(one);
        }
        sums_hold(&analyse(&trace(spans)));
    }
}

#[test]
fn a_hundred_thousand_spans_in_every_shape_are_quick() {
    const MANY: u64 = 100_000;
    type Parent = fn(u64) -> u64;
    let shapes: [(&str, Parent); 4] = [
        ("a chain", |number| number - 1),
        ("a star", |number| u64::from(number > 1)),
        ("orphans", |number| number + 10 * MANY),
        ("one circle", |number| if number == 1 { MANY } else { number - 1 }),
    ];
    for (name, parent) in shapes {
        let spans = (1..=MANY).map(|number| {
            let kind = if number % 2 == 0 { Kind::Client } else { Kind::Server };
            let hosts = if number % 3 == 0 { "one" } else { "two" };
            let length = 300_000 - number;
            span(number, parent(number), kind, "default/a", number, length).on(hosts).failed("no")
        });
        let trace = trace(spans.collect());
        let started = Instant::now();
        let analysis = analyse(&trace);
        let took = started.elapsed();
        sums_hold(&analysis);
        assert_eq!(analysis.spans, 100_000, "{name}");
        assert!(
            analysis.critical_path.len() <= MOST_SEGMENTS && analysis.bottlenecks.len() <= MOST_BOTTLENECKS
        );
        // A tenth of that without a debugger's checks; a quadratic walk would take minutes.
        assert!(took.as_secs() < 20, "{name}: {took:?}");
    }
}

#[test]
fn traces_of_a_workflow_add_up() {
    let mut sum = Sum::of("trip-7");
    for start in [0, 500, 5000] {
        let mut spans = call(1, 0, "default/planner", "default/coder", start, 1000, 10);
        spans[3] = spans[3].clone().with("gen_ai.usage.output_tokens", Value::Number(5));
        spans[3].error = start == 0;
        sum.add(analyse(&trace(spans)));
    }
    let all = sum.end(false);
    assert_eq!((all.traces, all.failed, all.errors, all.spans), (3, 1, 1, 12));
    assert_eq!((all.total_ns, all.busy_ns), (6000 * MS, 2500 * MS));
    assert_eq!((all.agents[0].critical_ns, all.agents[0].output_tokens), (3 * 940 * MS, 15));
    assert_eq!(all.bottlenecks[0].spans, 3);
    let advice = all.recommendations.iter().find(|one| one.id == "bottleneck").unwrap();
    assert!(
        advice.finding.starts_with("in 3 of 3 traces (100 %), at most: own work of default/coder"),
        "{advice:?}"
    );
    assert_eq!(Sum::of("none").end(false).traces, 0);
}

/// Calls of one operation: how many, of how many milliseconds, of which every so-many-th fails.
fn sample(operations: &[(&str, u64, std::ops::Range<u64>, u64)], seed: u64) -> (Window, Sample) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut sample = Sample::default();
    for (name, count, length, fails) in operations {
        for at in 0..*count {
            let mut one = span(1, 0, Kind::Server, "default/a", 0, rng.u64(length.clone()));
            one.name = (*name).to_owned();
            one.error = *fails > 0 && at % fails == 0;
            sample.add(&trace(vec![one]));
        }
    }
    (Window::default(), sample)
}

#[test]
fn what_changed_is_told_and_what_did_not_is_not() {
    let before = [
        ("steady", 500, 50..150, 20),
        ("slower", 100, 50..150, 0),
        ("tail", 1000, 90..110, 0),
        ("failing", 100, 50..60, 50),
        ("recovered", 100, 50..60, 2),
        ("vanished", 30, 50..60, 0),
        ("rare", 10, 50..60, 0),
    ];
    let now = [
        ("steady", 500, 50..150, 21),
        ("slower", 100, 100..300, 0),
        ("tail", 850, 90..110, 0),
        ("tail", 150, 400..500, 0),
        ("failing", 100, 50..60, 4),
        ("recovered", 100, 50..60, 0),
        ("rare", 10, 500..600, 1),
        ("new", 6, 1..2, 0),
    ];
    let told = compare(sample(&now, 1), sample(&before, 2));
    let mut changes: Vec<(ChangeKind, &str)> =
        told.changes.iter().map(|change| (change.kind, change.operation.name.as_str())).collect();
    changes.sort();
    let expected = [
        (ChangeKind::Failing, "failing"),
        (ChangeKind::Slower, "slower"),
        (ChangeKind::Slower, "tail"),
        (ChangeKind::Vanished, "vanished"),
        (ChangeKind::New, "new"),
        (ChangeKind::Recovered, "recovered"),
    ];
    assert_eq!(changes, expected, "{:#?}", told.changes);
    let failing = told.changes.iter().find(|change| change.kind == ChangeKind::Failing).unwrap();
    assert_eq!(failing.finding, "25 % of 100 calls fail, before 2 % of 100 calls");
    assert_eq!((told.now.traces, told.before.traces), (1816, 1840));
    let empty = compare(sample(&now, 1), sample(&[], 1));
    assert!(empty.changes.is_empty(), "without anything before, everything would be new");
}

#[test]
fn chance_alone_is_no_change() {
    let mut changes = 0;
    for seed in 0..200 {
        let calls = [("same", 200, 20..400, 0)];
        changes += compare(sample(&calls, seed), sample(&calls, seed + 1000)).changes.len();
    }
    assert!(changes <= 4, "{changes} of 200");
}
