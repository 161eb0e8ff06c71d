//! What workers counted, as families: names, types and samples.

use std::time::Duration;

use super::*;
use crate::telemetry::metrics::{Format, render};

fn two_workers() -> Vec<Arc<WorkerMetrics>> {
    let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerMetrics::default())).collect();
    workers[0].finished(Direction::Outbound, Some(200), Duration::from_millis(3));
    workers[1].finished(Direction::Outbound, Some(204), Duration::from_millis(30));
    workers[1].finished(Direction::Outbound, None, Duration::from_secs(60));
    workers[1].finished(Direction::Inbound, Some(503), Duration::from_micros(5000));
    workers[1].refused(Reason::NoEndpoint);
    workers[0].upstream_connects.add(2);
    workers[1].upstream_connects.add(3);
    workers
}

fn rendered(workers: &[Arc<WorkerMetrics>]) -> String {
    let mut page = Families::default();
    traffic(&mut page, workers);
    render(&page.take(), Format::Text)
}

#[test]
fn golden() {
    let text = rendered(&two_workers());
    // The list of reasons grows without this file.
    let other =
        |line: &str| line.starts_with("pilotfish_refusals_total") && !line.contains("no-healthy-endpoint");
    let text: String = text.lines().filter(|line| !other(line)).flat_map(|line| [line, "\n"]).collect();
    let expected = include_str!("golden.txt");
    assert_eq!(text, expected, "if this is meant, write the left side to golden.txt");
}

#[test]
fn a_duration_at_a_bound_is_within_it() {
    let text = rendered(&two_workers());
    assert!(
        text.contains("pilotfish_request_duration_seconds_bucket{direction=\"inbound\",le=\"0.005\"} 1\n")
    );
}

#[test]
fn rules_and_clusters_are_told_by_name_and_only_when_counted() {
    use crate::telemetry::series::{Names, Slots};
    let (workers, rules, slots) = (two_workers(), Names::default(), Slots::default());
    let (quoted, silent) = ("a/\"b\"\\".to_owned(), "silent".to_owned());
    let slot = slots.of(&rules, 1, &quoted);
    slots.of(&rules, 1, &silent);
    workers[0].finished_by_rule(slot, Some(200));
    workers[1].finished_by_rule(slot, Some(200));
    workers[0].finished_by_cluster(slot, Some(503), Duration::from_millis(1500));
    workers[1].cluster(slot).connect_failures.add(2);
    let mut page = Families::default();
    by_rule(&mut page, &workers, &rules.list());
    by_cluster(&mut page, &workers, &rules.list());
    let text = render(&page.take(), Format::Text);
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        samples,
        [
            r#"pilotfish_rule_requests_total{rule="a/\"b\"\\",status="2xx"} 2"#,
            r#"pilotfish_cluster_requests_total{cluster="a/\"b\"\\",status="5xx"} 1"#,
            r#"pilotfish_cluster_seconds_total{cluster="a/\"b\"\\"} 1.5"#,
            r#"pilotfish_cluster_connect_failures_total{cluster="a/\"b\"\\"} 2"#,
        ]
    );
}
