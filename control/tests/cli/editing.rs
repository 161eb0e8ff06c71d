//! `edit`, with scripts as editors.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use pilotfish_control::api::types::{Action, Applied, Resource};
use serde_json::value::RawValue;

use super::changing::{change, key};
use super::scripted::{Answer, Asked, Ran, Scripted, ok, ran, refused, version};

const STORED: &str = "kind: VirtualService\nspec:\n  weight: 90\n";

fn resource(version: u64, yaml: &str) -> Answer {
    ok(&[Resource {
        key: key("chat"),
        version,
        source: "a.yaml:1".into(),
        body: RawValue::from_string("{}".into()).unwrap(),
        yaml: yaml.into(),
    }])
}

fn done(version: u64) -> Answer {
    ok(&Applied { version, changes: vec![change("chat", Action::Changed)], warnings: vec![] })
}

fn text(asked: &Asked) -> &str {
    asked.body["files"][0]["text"].as_str().unwrap_or_default()
}

/// Runs `edit` with a shell script that gets the file as `$1`.
fn edit(control: &Scripted, script: &str) -> Ran {
    let editor = control.file("editor", &format!("#!/bin/sh\nset -e\n{script}\n"));
    std::fs::set_permissions(&editor, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = control.command(&["edit", "vs", "chat", "-n", "production"]);
    let drafts = control.dir.path().join("drafts");
    std::fs::create_dir_all(&drafts).unwrap();
    command.env("EDITOR", &editor).env("TMPDIR", &drafts);
    ran(command)
}

fn drafts(control: &Scripted) -> usize {
    std::fs::read_dir(control.dir.path().join("drafts")).unwrap().count()
}

#[test]
fn an_edit_is_tried_and_then_stored_on_its_base() {
    let control = Scripted::on_socket(|asked| match asked.line.as_str() {
        "POST /v1/apply" => Some(done(7)),
        line if line.starts_with("GET /v1/resources") => Some(resource(4, STORED)),
        _ => None,
    });
    let ran = edit(&control, "stat -c %a \"$1\" >&2; sed -i s/90/50/ \"$1\"");
    ran.says("VirtualService production/chat changed\nversion 7\n");
    assert_eq!(ran.err, "600\n");
    let asked = control.asked();
    assert_eq!(asked[0].line, "GET /v1/resources?kind=VirtualService&namespace=production&name=chat");
    let posted: Vec<_> =
        asked[1..].iter().map(|asked| (asked.body["dry_run"] == true, asked.body["base"].as_u64())).collect();
    assert_eq!(posted, [(true, Some(6)), (false, Some(6))]);
    assert_eq!(text(&asked[2]), STORED.replace("90", "50"));
    assert_eq!(drafts(&control), 0);
}

#[test]
fn nothing_changed_sends_nothing() {
    let control =
        Scripted::on_socket(|asked| asked.line.starts_with("GET /v1/res").then(|| resource(4, STORED)));
    let ran = edit(&control, "true");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), "nothing was changed\n"));
    assert_eq!(edit(&control, ": > \"$1\"").err, "nothing was changed\n");
    let ran = edit(&control, "exit 3");
    ran.fails(1, &["the editor `", "failed", "your text is in "]);
    assert!(control.asked().iter().all(|asked| asked.line.starts_with("GET")));
}

#[test]
fn a_refused_text_comes_back_with_the_reasons_as_comments() {
    let control = Scripted::on_socket(|asked| match asked.line.as_str() {
        "POST /v1/apply" if text(asked).contains("bad") => {
            Some(refused(422, "refused", &["chat.yaml:3:3: error: no bad"]))
        }
        "POST /v1/apply" => Some(done(7)),
        line if line.starts_with("GET /v1/resources") => Some(resource(4, STORED)),
        _ => None,
    });
    let script = "if grep -q '^#| chat.yaml:3:3: error: no bad' \"$1\"; then sed -i s/bad/50/ \"$1\"; else sed -i s/90/bad/ \"$1\"; fi";
    edit(&control, script).says("VirtualService production/chat changed\nversion 7\n");
    let last = control.asked().pop().unwrap();
    assert_eq!(text(&last), STORED.replace("90", "50"), "the comments are ours and are not sent");
    // Leaving without a change gives it up.
    let ran = edit(&control, "grep -q '^#|' \"$1\" || sed -i s/90/bad/ \"$1\"");
    ran.fails(1, &["given up, nothing was stored: refused\nchat.yaml:3:3: error: no bad"]);
}

#[test]
fn another_documents_change_is_no_conflict_and_the_same_ones_is() {
    // Version 9 is there by now; this document was changed last by 4, as before.
    let control = Scripted::on_socket(|asked| match asked.line.as_str() {
        "POST /v1/apply" if asked.body["base"] == 6 => Some(refused(409, "somebody was faster", &[])),
        "POST /v1/apply" => Some(done(10)),
        "GET /v1/version" => Some(ok(&version(6))),
        line if line.starts_with("GET /v1/resources") => Some(resource(4, STORED)),
        _ => None,
    });
    let versions = AtomicUsize::new(6);
    let other = Scripted::on_socket(move |asked| match asked.line.as_str() {
        "GET /v1/version" => Some(ok(&version(versions.fetch_add(3, Ordering::Relaxed) as u64))),
        "POST /v1/apply" if asked.body["base"] == 6 => Some(refused(409, "somebody was faster", &[])),
        "POST /v1/apply" => Some(done(10)),
        line if line.starts_with("GET /v1/resources") => Some(resource(4, STORED)),
        _ => None,
    });
    drop(control);
    edit(&other, "sed -i s/90/50/ \"$1\"").says("VirtualService production/chat changed\nversion 10\n");
    // Now somebody changed this very document: the editor opens again and shows it.
    let (versions, reads) = (AtomicUsize::new(6), AtomicUsize::new(0));
    let same = Scripted::on_socket(move |asked| match asked.line.as_str() {
        "GET /v1/version" => Some(ok(&version(versions.fetch_add(3, Ordering::Relaxed) as u64))),
        "POST /v1/apply" if asked.body["base"] == 6 => Some(refused(409, "somebody was faster", &[])),
        "POST /v1/apply" => Some(done(10)),
        line if line.starts_with("GET /v1/resources") => Some(match reads.fetch_add(1, Ordering::Relaxed) {
            0 => resource(4, STORED),
            _ => resource(9, &format!("{STORED}  theirs: 1\n")),
        }),
        _ => None,
    });
    let script = "if grep -q '^#| +  theirs: 1' \"$1\"; then echo '  theirs: 1' >> \"$1\"; else sed -i s/90/50/ \"$1\"; fi";
    edit(&same, script).says("VirtualService production/chat changed\nversion 10\n");
    assert_eq!(text(&same.asked().pop().unwrap()), format!("{}  theirs: 1\n", STORED.replace("90", "50")));
}

#[test]
fn an_edit_cannot_become_another_document() {
    let control = Scripted::on_socket(|asked| match asked.line.as_str() {
        "POST /v1/apply" => {
            assert_eq!(asked.body["dry_run"], true, "the other document was stored");
            Some(ok(&Applied {
                version: 6,
                changes: vec![change("renamed", Action::Created)],
                warnings: vec![],
            }))
        }
        line if line.starts_with("GET /v1/resources") => Some(resource(4, STORED)),
        _ => None,
    });
    let ran = edit(&control, "if grep '^#|' \"$1\" >&2; then exit 0; fi; sed -i s/90/50/ \"$1\"");
    assert!(ran.err.contains("VirtualService production/renamed is another document"), "{}", ran.err);
}
