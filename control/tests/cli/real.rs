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
