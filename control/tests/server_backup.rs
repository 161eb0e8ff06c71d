//! Backup while it serves, restore into a new folder: the same mesh again.

use pilotfish_control::api::types::{Commit, Resource, Version};
use pilotfish_control::backup::{self, BackupError};
use pilotfish_control::store::Batch;
use serde_json::{Value, json};

use crate::store::in_file;
use crate::support::serve::folder;
use crate::support::sidecar::{hello, join, joined, token};
use crate::support::{Http, Serve, Stream};

fn route(status: u16) -> Value {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: a\nspec:\n  hosts: [a.example]\n  \
         http:\n  - directResponse:\n      status: {status}\n"
    );
    json!({ "files": [{ "name": "routes.yaml", "text": text }], "summary": format!("answers {status}") })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_control_plane_is_the_same_one() {
    let serve = Serve::start(&[]);
    let mut http = Http::socket(&serve).await;
    for status in [200, 404] {
        http.post("/v1/apply", &route(status)).await;
    }
    let (spent, unused) = (token(&serve, "default", "spent").await, token(&serve, "default", "unused").await);
    assert!(join(&serve, &spent, "default", "spent").await.1.is_some());
    let member = joined(&serve, "default", "planner").await;
    let written = http.ask("POST", "/v1/backup", "").await;
    assert_eq!(written.status, 200, "{}", written.text());
    let history: Vec<Commit> = http.get("/v1/history").await.ok();
    // What comes after the backup is lost with the machine.
    http.post("/v1/apply", &route(500)).await;
    drop(serve.kill());

    let folder = folder();
    let restored = backup::restore(&written.body, &folder.path().join("data")).unwrap();
    assert!(restored.entries > 5 && restored.files >= 3, "{restored:?}");
    let serve = Serve::start_in(folder, &[]);
    assert!(serve.token.is_none(), "the mesh is the one that was founded before");
    let mut http = Http::socket(&serve).await;
    let version: Version = http.get("/v1/version").await.ok();
    assert_eq!(version.documents, 2);
    let again: Vec<Commit> = http.get("/v1/history").await.ok();
    let told = |commits: &[Commit]| serde_json::to_string(commits).unwrap();
    assert_eq!(told(&again), told(&history));
    let found: Vec<Resource> = http.get("/v1/resources").await.ok();
    assert!(found.len() == 1 && found[0].yaml.contains("404"), "{found:?}");
    assert!(join(&serve, &spent, "default", "spent").await.1.is_none(), "a spent token stays spent");
    assert!(join(&serve, &unused, "default", "unused").await.1.is_some());
    Stream::welcomed(&serve, &member, hello("default", "planner")).await;
    http.post("/v1/apply", &route(201)).await;
    let version: Version = http.get("/v1/version").await.ok();
    assert_eq!(version.documents, 3);
}

/// It holds the authority's keys: an administrator's token that leaked must not be worth the whole mesh.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_leaves_by_the_unix_socket_only() {
    let serve = Serve::start(&[]);
    let token = serve.token.clone().expect("the first start prints it");
    let mut remote = Http::tls(&serve, None).await.bearer(&token);
    assert_eq!(remote.get("/v1/version").await.status, 200, "the token is good for anything else");
    assert!(remote.ask("POST", "/v1/backup", "").await.refused(403).contains("Unix socket"));
}

#[tokio::test]
async fn a_backup_is_whole_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = in_file(&data);
    let put = vec![("a/1".to_owned(), "one".into()), ("a/2".to_owned(), "two".into())];
    let revision = store.batch(Batch { put, ..Batch::default() }).await.unwrap();
    std::fs::create_dir(data.join("ca")).unwrap();
    std::fs::write(data.join("ca/root.key"), "secret").unwrap();
    let bytes = backup::write(&*store, &data).await.unwrap();

    let target = dir.path().join("new");
    backup::restore(&bytes, &target).unwrap();
    assert_eq!(std::fs::read(target.join("ca/root.key")).unwrap(), b"secret");
    let copy = in_file(&target);
    let (own, other) = (store.list("").await.unwrap(), copy.list("").await.unwrap());
    assert_eq!(own.entries, other.entries);
    let next = copy.batch(Batch { delete: vec!["a/1".into()], ..Batch::default() }).await.unwrap();
    assert!(next > revision + 1000, "no revision means two things: {next}");
    assert!(matches!(backup::restore(&bytes, &target), Err(BackupError::NotEmpty(_))));

    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1;
        let refused = backup::restore(&damaged, &dir.path().join("never"));
        assert!(matches!(refused, Err(BackupError::Unreadable(_))), "byte {at}: {refused:?}");
        let short = backup::restore(&bytes[..at], &dir.path().join("never"));
        assert!(matches!(short, Err(BackupError::Unreadable(_))), "{at} bytes: {short:?}");
    }
    assert!(!dir.path().join("never").exists());
}

/// Somebody else's file, with a good sum: it may write nothing beside the data folder.
#[tokio::test]
async fn a_backup_cannot_write_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "../outside",
        "/tmp/outside",
        "ca/../../outside",
        "store.redb",
        "ca/.hidden",
        "ca/",
        "pilotfish.sock",
    ] {
        let manifest = json!({ "build": "x", "made": 0, "revision": 1, "files": [[name, 1]], "entries": [] });
        let mut bytes = format!("pilotfish-backup 1\n{manifest}\nx").into_bytes();
        let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        bytes.extend_from_slice(sum.as_ref());
        let refused = backup::restore(&bytes, &dir.path().join("data"));
        assert!(matches!(refused, Err(BackupError::Unreadable(_))), "{name}: {refused:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
