//! How long a new table takes from the file to the first request that follows it, seen from outside, and what that costs
//! the requests that run meanwhile.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::clock::now_ns;
use crate::peers::{Setup, mesh_yaml};
use crate::work::Values;

/// How often the table is rewritten in one run.
const TIMES: u32 = 5;
/// Between two rewrites, and before the first.
const PAUSE: Duration = Duration::from_millis(1300);
/// Requests due this long after the first answer by the new plan still count as disturbed by it: the old plan is dropped then.
const AFTER_NS: u64 = 500_000_000;

/// Runs the load that `load` makes of its flags, and rewrites the table in `dir` while it runs.
///
/// # Errors
/// When a file cannot be written or the load generator fails.
pub fn run(
    dir: &Path,
    setup: &Setup,
    debounce_ms: f64,
    load: impl Fn(&str) -> Command,
) -> io::Result<Values> {
    let texts: Vec<String> = (2..2 + TIMES).map(|plan| mesh_yaml(&Setup { plan, ..setup.clone() })).collect();
    let secs = PAUSE.as_secs_f64() * f64::from(TIMES + 1);
    let flags = format!("--conns 16 --rules {} --rate 2000 --secs {secs} --watch x-plan", setup.rules);
    let client = load(&flags).spawn()?;
    let mut written = Vec::new();
    for text in &texts {
        sleep(PAUSE);
        // Beside the watched folder, so that the only event there is the new file's arrival.
        let draft = dir.join("draft.yaml");
        fs::write(&draft, text)?;
        let at = now_ns();
        fs::rename(&draft, dir.join("conf/mesh.yaml"))?;
        written.push(at);
    }
    let said = client.wait_with_output()?;
    let result: Value = serde_json::from_slice(&said.stdout)?;
    Ok(measure(&result, &written, debounce_ms))
}

/// Puts together when each table was written and when its number first came back.
fn measure(result: &Value, written: &[u64], debounce_ms: f64) -> Values {
    let empty = Vec::new();
    let pairs = |name: &str| result[name].as_array().unwrap_or(&empty).iter();
    let first_seen = |plan: usize| {
        let plan = plan.to_string();
        pairs("changes").find(|c| c[1].as_str() == Some(&plan)).and_then(|c| c[0].as_u64())
    };
    let mut took: Vec<f64> = Vec::new();
    let mut disturbed: Vec<(u64, u64)> = Vec::new();
    for (index, at) in written.iter().enumerate() {
        if let Some(seen) = first_seen(index + 2) {
            took.push(seen.saturating_sub(*at) as f64 / 1e6 - debounce_ms);
            disturbed.push((*at, seen + AFTER_NS));
        }
    }
    took.sort_by(f64::total_cmp);
    let slowest = |inside: bool| {
        let due_then = |due: u64| disturbed.iter().any(|(from, to)| (*from..*to).contains(&due));
        let slow = pairs("slow").filter(|s| due_then(s[0].as_u64().unwrap_or(0)) == inside);
        slow.filter_map(|s| s[1].as_f64()).fold(1e6, f64::max) / 1e6
    };
    let errors = ["errors", "not_2xx", "unanswered"].iter().filter_map(|n| result[*n].as_f64()).sum::<f64>();
    let missed = (written.len() - took.len()) as f64;
    Values::from([
        ("reload_ms".into(), took.get(took.len() / 2).copied().unwrap_or(f64::INFINITY)),
        ("reload_max_ms".into(), took.last().copied().unwrap_or(f64::INFINITY)),
        ("slowest_ms".into(), slowest(true)),
        ("slowest_quiet_ms".into(), slowest(false)),
        ("p99".into(), result["latency_us"]["p99"].as_f64().unwrap_or(0.0)),
        ("errors".into(), errors + missed),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_time_to_the_new_plan_leaves_the_debounce_out() {
        let ms = 1_000_000u64;
        let result = json!({
            "changes": [[0, "1"], [1150 * ms, "2"], [2180 * ms, "3"]],
            // Due while the first table was read; due in a quiet moment.
            "slow": [[1100 * ms, 4 * ms], [500 * ms, 7 * ms]],
            "latency_us": {"p99": 90.0},
        });
        let values = measure(&result, &[1000 * ms, 2000 * ms], 100.0);
        assert_eq!(values["reload_max_ms"], 80.0);
        assert_eq!(values["slowest_ms"], 4.0);
        assert_eq!(values["slowest_quiet_ms"], 7.0);
        assert_eq!(values["errors"], 0.0);
    }

    #[test]
    fn a_plan_that_never_comes_is_an_error() {
        let values = measure(&json!({ "changes": [[0, "1"]] }), &[5], 100.0);
        assert_eq!(values["errors"], 1.0);
        assert!(values["reload_ms"].is_infinite());
    }
}
