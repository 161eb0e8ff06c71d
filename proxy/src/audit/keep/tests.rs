//! What is kept, what a full disk does to it, and what goes when it is old; time is given.

use std::fs;
use std::path::Path;

use pilotfish_audit::{Line, verify};
use pilotfish_config::wire::AuditRecord;

use super::*;

const SECOND: u64 = 1_000_000_000;
const CHAIN: &str = "0123456789abcdef0123456789abcdef";

fn keeper<'s>(state: &'s State, place: Option<&Path>, at: u64) -> Keeper<'s> {
    keeper_of(state, place, at, 1 << 30)
}

fn keeper_of<'s>(state: &'s State, place: Option<&Path>, at: u64, disk: u64) -> Keeper<'s> {
    let mut keeper = Keeper::new(state, place.map(Path::to_owned), disk, "default/a".into(), CHAIN.into());
    keeper.open(at);
    keeper.write(at);
    keeper
}

fn note(keeper: &mut Keeper<'_>, at: u64, caller: &str) {
    keeper.add(at, AuditWhat::Decision, |line| line.text("caller", caller));
}

fn records(place: &Path) -> Vec<AuditRecord> {
    let mut all = Vec::new();
    for stretch in pilotfish_audit::folder::stretches(place).unwrap() {
        let text = fs::read_to_string(stretch.path).unwrap();
        all.extend(text.lines().map(|line| serde_json::from_str::<AuditRecord>(line).unwrap()));
    }
    all
}

#[test]
fn the_first_record_says_how_the_process_before_ended() {
    let (dir, state) = (tempfile::tempdir().unwrap(), State::new(false));
    let mut first = keeper(&state, Some(dir.path()), SECOND);
    note(&mut first, SECOND, "x");
    first.end(2 * SECOND);
    drop(first);
    let second = keeper(&state, Some(dir.path()), 3 * SECOND);
    drop(second);
    drop(keeper(&state, Some(dir.path()), 4 * SECOND));
    let said: Vec<String> = records(dir.path())
        .into_iter()
        .filter(|record| record.what == AuditWhat::Start)
        .map(|record| record.detail)
        .collect();
    assert_eq!(said[0], "the log begins");
    assert_eq!(said[1], "the log goes on; the process before ended in order");
    assert!(said[2].contains("did not end in order"), "{said:?}");
    assert_eq!(verify(dir.path()).unwrap().findings, []);
}

#[test]
fn a_full_disk_is_said_and_its_records_are_kept_or_counted() {
    let (dir, state) = (tempfile::tempdir().unwrap(), State::new(false));
    // What takes the file's place stands for a full disk.
    let full = dir.path().join("000000000001.jsonl");
    fs::create_dir(&full).unwrap();
    let mut keeper = keeper(&state, Some(dir.path()), SECOND);
    assert!(state.broken.load(Relaxed));
    let long = "x".repeat(1000);
    for _ in 0..2000 {
        note(&mut keeper, 2 * SECOND, &long);
    }
    keeper.write(3 * SECOND);
    let lost = state.lost_total.load(Relaxed);
    assert!(state.broken.load(Relaxed) && (500..1500).contains(&lost), "{lost}");
    // Room again.
    fs::remove_dir(full).unwrap();
    keeper.write(4 * SECOND);
    assert!(!state.broken.load(Relaxed));
    keeper.write(4 * SECOND);
    assert_eq!(records(dir.path()).last().unwrap().what, AuditWhat::Gap, "though nothing else comes");
    note(&mut keeper, 5 * SECOND, "after");
    keeper.write(5 * SECOND);
    let all = records(dir.path());
    let gap: Vec<&AuditRecord> = all.iter().filter(|record| record.what == AuditWhat::Gap).collect();
    assert_eq!(gap.len(), 1);
    let since = format!("{lost} records could not be kept since 1970-01-01T00:00:02.000Z");
    assert_eq!(gap[0].detail, since);
    assert_eq!(all.last().unwrap().caller, "after");
    assert_eq!(all.len() as u64, 1 + (2000 - lost) + 2, "start, those that were kept, gap, after");
    assert_eq!(verify(dir.path()).unwrap().findings, []);
}

#[test]
fn a_disk_that_takes_lines_and_no_head_is_as_good_as_full() {
    let (dir, state) = (tempfile::tempdir().unwrap(), State::new(false));
    let mut keeper = keeper(&state, Some(dir.path()), SECOND);
    let full = dir.path().join("head.json.new");
    fs::create_dir(&full).unwrap();
    for tenth in 30..50 {
        note(&mut keeper, tenth * SECOND / 10, "x");
        keeper.write(tenth * SECOND / 10);
        assert!(state.broken.load(Relaxed), "at {tenth}");
    }
    fs::remove_dir(full).unwrap();
    keeper.write(6 * SECOND);
    assert!(!state.broken.load(Relaxed));
    assert_eq!((records(dir.path()).len(), verify(dir.path()).unwrap().findings), (21, vec![]));
}

#[test]
fn whoever_takes_the_file_that_is_written_is_told_of_in_the_log() {
    let (dir, state) = (tempfile::tempdir().unwrap(), State::new(true));
    let mut keeper = keeper(&state, Some(dir.path()), SECOND);
    note(&mut keeper, 3 * SECOND, "taken");
    keeper.write(3 * SECOND);
    fs::remove_dir_all(dir.path()).unwrap();
    note(&mut keeper, 3 * SECOND, "kept");
    keeper.write(3 * SECOND);
    for at in 5..7 {
        keeper.write(at * SECOND);
    }
    let told: Vec<_> = records(dir.path()).into_iter().map(|one| (one.what, one.caller)).collect();
    assert_eq!(told, [(AuditWhat::Decision, "kept".into()), (AuditWhat::Gap, String::new())]);
    assert!(!state.broken.load(Relaxed));
    assert_eq!(*state.durable.borrow(), 4, "it goes to the control plane");
    let found = verify(dir.path()).unwrap().findings;
    assert!(found.len() == 1 && found[0].what.contains("records 1 to 2 are missing"), "{found:?}");
}

#[test]
fn what_is_older_than_the_policy_says_is_erased_and_the_rest_still_verifies() {
    let (dir, state) = (tempfile::tempdir().unwrap(), State::new(false));
    let retention = Some(Duration::from_secs(100));
    let mut keeper = keeper(&state, Some(dir.path()), 0);
    for second in 0..250 {
        keeper.erase(second * SECOND, retention);
        note(&mut keeper, second * SECOND, &second.to_string());
        keeper.write(second * SECOND);
        let oldest = records(dir.path())[0].time_ns;
        assert!((second * SECOND).saturating_sub(oldest) <= 111 * SECOND, "at {second}: {oldest}");
    }
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.findings, []);
    assert!(report.erased > 100, "{report:?}");
    // Nothing comes any more: the last ones go too.
    keeper.erase(600 * SECOND, retention);
    let left = records(dir.path());
    assert!(left.iter().all(|record| record.what == AuditWhat::Erased), "{left:?}");
    assert_eq!(verify(dir.path()).unwrap().findings, []);
    drop(keeper);
    fs::remove_file(&pilotfish_audit::folder::stretches(dir.path()).unwrap()[0].path).unwrap();
    assert_ne!(verify(dir.path()).unwrap().findings, []);
}

/// What the log takes after each of 4,000 records of a kilobyte.
fn fill(keeper: &mut Keeper<'_>, dir: &Path, most: u64) {
    let long = "x".repeat(1000);
    for number in 0..4000 {
        note(keeper, (number + 2) * SECOND, &long);
        keeper.make_room((number + 2) * SECOND);
        keeper.write((number + 2) * SECOND);
        if number % 100 == 0 {
            let all = pilotfish_audit::folder::stretches(dir).unwrap();
            let bytes: u64 = all.iter().map(|one| fs::metadata(&one.path).unwrap().len()).sum();
            assert!(bytes <= most, "{bytes}");
        }
    }
}

#[test]
fn a_log_takes_no_more_of_the_disk_than_it_may() {
    const DISK: u64 = 1 << 20;
    let (dir, state) = (tempfile::tempdir().unwrap(), State::new(false));
    let mut keeper = keeper_of(&state, Some(dir.path()), SECOND, DISK);
    fill(&mut keeper, dir.path(), DISK);
    assert_eq!((state.lost_total.load(Relaxed), state.broken.load(Relaxed)), (0, false));
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.findings, []);
    assert!(report.erased > 2500, "{report:?}");
    let why = records(dir.path()).into_iter().rfind(|record| record.what == AuditWhat::Erased);
    assert_eq!(why.unwrap().detail, "no room for more (--audit-disk)");
    drop(keeper);
    // Whoever takes more away than was said is found.
    fs::remove_file(&pilotfish_audit::folder::stretches(dir.path()).unwrap()[0].path).unwrap();
    assert_ne!(verify(dir.path()).unwrap().findings, []);
}

#[test]
fn what_the_control_plane_does_not_have_makes_no_room() {
    const DISK: u64 = 1 << 20;
    let (dir, state) = (tempfile::tempdir().unwrap(), State::new(true));
    let mut keeper = keeper_of(&state, Some(dir.path()), SECOND, DISK);
    fill(&mut keeper, dir.path(), DISK + 2000);
    let lost = state.lost_total.load(Relaxed);
    assert!(state.broken.load(Relaxed) && lost > 1500, "{lost}");
    assert_eq!(records(dir.path())[0].what, AuditWhat::Start, "nothing was erased");
    // It is back, and takes what was written, then what waited.
    for _ in 0..2 {
        state.taken(*state.durable.borrow());
        keeper.make_room(5000 * SECOND);
        keeper.write(5000 * SECOND);
        assert!(!state.broken.load(Relaxed));
    }
    note(&mut keeper, 5001 * SECOND, "after");
    keeper.write(5001 * SECOND);
    let all = records(dir.path());
    let gap: Vec<_> = all.iter().filter(|record| record.what == AuditWhat::Gap).collect();
    assert!(gap.iter().any(|gap| gap.detail.starts_with(&format!("{lost} records"))), "{gap:?}");
    assert_eq!(all.last().unwrap().caller, "after");
    assert_eq!(verify(dir.path()).unwrap().findings, []);
}

#[test]
fn without_a_folder_lines_wait_in_memory_for_the_control_plane() {
    let state = State::new(true);
    let mut keeper = keeper(&state, None, SECOND);
    for n in 0..9 {
        note(&mut keeper, SECOND, &n.to_string());
    }
    keeper.write(3 * SECOND);
    assert_eq!(*state.durable.borrow(), 10);
    let most = pilotfish_audit::reader::Most { lines: 4, bytes: 1 << 20 };
    state.taken(5);
    let (before, lines) = state.remembered(6, most);
    assert!(Line::read(lines[0].as_bytes()).unwrap().is_behind(&before.unwrap()));
    let seqs: Vec<u64> =
        lines.iter().filter_map(|line| pilotfish_audit::chain::seq(line.as_bytes())).collect();
    assert_eq!(seqs, [6, 7, 8, 9]);
    // Nobody takes them: memory is bounded, and what does not fit is no secret.
    let long = "x".repeat(10_000);
    for _ in 0..1000 {
        note(&mut keeper, 4 * SECOND, &long);
        keeper.write(4 * SECOND);
    }
    assert!(state.broken.load(Relaxed) && state.lost_total.load(Relaxed) > 100);
    state.taken(10_000);
    keeper.write(5 * SECOND);
    assert!(!state.broken.load(Relaxed));
}
