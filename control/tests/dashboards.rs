//! `pilotfish dashboards`: what it writes is of the forms that Grafana and Prometheus read, and every metric in it is one that
//! sidecars tell.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pilotfish_control::dashboards::{grafana, prometheus, queries};
use pilotfish_testkit::h1;

use crate::mesh::{binary, sidecar};
use crate::support::serve::Serve;

/// Names of metrics in a query: not functions, labels or what is recorded.
fn names(query: &str) -> BTreeSet<String> {
    let word = |at: char| !(at.is_ascii_alphanumeric() || at == '_' || at == ':');
    let prefixes = ["pilotfish_", "http_", "gen_ai_client_", "process_"];
    // What stands in braces are labels.
    let outside: String =
        query.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest)).collect();
    let mut outside = outside;
    // Labels of `by (...)`.
    while let Some((before, rest)) = outside.clone().split_once("by (") {
        let rest = rest.split_once(')').map_or("", |(_, rest)| rest);
        outside = format!("{before}{rest}");
    }
    let words = outside.split(word).filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    words.map(str::to_owned).collect()
}

/// Without what a histogram adds.
fn family(name: &str) -> &str {
    ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_metric_is_one_that_sidecars_have() {
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../proxy/src/telemetry/metrics"), &mut text);
    let all: BTreeSet<String> = queries().iter().flat_map(|query| names(query)).collect();
    assert!(all.len() >= 20, "{all:?}");
    for name in &all {
        assert!(text.contains(&format!("\"{}\"", family(name))), "no sidecar tells `{name}`");
    }
    assert!(!text.contains("\"pilotfish_requests_totals\""), "the search finds whole names only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_in_a_mesh_tells_them() {
    let Some(binary) = binary() else { return };
    let serve = Serve::start(&[]);
    let own = sidecar(&binary, &serve, "planner").start();
    // Told once there is something: a policy, a queue, a call, an answer of a model.
    let later = [
        "gen_ai_client_token_usage",
        "http_client_request_duration_seconds",
        "pilotfish_rule_requests_total",
        "pilotfish_inbound_waiting",
        "pilotfish_inbound_shed_total",
        "pilotfish_cluster_requests_pending",
        "pilotfish_cluster_requests_queued",
    ];
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let page = h1::get(own.admin, "localhost", "/metrics", &[]).await.unwrap();
        let page = String::from_utf8_lossy(&page.message.body).into_owned();
        let told =
            |name: &str| page.lines().any(|line| line.starts_with(&format!("# TYPE {} ", family(name))));
        let missing: BTreeSet<String> = queries()
            .iter()
            .flat_map(|query| names(query))
            .filter(|name| !later.contains(&family(name)) && !told(name))
            .collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "not told: {missing:?}\n{page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn grafana_reads_the_dashboard() {
    let dashboard = grafana();
    assert_eq!(
        (dashboard["uid"].as_str(), dashboard["schemaVersion"].as_u64()),
        (Some("pilotfish"), Some(41))
    );
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    let mut places = BTreeSet::new();
    for panel in panels {
        let at = &panel["gridPos"];
        assert!(places.insert((at["x"].as_u64(), at["y"].as_u64())), "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains("job=~\"$job\"") && !query.contains("JOBS"), "{query}");
            let count = |of: char| query.chars().filter(|one| *one == of).count();
            assert_eq!((count('('), count('{'), count('[')), (count(')'), count('}'), count(']')), "{query}");
        }
    }
    assert!(panels.len() >= 20);
}

#[test]
fn prometheus_reads_the_rules_and_they_are_the_control_planes() {
    let text = prometheus();
    let read: serde_json::Value = serde_json::from_str(&pilotfish_config::to_json(&text).unwrap()).unwrap();
    let groups = read["groups"].as_array().unwrap();
    let recorded: Vec<&str> =
        groups[0]["rules"].as_array().unwrap().iter().map(|rule| rule["record"].as_str().unwrap()).collect();
    for query in queries() {
        for word in query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')) {
            assert!(!word.starts_with("pilotfish:") || recorded.contains(&word), "{word} is not recorded");
        }
    }
    let alerts: Vec<(&str, &str, &str)> = groups[1]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| {
            let text = |value: &serde_json::Value| -> &str {
                if let serde_json::Value::String(text) = value { text.clone().leak() } else { "" }
            };
            (text(&rule["alert"]), text(&rule["for"]), text(&rule["labels"]["severity"]))
        })
        .collect();
    assert_eq!(
        alerts,
        [
            ("PilotfishErrorRate", "2m", "critical"),
            ("PilotfishLatency", "2m", "warning"),
            ("PilotfishSaturation", "2m", "warning"),
            ("PilotfishAgentUnavailable", "30s", "critical"),
        ]
    );
    assert!(text.contains("> 0.05 and") && text.contains("> 5 and") && text.contains("> 100"), "{text}");
}

#[test]
fn the_command_writes_both_files() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("monitoring");
    let run = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_pilotfish")).arg("dashboards").args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, told) = run(&["--out", out.to_str().unwrap()]);
    assert_eq!(code, Some(0));
    assert!(told.contains("pilotfish-grafana.json") && told.contains("pilotfish-rules.yaml"), "{told}");
    assert_eq!(std::fs::read_to_string(out.join("pilotfish-rules.yaml")).unwrap(), prometheus());
    assert_eq!(run(&["--prometheus"]).1, prometheus());
    let file = out.join("pilotfish-rules.yaml");
    assert_eq!(run(&["--out", file.to_str().unwrap()]).0, Some(1), "a file is no folder");
}
