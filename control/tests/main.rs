//! The `pilotfish` binary as scripts see it: output, exit codes, standard input.

// Helpers outside of #[test] functions may panic too.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn pilotfish(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

const BROKEN: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec:
  hots: a
";

#[test]
fn check_names_the_place_the_problem_and_a_hint_and_ends_with_1() {
    let output = pilotfish(&["check", "-"], BROKEN);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    assert!(
        text.contains(
            "<stdin>:6:3: error: spec.hots: unknown field of DestinationRule; did you mean `host`?"
        ),
        "{text}"
    );
    assert!(text.ends_with("1 resource in 1 file: 2 errors, 0 warnings\n"), "{text}");
    assert!(!text.contains('\x1b'), "no colour when it is not a terminal");
}

#[test]
fn check_takes_folders_and_ends_with_0_when_there_are_only_warnings() {
    let output = pilotfish(&["check", "../examples/agent-service-mesh.yaml", "../examples/route.yaml"], "");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("warning: "));
    let folder = pilotfish(&["check", "../config/tests/invalid"], "");
    assert_eq!(folder.status.code(), Some(1));
    assert!(text(&folder).contains("types.yaml:4:9: error: metadata.name: expected a text, found a number"));
}

#[test]
fn check_prints_json_for_machines() {
    let output = pilotfish(&["check", "--json", "-"], BROKEN);
    assert_eq!(output.status.code(), Some(1));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["valid"], &value["errors"]), (&false.into(), &2.into()));
    let all = value["diagnostics"].as_array().unwrap();
    let first = all.iter().find(|d| d["hint"] == "did you mean `host`?").unwrap();
    assert_eq!(first["severity"], "error");
    assert_eq!(
        (&first["line"], &first["column"], &first["path"]),
        (&6.into(), &3.into(), &"spec.hots".into())
    );
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in
        [&["check"][..], &["chekc", "x"], &["check", "-", "x"], &["schema", "Pod"], &["check", "--jsn", "x"]]
    {
        assert_eq!(pilotfish(arguments, "").status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(pilotfish(&["check", "/no/such/file"], "").status.code(), Some(1));
}

#[test]
fn strict_istio_turns_the_additions_off() {
    let file = "../examples/agent-service-mesh.yaml";
    let lenient = text(&pilotfish(&["check", file], ""));
    let strict = text(&pilotfish(&["check", "--strict-istio", file], ""));
    assert!(
        lenient.contains("it is taken as the label `version`") && !strict.contains("it is taken as"),
        "{strict}"
    );
    assert!(strict.contains("the route is dead"), "{strict}");
}

#[test]
fn schema_and_completion_and_help_are_printed() {
    let schema = pilotfish(&["schema", "serviceentry"], "");
    let value: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(value["title"], "ServiceEntry");
    let list = text(&pilotfish(&["schema", "--list"], ""));
    assert_eq!(list.lines().count(), 12, "{list}");
    assert!(
        list.contains(
            "PeerAuthentication     security.istio.io/v1, security.istio.io/v1beta1 (not enforced yet)"
        ),
        "{list}"
    );
    assert!(text(&pilotfish(&["completion", "bash"], "")).contains("pilotfish"));
    assert!(text(&pilotfish(&["--version"], "")).starts_with("pilotfish "));
    let help = text(&pilotfish(&["check", "--help"], ""));
    assert!(help.contains("--strict-istio") && help.contains("[default: default]"), "{help}");
}
