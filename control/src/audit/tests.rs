//! The store by itself: batches as sidecars send them, and as they should not.

use std::path::Path;

use pilotfish_audit::{Line, Tip};
use pilotfish_config::wire::AuditBatch;

use super::*;

const CHAIN: &str = "0123456789abcdef0123456789abcdef";
const AGENT: &str = "default/a";
const SECOND: u64 = 1_000_000_000;

/// Records from 1 to `count`, one a second.
fn lines(count: u64, caller: &str) -> Vec<String> {
    lines_of(CHAIN, AGENT, count, caller)
}

fn lines_of(chain: &str, agent: &str, count: u64, caller: &str) -> Vec<String> {
    let (mut tip, mut text) = (Tip::origin(chain), String::new());
    for seq in 1..=count {
        let from = text.len();
        text.push_str(&format!(
            "{{\"seq\":{seq},\"time_ns\":{},\"what\":\"decision\",\"agent\":\"{agent}\",\"caller\":\"{caller}\",\"outcome\":\"{}\"",
            seq * SECOND,
            if seq % 2 == 0 { "denied" } else { "allowed" }
        ));
        tip.seal(&mut text, from);
    }
    text.lines().map(str::to_owned).collect()
}

/// Some of the lines, as they come from a sidecar that has the ones before too.
fn batch(lines: &[String]) -> AuditBatch {
    let seq = pilotfish_audit::chain::seq(lines[0].as_bytes()).unwrap();
    let before = self::lines(seq - 1, "b").pop().and_then(|line| Some(Line::read(line.as_bytes())?.hash));
    let prev = before.unwrap_or(Tip::origin(CHAIN).hash).as_str().to_owned();
    AuditBatch { chain: CHAIN.into(), prev, lines: lines.to_vec() }
}

fn open(folder: &Path, kept: Option<Duration>) -> (Chains, Retention) {
    let keeps: Retention = Arc::new(move |_: &str| kept);
    (Chains::open(folder, 1 << 30, keeps.clone()).unwrap(), keeps)
}

fn query() -> Query {
    Query { limit: 100, ..Query::default() }
}

fn seqs(folder: &Path, query: &Query, now: u64, retention: &Retention) -> Vec<u64> {
    query::find(folder, query, now, retention).unwrap().iter().map(|row| row.record.seq).collect()
}

fn findings(folder: &Path) -> Vec<String> {
    let reports = query::verify(folder, None).unwrap();
    reports.into_iter().flat_map(|report| report.findings).map(|finding| finding.what).collect()
}

#[test]
fn what_comes_twice_is_there_once_and_what_is_missing_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chains, keeps) = open(dir.path(), None);
    let all = lines(10, "b");
    assert_eq!(chains.append(AGENT, &batch(&all[..4]), 1).unwrap(), 4);
    assert_eq!(chains.append(AGENT, &batch(&all[2..6]), 1).unwrap(), 6, "two of them for the second time");
    assert_eq!(chains.append(AGENT, &batch(&all[7..]), 1).unwrap(), 6, "the seventh is asked for");
    assert_eq!(chains.append(AGENT, &batch(&all[6..]), 1).unwrap(), 10);
    // Another process goes on with the same.
    drop(chains);
    let (mut chains, _) = open(dir.path(), None);
    assert_eq!(chains.append(AGENT, &batch(&all), 1).unwrap(), 10);
    assert_eq!(findings(dir.path()), [""; 0]);
    assert_eq!(seqs(dir.path(), &query(), 20 * SECOND, &keeps), (1..=10).rev().collect::<Vec<_>>());
    let some = Query { denied: true, since: Some(3 * SECOND), until: Some(9 * SECOND), limit: 2, ..query() };
    assert_eq!(seqs(dir.path(), &some, 20 * SECOND, &keeps), [8, 6]);
    for (query, count) in [
        (Query { agent: Some("a".into()), ..query() }, 10),
        (Query { agent: Some("other/a".into()), ..query() }, 0),
        (Query { caller: Some("b".into()), ..query() }, 10),
        (Query { caller: Some("c".into()), ..query() }, 0),
        (Query { policy: Some("p".into()), ..query() }, 0),
    ] {
        assert_eq!(seqs(dir.path(), &query, 20 * SECOND, &keeps).len(), count, "{query:?}");
    }
}

#[test]
fn what_does_not_hang_together_is_kept_and_said() {
    type Change = fn(&mut Vec<String>);
    let cases: [(&str, Change, u64, &str); 4] = [
        ("a gap", |all| drop(all.drain(4..6)), 10, "records 5 to 6 are missing before it"),
        ("an edit", |all| all[5] = all[5].replace("\"b\"", "\"c\""), 10, "not as it was written"),
        (
            "another log",
            |all| {
                let other = lines(10, "x");
                all.splice(4.., other[4..].iter().cloned());
            },
            10,
            "written anew",
        ),
        ("a foreign record", |all| all[5] = lines(6, "b")[5].clone(), 10, ""),
    ];
    for (name, harm, last, what) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (mut chains, _) = open(dir.path(), None);
        let mut all = lines(10, "b");
        harm(&mut all);
        chains.append(AGENT, &batch(&all[..4]), 1).unwrap();
        let mut rest = batch(&all[4..]);
        if name == "another log" {
            let before = lines(4, "x").pop().unwrap();
            rest.prev = Line::read(before.as_bytes()).unwrap().hash.as_str().to_owned();
        }
        let mut taken = 0;
        for _ in 0..3 {
            taken = chains.append(AGENT, &rest, 1).unwrap();
        }
        assert_eq!(taken, last, "{name}");
        let found = findings(dir.path());
        assert!(
            found.iter().any(|found| !what.is_empty() && found.contains(what))
                || (what.is_empty() && found.is_empty()),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn nobody_speaks_for_another_agent_and_no_name_leaves_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chains, keeps) = open(dir.path(), None);
    let all = lines(3, "b");
    assert_eq!(chains.append("default/evil", &batch(&all), 1).unwrap(), 3, "so that it does not come again");
    assert_eq!(seqs(dir.path(), &query(), 9 * SECOND, &keeps), [0; 0]);
    assert!(findings(dir.path()).iter().any(|found| found.contains("sent a record of default/a")));
    for agent in ["../x", "a", "/x", "a/../../x", "a.b/c"] {
        assert!(chains.append(agent, &batch(&all), 1).is_err(), "{agent}");
    }
    let chain = AuditBatch { chain: "../../../../../../../../../tmp/x".into(), ..batch(&all) };
    assert!(chains.append(AGENT, &chain, 1).is_err());
}

#[test]
fn records_go_when_they_are_old_and_are_not_shown_before() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chains, keeps) = open(dir.path(), Some(Duration::from_secs(100)));
    let all = lines(300, "b");
    for at in 0..30_u64 {
        let from = usize::try_from(at * 10).unwrap();
        chains.append(AGENT, &batch(&all[from..from + 10]), (at + 1) * 10 * SECOND).unwrap();
        chains.erase((at + 1) * 10 * SECOND);
    }
    let none: Retention = Arc::new(|_: &str| None);
    let on_disk = query::find(dir.path(), &Query { limit: 1000, ..query() }, 300 * SECOND, &none).unwrap();
    assert!((100..=120).contains(&on_disk.len()), "{}", on_disk.len());
    let shown = query::find(dir.path(), &Query { limit: 1000, ..query() }, 300 * SECOND, &keeps).unwrap();
    assert!((200..=201).contains(&shown.last().unwrap().record.seq), "{:?}", shown.last());
    assert_eq!(findings(dir.path()), [""; 0], "what is left still hangs together");
    chains.erase(1000 * SECOND);
    let left = query::find(dir.path(), &query(), 1000 * SECOND, &none).unwrap();
    assert_eq!(left, []);
    // What was erased does not come back when it is sent again; what comes next hangs on it.
    assert_eq!(chains.append(AGENT, &batch(&all[250..]), 1000 * SECOND).unwrap(), 300);
    assert_eq!(query::find(dir.path(), &query(), 300 * SECOND, &none).unwrap(), []);
    assert_eq!(findings(dir.path()), [""; 0]);
}

#[test]
fn what_comes_late_goes_as_soon_as_what_came_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chains, _) = open(dir.path(), Some(Duration::from_secs(100)));
    let none: Retention = Arc::new(|_: &str| None);
    let (all, mut taken, mut batches) = (lines(300, "b"), 0, 0);
    while taken < 300 {
        taken = usize::try_from(chains.append(AGENT, &batch(&all[taken..]), 300 * SECOND).unwrap()).unwrap();
        batches += 1;
    }
    assert!((2..=5).contains(&batches), "{batches}: few files begin with one batch");
    assert_eq!(findings(dir.path()), [""; 0]);
    for (now, oldest) in [(300, 190), (370, 260)] {
        chains.erase(now * SECOND);
        let left = query::find(dir.path(), &Query { limit: 1000, ..query() }, now * SECOND, &none).unwrap();
        let first = left.last().unwrap().record.seq;
        assert!((oldest..=now - 99).contains(&first), "at {now}: {first}");
    }
    assert_eq!(findings(dir.path()), [""; 0]);
}

#[test]
fn findings_are_not_edited_away() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chains, _) = open(dir.path(), None);
    let mut all = lines(10, "b");
    all[9] = all[9].replace("\"b\"", "\"c\"");
    chains.append(AGENT, &batch(&all), 1).unwrap();
    let path = dir.path().join("default.a").join(CHAIN).join("findings.jsonl");
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(findings(dir.path()).len(), 1);
    for at in 0..whole.len() {
        for other in [b'x', b'"', b'\n', 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = other;
            std::fs::write(&path, bytes).unwrap();
            assert_ne!(findings(dir.path()), [""; 0], "byte {at}");
        }
    }
}

#[test]
fn the_oldest_go_when_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut chains = Chains::open(dir.path(), 10_000, Arc::new(|_: &str| None)).unwrap();
    let keeps: Retention = Arc::new(|_: &str| None);
    let all = lines(100, "b");
    chains.append(AGENT, &batch(&all), 1).unwrap();
    chains.erase(1);
    assert_eq!(seqs(dir.path(), &query(), 999 * SECOND, &keeps), [0; 0], "more than there is room for");
    assert_eq!(findings(dir.path()), [""; 0]);
}

#[test]
fn logs_that_were_moved_to_another_agent_are_found_and_links_are_no_logs() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chains, keeps) = open(dir.path(), None);
    chains.append(AGENT, &batch(&lines(3, "b")), 1).unwrap();
    drop(chains);
    let (here, there) = (dir.path().join("default.a").join(CHAIN), dir.path().join("default.b"));
    std::os::unix::fs::symlink(dir.path().join("default.a"), &there).unwrap();
    assert_eq!(seqs(dir.path(), &query(), 9 * SECOND, &keeps), [3, 2, 1]);
    assert_eq!(findings(dir.path()), [""; 0]);
    std::fs::remove_file(&there).unwrap();
    std::fs::create_dir(&there).unwrap();
    std::fs::rename(&here, there.join(CHAIN)).unwrap();
    assert!(findings(dir.path())[0].contains("of default/a: somebody moved it here"));
    std::fs::rename(there.join(CHAIN), here.with_file_name("f".repeat(32))).unwrap();
    assert!(findings(dir.path())[0].contains("somebody moved it here"));
}

#[test]
fn what_a_sidecar_erased_before_it_came_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chains, _) = open(dir.path(), None);
    let all = lines(10, "b");
    chains.append(AGENT, &batch(&all[..4]), 1).unwrap();
    // The control plane is away; records 5 to 8 are old enough to go, and a record says so.
    let hash = |line: &str| Line::read(line.as_bytes()).unwrap().hash;
    let mut tip = Tip { seq: 10, hash: hash(&all[9]) };
    let mut erased = format!(
        "{{\"seq\":11,\"time_ns\":{},\"what\":\"erased\",\"agent\":\"{AGENT}\",\"resource\":\"1-8\",\"policy\":\"{}\"",
        11 * SECOND,
        hash(&all[7]).as_str()
    );
    tip.seal(&mut erased, 0);
    let mut left = all[8..].to_vec();
    for said in [false, true] {
        if said {
            left.push(erased.trim_end().to_owned());
        }
        while chains.append(AGENT, &batch(&left), 1).unwrap() < 10 {}
        assert_eq!(findings(dir.path()).is_empty(), said, "{:?}", findings(dir.path()));
    }
}

#[test]
fn a_flood_of_one_agent_pushes_no_others_records_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut chains = Chains::open(dir.path(), 60_000, Arc::new(|_: &str| None)).unwrap();
    let keeps: Retention = Arc::new(|_: &str| None);
    chains.append(AGENT, &batch(&lines(10, "b")), 1).unwrap();
    // Newer, and more than there is room for, under several names.
    for name in 0..4 {
        let chain = format!("{name:032x}");
        let lines = lines_of(&chain, "default/loud", 200, &"x".repeat(200));
        let prev = Tip::origin(&chain).hash.as_str().to_owned();
        chains.append("default/loud", &AuditBatch { chain, prev, lines }, 2).unwrap();
    }
    chains.erase(1);
    let query = Query { limit: 1000, ..Query::default() };
    let left = query::find(dir.path(), &query, 999 * SECOND, &keeps).unwrap();
    let of = |agent: &str| left.iter().filter(|row| row.record.agent == agent).count();
    assert_eq!(of(AGENT), 10, "the quiet one's are all there");
    assert!(of("default/loud") < 800, "{}", of("default/loud"));
}
