//! Documents from outside: all or nothing, one winner, history, rollback.

use pilotfish_config::wire::Failure;
use pilotfish_control::api::types::{Action, Applied, Commit, Diff, Resource, Version};
use serde_json::{Value, json};

use crate::support::{Http, Serve};

fn route(name: &str, status: u16) -> Value {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: {name}\nspec:\n  hosts: \
         [{name}.example]\n  http:\n  - directResponse:\n      status: {status}\n"
    );
    json!({ "files": [{ "name": "routes.yaml", "text": text }], "summary": format!("{name} answers {status}") })
}

fn with(mut submission: Value, name: &str, value: Value) -> Value {
    submission[name] = value;
    submission
}

#[tokio::test(flavor = "multi_thread")]
async fn from_apply_to_rollback() {
    let serve = Serve::start(&[]);
    let mut http = Http::socket(&serve).await;
    let first: Applied = http.post("/v1/apply", &route("a", 200)).await.ok();
    assert_eq!((first.version, first.changes[0].action), (1, Action::Created));
    let same: Applied = http.post("/v1/apply", &route("a", 200)).await.ok();
    assert_eq!((same.version, same.changes[0].action), (1, Action::Unchanged));
    let dry: Applied = http.post("/v1/apply", &with(route("a", 404), "dry_run", true.into())).await.ok();
    assert_eq!((dry.version, dry.changes[0].action), (1, Action::Changed));
    let diff: Diff = http.post("/v1/diff", &route("a", 404)).await.ok();
    assert!(diff.documents[0].before.as_ref().unwrap().contains("200"));
    assert!(diff.documents[0].after.as_ref().unwrap().contains("404"));
    let second: Applied = http.post("/v1/apply", &route("a", 404)).await.ok();
    assert_eq!(second.version, 2);
    let found: Vec<Resource> =
        http.get("/v1/resources?kind=VirtualService&namespace=default&name=a").await.ok();
    assert!(found.len() == 1 && found[0].yaml.contains("404"), "{found:?}");
    let back: Applied = http.post("/v1/rollback", &json!({ "version": 1 })).await.ok();
    assert_eq!(back.version, 3);
    let gone: Applied = http.ask("DELETE", "/v1/resources/VirtualService/default/a", "").await.ok();
    assert_eq!(gone.changes[0].action, Action::Removed);
    http.ask("DELETE", "/v1/resources/VirtualService/default/a", "").await.refused(404);
    http.post("/v1/rollback", &json!({ "version": 99 })).await.refused(404);
    let history: Vec<Commit> = http.get("/v1/history?limit=2").await.ok();
    assert_eq!(history.iter().map(|commit| commit.version).collect::<Vec<_>>(), [4, 3]);
    let version: Version = http.get("/v1/version").await.ok();
    assert_eq!(version.documents, 4);
    // Who did what is in the log, one line for each write, none for the rest.
    let lines: Vec<String> =
        serve.stderr().into_iter().filter(|line| line.contains("administration")).collect();
    assert_eq!(lines.len(), 5, "{lines:#?}");
    assert!(lines[3].contains("did=\"rollback to 1\"") && lines[3].contains("version=3"), "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_document_keeps_all_out() {
    let serve = Serve::start(&[]);
    let mut http = Http::socket(&serve).await;
    let mut files = route("a", 200);
    let bad = route("b", 200)["files"][0]["text"].as_str().unwrap().replace("status: 200", "status: none");
    files["files"].as_array_mut().unwrap().push(json!({ "name": "bad.yaml", "text": bad }));
    let reply = http.post("/v1/apply", &files).await;
    assert_eq!(reply.status, 422);
    let failure: Failure = reply.json();
    assert!(failure.diagnostics.iter().any(|line| line.starts_with("bad.yaml:9:")), "{failure:?}");
    let found: Vec<Resource> = http.get("/v1/resources").await.ok();
    assert!(found.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_wins_and_the_other_is_told() {
    let serve = Serve::start(&[]);
    let mut http = Http::socket(&serve).await;
    let base = http.post("/v1/apply", &route("a", 200)).await.ok::<Applied>().version;
    let attempts = (0..8).map(|n| {
        let serve = &serve;
        async move {
            let mut http = Http::socket(serve).await;
            http.post("/v1/apply", &with(route("a", 400 + n), "base", base.into())).await
        }
    });
    let replies = futures_util::future::join_all(attempts).await;
    let won: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
    assert_eq!(won.len(), 1, "{replies:#?}");
    for lost in replies.iter().filter(|reply| reply.status != 200) {
        assert!(!lost.refused(409).is_empty());
    }
    let version: Version = http.get("/v1/version").await.ok();
    assert_eq!(version.documents, base + 1);
}
