//! kill -9 while writing: what was acknowledged is there afterwards, and nothing is half there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pilotfish_control::store::{Batch, Store};

/// Tells this binary that it is the one to be killed, and where to write.
const FOLDER: &str = "PILOTFISH_TEST_WRITER";
/// Keys of one batch.
const PARTS: usize = 5;
/// Writers at once, so that batches share transactions.
const LANES: u64 = 8;
const KILLS: usize = 25;

/// The child: writes until it is killed, and says what was acknowledged.
#[tokio::test]
async fn writer_to_be_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let store = super::in_file(Path::new(&folder));
    println!("\nopen");
    let lanes = (0..LANES).map(|lane| tokio::spawn(write(store.clone(), lane)));
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.unwrap();
    }
}

async fn write(store: Arc<dyn Store>, lane: u64) {
    let prefix = format!("{lane}/");
    let mut number = store.list(&prefix).await.unwrap().entries.len() as u64;
    loop {
        number += PARTS as u64;
        let put = |part: usize| (format!("{prefix}{number:08}/{part}"), vec![b'x'; 300 * part].into());
        store.batch(Batch { put: (0..PARTS).map(put).collect(), ..Batch::default() }).await.unwrap();
        println!("\nack {lane}/{number:08}");
    }
}

#[test]
fn every_acknowledged_batch_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let acknowledged: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    for _ in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::killed::writer_to_be_killed", "--nocapture", "--test-threads", "1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let own = acknowledged.clone();
        let (open, opened) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            while let Some(Ok(line)) = lines.next() {
                if line == "open" {
                    let _ = open.send(());
                } else if let Some(what) = line.strip_prefix("ack ") {
                    own.lock().unwrap().insert(what.to_owned());
                }
            }
        });
        opened.recv_timeout(Duration::from_secs(20)).expect("the file opens after a kill");
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..80)));
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap();
    assert!(acknowledged.len() > KILLS, "only {} batches", acknowledged.len());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let listed = runtime.block_on(async { super::in_file(folder.path()).list("").await.unwrap() });
    let mut parts: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for entry in &listed.entries {
        let (batch, part) = entry.key.rsplit_once('/').unwrap();
        assert_eq!(entry.value.len(), 300 * part.parse::<usize>().unwrap());
        let (count, revision) = parts.entry(batch).or_insert((0, entry.revision));
        assert_eq!(*revision, entry.revision);
        *count += 1;
    }
    assert!(parts.values().all(|(count, _)| *count == PARTS), "a batch is half there");
    let lost: Vec<_> = acknowledged.iter().filter(|own| !parts.contains_key(own.as_str())).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", acknowledged.len());
    println!("{} batches acknowledged over {KILLS} kills, {} stored", acknowledged.len(), parts.len());
}
