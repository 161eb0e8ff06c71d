//! The whole configuration path on real folders: what is published, what is kept, and what is told about it.

use super::file::{Event, FileSource, fingerprint};
use super::*;
use clap::Parser;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

/// A valid document of one service.
fn service(host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: {host}\nspec:\n  hosts: [{host}.test]\n  \
         ports: [{{number: 80, name: http, protocol: HTTP}}]\n  resolution: STATIC\n  endpoints: [{{address: 10.0.0.1}}]\n"
    )
}

const INVALID: &str =
    "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: x\nspec:\n  hosts: 7\n";

fn shared(config: &Path, flags: &[&str]) -> Arc<Shared> {
    let fixed = ["pilotfish-proxy", "--agent", "a", "--config", config.to_str().unwrap()];
    let settings = Settings::try_parse_from(fixed.iter().chain(flags)).unwrap();
    // Nobody serves the resolver's questions, so names are not waited for.
    Shared::new(settings).unwrap().0
}

/// A configuration thread at work; it ends with this.
struct Running {
    shared: Arc<Shared>,
    bell: Sender<Event>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(config: &Path) -> Self {
        let shared = shared(config, &[]);
        let read = fingerprint(config);
        let mut publisher = Publisher::new(shared.clone());
        publisher.reload().unwrap();
        let (bell, events) = channel();
        let (sender, path) = (bell.clone(), config.to_owned());
        let source = FileSource::new(publisher, path, read, sender, events);
        Running { shared, bell, thread: Some(std::thread::spawn(|| source.run())) }
    }

    fn serves(&self, host: &str) -> bool {
        self.shared.snapshots.newest().plan.describe().to_string().contains(&format!("{host}.test"))
    }

    fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !reached(self) {
            let last = self.shared.config.last();
            assert!(
                Instant::now() < deadline,
                "never reached: {what}; last: {:?} {}",
                last.refused,
                last.report
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.bell.send(Event::Stop);
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()), "the thread panicked");
    }
}

#[test]
fn an_invalid_set_leaves_the_last_good_one_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), service("one")).unwrap();
    let running = Running::start(dir.path());
    std::fs::write(dir.path().join("b.yaml"), INVALID).unwrap();
    std::fs::write(dir.path().join("c.yaml"), service("two")).unwrap();
    // Once, or once for each file where the machine stood still between the two.
    running.until("a refusal", |r| r.shared.config.rejected() >= 1);
    assert!(running.serves("one") && !running.serves("two"), "half of a set was taken");
    assert_eq!(running.shared.snapshots.newest().version, 1);
    let refused = running.shared.config.last().refused.unwrap();
    assert!(refused.lines[0].contains("b.yaml:6:") && refused.lines[0].contains("error"), "{refused:?}");

    std::fs::remove_file(dir.path().join("b.yaml")).unwrap();
    // It serves a moment before that is counted.
    running.until("the next good set", |r| r.serves("two") && r.shared.config.accepted() == 2);
    assert_eq!(running.shared.snapshots.newest().version, 2);
    assert!(running.shared.config.last_accepted());
}

#[test]
fn files_written_together_are_read_once() {
    // On a machine that stands still between two of the writes they are not together: then once more.
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), service("one")).unwrap();
        let running = Running::start(dir.path());
        let began = Instant::now();
        for n in 0..5 {
            std::fs::write(dir.path().join(format!("{n}.yml")), service(&format!("s{n}"))).unwrap();
        }
        let together = began.elapsed() < super::file::QUIET / 2;
        running.until("all five", |r| (0..5).all(|n| r.serves(&format!("s{n}"))));
        if together {
            assert_eq!(running.shared.snapshots.newest().version, 2);
            return;
        }
    }
    panic!("twenty times the files could not be written together");
}

#[test]
fn a_rename_over_a_single_file_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, service("one")).unwrap();
    let running = Running::start(&file);
    std::fs::write(dir.path().join("beside"), service("two")).unwrap();
    std::fs::rename(dir.path().join("beside"), &file).unwrap();
    running.until("the renamed file", |r| r.serves("two") && !r.serves("one"));
}

#[test]
fn a_config_map_swap_is_seen() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let data = |name: &str, host: &str| {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("a.yaml"), service(host)).unwrap();
    };
    data("..1", "one");
    symlink("..1", dir.path().join("..data")).unwrap();
    symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
    let running = Running::start(dir.path());
    assert!(running.serves("one"));
    data("..2", "two");
    symlink("..2", dir.path().join("..data_tmp")).unwrap();
    std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    std::fs::remove_dir_all(dir.path().join("..1")).unwrap();
    running.until("the new data", |r| r.serves("two") && !r.serves("one"));
}

#[test]
fn a_folder_that_goes_keeps_serving_and_one_that_comes_back_is_read_and_watched() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("config");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a.yaml"), service("one")).unwrap();
    let running = Running::start(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
    running.until("a refusal", |r| r.shared.config.rejected() >= 1);
    assert!(running.serves("one"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a.yaml"), service("two")).unwrap();
    running.until("the new folder", |r| r.serves("two"));
    std::fs::write(folder.join("a.yaml"), service("three")).unwrap();
    running.until("a change in it", |r| r.serves("three"));
}

#[test]
fn an_emptied_folder_is_no_reason_to_drop_every_route() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), service("one")).unwrap();
    let running = Running::start(dir.path());
    std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
    running.until("a refusal", |r| r.shared.config.rejected() == 1);
    assert!(running.serves("one"));
}

#[test]
fn what_is_replaced_is_dropped_by_the_publisher_once_no_request_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), service("one")).unwrap();
    let mut publisher = Publisher::new(shared(dir.path(), &[]));
    publisher.reload().unwrap();
    let held_by_a_request = publisher.shared.snapshots.newest();
    let weak = Arc::downgrade(&held_by_a_request);
    publisher.reload().unwrap();
    assert!(publisher.bury(), "it was forgotten while a request held it");
    drop(held_by_a_request);
    assert!(weak.upgrade().is_some(), "a worker dropped a plan");
    assert!(!publisher.bury());
    assert!(weak.upgrade().is_none());
}
