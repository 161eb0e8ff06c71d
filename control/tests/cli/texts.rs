//! Help, completion and manual pages.

use std::process::Command;

use super::scripted::{pilotfish, ran};

/// Commands as `--help` lists them.
fn commands() -> Vec<String> {
    let help = ran(pilotfish(&["--help"])).out;
    let listed = help.split("Options:").next().unwrap().lines().filter(|line| line.starts_with("  "));
    listed.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn help_lists_every_command_once_in_groups_with_exit_codes() {
    let help = ran(pilotfish(&["--help"])).out;
    for group in
        ["Run it:", "Change the mesh:", "Look at it:", "Who belongs to it:", "Without a control plane:"]
    {
        assert!(help.contains(&format!("\n{group}\n")), "{help}");
    }
    assert!(help.contains("  4  the control plane cannot be reached\n"), "{help}");
    let mut all = commands();
    assert!(all.len() >= 21, "{all:?}");
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
}

#[test]
fn every_command_explains_itself() {
    for command in commands() {
        let long = ran(pilotfish(&[&command, "--help"]));
        assert_eq!(long.code, Some(0), "{command}");
        assert!(long.out.len() > 200, "{command} says little:\n{}", long.out);
        assert!(!long.out.contains("///"), "{command}:\n{}", long.out);
    }
    for teaching in [
        "apply",
        "diff",
        "get",
        "edit",
        "delete",
        "rollback",
        "status",
        "agents",
        "explain",
        "why",
        "tap",
        "traces",
        "trace",
        "revoke",
        "quarantine",
        "restrict",
        "release",
        "trust",
        "authz",
        "backup",
        "nodes",
        "placement",
        "scale",
        "cordon",
        "uncordon",
        "drain",
        "logs",
    ] {
        let long = ran(pilotfish(&[teaching, "--help"])).out;
        assert!(
            long.contains("Examples:") && long.contains(&format!("pilotfish {teaching} ")),
            "{teaching}:\n{long}"
        );
    }
}

#[test]
fn completion_parses_and_knows_kinds() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, check) in [("bash", Some(["bash", "-n"])), ("zsh", None), ("fish", None)] {
        let script = ran(pilotfish(&["completion", shell]));
        assert_eq!(script.code, Some(0));
        assert!(script.out.contains("rollback"), "{shell}");
        if let Some([program, flag]) = check {
            assert!(script.out.contains("virtualservice"), "{shell} offers no kinds");
            let file = dir.path().join(shell);
            std::fs::write(&file, &script.out).unwrap();
            let parsed = Command::new(program).arg(flag).arg(&file).output().unwrap();
            assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
        }
    }
}

#[test]
fn manual_pages_of_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let ran = ran(pilotfish(&["man", dir.path().to_str().unwrap()]));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for command in commands() {
        let page = std::fs::read_to_string(dir.path().join(format!("pilotfish-{command}.1"))).unwrap();
        assert!(page.contains(".SH NAME"), "{command}");
    }
    let page = std::fs::read_to_string(dir.path().join("pilotfish.1")).unwrap();
    assert!(page.contains("pilotfish\\-apply(1)"), "{page}");
}
