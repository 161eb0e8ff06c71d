//! The command line and the real control plane: sockets, TLS, tokens, documents.

use super::scripted::{Ran, pilotfish, ran};
use crate::support::Serve;

fn local(serve: &Serve, args: &[&str]) -> Ran {
    let mut command = pilotfish(args);
    command.env("PILOTFISH_DATA", serve.data());
    ran(command)
}

/// The root's fingerprint as a person would copy it.
fn fingerprint(serve: &Serve) -> String {
    let listed = local(serve, &["trust", "list"]).out;
    let root = listed.lines().find(|line| line.starts_with("root ")).unwrap();
    root.split_whitespace().last().unwrap().to_owned()
}

#[test]
fn on_its_machine_no_token_is_needed_and_from_elsewhere_one_is() {
    let serve = Serve::start(&[]);
    local(&serve, &["status"]).says("0 sidecars, documents version 0\n");
    let url = format!("https://{}", serve.listen);
    let pin = fingerprint(&serve);
    let remote = |token: Option<&str>, pin: &str| {
        let mut command = pilotfish(&["status", "--control", &url, "--ca-fingerprint", pin]);
        command.envs(token.map(|token| ("PILOTFISH_ADMIN_TOKEN", token)));
        ran(command)
    };
    let token = serve.token.clone().unwrap();
    remote(Some(&token), &pin).says("0 sidecars, documents version 0\n");
    remote(None, &pin).fails(3, &["this needs an administrator"]);
    let wrong = remote(Some("pfadmin_wrong"), &pin);
    wrong.fails(3, &["this needs an administrator"]);
    remote(Some(&token), &"ab".repeat(32)).fails(3, &["is not the control plane that was meant"]);
}

#[test]
fn a_token_an_agents_revocation_and_its_return() {
    let serve = Serve::start(&[]);
    let token = local(&serve, &["token", "create", "--agent", "chat", "-n", "production"]);
    assert_eq!(token.code, Some(0), "{token:?}");
    let words: Vec<&str> = token.out.trim_end().split('.').collect();
    assert_eq!(words.last().unwrap(), &fingerprint(&serve), "the token carries the fingerprint");
    assert_eq!(token.out.lines().count(), 1);
    let id = "spiffe://cluster.local/ns/production/agent/chat";
    assert!(local(&serve, &["revoke", "chat", "-n", "production"]).out.contains(id));
    assert!(local(&serve, &["trust", "list"]).out.contains(&format!("revoked: {id}\n")));
    assert_eq!(local(&serve, &["readmit", "chat", "-n", "production"]).code, Some(0));
    assert!(!local(&serve, &["trust", "list"]).out.contains("revoked"));
}

#[test]
fn after_its_end_the_control_plane_is_not_there() {
    let serve = Serve::start(&[]);
    let data = serve.data();
    let folder = serve.folder();
    drop(serve);
    let mut command = pilotfish(&["history"]);
    command.env("PILOTFISH_DATA", &data);
    ran(command).fails(4, &["no control plane runs here", "pilotfish serve --data"]);
    drop(folder);
}

/// A rule with this timeout, in the namespace `production`.
fn rule(timeout: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: chat\n  namespace: production\n\
         spec:\n  hosts:\n  - chat\n  http:\n  - timeout: {timeout}\n    directResponse:\n      status: 204\n"
    )
}

#[test]
fn documents_from_apply_to_rollback() {
    let serve = Serve::start(&[]);
    let folder = serve.folder();
    let file = super::scripted::write(folder.path(), "rules.yaml", &rule("1s"));
    let run = |args: &[&str]| local(&serve, args);
    run(&["apply", "-f", &file, "--wait", "-m", "first"])
        .says("VirtualService production/chat created\nversion 1\nno sidecar is concerned\n");
    run(&["apply", "-f", &file])
        .says("VirtualService production/chat unchanged\nversion 1 (nothing differs)\n");
    run(&["diff", "-f", &file]).says("");
    super::scripted::write(folder.path(), "rules.yaml", &rule("2s"));
    let diff = run(&["diff", "-f", &file]);
    assert_eq!(diff.code, Some(1), "{diff:?}");
    for line in ["VirtualService production/chat changed\n", "\n-    timeout: 1s\n+    timeout: 2s\n"] {
        assert!(diff.out.contains(line), "no {line:?} in {}", diff.out);
    }
    run(&["apply", "-f", &file]).says("VirtualService production/chat changed\nversion 2\n");
    let got = run(&["get", "vs/chat", "-n", "production", "-o", "yaml"]);
    assert!(got.out.contains("timeout: 2s"), "{got:?}");
    // What `get` prints, `apply` takes, and it is the same.
    let again = super::scripted::write(folder.path(), "got.yaml", &got.out);
    run(&["apply", "-f", &again])
        .says("VirtualService production/chat unchanged\nversion 2 (nothing differs)\n");
    run(&["rollback", "1"]).says("VirtualService production/chat changed\nversion 3\n");
    assert!(run(&["get", "all", "-A", "-o", "json"]).out.contains("\"timeout\": \"1s\""));
    run(&["delete", "-f", &file]).says("VirtualService production/chat removed\nversion 4\n");
    run(&["delete", "vs/chat", "-n", "production"]).fails(1, &["VirtualService production/chat"]);
    let history = run(&["history"]).out;
    let versions: Vec<&str> =
        history.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(versions, ["4", "3", "2", "1"], "{history}");
    assert!(history.lines().last().unwrap().ends_with("  first"), "{history}");
    run(&["rollback", "99"]).fails(1, &["there is no version 99"]);
}

#[test]
fn a_bad_file_is_refused_as_a_whole_with_its_line() {
    let serve = Serve::start(&[]);
    let folder = serve.folder();
    let bad = rule("1s").replace("name: chat", "name: bad").replace("hosts:", "host:");
    let file = super::scripted::write(folder.path(), "rules.yaml", &format!("{}---\n{bad}", rule("1s")));
    let refused = local(&serve, &["apply", "-f", &file]);
    refused.fails(1, &["nothing was stored", &format!("{file}:20:3: error: spec.host: unknown field")]);
    assert_eq!(local(&serve, &["get", "all", "-A"]).out, "");
    let checked = ran(pilotfish(&["check", &file]));
    for line in refused.err.lines().skip(1) {
        assert!(checked.out.contains(line), "`check` does not say {line:?} but {}", checked.out);
    }
}

#[test]
fn an_edit_of_a_stored_document() {
    let serve = Serve::start(&[]);
    let file = super::scripted::write(serve.folder().path(), "rules.yaml", &rule("1s"));
    local(&serve, &["apply", "-f", &file]);
    let edit = |editor: &str| {
        let mut command = pilotfish(&["edit", "vs", "chat", "-n", "production"]);
        command.env("PILOTFISH_DATA", serve.data()).env("VISUAL", editor);
        command.env("TMPDIR", serve.folder().path());
        ran(command)
    };
    edit("sed -i s/1s/3s/").says("VirtualService production/chat changed\nversion 2\n");
    edit("sed -i s/hosts:/host:/").fails(1, &["given up, nothing was stored", "chat.yaml:", "unknown field"]);
    // Somebody else stores another document while the editor is open: no conflict.
    let other = rule("1s").replace("name: chat", "name: other").replace("- chat", "- other");
    let other = super::scripted::write(serve.folder().path(), "other.yaml", &other);
    let apply =
        format!("{} apply --data {} -f {other} >&2", env!("CARGO_BIN_EXE_pilotfish"), serve.data().display());
    let slow = format!("{apply}; sed -i s/3s/4s/");
    edit(&slow).says("VirtualService production/chat changed\nversion 4\n");
}

#[test]
fn a_report_of_policies_that_are_applied_and_of_files() {
    let serve = Serve::start(&[]);
    let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/agent-security-policy.yaml");
    let run = |args: &[&str]| local(&serve, args);
    let none = run(&["policy", "report"]);
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""), "{none:?}");
    assert_eq!(run(&["apply", "-f", policy]).code, Some(0));
    let applied = run(&["policy", "report"]).out;
    for part in [
        "AgentSecurityPolicy default/production",
        "authentication.required",
        "default/translator",
        "not enforced",
    ] {
        assert!(applied.contains(part), "no {part:?} in {applied}");
    }
    let offline = ran(pilotfish(&["policy", "report", "production", "-f", policy, "-o", "json"]));
    let value: serde_json::Value = serde_json::from_str(&offline.out).unwrap();
    assert_eq!(value["policies"][0]["roles"][1]["clearance"], "restricted", "{value}");
    let named = run(&["policy", "report", "production", "-n", "default", "-o", "json"]).out;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&named).unwrap(),
        value,
        "files and store say the same"
    );
    run(&["policy", "report", "other"]).fails(1, &["there is no AgentSecurityPolicy `other`"]);
}
