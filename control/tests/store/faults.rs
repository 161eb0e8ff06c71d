//! A full disk, a read-only folder, a file of somebody else, a second process: a clear error, nothing half-written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use pilotfish_control::store::redb::RedbStore;
use pilotfish_control::store::{Batch, Store, StoreError};

use super::contract::{next, put};
use super::in_file;

/// Tells this binary that it is a child with a limit, and where to write.
const LIMITED: &str = "PILOTFISH_TEST_LIMITED";

fn why(error: &StoreError) -> String {
    error.to_string()
}

#[tokio::test]
async fn a_file_is_for_its_owner_and_for_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let (data, path) = (folder.path().join("data"), folder.path().join("data/store.redb"));
    let store = in_file(&data);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&path)), (0o700, 0o600));
    let second = RedbStore::open(&path).unwrap_err();
    assert!(why(&second).contains("another process uses"), "{second}");
    store.batch(put("a", "1")).await.unwrap();
    drop(store);
    let store = in_file(&data);
    assert_eq!(store.list("").await.unwrap().revision, 1);
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1, "nothing is left beside the file");
}

#[tokio::test]
async fn files_of_others_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    for text in [&b"SQLite format 3\0 and more"[..], b"", b"redb"] {
        std::fs::write(&path, text).unwrap();
        let refused = RedbStore::open(&path).unwrap_err();
        assert!(why(&refused).contains("is no store of Pilotfish's"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), text);
    }
    std::fs::remove_file(&path).unwrap();
    let table: redb::TableDefinition<'_, u64, u64> = redb::TableDefinition::new("theirs");
    let theirs = redb::Database::create(&path).unwrap();
    let writing = theirs.begin_write().unwrap();
    writing.open_table(table).unwrap().insert(1, 1).unwrap();
    writing.commit().unwrap();
    drop(theirs);
    let refused = RedbStore::open(&path).unwrap_err();
    assert!(why(&refused).contains("is no store of Pilotfish's"), "{refused}");
}

#[tokio::test]
async fn a_damaged_file_is_told_and_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = in_file(folder.path());
    for n in 0..50 {
        store.batch(put(&format!("key/{n}"), &"value ".repeat(500))).await.unwrap();
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut refused = 0;
    for _ in 0..20 {
        let mut bytes = whole.clone();
        for _ in 0..30 {
            let at = random.usize(4096..bytes.len());
            bytes[at] ^= 0x55;
        }
        std::fs::write(&path, &bytes).unwrap();
        match RedbStore::open(&path) {
            Err(error) => {
                refused += 1;
                assert!(!why(&error).is_empty());
            }
            Ok(store) => drop(store),
        }
    }
    assert!(refused > 10, "{refused} of 20 were noticed");
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(RedbStore::open(&path).is_err());
}

#[tokio::test]
async fn the_log_outlives_a_restart_and_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_file(folder.path());
    store.batch(put("a", "1")).await.unwrap();
    store.batch(put("a", "2")).await.unwrap();
    drop(store);
    let store = in_file(folder.path());
    let mut watch = store.watch("", 1).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap()[0].value.as_deref(), Some(&b"2"[..]));
    drop(watch);
    // Seventy of a megabyte: the oldest go.
    for n in 0..70_u8 {
        let put = vec![("large".to_owned(), vec![n; 1_000_000].into())];
        store.batch(Batch { put, ..Batch::default() }).await.unwrap();
    }
    let now = store.list("").await.unwrap().revision;
    for gone in [0, 2, now + 5] {
        let mut watch = store.watch("", gone).await.unwrap();
        let refused = next(&mut watch).await.unwrap_err();
        assert!(why(&refused).contains("list again"), "{refused}");
        assert!(watch.recv().await.is_none());
    }
    let mut watch = store.watch("", now - 3).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap()[0].revision, now - 2);
}

#[tokio::test]
async fn a_watch_that_is_too_slow_is_told_to_list_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_file(folder.path());
    let mut watch = store.watch("", 0).await.unwrap();
    let writes = (0..2000).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.batch(put(&format!("k/{n}"), "")).await.unwrap() })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap();
    }
    let mut seen = 0;
    let refused = loop {
        match next(&mut watch).await {
            Ok(changes) => seen += changes.len(),
            Err(error) => break error,
        }
    };
    assert!(seen >= 1000 && why(&refused).contains("too slow"), "{seen} {refused}");
}

/// Runs one test of this binary under the shell's `setup`.
fn child(setup: &str, test: &str, folder: &Path) -> Output {
    let script = format!("{setup}; exec \"$0\" --exact \"$1\" --nocapture --test-threads 1");
    Command::new("bash")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(LIMITED, folder)
        .output()
        .unwrap()
}

/// A limit of the file's size stands for a full disk, where no small disk can be mounted: the same path in the code.
#[test]
fn a_full_disk_is_told_and_the_store_stays_readable() {
    let folder = tempfile::tempdir().unwrap();
    let output = child("trap '' XFSZ", "store::faults::under_a_limit", folder.path());
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("was full and went on"), "{text}");
}

#[tokio::test]
async fn under_a_limit() {
    let Some(folder) = std::env::var_os(LIMITED) else { return };
    let store = in_file(Path::new(&folder));
    store.batch(put("small", "1")).await.unwrap();
    let limit = |bytes: Option<u64>| {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Fsize).maximum;
        setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
    };
    limit(Some(3 << 20));
    fills_and_goes_on(store, || limit(None)).await;
    println!("was full and went on");
}

#[tokio::test]
async fn a_full_small_disk_is_told_and_the_store_stays_readable() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path(), "size=4m") else { return };
    let (filler, store) = (folder.path().join("filler"), in_file(&folder.path().join("data")));
    store.batch(put("small", "1")).await.unwrap();
    std::fs::write(&filler, vec![0; 1 << 20]).unwrap();
    fills_and_goes_on(store, || std::fs::remove_file(&filler).unwrap()).await;
    drop(disk);
}

async fn fills_and_goes_on(store: Arc<dyn Store>, free: impl FnOnce()) {
    let mut written = Vec::new();
    let refused = loop {
        let key = format!("large/{:03}", written.len());
        let put = vec![(key.clone(), vec![b'x'; 200_000].into()), (format!("{key}/too"), "y".into())];
        match store.batch(Batch { put, ..Batch::default() }).await {
            Ok(revision) => written.push((key, revision)),
            Err(error) => break error,
        }
        assert!(written.len() < 1000, "never full");
    };
    assert!(why(&refused).contains("has no room"), "{refused}");
    for _ in 0..3 {
        let put = vec![("more".to_owned(), vec![b'x'; 900_000].into())];
        let again = store.batch(Batch { put, ..Batch::default() }).await;
        assert!(matches!(again, Err(StoreError::Unavailable { .. })), "{again:?}");
        let listed = store.list("large/").await.unwrap();
        assert_eq!(listed.entries.len(), written.len() * 2, "nothing is half there");
        assert_eq!(&store.get("small").await.unwrap().unwrap().value[..], b"1");
    }
    free();
    let last = written.last().map_or(1, |(_, revision)| *revision);
    let mut watch = store.watch("", last).await.unwrap();
    assert_eq!(store.batch(put("after", "2")).await.unwrap(), last + 1);
    assert_eq!(next(&mut watch).await.unwrap()[0].key, "after");
    assert!(store.get("more").await.unwrap().is_none());
}

#[tokio::test]
async fn a_read_only_folder_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path(), "size=8m") else { return };
    let path = folder.path().join("data/store.redb");
    drop(RedbStore::open(&path).unwrap());
    disk.remount("ro");
    let refused = RedbStore::open(&path).unwrap_err();
    assert!(why(&refused).contains("cannot be written"), "{refused}");
    let missing = RedbStore::open(&folder.path().join("other/store.redb")).unwrap_err();
    assert!(why(&missing).contains("cannot be written"), "{missing}");
}

/// A small disk, where this user may mount one.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(at: &Path, options: &str) -> Option<Disk> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Disk(at.to_owned()));
        }
        println!("skipped: no disk can be mounted here (this needs root)");
        None
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
