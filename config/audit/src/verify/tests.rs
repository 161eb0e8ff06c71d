//! Whatever is done to a log afterwards is found: random logs, and what could be done to them.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::writer::{Limits, Writer};

const CHAIN: &str = "0123456789abcdef0123456789abcdef";

/// One more record.
fn record(tip: &mut Tip, lines: &mut String, what: &str, more: &str, at: u64) {
    let from = lines.len();
    lines.push_str(&format!(
        "{{\"seq\":{},\"time_ns\":{at},\"what\":\"{what}\",\"agent\":\"n/a\"{more}",
        tip.seq + 1
    ));
    tip.seal(lines, from);
}

/// A log of some stretches; perhaps the first ones are erased.
fn log(folder: &Path, rng: &mut fastrand::Rng) -> u64 {
    let (mut writer, _) = Writer::open(folder, CHAIN).unwrap();
    let limits = Limits { bytes: rng.u64(300..3000), ..Limits::default() };
    let records = rng.u64(3..30);
    for at in 1..=records {
        let (mut tip, mut lines) = (writer.tip(), String::new());
        let more = format!(",\"caller\":\"{}\"", "x".repeat(rng.usize(0..40)));
        record(&mut tip, &mut lines, "decision", &more, at);
        writer.append(lines.as_bytes(), at, tip, at, &limits).unwrap();
    }
    if rng.bool()
        && let Some(old) = writer.older(records / 2, records)
    {
        let (mut tip, mut lines) = (writer.tip(), String::new());
        let more = format!(
            ",\"policy\":\"{}\",\"resource\":\"{}-{}\"",
            old.last.hash.as_str(),
            old.first,
            old.last.seq
        );
        record(&mut tip, &mut lines, "erased", &more, records + 1);
        writer.append(lines.as_bytes(), tip.seq, tip, records + 1, &limits).unwrap();
        writer.erase(&old, None).unwrap();
    }
    writer.sync().unwrap();
    writer.tip().seq
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn lines(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// Does something to the log; what it did, or nothing.
fn harm(folder: &Path, rng: &mut fastrand::Rng) -> Option<String> {
    let all = files(folder);
    let logs: Vec<&PathBuf> =
        all.iter().filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    let log = logs[rng.usize(..logs.len())];
    match rng.u8(0..8) {
        0 | 1 => {
            // Any byte of any file, the head's too.
            let path = &all[rng.usize(..all.len())];
            let mut bytes = fs::read(path).unwrap();
            let at = rng.usize(..bytes.len());
            let other = rng.u8(..);
            if bytes[at] == other {
                return None;
            }
            bytes[at] = other;
            fs::write(path, bytes).unwrap();
            Some(format!("byte {at} of {} is {other}", path.display()))
        }
        2 => {
            let mut all = lines(log);
            let at = rng.usize(..all.len());
            all.remove(at);
            fs::write(log, all.concat()).unwrap();
            Some(format!("line {at} of {} is gone", log.display()))
        }
        3 => {
            let mut all = lines(log);
            let (one, other) = (rng.usize(..all.len()), rng.usize(..all.len()));
            all.swap(one, other);
            (one != other).then(|| {
                fs::write(log, all.concat()).unwrap();
                format!("lines {one} and {other} of {}", log.display())
            })
        }
        4 => {
            let length = fs::metadata(log).unwrap().len();
            let to = rng.u64(..length);
            File::options().write(true).open(log).unwrap().set_len(to).unwrap();
            Some(format!("{} is cut at {to} of {length}", log.display()))
        }
        5 => {
            let path = &all[rng.usize(..all.len())];
            fs::remove_file(path).unwrap();
            Some(format!("{} is gone", path.display()))
        }
        6 => {
            let mut all = lines(log);
            let at = rng.usize(..all.len());
            let line = all[at].clone();
            all.insert(at, line);
            fs::write(log, all.concat()).unwrap();
            Some(format!("line {at} of {} is there twice", log.display()))
        }
        _ => {
            let mut bytes = fs::read(log).unwrap();
            let at = rng.usize(..=bytes.len());
            // A brace behind the last line is how the next one begins: nobody could tell it from that.
            let more = rng.u8(..);
            if at == bytes.len() && more == b'{' {
                return None;
            }
            bytes.insert(at, more);
            fs::write(log, bytes).unwrap();
            Some(format!("a byte more at {at} of {}", log.display()))
        }
    }
}

#[test]
fn nothing_is_found_where_nothing_was_done_and_whatever_was_done_is_found() {
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir().unwrap();
        let last = log(dir.path(), &mut rng);
        let report = verify(dir.path()).unwrap();
        assert_eq!(report.findings, [], "seed {seed}");
        assert_eq!((report.last, report.agent.as_str()), (last, "n/a"), "seed {seed}");
        if let Some(what) = harm(dir.path(), &mut rng) {
            assert_ne!(verify(dir.path()).unwrap().findings, [], "seed {seed}: {what}");
        }
    }
}

#[test]
fn a_finding_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = Writer::open(dir.path(), CHAIN).unwrap();
    let (mut tip, mut text) = (writer.tip(), String::new());
    for at in 1..=5 {
        record(&mut tip, &mut text, "decision", ",\"caller\":\"b\"", at);
    }
    writer.append(text.as_bytes(), 1, tip, 5, &Limits::default()).unwrap();
    writer.sync().unwrap();
    let path = dir.path().join("000000000001.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let changed = "the line was changed: its hash is another";
    let at = |line| Finding { file: "000000000001.jsonl".into(), line, seq: line, what: changed.into() };
    // What it says, and its hash alone: of which the line behind it knows better.
    let second = text.lines().nth(1).unwrap();
    let (body, _) = second.rsplit_once(",\"hash\"").unwrap();
    let other = format!("{body},\"hash\":\"{}\"}}", crate::Hash::of(b"").as_str());
    for (from, to, line) in [("\"caller\":\"b\"", "\"caller\":\"c\"", 1), (second, other.as_str(), 2)] {
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        assert_eq!(verify(dir.path()).unwrap().findings, [at(line)]);
    }
    let mut all = text.lines().collect::<Vec<_>>();
    all.remove(2);
    fs::write(&path, all.join("\n") + "\n").unwrap();
    let found = verify(dir.path()).unwrap().findings;
    assert_eq!(
        (found[0].line, found[0].seq, found[0].what.as_str()),
        (3, 4, "records 3 to 3 are missing before it")
    );
    fs::write(&path, all[..2].join("\n") + "\n").unwrap();
    let found = verify(dir.path()).unwrap().findings;
    assert_eq!(
        (found[0].file.as_str(), found[0].what.as_str()),
        ("head.json", "records 3 to 5 are missing at the end")
    );
}

#[test]
fn a_writer_goes_on_behind_the_end_and_says_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let go_on = |count: u64| {
        let (mut writer, opened) = Writer::open(dir.path(), CHAIN).unwrap();
        let (mut tip, mut text, first) = (writer.tip(), String::new(), writer.tip().seq + 1);
        for at in 0..count {
            record(&mut tip, &mut text, "decision", "", at + 1);
        }
        writer.append(text.as_bytes(), first, tip, 1, &Limits::default()).unwrap();
        writer.sync().unwrap();
        opened
    };
    let opened = go_on(3);
    assert!(opened.fresh && opened.torn == 0);
    let path = dir.path().join("000000000001.jsonl");
    // A line that was being written, and one that the head does not know yet.
    let head = fs::read(dir.path().join(HEAD)).unwrap();
    go_on(1);
    fs::write(dir.path().join(HEAD), head).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"seq\":5,\"ti");
    fs::write(&path, bytes).unwrap();
    let opened = go_on(2);
    assert_eq!((opened.torn, opened.missing, opened.fresh), (12, None, false));
    assert_eq!((verify(dir.path()).unwrap().findings, verify(dir.path()).unwrap().last), (vec![], 6));
    // The end is cut off: the chain goes on behind what was there, so that it stays visible.
    let kept = lines(&path)[..4].concat();
    fs::write(&path, kept).unwrap();
    assert_eq!(go_on(1).missing, Some((5, 6)));
    let found = verify(dir.path()).unwrap().findings;
    assert_eq!(found[0].what, "records 5 to 6 are missing before it");
    // Without a head nobody knows how far it went.
    fs::remove_file(dir.path().join(HEAD)).unwrap();
    let aside = go_on(1).aside.unwrap();
    assert_eq!(stretches(&aside).unwrap().len(), 1);
    assert_eq!(verify(dir.path()).unwrap().findings, []);
}

/// Only a control plane's copy says in its head what was erased.
#[test]
fn no_sidecars_log_loses_its_beginning_by_another_head() {
    for name in ["audit", CHAIN] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join(name);
        let (mut writer, _) = Writer::open(&dir, CHAIN).unwrap();
        for at in 1..=3 {
            let (mut tip, mut lines) = (writer.tip(), String::new());
            record(&mut tip, &mut lines, "decision", "", at);
            writer.append(lines.as_bytes(), at, tip, at, &Limits::default()).unwrap();
            writer.end_stretch().unwrap();
        }
        let old = writer.oldest().unwrap();
        writer.erase(&old, Some("old")).unwrap();
        let report = verify(&dir).unwrap();
        let found = if name == CHAIN { 0 } else { 2 };
        assert_eq!((report.findings.len(), report.first), (found, 2), "{name}: {report:?}");
    }
}

#[test]
fn what_a_killed_process_leaves_is_no_finding() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = Writer::open(dir.path(), CHAIN).unwrap();
    let (mut tip, mut text) = (writer.tip(), String::new());
    record(&mut tip, &mut text, "decision", "", 1);
    writer.append(text.as_bytes(), 1, tip, 1, &Limits::default()).unwrap();
    drop(writer);
    let (path, next) = (dir.path().join("000000000001.jsonl"), dir.path().join("000000000002.jsonl"));
    let good = fs::read(&path).unwrap();
    let after = |path: &Path, bytes: &[u8]| {
        fs::write(path, bytes).unwrap();
        let found = verify(dir.path()).unwrap().findings.len();
        let (_, opened) = Writer::open(dir.path(), CHAIN).unwrap();
        (found, opened.torn)
    };
    assert_eq!(after(&path, &[&good[..], b"{\"seq\":2,\"ti"].concat()), (0, 12));
    assert_eq!(fs::read(&path).unwrap(), good);
    // Another file had begun.
    assert_eq!(after(&next, format!("{{\"prev\":\"{}\",\"se", tip.hash.as_str()).as_bytes()), (0, 57));
    assert_eq!(after(&next, b""), (0, 0));
    let (mut writer, _) = Writer::open(dir.path(), CHAIN).unwrap();
    let mut text = String::new();
    record(&mut tip, &mut text, "decision", "", 2);
    writer.append(text.as_bytes(), 2, tip, 2, &Limits::default()).unwrap();
    assert_eq!((verify(dir.path()).unwrap().findings, verify(dir.path()).unwrap().last), (vec![], 2));
    // Nobody leaves this.
    drop(writer);
    for bytes in [&b"{\"seq\":9,\"ti"[..], b"x", b"\n"] {
        let all = [&fs::read(&next).unwrap()[..], bytes].concat();
        assert_eq!(after(&next, &all).0, 1, "{bytes:?}");
        fs::write(&next, &all[..all.len() - bytes.len()]).unwrap();
    }
}

#[test]
fn a_log_of_the_older_format_is_set_aside_and_not_accused() {
    use crate::chain::older::hash;
    let dir = tempfile::tempdir().unwrap();
    let covered = format!("{{\"seq\":1,\"time_ns\":7,\"what\":\"start\",\"prev\":\"{}\"", hash(b"origin"));
    let own = hash(covered.as_bytes());
    let line = format!("{covered},\"hash\":\"{own}\"}}\n");
    let sum = hash(format!("{CHAIN} 1 {own} ").as_bytes());
    let head = format!("{{\"chain\":\"{CHAIN}\",\"seq\":1,\"hash\":\"{own}\",\"sum\":\"{sum}\"}}");
    let path = dir.path().join("000000000001.jsonl");
    fs::write(&path, &line).unwrap();
    for head in [Some(&head), None] {
        match head {
            Some(head) => fs::write(dir.path().join(HEAD), head).unwrap(),
            None => fs::remove_file(dir.path().join(HEAD)).unwrap(),
        }
        let report = verify(dir.path()).unwrap();
        assert!(report.findings.is_empty() && !report.is_whole(), "{report:?}");
        assert!(report.unverifiable.contains("older Pilotfish"), "{report:?}");
    }
    // Whoever changed it is not excused.
    fs::write(&path, line.replace("start", "Start")).unwrap();
    assert_ne!(verify(dir.path()).unwrap().findings, []);
    fs::write(dir.path().join(HEAD), head.replace(":1,", ":2,")).unwrap();
    assert_ne!(verify(dir.path()).unwrap().findings, []);
    fs::write(dir.path().join(HEAD), head).unwrap();
    let (_, opened) = Writer::open(dir.path(), CHAIN).unwrap();
    assert!(opened.older && opened.aside.is_some(), "{opened:?}");
}
