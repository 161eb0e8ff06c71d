//! Versions of documents on a store in memory; `tests/resources.rs` has them on the real ones.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::api::types::{Action, File, Submission};
use crate::store::Batch;
use crate::store::memory::Memory;

fn route(name: &str, seconds: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  hosts: [{name}.example]\n  \
         http: [{{timeout: {seconds}s, route: [{{destination: {{host: {name}.example}}}}]}}]\n"
    )
}

fn submission(texts: &[String]) -> Submission {
    let text = texts.join("---\n");
    Submission {
        files: vec![File { name: "routes.yaml".into(), text }],
        summary: "routes.yaml".into(),
        ..Submission::default()
    }
}

async fn open(store: &Arc<Memory>) -> Arc<Resources> {
    let clock: Clock = Arc::new(|| UNIX_EPOCH + Duration::from_secs(1000));
    Resources::open_at(store.clone(), None, clock).await.unwrap()
}

fn actions(applied: &types::Applied) -> Vec<(String, Action)> {
    applied.changes.iter().map(|change| (change.key.name.clone(), change.action)).collect()
}

async fn names(resources: &Resources) -> Vec<String> {
    resources.newest().documents.keys().map(|key| key.name.clone()).collect()
}

fn key(name: &str) -> Key {
    Key { kind: "VirtualService".into(), namespace: "default".into(), name: name.into() }
}

#[tokio::test]
async fn versions_count_what_differs() {
    let store = Arc::new(Memory::new());
    let resources = open(&store).await;
    let first = resources.apply(&submission(&[route("a", 1), route("b", 1)]), "ada").await.unwrap();
    assert_eq!((first.version, actions(&first).len()), (1, 2));
    let reformatted = route("a", 1).replace("http: [", "# the same\n  http:   [");
    let same = resources.apply(&submission(&[reformatted]), "ada").await.unwrap();
    assert_eq!((same.version, actions(&same)), (1, vec![("a".into(), Action::Unchanged)]));
    let before = resources.newest();
    let next = resources.apply(&submission(&[route("a", 2), route("c", 1)]), "bob").await.unwrap();
    assert_eq!(next.version, 2);
    assert_eq!(actions(&next), [("a".into(), Action::Changed), ("c".into(), Action::Created)]);
    let after = resources.newest();
    assert!(Arc::ptr_eq(&before.documents[&key("b")], &after.documents[&key("b")]));
    assert_eq!((after.documents[&key("a")].version, after.documents[&key("b")].version), (2, 1));
    assert_eq!(after.model.virtual_services.len(), 3);
    let got = resources.get(Some("virtualservice"), Some("default"), Some("a"));
    assert_eq!((got.len(), got[0].version), (1, 2));
    assert_eq!(got[0].source, "routes.yaml:1");
    assert!(got[0].yaml.contains("timeout: 2s"), "{}", got[0].yaml);

    let history = resources.history(10).await.unwrap();
    let told: Vec<_> = history.iter().map(|own| (own.version, own.author.as_str(), own.documents)).collect();
    assert_eq!(told, [(2, "bob", 3), (1, "ada", 2)]);
    assert_eq!((history[0].time, history[0].summary.as_str()), (1000, "routes.yaml"));
    let changed: Vec<_> = history[0].changes.iter().map(|own| (own.key.name.as_str(), own.action)).collect();
    assert_eq!(changed, [("a", Action::Changed), ("c", Action::Created)]);
    assert_eq!(resources.history(1).await.unwrap()[0].changes.len(), 2);
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_line_and_nothing_is_stored() {
    let store = Arc::new(Memory::new());
    let resources = open(&store).await;
    resources.apply(&submission(&[route("a", 1)]), "ada").await.unwrap();
    let broken = route("b", 1).replace("timeout: 1s", "timeout: soon");
    match resources.apply(&submission(&[route("c", 1), broken]), "ada").await {
        Err(Refusal::Invalid(failure)) => {
            assert!(failure.error.contains("nothing was stored"), "{}", failure.error);
            assert!(failure.diagnostics[0].starts_with("routes.yaml:13:"), "{:?}", failure.diagnostics);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(names(&resources).await, ["a"]);
    let nothing = resources.apply(&submission(&["kind: Service\napiVersion: v1\n".into()]), "ada").await;
    assert!(matches!(nothing, Err(Refusal::Invalid(_))), "{nothing:?}");
}

#[tokio::test]
async fn documents_are_valid_together_with_what_is_stored() {
    let store = Arc::new(Memory::new());
    let resources = open(&store).await;
    let service = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nspec:\n  hosts: [a.example]\n  \
                   ports: [{number: 80, name: http, protocol: HTTP}]\n  resolution: STATIC\n  endpoints: [{address: 127.0.0.1}]\n";
    let alone = resources.plan(&submission(&[route("a", 1)])).await.unwrap();
    assert!(
        alone.warnings[0].contains("no ServiceEntry here has the host a.example"),
        "{:?}",
        alone.warnings
    );
    let registered = Submission { registered: vec!["a.example".into()], ..submission(&[route("a", 1)]) };
    let there = resources.plan(&registered).await.unwrap();
    assert!(there.warnings.is_empty(), "{:?}", there.warnings);
    resources.apply(&submission(&[service.into()]), "ada").await.unwrap();
    let together = resources.apply(&submission(&[route("a", 1)]), "ada").await.unwrap();
    assert!(together.warnings.is_empty(), "{:?}", together.warnings);
    let gone = resources.delete(&[key("a")], "ada").await.unwrap();
    assert_eq!(actions(&gone), [("a".into(), Action::Removed)]);
    assert!(matches!(resources.delete(&[key("a")], "ada").await, Err(Refusal::NotFound(_))));
    assert_eq!(resources.history(1).await.unwrap()[0].summary, "deleted VirtualService default/a");
}

#[tokio::test]
async fn prune_removes_within_the_namespaces_that_are_touched() {
    let resources = open(&Arc::new(Memory::new())).await;
    let elsewhere = route("z", 1).replace("{name: z}", "{name: z, namespace: other}");
    resources.apply(&submission(&[route("a", 1), route("b", 1), elsewhere]), "ada").await.unwrap();
    let mut asked = Submission { prune: true, ..submission(&[route("a", 1)]) };
    asked.dry_run = true;
    let planned = resources.apply(&asked, "ada").await.unwrap();
    assert_eq!((planned.version, actions(&planned)[1].clone()), (1, ("b".into(), Action::Removed)));
    assert_eq!(names(&resources).await, ["a", "b", "z"]);
    let differences = resources.plan(&asked).await.unwrap().differences();
    assert_eq!(differences.len(), 1);
    assert!(differences[0].before.as_ref().unwrap().contains("b.example") && differences[0].after.is_none());
    asked.dry_run = false;
    assert_eq!(resources.apply(&asked, "ada").await.unwrap().version, 2);
    assert_eq!(names(&resources).await, ["a", "z"]);
}

#[tokio::test]
async fn one_of_two_wins_and_the_other_is_told() {
    let store = Arc::new(Memory::new());
    let (one, other) = (open(&store).await, open(&store).await);
    for (left, right) in [(one.clone(), other.clone()), (one.clone(), one.clone())] {
        let base = left.newest().version;
        let mine = Submission { base: Some(base), ..submission(&[route("a", base as u32 + 1)]) };
        let yours = Submission { base: Some(base), ..submission(&[route("a", base as u32 + 100)]) };
        let (a, b) = tokio::join!(left.apply(&mine, "ada"), right.apply(&yours, "bob"));
        let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
        assert_eq!(won.unwrap().version, base + 1);
        match lost {
            Err(Refusal::Conflict(why)) => {
                assert!(why.contains(&format!("version {}", base + 1)) && why.contains("nothing"), "{why}")
            }
            other => panic!("{other:?}"),
        }
        let mut seen = other.watch();
        seen.wait_for(|newest| newest.version == base + 1).await.unwrap();
    }
    let stale = Submission { base: Some(1), ..submission(&[route("b", 1)]) };
    assert!(matches!(one.plan(&stale).await, Err(Refusal::Conflict(_))));
}

#[tokio::test]
async fn a_rollback_is_a_new_version() {
    let store = Arc::new(Memory::new());
    let resources = open(&store).await;
    resources.apply(&submission(&[route("a", 1), route("b", 1)]), "ada").await.unwrap();
    resources.apply(&submission(&[route("a", 2)]), "ada").await.unwrap();
    resources.delete(&[key("b")], "ada").await.unwrap();
    let back = resources.rollback(1, "bob").await.unwrap();
    assert_eq!(back.version, 4);
    assert_eq!(actions(&back), [("a".into(), Action::Changed), ("b".into(), Action::Created)]);
    let newest = resources.newest();
    assert!(newest.documents[&key("a")].document.body.get().contains("\"1s\""));
    assert_eq!(newest.documents[&key("a")].version, 4);
    assert_eq!(resources.history(1).await.unwrap()[0].summary, "rolled back to version 1");
    assert!(matches!(resources.rollback(9, "bob").await, Err(Refusal::NotFound(_))));
    assert_eq!(resources.rollback(4, "bob").await.unwrap().version, 4);
    // Another process finds the same.
    let again = open(&store).await;
    assert_eq!(again.newest().version, 4);
    assert_eq!(names(&again).await, names(&resources).await);
    assert_eq!(again.newest().documents[&key("a")].meta, newest.documents[&key("a")].meta);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_keeps_the_last_version_and_is_caught_up() {
    let store = Arc::new(Memory::new());
    let (one, other) = (open(&store).await, open(&store).await);
    one.apply(&submission(&[route("a", 1)]), "ada").await.unwrap();
    let mut seen = other.watch();
    seen.wait_for(|newest| newest.version == 1).await.unwrap();
    store.fail(Some(StoreError::Unavailable { why: "away".into(), unsure: false }));
    store.break_watches();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(other.newest().version, 1);
    assert!(matches!(one.apply(&submission(&[route("a", 2)]), "ada").await, Err(Refusal::Store(_))));
    store.fail(None);
    one.apply(&submission(&[route("a", 2)]), "ada").await.unwrap();
    seen.wait_for(|newest| newest.version == 2).await.unwrap();
}

#[tokio::test]
async fn damaged_documents_are_not_served() {
    let store = Arc::new(Memory::new());
    open(&store).await.apply(&submission(&[route("a", 1)]), "ada").await.unwrap();
    let blobs = store.list("blob/").await.unwrap().entries;
    let body = blobs.iter().find(|entry| entry.value.starts_with(b"{")).unwrap();
    let value = body.value.iter().copied().map(|byte| if byte == b'1' { b'2' } else { byte });
    let put = vec![(body.key.clone(), value.collect::<Vec<u8>>().into())];
    store.batch(Batch { put, ..Batch::default() }).await.unwrap();
    let refused = Resources::open(store, None).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Corrupt(why) if why.contains("digest")), "{refused}");
}

#[tokio::test]
async fn ten_thousand_documents_at_once_and_a_change_of_one_costs_little() {
    let store = Arc::new(Memory::new());
    let resources = open(&store).await;
    let all: Vec<String> = (0..10_000).map(|n| route(&format!("r{n}"), 1)).collect();
    let applied = resources.apply(&submission(&all), "ada").await.unwrap();
    assert_eq!((applied.version, applied.changes.len()), (1, 10_000));
    let before = store.list("").await.unwrap();
    resources.apply(&submission(&[route("r5000", 2)]), "ada").await.unwrap();
    let after = store.list("").await.unwrap();
    let new: Vec<_> = after.entries.iter().filter(|entry| entry.revision > before.revision).collect();
    let size: usize = new.iter().map(|entry| entry.value.len()).sum();
    assert_eq!(new.len(), 4, "a document, a piece of the list, the version, the head");
    assert!(size < 100_000, "{size} bytes");
    assert_eq!(open(&store).await.newest().documents.len(), 10_000);
}

#[tokio::test]
async fn old_versions_go_and_what_newer_ones_need_stays() {
    let store = Arc::new(Memory::new());
    let resources = open(&store).await;
    resources.apply(&submission(&[route("stays", 1)]), "ada").await.unwrap();
    for n in 1..=8 {
        resources.apply(&submission(&[route("a", n)]), "ada").await.unwrap();
    }
    // Somebody is writing a version to come.
    let put = vec![("blob/ffff".to_owned(), "x".into())];
    store.batch(Batch { put, ..Batch::default() }).await.unwrap();
    assert!(sweep::sweep(&*store, 3).await.unwrap() > 0);
    assert_eq!(sweep::sweep(&*store, 3).await.unwrap(), 0);
    assert!(store.get("blob/ffff").await.unwrap().is_some());
    let history = resources.history(3).await.unwrap();
    assert!(history.len() == 3 && history.iter().all(|own| own.changes.len() == 1), "{history:?}");
    assert!(matches!(resources.rollback(2, "ada").await, Err(Refusal::NotFound(_))));
    assert_eq!(resources.rollback(7, "ada").await.unwrap().version, 10);
    let again = open(&store).await;
    assert_eq!(names(&again).await, ["a", "stays"]);
}

#[tokio::test]
async fn whoever_applies_is_told_of_callers_of_meshes_that_nobody_trusts() {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: readers}\nspec:\n  \
                  rules: [{from: [{source: {principals: [elsewhere/ns/default/sa/web, mesh.local/ns/default/sa/web]}}]}]\n";
    for (own, expected) in [(Some("mesh.local"), 1), (None, 0)] {
        let resources = Resources::open(Arc::new(Memory::new()), own).await.unwrap();
        let wanted = submission(&[policy.to_owned()]);
        for warnings in [
            resources.plan(&wanted).await.unwrap().warnings,
            resources.apply(&wanted, "ada").await.unwrap().warnings,
        ] {
            let told: Vec<_> =
                warnings.iter().filter(|own| own.contains("trust domain `elsewhere`")).collect();
            assert_eq!(told.len(), expected, "{own:?}: {warnings:#?}");
        }
    }
}
