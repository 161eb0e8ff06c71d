//! What is in `deploy/` fits the programs: flags, variables, units, manifests, scripts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn files(folders: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in folders {
        for entry in std::fs::read_dir(deploy().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            files.push((path.display().to_string(), std::fs::read_to_string(path).unwrap()));
        }
    }
    files
}

fn help(binary: &Path, args: &[&str]) -> String {
    let output = Command::new(binary).args(args).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Words that start so, as long as they are made of such letters.
fn words(text: &str, start: &str, letter: fn(char) -> bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(start) {
        let inside = text[..at].chars().next_back().is_some_and(|before| letter(before) || before == '-');
        let rest: String = text[at + start.len()..].chars().take_while(|c| letter(*c)).collect();
        if !inside && rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            found.insert(format!("{start}{}", rest.trim_end_matches('-')));
        }
    }
    found
}

fn flags(text: &str) -> BTreeSet<String> {
    words(text, "--", |c| c.is_ascii_lowercase() || c == '-')
}

fn variables(text: &str) -> BTreeSet<String> {
    words(text, "PILOTFISH_", |c| c.is_ascii_uppercase() || c == '_')
}

/// Of docker, cargo, apt-get, systemctl and kubectl.
const FOREIGN: &[&str] = &[
    "--chown",
    "--from",
    "--from-literal",
    "--locked",
    "--mount",
    "--no-install-recommends",
    "--now",
    "--release",
    "--target",
    "--type",
];

#[test]
fn flags_and_variables_of_units_manifests_and_images_exist() {
    let control = PathBuf::from(env!("CARGO_BIN_EXE_pilotfish"));
    let mut texts = help(&control, &[]);
    for command in ["serve", "node", "nodes", "drain", "status", "apply"] {
        texts.push_str(&help(&control, &[command]));
    }
    texts.push_str(&help(&control, &["token", "create"]));
    // `make test` builds every binary first; alone, this crate's tests do not have the sidecar.
    let proxy = control.with_file_name("pilotfish-proxy");
    if !proxy.exists() {
        eprintln!("skipped: {} is not built", proxy.display());
        return;
    }
    texts.push_str(&help(&proxy, &[]));
    let (known_flags, known_variables) = (flags(&texts), variables(&texts));
    // The last: what the Kubernetes executor makes.
    let folders = ["systemd", "docker", "kubernetes", "debian", "../control/tests/golden/kubernetes"];
    for (name, text) in files(&folders) {
        let maintainer = ["postinst", "prerm", "postrm"].iter().any(|script| name.ends_with(script));
        let foreign = |flag: &String| FOREIGN.contains(&flag.as_str());
        let unknown: Vec<String> =
            flags(&text).into_iter().filter(|flag| !known_flags.contains(flag) && !foreign(flag)).collect();
        assert!(maintainer || unknown.is_empty(), "{name} uses {unknown:?}, which no program has");
        let unknown: Vec<String> = variables(&text).difference(&known_variables).cloned().collect();
        assert!(unknown.is_empty(), "{name} sets {unknown:?}, which no program reads");
    }
}

#[test]
fn words_are_found_whole() {
    let found = flags("a --b-c=1 [--d] x--no ---neither `--e`. --f-\n--g");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["--b-c", "--d", "--e", "--f", "--g"]);
    assert_eq!(variables("PILOTFISH_A_B=1 XPILOTFISH_C").into_iter().collect::<Vec<_>>(), ["PILOTFISH_A_B"]);
}

#[test]
fn manifests_are_yaml_that_check_passes_over() {
    let folder = deploy().join("kubernetes");
    let output =
        Command::new(env!("CARGO_BIN_EXE_pilotfish")).arg("check").arg(&folder).env_clear().output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for kind in ["Namespace", "Deployment", "Service", "Secret", "ClusterRole", "ClusterRoleBinding"] {
        assert!(text.contains(kind), "{kind} is not named as skipped: {text}");
    }
}

/// Units as they are, but for the programs, which are not installed here.
#[test]
fn units_are_what_systemd_takes() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: there is no systemd-analyze");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files(&["systemd"]) {
        let exec = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let programs = ["/usr/bin/pilotfish serve", "/usr/bin/pilotfish node", "/usr/bin/pilotfish-proxy"];
        assert!(programs.contains(&exec), "{exec}");
        let name = Path::new(&name).file_name().unwrap().to_str().unwrap().replace('@', "@chat");
        let unit = dir.path().join(name);
        std::fs::write(&unit, text.replace(exec, "/bin/true")).unwrap();
        let unit = unit.to_str().unwrap();
        let verified = Command::new("systemd-analyze").args(["verify", "--man=no", unit]).output().unwrap();
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        // Of systemd 254; an older one goes without, as the unit says.
        let said: String = said.lines().filter(|line| !line.contains("'DelegateSubgroup'")).collect();
        assert!(verified.status.success() && !said.contains("pilotfish"), "{said}");
        // Of 10; what a network service of an unprivileged user can reach is about 1.
        if exec.ends_with(" node") {
            // It runs what others wrote, with the devices that they need: what they may do is for their operator to say.
            continue;
        }
        let bar = ["security", "--offline=true", "--threshold=20", unit];
        let secure = Command::new("systemd-analyze").args(bar).output().unwrap();
        assert!(secure.status.success(), "{}", String::from_utf8_lossy(&secure.stdout));
    }
}

#[test]
fn scripts_parse() {
    for (shell, script) in [
        ("bash", "dist"),
        ("bash", "man"),
        ("sh", "debian/postinst"),
        ("sh", "debian/prerm"),
        ("sh", "debian/postrm"),
    ] {
        let parsed = Command::new(shell).arg("-n").arg(deploy().join(script)).output().unwrap();
        assert!(parsed.status.success(), "{script}: {}", String::from_utf8_lossy(&parsed.stderr));
    }
}
