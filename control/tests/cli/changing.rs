//! `apply`, `diff`, `delete`, `history`, `rollback`.

use pilotfish_config::wire::{Key, RefusedVersion, Status};
use pilotfish_control::api::types::{
    Action, Applied, Change, Commit, Diff, Difference, SidecarDiff, SidecarStatus, Waited,
};
use serde_json::json;

use super::scripted::{Answer, Scripted, ok, pilotfish, ran, refused};

pub fn key(name: &str) -> Key {
    Key { kind: "VirtualService".into(), namespace: "production".into(), name: name.into() }
}

pub fn change(name: &str, action: Action) -> Change {
    Change { key: key(name), action }
}

fn applied() -> Applied {
    Applied {
        version: 7,
        changes: vec![
            change("chat", Action::Created),
            change("web", Action::Changed),
            change("old", Action::Removed),
            change("same", Action::Unchanged),
        ],
        warnings: vec![
            "routes.yaml:3:1: warning: spec.http[0].retries: \x1b[2Jnot enforced yet; write:\nkind: X".into(),
        ],
    }
}

const LINES: &str = "VirtualService production/chat created\nVirtualService production/web changed\n\
                     VirtualService production/old removed\nVirtualService production/same unchanged\n";

pub fn sidecar(agent: &str) -> SidecarStatus {
    let now = pilotfish_control::cli::human::now();
    SidecarStatus {
        agent: agent.into(),
        namespace: "production".into(),
        instance: "0123456789abcdef0123456789abcdef".into(),
        connected: true,
        status: Status::Ready,
        detail: None,
        address: Some("10.0.0.7:15006".into()),
        rendered: 7,
        distributed: 7,
        accepted: 7,
        serving: 7,
        refused: None,
        last_contact: now - 200,
        certificate_expires: Some(now + 21 * 3600 + 1800),
        build: "0.1.0".into(),
        unsigned: false,
    }
}

#[test]
fn apply_sends_files_and_prints_each_document() {
    let control = Scripted::on_socket(|asked| (asked.line == "POST /v1/apply").then(|| ok(&applied())));
    control.file("mesh/b.yml", "b: 1");
    control.file("mesh/a.yaml", "a: 1");
    control.file("mesh/notes.txt", "no");
    control.file("mesh/.hidden.yaml", "no");
    let single = control.file("routes.yaml", "c: 1");
    let folder = control.dir.path().join("mesh").display().to_string();
    let ran = control.run(&["apply", "-f", &folder, &single, "-n", "production", "--prune"]);
    ran.says(&format!("{LINES}version 7\n"));
    assert_eq!(
        ran.err,
        "routes.yaml:3:1: warning: spec.http[0].retries: \\u001b[2Jnot enforced yet; write:\nkind: X\n"
    );
    let body = &control.asked()[0].body;
    let names: Vec<&str> =
        body["files"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    let (a, b) = (format!("{folder}/a.yaml"), format!("{folder}/b.yml"));
    assert_eq!(names, [a.as_str(), b.as_str(), single.as_str()]);
    assert_eq!(body["files"][2]["text"], "c: 1");
    assert_eq!(
        (&body["namespace"], &body["prune"], &body["dry_run"]),
        (&json!("production"), &json!(true), &json!(false))
    );
    assert_eq!(body["summary"], "a.yaml, b.yml, routes.yaml");
}

#[test]
fn a_dry_run_says_that_nothing_was_stored() {
    let control = Scripted::on_socket(|asked| {
        assert!(asked.line == "GET /v1/version" || asked.body["dry_run"] == true);
        let changes = vec![change("chat", Action::Created)];
        (asked.line == "POST /v1/apply").then(|| ok(&Applied { version: 6, changes, warnings: vec![] }))
    });
    let ran = control.run_with(&["apply", "-f", "-", "--dry-run", "--wait", "-m", "a try"], "kind: X");
    ran.says(
        "VirtualService production/chat created (dry run)\nnothing was stored; the version is still 6\n",
    );
    let asked = control.asked();
    assert_eq!(asked.len(), 1, "a dry run has nothing to wait for: {asked:?}");
    assert_eq!(asked[0].body["files"][0], json!({"name": "<stdin>", "text": "kind: X"}));
    assert_eq!(asked[0].body["summary"], "a try");
}

#[test]
fn what_is_refused_has_its_line_as_check_says_it() {
    let bad = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: chat\nspec:\n  host: [chat]\n";
    let control = Scripted::on_socket(|asked| {
        let text = asked.body["files"][0]["text"].as_str()?;
        let name = asked.body["files"][0]["name"].as_str()?;
        let loaded = pilotfish_config::load_texts(&[(name, text)], &Default::default());
        let lines: Vec<String> = loaded.report.diagnostics.iter().map(ToString::to_string).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        Some(refused(422, "the documents are refused; nothing was stored", &lines))
    });
    let file = control.file("bad.yaml", bad);
    let ran_apply = control.run(&["apply", "-f", &file]);
    let place = format!("{file}:6:3: error: ");
    ran_apply.fails(1, &["pilotfish apply: the documents are refused; nothing was stored\n", &place]);
    assert_eq!(ran_apply.out, "");
    let check = ran(pilotfish(&["check", &file]));
    let line = check.out.lines().find(|line| line.contains(":6:3: error:")).unwrap();
    assert!(ran_apply.err.contains(line), "{} lacks {line}", ran_apply.err);
}

#[test]
fn files_that_cannot_be_read_are_named_before_anything_is_sent() {
    let control = Scripted::on_socket(|_| None);
    let latin = control.dir.path().join("latin.yaml");
    std::fs::write(&latin, b"a: \xe4\n").unwrap();
    control
        .run(&["apply", "-f", "/none.yaml", latin.to_str().unwrap()])
        .fails(1, &["/none.yaml: error: cannot be read", "latin.yaml:1:4: error: not UTF-8"]);
    control.file("empty/x.txt", "");
    let empty = control.dir.path().join("empty").display().to_string();
    control.run(&["apply", "-f", &empty]).fails(1, &["no .yaml or .yml files", "there is no file to read"]);
    control.run(&["apply"]).fails(2, &["--file <PATH>"]);
    assert_eq!(control.asked().len(), 0);
}

/// Undecided: answers when the time is over, as the control plane does.
pub fn undecided(line: &str, waited: &Waited) -> Answer {
    let millis = line.rsplit_once("timeout_ms=").unwrap().1.parse().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(millis));
    ok(waited)
}

#[test]
fn wait_returns_when_all_serve_it() {
    let control = Scripted::on_socket(move |it| match it.line.as_str() {
        "POST /v1/apply" => Some(ok(&applied())),
        line if line.starts_with("GET /v1/wait?version=7&timeout_ms=") => {
            Some(ok(&Waited { done: true, concerned: 2, missing: vec![] }))
        }
        _ => None,
    });
    let file = control.file("a.yaml", "a: 1");
    for wait in [&["--wait"][..], &["--wait=2s"], &["--wait", "2s"]] {
        let ran = control.run(&[&["apply", "-f", &file], wait].concat());
        ran.says(&format!("{LINES}version 7\n2 sidecars serve it\n"));
    }
    let ran = control.run(&["apply", "-f", &file, "--wait", "2s", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&value["version"], &value["waited"]["done"]), (&json!(7), &json!(true)));
}

#[test]
fn wait_says_who_does_not_serve_it_and_why() {
    let control = Scripted::on_socket(|it| match it.line.as_str() {
        "POST /v1/rollback" => Some(ok(&applied())),
        line if line.starts_with("GET /v1/wait") => {
            let reasons = vec!["routes.yaml:12:9: error: \x1b[2Jno such subset".into(), "second".into()];
            let refused = Some(RefusedVersion { version: 9, reasons });
            let web = SidecarStatus { refused, serving: 6, ..sidecar("web") };
            Some(ok(&Waited { done: false, concerned: 3, missing: vec![web] }))
        }
        _ => None,
    });
    let started = std::time::Instant::now();
    let ran = control.run(&["rollback", "5", "--wait", "20s"]);
    assert!(started.elapsed().as_secs() < 10, "who refused will not serve it: no reason to wait");
    ran.fails(5, &[
        "1 of 3 sidecars does not serve version 7:",
        "production/web (01234567) refused it and serves 6: routes.yaml:12:9: error: \\u001b[2Jno such subset",
    ]);
    assert!(ran.out.ends_with("version 7\n"), "what was stored is said first: {}", ran.out);
    assert_eq!(control.asked()[0].body, json!({"version": 5}));
}

#[test]
fn those_that_may_still_come_are_waited_for() {
    let control = Scripted::on_socket(|it| match it.line.as_str() {
        "POST /v1/rollback" => Some(ok(&applied())),
        line if line.starts_with("GET /v1/wait") => {
            // A refusal of an earlier version decides nothing.
            let refused = Some(RefusedVersion { version: 1, reasons: vec!["older".into()] });
            let away = SidecarStatus { connected: false, serving: 6, ..sidecar("web") };
            let missing = vec![
                away,
                SidecarStatus { serving: 5, ..sidecar("b") },
                SidecarStatus { refused, ..sidecar("c") },
            ];
            Some(undecided(line, &Waited { done: false, concerned: 3, missing }))
        }
        _ => None,
    });
    let words = [
        "production/web (01234567) is not connected, last seen 3 min ago, at version 6",
        "production/b (01234567) is at version 5; not yet",
        "production/c (01234567) is at version 7; not yet",
    ];
    let started = std::time::Instant::now();
    control.run(&["rollback", "5", "--wait", "300ms"]).fails(5, &words);
    assert!(started.elapsed().as_millis() >= 300);
}

fn difference(action: Action, before: Option<&str>, after: Option<&str>) -> Difference {
    Difference {
        key: key("chat"),
        action,
        before: before.map(str::to_owned),
        after: after.map(str::to_owned),
    }
}

#[test]
fn diff_shows_lines_and_sidecars_and_ends_with_1() {
    let diff = Diff {
        documents: vec![
            difference(Action::Changed, Some("a: 1\nweight: 90\nb: 1\n"), Some("a: 1\nweight: 50\nb: 1\n")),
            difference(Action::Removed, Some("a: 1\n"), None),
        ],
        sidecars: vec![SidecarDiff {
            agent: "web".into(),
            namespace: "production".into(),
            instances: 2,
            changes: vec![change("chat", Action::Changed)],
        }],
        warnings: vec![],
    };
    let control = Scripted::on_socket(move |asked| (asked.line == "POST /v1/diff").then(|| ok(&diff)));
    let file = control.file("a.yaml", "a: 1");
    let ran = control.run(&["diff", "-f", &file]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), ""));
    let expected = "VirtualService production/chat changed\n--- production/chat\n+++ production/chat\n\
                    @@ -1,3 +1,3 @@\n a: 1\n-weight: 90\n+weight: 50\n b: 1\n\
                    VirtualService production/chat removed\n--- production/chat\n+++ /dev/null\n@@ -1 +0,0 @@\n-a: 1\n\
                    the sidecars of 1 agent would get something else:\n  \
                    production/web (2 instances): VirtualService production/chat changed\n";
    assert_eq!(ran.out, expected);
}

#[test]
fn diff_without_a_difference_says_nothing_and_a_refusal_is_no_difference() {
    let control = Scripted::on_socket(|asked| match asked.body["files"][0]["text"].as_str()? {
        "good" => Some(ok(&json!({"documents": [], "sidecars": []}))),
        _ => Some(refused(422, "refused", &["a.yaml:1:1: error: no"])),
    });
    control.run_with(&["diff", "-f", "-"], "good").says("");
    control.run_with(&["diff", "-f", "-"], "bad").fails(2, &["a.yaml:1:1: error: no"]);
}

fn removed(path: &str) -> Option<Answer> {
    let name = path.strip_prefix("DELETE /v1/resources/VirtualService/production/")?;
    if name == "none" {
        return Some(refused(404, "there is no VirtualService production/none", &[]));
    }
    let changes = vec![change(name, Action::Removed)];
    Some(ok(&Applied { version: 8, changes, warnings: vec![] }))
}

#[test]
fn delete_by_name_and_by_file() {
    let control = Scripted::on_socket(|asked| removed(&asked.line));
    let ran = control.run(&["delete", "vs", "a", "b", "-n", "production"]);
    ran.says("VirtualService production/a removed\nVirtualService production/b removed\nversion 8\n");
    let ran = control.run(&["delete", "vs/a", "virtualservice/b", "-n", "production"]);
    ran.says("VirtualService production/a removed\nVirtualService production/b removed\nversion 8\n");
    let text = "kind: VirtualService\nmetadata: {name: a, namespace: production}\nspec: nonsense\n---\n---\n\
                kind: VirtualService\nmetadata: {name: b}\n";
    let file = control.file("a.yaml", text);
    let ran = control.run(&["delete", "-f", &file, "-n", "production"]);
    ran.says("VirtualService production/a removed\nVirtualService production/b removed\nversion 8\n");
    // What was removed before a failure is said.
    let ran = control.run(&["delete", "virtualservices", "a", "none", "-n", "production"]);
    ran.fails(1, &["there is no VirtualService production/none"]);
    assert_eq!(ran.out, "VirtualService production/a removed\nversion 8\n");
    let ran = control.run(&["delete", "vs/none", "-n", "production", "--ignore-not-found"]);
    ran.says("version 6 (nothing differs)\n");
    control.run(&["delete", "vs", "-n", "production"]).fails(2, &["which VirtualService?"]);
    control.run(&["delete", "all", "x"]).fails(2, &["name one kind"]);
    control.run(&["delete", "deployment", "x"]).fails(2, &["deployment", "virtualservice"]);
    control.run(&["delete"]).fails(2, &["KIND"]);
}

#[test]
fn history_lists_versions() {
    let now = pilotfish_control::cli::human::now();
    let commit = |version, ago, changes, summary: &str| Commit {
        version,
        author: "root".into(),
        time: now - ago,
        summary: summary.into(),
        documents: 12,
        changes,
    };
    let commits = vec![
        commit(7, 200, vec![change("a", Action::Changed)], "half to v2"),
        commit(
            6,
            9000,
            vec![change("a", Action::Created), change("b", Action::Created), change("c", Action::Removed)],
            "",
        ),
    ];
    let control =
        Scripted::on_socket(move |asked| (asked.line == "GET /v1/history?limit=5").then(|| ok(&commits)));
    control.run(&["history", "--limit", "5"]).says(
        "VERSION  WHEN       AUTHOR  CHANGES               DOCUMENTS  SUMMARY\n\
         \x20     7  3 min ago  root    1 changed                    12  half to v2\n\
         \x20     6  2 h ago    root    2 created, 1 removed         12  -\n",
    );
}
