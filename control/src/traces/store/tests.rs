//! The store against a model, across restarts, crashes, floods and what is no OTLP.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::*;
use crate::traces::span::Value;

fn text(key: &str, value: &str) -> KeyValue {
    with(key, any_value::Value::StringValue(value.into()))
}

fn with(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Nanoseconds since 1970, now.
fn nanos() -> u64 {
    now() * 1_000_000
}

fn span(trace: u64, id: u64, parent: u64, name: &str, start: u64, end: u64) -> Span {
    let parent = if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() };
    Span {
        trace_id: [7u64.to_be_bytes(), trace.to_be_bytes()].concat(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: parent,
        name: name.into(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        ..Span::default()
    }
}

fn trace_id(trace: u64) -> TraceId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&7u64.to_be_bytes());
    id[8..].copy_from_slice(&trace.to_be_bytes());
    TraceId(id)
}

fn batch(namespace: &str, name: &str, spans: Vec<Span>) -> Bytes {
    let resource = Resource {
        attributes: vec![text("service.name", name), text("service.namespace", namespace)],
        ..Resource::default()
    };
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec().into()
}

fn all() -> Search {
    Search { limit: 1000, ..Search::default() }
}

#[test]
fn what_is_taken_is_found_and_read_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("traces");
    let at = nanos();
    let store = TraceStore::open(&path).unwrap();
    let mut root = span(1, 1, 0, "POST /plan", at, at + 900);
    root.attributes = vec![text("pilotfish.workflow.id", "w1"), with("n", any_value::Value::IntValue(42))];
    let mut child = span(1, 2, 1, "GET", at + 100, at + 500);
    child.status = Some(Status { code: 2, message: "no".into() });
    child.attributes = vec![with("pilotfish.trace.partial", any_value::Value::BoolValue(true))];
    let taken = store.take_now(batch("prod", "planner", vec![root]), None).unwrap();
    assert_eq!(taken, Taken { spans: 1, ..Taken::default() });
    store.take_now(batch("prod", "search", vec![child]), None).unwrap();
    let check = |store: &TraceStore| {
        let found = store.search(&all()).unwrap();
        let expected = Summary {
            trace: trace_id(1).to_string(),
            agent: "prod/planner".into(),
            name: "POST /plan".into(),
            start_ns: at,
            duration_ns: 900,
            spans: 2,
            agents: 2,
            error: true,
            partial: true,
            workflow: "w1".into(),
        };
        assert_eq!(found, [expected]);
        let trace = store.trace(trace_id(1)).unwrap().unwrap();
        assert_eq!(trace.spans.len(), 2);
        assert_eq!(trace.spans[0].number("n"), Some(42));
        assert_eq!((trace.spans[1].parent, trace.spans[1].message.as_str()), (Some(trace.spans[0].id), "no"));
        assert_eq!(trace.spans[1].resource.agent(), "prod/search");
        assert_eq!(store.services(), ["prod/planner", "prod/search"]);
        assert_eq!(store.operations("prod/search"), ["GET"]);
        assert!(store.trace(trace_id(2)).unwrap().is_none());
    };
    check(&store);
    drop(store);
    let store = TraceStore::open(&path).unwrap();
    check(&store);
    // Goes on in the same segment.
    store.take_now(batch("prod", "search", vec![span(1, 3, 2, "late", at, at + 5000)]), None).unwrap();
    assert_eq!(store.search(&all()).unwrap()[0].spans, 3);
    assert_eq!(store.trace(trace_id(1)).unwrap().unwrap().spans.len(), 3);
    let files: Vec<_> = std::fs::read_dir(&path).unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn searches_hold_all_they_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = TraceStore::open(folder.path()).unwrap();
    let at = nanos();
    for n in 0..20u64 {
        let mut one = span(n + 1, 1, 0, if n % 2 == 0 { "even" } else { "odd" }, at + n, at + n + n * 1000);
        one.attributes = vec![
            with("http.response.status_code", any_value::Value::IntValue(if n < 5 { 500 } else { 200 })),
            text("user", &format!("u{n}")),
        ];
        one.status = Some(Status { code: if n < 5 { 2 } else { 0 }, message: String::new() });
        store.take_now(batch("prod", if n < 10 { "a" } else { "b" }, vec![one]), None).unwrap();
    }
    let count = |search: Search| {
        let found = store.search(&Search { limit: 1000, ..search }).unwrap();
        assert!(found.is_sorted_by(|one, next| one.start_ns >= next.start_ns));
        found.len()
    };
    assert_eq!(count(Search::default()), 20);
    assert_eq!(count(Search { agent: Some("a".into()), ..all() }), 10);
    assert_eq!(count(Search { agent: Some("prod/b".into()), operation: Some("odd".into()), ..all() }), 5);
    assert_eq!(count(Search { operation: Some("even".into()), ..all() }), 10);
    assert_eq!(count(Search { agent: Some("c".into()), ..all() }), 0);
    assert_eq!(count(Search { error: Some(true), ..all() }), 5);
    assert_eq!(count(Search { error: Some(false), ..all() }), 15);
    assert_eq!(count(Search { min_duration: Some(10_000), ..all() }), 10);
    assert_eq!(count(Search { max_duration: Some(3_000), ..all() }), 4);
    assert_eq!(count(Search { since: Some(at + 15), ..all() }), 5);
    assert_eq!(count(Search { until: Some(at + 15), ..all() }), 15);
    let attributes = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(count(Search { attributes: attributes(&[("http.response.status_code", "500")]), ..all() }), 5);
    assert_eq!(
        count(Search { attributes: attributes(&[("user", "u7"), ("service.name", "a")]), ..all() }),
        1
    );
    assert_eq!(
        count(Search { attributes: attributes(&[("user", "u7"), ("service.name", "b")]), ..all() }),
        0
    );
    let newest = store.search(&Search { limit: 3, ..Search::default() }).unwrap();
    assert_eq!(newest.iter().map(|it| it.start_ns - at).collect::<Vec<_>>(), [19, 18, 17]);
}

/// Many batches over small segments, with restarts in between, against a plain map.
#[test]
fn the_window_is_what_a_map_would_be() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { disk: 64 << 20, ..Limits::default() };
    let mut random = fastrand::Rng::with_seed(11);
    let mut model: BTreeMap<u64, BTreeMap<u64, String>> = BTreeMap::new();
    let at = nanos();
    let mut store = TraceStore::open_with(folder.path(), limits).unwrap();
    for round in 0..300 {
        let spans: Vec<Span> = (0..random.usize(1..200))
            .map(|_| {
                let (trace, id) = (random.u64(1..400), random.u64(1..10_000));
                let name = format!("op{}", random.u8(0..5));
                // The first that comes is the one that is kept.
                model.entry(trace).or_default().entry(id).or_insert_with(|| name.clone());
                let mut made = span(trace, id, 0, &name, at + id, at + id + 10);
                made.attributes = vec![text("filling", &"x".repeat(random.usize(0..2000)))];
                made
            })
            .collect();
        let count = spans.len() as u64;
        assert_eq!(store.take_now(batch("n", &format!("s{}", round % 7), spans), None).unwrap().spans, count);
        if random.u8(0..40) == 0 {
            drop(store);
            store = TraceStore::open_with(folder.path(), limits).unwrap();
        }
    }
    assert!(store.stats().segments > 3, "{:?}", store.stats());
    assert_eq!(store.search(&all()).unwrap().len(), model.len());
    for (trace, spans) in &model {
        let read = store.trace(trace_id(*trace)).unwrap().unwrap();
        let mut read: Vec<(u64, String)> =
            read.spans.into_iter().map(|span| (u64::from_be_bytes(span.id.0), span.name)).collect();
        read.sort();
        let expected: Vec<(u64, String)> = spans.iter().map(|(id, name)| (*id, name.clone())).collect();
        assert_eq!(read, expected);
    }
}

#[test]
fn the_oldest_goes_when_the_disk_is_used_up() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { disk: 2 << 20, ..Limits::default() };
    let store = TraceStore::open_with(folder.path(), limits).unwrap();
    let at = nanos();
    let large = "x".repeat(1000);
    for n in 0..10_000u64 {
        let mut made = span(n + 1, 1, 0, "op", at + n, at + n + 1);
        made.attributes = vec![text("filling", &large)];
        store.take_now(batch("n", "s", vec![made]), None).unwrap();
    }
    let stats = store.stats();
    assert!(stats.disk <= limits.disk, "{stats:?}");
    let on_disk: u64 =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(on_disk <= limits.disk && on_disk > limits.disk / 2, "{on_disk}");
    let found = store.search(&all()).unwrap();
    assert_eq!(found.first().unwrap().start_ns, at + 9_999);
    assert!(stats.traces > 900 && stats.traces < 2_100, "{stats:?}");
    assert!(store.trace(trace_id(1)).unwrap().is_none() && store.trace(trace_id(10_000)).unwrap().is_some());
    drop(store);
    let again = TraceStore::open_with(folder.path(), limits).unwrap();
    assert_eq!(again.stats().traces, stats.traces);
}

#[test]
fn what_a_crash_tore_off_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let at = nanos();
    let store = TraceStore::open(folder.path()).unwrap();
    for n in 1..=50 {
        store.take_now(batch("n", "s", vec![span(n, 1, 0, "op", at, at + 1)]), None).unwrap();
    }
    drop(store);
    let file = segment::path(folder.path(), 1);
    let whole = std::fs::read(&file).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..30 {
        let length = random.usize(0..whole.len());
        let mut torn = whole[..length].to_vec();
        torn.extend((0..random.usize(0..40)).map(|_| random.u8(..)));
        std::fs::write(&file, &torn).unwrap();
        let store = TraceStore::open(folder.path()).unwrap();
        let kept = store.search(&all()).unwrap();
        for summary in &kept {
            let id = TraceId::parse(&summary.trace).unwrap();
            assert_eq!(store.trace(id).unwrap().unwrap().spans.len(), 1);
        }
        // It is appended to as before.
        store.take_now(batch("n", "s", vec![span(99, 1, 0, "op", at, at + 1)]), None).unwrap();
        drop(store);
        let store = TraceStore::open(folder.path()).unwrap();
        assert_eq!(store.search(&all()).unwrap().len(), kept.len() + 1);
    }
}

#[test]
fn an_index_file_that_is_damaged_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { disk: 1 << 20, ..Limits::default() };
    let at = nanos();
    let store = TraceStore::open_with(folder.path(), limits).unwrap();
    for n in 1..=400 {
        let mut made = span(n, 1, 0, "op", at, at + 1);
        made.attributes = vec![text("filling", &"x".repeat(500))];
        store.take_now(batch("n", "s", vec![made]), None).unwrap();
    }
    let before = store.search(&all()).unwrap();
    drop(store);
    let beside = segment::path_beside(folder.path(), 1);
    let whole = std::fs::read(&beside).unwrap();
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..20 {
        let mut damaged = whole.clone();
        let at = random.usize(0..damaged.len());
        damaged[at] ^= 1 << random.u8(0..8);
        std::fs::write(&beside, &damaged).unwrap();
        let store = TraceStore::open_with(folder.path(), limits).unwrap();
        assert_eq!(store.search(&all()).unwrap(), before);
    }
    std::fs::write(folder.path().join("0000000999.spans"), b"of somebody else").unwrap();
    assert_eq!(TraceStore::open_with(folder.path(), limits).unwrap().search(&all()).unwrap(), before);
}

#[test]
fn a_proven_speaker_speaks_for_himself_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = TraceStore::open(folder.path()).unwrap();
    let at = nanos();
    let speaker = Speaker { namespace: "prod".into(), agent: "honest".into() };
    store.take_now(batch("prod", "victim", vec![span(1, 1, 0, "op", at, at)]), Some(&speaker)).unwrap();
    assert_eq!(store.services(), ["prod/honest"]);
    let read = store.trace(trace_id(1)).unwrap().unwrap();
    assert_eq!(read.spans[0].resource.agent(), "prod/honest");
    let names = read.spans[0].resource.attributes.iter().filter(|(key, _)| key == "service.name");
    assert_eq!(names.collect::<Vec<_>>(), [&("service.name".to_owned(), Value::Text("honest".into()))]);
}

#[test]
fn what_does_not_fit_is_refused_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let store = TraceStore::open(folder.path()).unwrap();
    let at = nanos();
    let good = || span(1, 1, 0, "op", at, at + 1);
    let mut bad = vec![good()];
    bad.push(Span { trace_id: vec![1; 15], ..good() });
    bad.push(Span { trace_id: vec![0; 16], ..good() });
    bad.push(Span { span_id: vec![1; 9], ..good() });
    bad.push(Span { parent_span_id: vec![1; 7], ..good() });
    bad.push(Span { start_time_unix_nano: 0, ..good() });
    bad.push(Span { end_time_unix_nano: u64::MAX, ..good() });
    bad.push(Span { attributes: vec![text("k", &"x".repeat(300 << 10))], ..good() });
    bad.push(Span { attributes: vec![KeyValue::default(); 5000], ..good() });
    // It ends before it began: it took no time.
    bad.push(Span { span_id: vec![2; 8], end_time_unix_nano: 0, ..good() });
    let taken = store.take_now(batch("n", "s", bad), None).unwrap();
    let refused = RefusedSpans { ids: 4, time: 2, large: 2, trace: 0 };
    assert_eq!(taken, Taken { spans: 2, refused });
    assert!(refused.why().contains("4 without valid trace and span ids, 2 of a time"), "{}", refused.why());
    assert_eq!(store.stats().refused, refused);
    assert_eq!(store.trace(trace_id(1)).unwrap().unwrap().spans[1].duration(), 0);
    assert_eq!(store.take_now(Bytes::new(), None).unwrap(), Taken::default());
}

#[test]
fn garbage_is_refused_and_never_kept_half() {
    let folder = tempfile::tempdir().unwrap();
    let store = TraceStore::open(folder.path()).unwrap();
    let at = nanos();
    let whole = batch("n", "s", (1..20).map(|n| span(n, 1, 0, "op", at, at + 1)).collect());
    let mut random = fastrand::Rng::with_seed(9);
    let mut refused = 0;
    for _ in 0..3_000 {
        let mut bytes = whole.to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(0..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(0..=bytes.len()));
        refused += u32::from(store.take_now(bytes.into(), None) == Err(Refusal::Malformed));
    }
    assert!(refused > 1_000 && refused == store.stats().batches_refused[0] as u32);
    for summary in store.search(&all()).unwrap() {
        let id = TraceId::parse(&summary.trace).unwrap();
        assert!(store.trace(id).unwrap().is_some());
    }
    // One resource for many scopes must not become many copies of it.
    let resource = Resource { attributes: vec![text("k", &"x".repeat(60 << 10))], ..Resource::default() };
    let scope_spans =
        vec![ScopeSpans { spans: vec![span(1, 1, 0, "op", at, at)], ..ScopeSpans::default() }; 10_000];
    let spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
    let bomb = ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec();
    assert_eq!(store.take_now(bomb.into(), None), Err(Refusal::Malformed));
    // Values within values without end.
    let mut deep = AnyValue { value: Some(any_value::Value::BoolValue(true)) };
    for _ in 0..60 {
        let values = vec![deep];
        deep = AnyValue {
            value: Some(any_value::Value::ArrayValue(opentelemetry_proto::tonic::common::v1::ArrayValue {
                values,
            })),
        };
    }
    let deep = KeyValue { key: "k".into(), value: Some(deep), ..KeyValue::default() };
    let deep = Span { attributes: vec![deep], ..span(1, 1, 0, "op", at, at) };
    assert_eq!(store.take_now(batch("n", "s", vec![deep]), None), Err(Refusal::Malformed));
}

#[test]
fn a_trace_has_so_many_spans() {
    let folder = tempfile::tempdir().unwrap();
    let store = TraceStore::open(folder.path()).unwrap();
    let at = nanos();
    let mut taken = 0;
    for from in 0..20u64 {
        let spans = (1..=5_000).map(|n| span(1, from * 5_000 + n, 0, "op", at + n, at + n)).collect();
        taken += store.take_now(batch("n", "s", spans), None).unwrap().spans;
    }
    assert_eq!(taken, u64::from(MOST_SPANS));
    assert_eq!(store.stats().refused.trace, 100_000 - u64::from(MOST_SPANS));
    assert_eq!(store.trace(trace_id(1)).unwrap().unwrap().spans.len(), MOST_SPANS as usize);
    assert_eq!(store.take_now(batch("n", "s", vec![span(2, 1, 0, "op", at, at)]), None).unwrap().spans, 1);
}

/// Names without end cost neither memory nor what a search finds.
#[test]
fn names_beyond_the_index_are_found_by_reading() {
    let folder = tempfile::tempdir().unwrap();
    let store = TraceStore::open(folder.path()).unwrap();
    let at = nanos();
    for from in 0..14u64 {
        let spans = (0..5_000u64)
            .map(|n| span(from * 5_000 + n + 1, 1, 0, &format!("op {from}/{n}"), at + n, at + n));
        store.take_now(batch("n", "flood", spans.collect()), None).unwrap();
    }
    let search = Search { operation: Some("op 13/4999".into()), ..all() };
    let found = store.search(&search).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].trace, trace_id(70_000).to_string());
}

#[test]
fn the_index_is_small() {
    let folder = tempfile::tempdir().unwrap();
    let store = TraceStore::open(folder.path()).unwrap();
    let at = nanos();
    for from in 0..50u64 {
        let spans = (0..500u64).flat_map(|n| {
            let trace = from * 500 + n + 1;
            (1..=4).map(move |id| span(trace, id, id - 1, &format!("op{id}"), at + n, at + n))
        });
        store.take_now(batch("n", "s", spans.collect()), None).unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.spans, stats.traces), (100_000, 25_000));
    let each = stats.index / 100_000;
    assert!(each < 80, "{each} bytes for each span");
}

/// What is rare is found by reading everything, and the newest of it comes first, as when it is common.
#[test]
fn a_search_for_an_attribute_is_one_over_everything() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { disk: 64 << 20, ..Limits::default() };
    let store = TraceStore::open_with(folder.path(), limits).unwrap();
    let mut random = fastrand::Rng::with_seed(21);
    let at = nanos();
    let (count, mut starts) = (12_000u64, Vec::new());
    for from in (0..count).step_by(200) {
        let spans = (from..from + 200).map(|n| {
            let start = at + random.u64(0..1_000_000);
            starts.push((start, n));
            let mut made = span(n + 1, 1, 0, "op", start, start + 1);
            made.attributes = vec![
                text("filling", &"x".repeat(random.usize(0..900))),
                text("user", &format!("u{}", n % 1_000)),
                with("n", any_value::Value::IntValue((n % 3_000) as i64)),
            ];
            made
        });
        store
            .take_now(batch("n", if from % 400 == 0 { "even" } else { "odd" }, spans.collect()), None)
            .unwrap();
    }
    assert!(store.stats().segments > 1);
    starts.sort_unstable_by(|one, other| other.cmp(one));
    let expected = |fits: &dyn Fn(u64) -> bool, limit: usize| {
        let ids = starts.iter().filter(|(_, n)| fits(*n)).map(|(_, n)| trace_id(n + 1).to_string());
        ids.take(limit).collect::<Vec<_>>()
    };
    let found = |search: Search| {
        let found = store.search(&search).unwrap();
        found.into_iter().map(|summary| summary.trace).collect::<Vec<_>>()
    };
    let attribute = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
    let search = Search { attributes: attribute("user", "u7"), ..all() };
    assert_eq!(found(search.clone()), expected(&|n| n % 1_000 == 7, 1000));
    assert_eq!(found(Search { limit: 3, ..search.clone() }), expected(&|n| n % 1_000 == 7, 3));
    assert_eq!(
        found(Search { attributes: attribute("n", "2999"), ..all() }),
        expected(&|n| n % 3_000 == 2_999, 9)
    );
    assert_eq!(found(Search { attributes: attribute("n", "7.0"), ..all() }), Vec::<String>::new());
    let odd = |n: u64| n % 1_000 == 7 && (n / 200) % 2 == 1;
    assert_eq!(found(Search { agent: Some("odd".into()), ..search.clone() }), expected(&odd, 1000));
    let both = [attribute("user", "u7"), attribute("service.name", "odd")].concat();
    assert_eq!(found(Search { attributes: both, ..all() }), expected(&odd, 1000));
    let middle = at + 500_000;
    let early: Vec<u64> = starts.iter().filter(|(start, _)| *start < middle).map(|(_, n)| *n).collect();
    let early = expected(&|n| n % 1_000 == 7 && early.contains(&n), 1000);
    assert_eq!(found(Search { until: Some(middle), ..search }), early);
}
