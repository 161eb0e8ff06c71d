//! What a disk, a clock and other people may do to a log while it is written.

use std::os::unix::fs::symlink;

use super::*;
use crate::folder::stretches;
use crate::verify;

const CHAIN: &str = "0123456789abcdef0123456789abcdef";
const SECOND: u64 = 1_000_000_000;

/// Appends a record made at `at`, with so many bytes in it.
fn append(writer: &mut Writer, at: u64, length: usize) -> io::Result<()> {
    let (mut tip, mut line) = (writer.tip(), String::new());
    let seq = tip.seq + 1;
    line.push_str(&format!(
        "{{\"seq\":{seq},\"time_ns\":{at},\"agent\":\"a\",\"detail\":\"{}\"",
        "x".repeat(length)
    ));
    tip.seal(&mut line, 0);
    writer.append(line.as_bytes(), seq, tip, at, &Limits::default())
}

#[test]
fn one_process_writes_into_a_folder_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, _) = Writer::open(dir.path(), CHAIN).unwrap();
    append(&mut first, 1, 9).unwrap();
    let second = Writer::open(dir.path(), CHAIN).unwrap_err();
    assert!(second.to_string().contains("another process"), "{second}");
    drop(first);
    let (mut second, _) = Writer::open(dir.path(), CHAIN).unwrap();
    append(&mut second, 2, 9).unwrap();
    assert_eq!((verify(dir.path()).unwrap().findings, verify(dir.path()).unwrap().last), (vec![], 2));
}

#[test]
fn no_link_is_followed() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let victim = other.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    for name in ["head.json.new", "000000000001.jsonl", HEAD] {
        let link = dir.path().join(name);
        let _ = fs::remove_file(&link);
        symlink(&victim, &link).unwrap();
        let written = Writer::open(dir.path(), CHAIN).and_then(|(mut writer, _)| append(&mut writer, 1, 9));
        assert_eq!(written.is_ok(), name == "head.json.new", "{name}: {written:?}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "{name}");
        if name == HEAD {
            assert!(verify(dir.path()).is_err());
        } else if name.ends_with("jsonl") {
            fs::remove_file(&link).unwrap();
        } else {
            fs::remove_file(dir.path().join("000000000001.jsonl")).unwrap();
            fs::remove_file(dir.path().join(HEAD)).unwrap();
        }
    }
}

/// Nothing that is written after somebody touched the folder is lost, and what they did is found.
#[test]
fn whoever_takes_the_file_that_is_written_takes_no_more_than_is_in_it() {
    type Harm = fn(&Path);
    let cases: [(&str, Harm, u64); 4] = [
        ("removed", |dir| fs::remove_file(dir.join("000000000001.jsonl")).unwrap(), 3),
        ("moved", |dir| fs::rename(dir.join("000000000001.jsonl"), dir.join("old")).unwrap(), 3),
        (
            "another in its place",
            |dir| {
                fs::copy(dir.join("000000000001.jsonl"), dir.join("x")).unwrap();
                fs::rename(dir.join("x"), dir.join("000000000001.jsonl")).unwrap();
            },
            1,
        ),
        ("the folder", |dir| fs::remove_dir_all(dir).unwrap(), 3),
    ];
    for (name, harm, first) in cases {
        let dir = tempfile::tempdir().unwrap();
        let dir = &dir.path().join("log");
        let (mut writer, _) = Writer::open(dir, CHAIN).unwrap();
        for at in 1..=2 {
            append(&mut writer, at, 9).unwrap();
        }
        writer.sync().unwrap();
        assert!(!writer.was_taken());
        append(&mut writer, 3, 9).unwrap();
        harm(dir);
        append(&mut writer, 4, 9).unwrap();
        if name == "moved" {
            writer.end_stretch().unwrap();
        }
        append(&mut writer, 5, 9).unwrap();
        writer.sync().unwrap();
        assert!(writer.was_taken(), "{name}");
        append(&mut writer, 6, 9).unwrap();
        writer.sync().unwrap();
        assert!(!writer.was_taken(), "{name}");
        let report = verify(dir).unwrap();
        assert_eq!((report.first, report.last), (first, 6), "{name}");
        assert!(!report.findings.is_empty(), "{name}");
        let second = Writer::open(dir, CHAIN).unwrap_err();
        assert!(second.to_string().contains("another process"), "{name}: {second}");
        drop(writer);
        let (mut writer, _) = Writer::open(dir, CHAIN).unwrap();
        append(&mut writer, 7, 9).unwrap();
        assert_eq!(verify(dir).unwrap().last, 7, "{name}");
    }
    // Before it was looked at even once: the file begins the chain.
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = Writer::open(dir.path(), CHAIN).unwrap();
    append(&mut writer, 1, 9).unwrap();
    append(&mut writer, 2, 9).unwrap();
    fs::remove_file(dir.path().join("000000000001.jsonl")).unwrap();
    writer.sync().unwrap();
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.first, report.last, report.findings), (1, 2, vec![]), "nothing was lost");
}

#[test]
fn a_clock_that_was_wrong_keeps_no_record_for_ever_and_erases_none_too_soon() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = Writer::open(dir.path(), CHAIN).unwrap();
    // Right, years ahead, right again, back in 1970, right again.
    for at in [1000, 9_999_999, 1200, 5, 1400] {
        append(&mut writer, at * SECOND, 9).unwrap();
        if at == 1000 || at == 5 {
            writer.end_stretch().unwrap();
        }
    }
    let firsts: Vec<u64> = stretches(dir.path()).unwrap().iter().map(|one| one.first).collect();
    assert_eq!(firsts, [1, 2, 3, 4, 5], "each jump back begins a file");
    let gone = |until: u64| writer.older(until * SECOND, 1500 * SECOND).map_or(0, |old| old.last.seq);
    assert_eq!([999, 1000, 1199, 1200, 1399, 1400].map(gone), [0, 1, 1, 4, 4, 5]);
}

/// Runs itself again with a limit on how long a file may be: what that leaves is what a full disk leaves.
#[test]
fn what_did_not_fit_as_a_whole_is_not_there_at_all() {
    const PLACE: &str = "PILOTFISH_TEST_FULL_DISK";
    if let Some(place) = std::env::var_os(PLACE) {
        let (mut writer, _) = Writer::open(Path::new(&place), CHAIN).unwrap();
        for at in 0..50 {
            if append(&mut writer, at, 1000).is_err() {
                assert_eq!(writer.tip().seq, verify(Path::new(&place)).unwrap().last);
                return;
            }
        }
        panic!("the file may be as long as it likes");
    }
    let dir = tempfile::tempdir().unwrap();
    // Blocks of 512 bytes, or of 1024 where `sh` is bash.
    let test = "writer::tests::what_did_not_fit_as_a_whole_is_not_there_at_all";
    let script = format!("trap '' XFSZ; ulimit -f 9; exec \"$0\" --exact {test}");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]).arg(std::env::current_exe().unwrap()).env(PLACE, dir.path());
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    let report = verify(dir.path()).unwrap();
    assert!(report.findings.is_empty() && (3..10).contains(&report.last), "{report:?}");
    // With room it goes on.
    let (mut writer, opened) = Writer::open(dir.path(), CHAIN).unwrap();
    assert_eq!((opened.torn, opened.missing), (0, None));
    append(&mut writer, 99, 1000).unwrap();
    assert_eq!(verify(dir.path()).unwrap().findings, []);
}
