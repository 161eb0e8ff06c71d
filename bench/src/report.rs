//! The tables that a person reads, and the same for machines.

use serde_json::{Value, json};

use crate::bars::BARS;
use crate::peers::Peer;
use crate::record::{Record, Spread};
use crate::work::Work;

/// A column: its heading, the figure's name, digits after the point, and whether min and max are shown.
type Column = (&'static str, &'static str, usize, bool);

const CPU: Column = ("CPU us/req", "cpu_us", 2, true);
const RATE: Column = ("req/s", "per_sec", 0, false);
const PROXY: Column = ("proxy %", "proxy_pct", 0, false);
const LOAD: Column = ("load core %", "load_core_pct", 0, false);
const FOREIGN: Column = ("others %", "foreign_pct", 0, false);
const ERRORS: Column = ("errors", "errors", 0, false);
const P50: Column = ("p50 us", "p50", 0, false);
const P99: Column = ("p99 us", "p99", 0, false);
const ADDED_P50: Column = ("added p50 us", "added_p50", 0, true);
const ADDED_P99: Column = ("added p99 us", "added_p99", 0, true);

/// What each kind of work is told by.
fn columns(work: Work) -> Vec<Column> {
    without_calls(work).or_else(|| of_trouble(work)).unwrap_or_else(|| of_calls(work))
}

/// A control plane, and a sidecar while nobody calls or its configuration changes.
fn without_calls(work: Work) -> Option<Vec<Column>> {
    Some(match work {
        Work::Idle => vec![
            ("RSS at start MiB", "rss_mib", 1, true),
            ("with 5,000 MiB", "rss_idle_mib", 1, false),
            ("KiB/connection", "kib_per_conn", 2, true),
            ERRORS,
        ],
        Work::Reload => vec![
            ("reload ms", "reload_ms", 1, true),
            ("slowest reload ms", "reload_max_ms", 1, true),
            ("slowest request ms", "slowest_ms", 1, true),
            ("in quiet ms", "slowest_quiet_ms", 1, true),
            ERRORS,
        ],
        Work::Fleet => vec![
            ("push ms", "push_ms", 1, true),
            ("slowest push ms", "push_max_ms", 1, true),
            ("CPU/push ms", "push_cpu_ms", 1, false),
            ("RSS 1,000 MiB", "push_rss_mib", 0, false),
            ("RSS 10,000 MiB", "fleet_rss_mib", 0, true),
            ("heartbeat cores", "heartbeat_cores", 3, true),
            ("beats/s", "beats_per_s", 0, false),
            ("delta bytes", "delta_bytes", 0, true),
            ("connect 10,000 s", "connect_s", 1, false),
            ERRORS,
        ],
        Work::Nodes => vec![
            ("ordered s", "ordered_s", 2, true),
            ("CPU for it s", "ordered_cpu_s", 2, false),
            ("of it apply s", "apply_s", 2, false),
            ("lease cores", "lease_cores", 3, true),
            ("beats/s", "beats_per_s", 0, false),
            ("RSS MiB", "rss_mib", 0, true),
            ("connect 1,000 s", "connect_s", 1, false),
            ERRORS,
        ],
        Work::Start => vec![
            ("agent's own start ms", "own_ms", 1, true),
            ("apply to answer ms", "first_ms", 0, true),
            ("slowest ms", "first_max_ms", 0, false),
            ("beyond its own ms", "beyond_ms", 0, true),
            ("started by a call ms", "called_ms", 0, true),
            ("beyond its own ms", "called_beyond_ms", 0, true),
        ],
        Work::Roles => {
            vec![("10,000 roles ms", "roles_ms", 0, true), ("slowest ms", "roles_max_ms", 0, true)]
        }
        Work::Tokens => vec![
            ("known us", "known_us", 2, true),
            ("new ES256 us", "es256_us", 0, true),
            ("ES384 us", "es384_us", 0, true),
            ("EdDSA us", "eddsa_us", 0, true),
            ("RS256 us", "rs256_us", 0, true),
        ],
        Work::Placement => vec![
            ("10,000 ms", "all_ms", 1, true),
            ("some apart ms", "apart_all_ms", 1, true),
            ("one more ms", "one_ms", 2, true),
            ("one more apart ms", "apart_one_ms", 2, true),
            ("of exact %", "exact_pct", 1, true),
            ("worst %", "exact_worst_pct", 1, false),
            ("given out %", "pilotfish_pct", 1, true),
            ("best-fit %", "best-fit_pct", 1, false),
            ("first-fit %", "first-fit_pct", 1, false),
        ],
        Work::Spans => vec![
            ("spans/s", "spans_per_s", 0, true),
            ("cores", "cores", 3, true),
            ("CPU us/span", "cpu_us", 2, false),
            ("search ms", "search_ms", 1, true),
            ("rare attribute ms", "attribute_ms", 1, true),
            ("common attribute ms", "common_ms", 1, false),
            ("RSS for a million MiB", "rss_million_mib", 0, true),
            ("RSS after a minute MiB", "rss_mib", 0, true),
            ERRORS,
        ],
        _ => return None,
    })
}

/// Calls while something fails, is slow or has too much to do.
fn of_trouble(work: Work) -> Option<Vec<Column>> {
    Some(match work {
        Work::Failing => vec![
            ("failed in 2 s %", "failed_early_pct", 3, true),
            ("failed later %", "failed_late_pct", 3, true),
            P50,
            P99,
            CPU,
            FOREIGN,
        ],
        Work::Slow => vec![
            P50,
            ("p99 us", "p99", 0, true),
            ("p99 / all alike", "p99_over_even", 2, true),
            CPU,
            FOREIGN,
            ERRORS,
        ],
        Work::Storm => {
            vec![
                ("asked", "done", 0, false),
                ("arrived", "arrived", 0, false),
                ("added %", "extra_pct", 2, true),
            ]
        }
        Work::Overload => vec![
            ("goodput %", "goodput_pct", 1, true),
            ("critical %", "critical_pct", 2, true),
            ("default %", "default_pct", 1, false),
            ("sheddable %", "sheddable_pct", 1, false),
            P50,
            P99,
            CPU,
            FOREIGN,
        ],
        _ => return None,
    })
}

/// Calls that go well.
fn of_calls(work: Work) -> Vec<Column> {
    match work {
        Work::Latency => {
            vec![
                ADDED_P50,
                ADDED_P99,
                ("added p99.9 us", "added_p99.9", 0, false),
                P50,
                P99,
                CPU,
                PROXY,
                FOREIGN,
                ERRORS,
            ]
        }
        Work::Events => {
            vec![
                CPU,
                RATE,
                P50,
                P99,
                ADDED_P50,
                ADDED_P99,
                ("first p50 us", "first_p50", 0, false),
                PROXY,
                FOREIGN,
                ERRORS,
            ]
        }
        Work::H2c => vec![CPU, RATE, PROXY, LOAD, FOREIGN, ERRORS],
        _ => vec![CPU, RATE, P50, P99, ("p99.9 us", "p99.9", 0, false), PROXY, LOAD, FOREIGN, ERRORS],
    }
}

/// The figure that the last column compares.
fn compared(work: Work) -> &'static str {
    match work {
        Work::Idle => "kib_per_conn",
        Work::Reload => "reload_ms",
        Work::Fleet => "push_ms",
        Work::Nodes => "ordered_s",
        Work::Start => "beyond_ms",
        Work::Placement => "all_ms",
        Work::Roles => "roles_ms",
        Work::Tokens => "known_us",
        Work::Spans => "search_ms",
        Work::Latency => "added_p50",
        Work::Slow => "p99",
        _ => "cpu_us",
    }
}

fn spread(records: &[&Record], value: &str) -> Option<Spread> {
    Spread::of(records.iter().filter_map(|r| r.values.get(value).copied()).collect())
}

fn cell(records: &[&Record], (_, value, digits, ends): Column) -> String {
    let Some(s) = spread(records, value) else { return "-".to_owned() };
    match ends && records.len() > 1 {
        true => format!("{:.digits$} ({:.digits$}-{:.digits$})", s.median, s.min, s.max),
        false => format!("{:.digits$}", s.median),
    }
}

/// Our figure over another's: the median of the rounds' ratios.
fn ours_over(records: &[Record], work: Work, at: &str, peer: Peer) -> Option<f64> {
    let value = compared(work);
    let of = |peer: Peer, round: usize| {
        let same = |r: &&Record| r.work == work && r.at == at && r.peer == peer && r.round == round;
        records.iter().find(same).and_then(|r| r.values.get(value).copied())
    };
    let last = records.iter().map(|r| r.round).max()?;
    let each = (0..=last)
        .filter_map(|round| Some(of(Peer::Pilotfish, round)? / of(peer, round).filter(|f| *f > 0.0)?));
    Spread::of(each.collect()).map(|s| s.median)
}

/// The tables of one workload, in markdown that is aligned for a terminal too.
pub fn tables(records: &[Record], work: Work) -> String {
    let mine: Vec<&Record> = records.iter().filter(|r| r.work == work).collect();
    let mut places: Vec<&str> = Vec::new();
    for record in &mine {
        if !places.contains(&record.at.as_str()) {
            places.push(&record.at);
        }
    }
    let mut text = String::new();
    for at in places {
        let rounds = mine.iter().map(|r| r.round).max().map_or(0, |r| r + 1);
        let label = if at.is_empty() { String::new() } else { format!(", {at}") };
        text += &format!("\n### {}: {}{label} ({rounds} rounds)\n\n", work.name(), work.title());
        text += &align(&rows(records, &mine, work, at));
    }
    text + &bars(records, work)
}

fn rows(records: &[Record], mine: &[&Record], work: Work, at: &str) -> Vec<Vec<String>> {
    let columns = columns(work);
    let mut head: Vec<String> =
        ["peer"].into_iter().chain(columns.iter().map(|c| c.0)).map(str::to_owned).collect();
    let compares = work.peers().len() > 2;
    if compares {
        head.push("pilotfish / it".to_owned());
    }
    let mut rows = vec![head];
    for peer in work.peers() {
        let of: Vec<&Record> = mine.iter().copied().filter(|r| r.peer == *peer && r.at == at).collect();
        if of.is_empty() {
            continue;
        }
        let mut row = vec![peer.name().to_owned()];
        row.extend(columns.iter().map(|c| cell(&of, *c)));
        if compares {
            let ratio = ours_over(records, work, at, *peer)
                .filter(|_| *peer != Peer::Pilotfish && *peer != Peer::Direct);
            row.push(ratio.map_or("-".to_owned(), |r| format!("{r:.2}")));
        }
        rows.push(row);
    }
    rows
}

fn align(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, w))| match i {
            0 => format!(" {cell:<w$} "),
            _ => format!(" {cell:>w$} "),
        });
        format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
    };
    let rule = |(i, w): (usize, &usize)| match i {
        0 => "-".repeat(w + 2),
        _ => format!("{}:", "-".repeat(w + 1)),
    };
    let mut text = rows.first().map(|r| line(r)).unwrap_or_default();
    text += &format!("|{}|\n", widths.iter().enumerate().map(rule).collect::<Vec<_>>().join("|"));
    text + &rows.iter().skip(1).map(|r| line(r)).collect::<String>()
}

/// The bars of one workload, one a line.
fn bars(records: &[Record], work: Work) -> String {
    let mut rows = vec![["bar", "reached (min-max)", ""].map(str::to_owned).to_vec()];
    for bar in BARS.iter().filter(|b| b.work == work) {
        let reached = bar.reached(records);
        let figure =
            reached.map_or("-".to_owned(), |s| format!("{:.2} ({:.2}-{:.2})", s.median, s.min, s.max));
        let aim = bar.aim.map_or(String::new(), |aim| format!(" (aim {aim:.2})"));
        rows.push(vec![bar.text() + &aim, figure, bar.verdict(reached).to_owned()]);
    }
    format!("\n{}", align(&rows))
}

/// Every bar, for machines.
pub fn bars_json(records: &[Record]) -> Value {
    let each = BARS.iter().map(|bar| {
        let reached = bar.reached(records);
        json!({
            "work": bar.work.name(), "at": bar.at, "bar": bar.text(), "limit": bar.limit, "aim": bar.aim,
            "median": reached.map(|s| s.median), "min": reached.map(|s| s.min), "max": reached.map(|s| s.max),
            "verdict": bar.verdict(reached),
        })
    });
    each.collect()
}

/// How many bars are passed, missed and not measured, in a line.
pub fn summary(records: &[Record]) -> String {
    let verdicts: Vec<_> = BARS.iter().map(|b| b.verdict(b.reached(records))).collect();
    let count = |start: &str| verdicts.iter().filter(|v| v.starts_with(start)).count();
    format!("bars: {} passed, {} missed, {} not measured", count("pass"), count("MISS"), count("not"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Values;

    #[test]
    fn a_table_has_a_row_for_each_peer_with_the_ratio_to_it() {
        let record = |peer, round, cpu: f64| Record {
            work: Work::H1,
            at: String::new(),
            peer,
            round,
            values: Values::from([("cpu_us".to_owned(), cpu)]),
        };
        let records = vec![
            record(Peer::Pilotfish, 0, 9.0),
            record(Peer::Haproxy, 0, 10.0),
            record(Peer::Pilotfish, 1, 11.0),
            record(Peer::Haproxy, 1, 10.0),
        ];
        let text = tables(&records, Work::H1);
        let row = text.lines().find(|l| l.starts_with("| haproxy")).unwrap_or_default();
        assert!(row.contains("10.00 (10.00-10.00)"), "{text}");
        assert!(row.trim_end().ends_with("1.00 |"), "{text}");
        assert!(text.contains("CPU per request: at most 1.05 x haproxy's (aim 0.85) |"), "{text}");
        assert!(summary(&records).starts_with("bars: 1 passed, 0 missed"), "{}", summary(&records));
    }
}
