//! Debounce by injected time; fingerprints and the watch on real folders.

use super::*;

fn at(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

#[test]
fn a_burst_ends_when_it_is_quiet() {
    let start = Instant::now();
    let mut debounce = Debounce::default();
    assert_eq!(debounce.due(), None);
    debounce.touched(at(start, 0));
    debounce.touched(at(start, 50));
    assert!(!debounce.take(at(start, 100)));
    assert_eq!(debounce.due(), Some(at(start, 125)));
    assert!(debounce.take(at(start, 125)));
    assert!(!debounce.take(at(start, 500)), "one burst, one reload");
}

#[test]
fn a_burst_without_end_is_read_all_the_same() {
    let start = Instant::now();
    let mut debounce = Debounce::default();
    for millis in (0..=1000).step_by(50) {
        debounce.touched(at(start, millis));
        assert_eq!(debounce.take(at(start, millis)), millis == 1000, "at {millis} ms");
    }
}

#[test]
fn a_burst_is_read_ahead_once() {
    let start = Instant::now();
    let mut debounce = Debounce::default();
    assert_eq!(debounce.ahead(), None);
    debounce.touched(at(start, 0));
    assert!(!debounce.take_ahead(at(start, 4)));
    debounce.touched(at(start, 4));
    assert!(!debounce.take_ahead(at(start, 8)));
    assert!(debounce.take_ahead(at(start, 9)));
    debounce.touched(at(start, 50));
    assert!(!debounce.take_ahead(at(start, 60)), "a wasted reading is not repeated");
    assert!(debounce.take(at(start, 125)));
    debounce.touched(at(start, 200));
    assert!(debounce.take_ahead(at(start, 205)), "the next burst has its own");
}

#[test]
fn only_what_is_read_changes_the_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.yaml", "one");
    let first = fingerprint(dir.path());
    write("a.yaml.swp", "editor");
    write("README", "text");
    assert_eq!(fingerprint(dir.path()), first);
    write("b.yml", "two");
    assert_ne!(fingerprint(dir.path()), first);
}

#[test]
fn a_rename_over_a_file_of_the_same_size_changes_the_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, "weight: 80").unwrap();
    let first = fingerprint(dir.path());
    let beside = dir.path().join("new");
    std::fs::write(&beside, "weight: 20").unwrap();
    std::fs::rename(beside, &file).unwrap();
    assert_ne!(fingerprint(dir.path()), first);
    assert_ne!(fingerprint(&file), fingerprint(dir.path()));
}

#[test]
fn a_folder_that_is_made_again_has_another_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("config");
    let fresh = || {
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a.yaml"), "x").unwrap();
        fingerprint(&folder)
    };
    let first = fresh();
    std::fs::remove_dir_all(&folder).unwrap();
    let gone = fingerprint(&folder);
    assert_ne!(gone, first);
    assert_ne!(fresh(), gone);
}

/// Kubernetes writes a new folder of data and swaps the symbolic link `..data` to it; the files' own links stay.
#[test]
fn a_config_map_swap_changes_the_fingerprint() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let data = |name: &str, text: &str| {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("a.yaml"), text).unwrap();
    };
    data("..2026_1", "one");
    symlink("..2026_1", dir.path().join("..data")).unwrap();
    symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
    let first = fingerprint(dir.path());
    data("..2026_2", "two");
    symlink("..2026_2", dir.path().join("..data_tmp")).unwrap();
    assert_eq!(fingerprint(dir.path()), first);
    std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    assert_ne!(fingerprint(dir.path()), first);
}
