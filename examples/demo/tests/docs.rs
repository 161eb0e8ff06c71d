//! The documents say what the code says: refusals, stages and paths are compared with the source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_readme_lists_every_refusal_with_its_status() {
    // `Name = "word", 503, Fault;`
    let refusals: BTreeSet<_> = read("filters/src/verdict.rs")
        .lines()
        .filter_map(|line| {
            let mut parts = line.split_once(" = \"")?.1.split(',');
            let word = parts.next()?.trim_end_matches('"').to_string();
            Some((word, parts.next()?.trim().parse::<u16>().ok()?))
        })
        .collect();
    assert!(refusals.len() > 10, "the pattern still fits verdict.rs: {refusals:?}");
    let listed: BTreeSet<_> = read("README.md")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|');
            let word = cells.next()?.trim().trim_end_matches('`').to_string();
            Some((word, cells.next()?.trim().parse::<u16>().ok()?))
        })
        .collect();
    assert_eq!(listed, refusals);
}

#[test]
fn the_stages_of_the_life_of_a_request_are_modules_in_the_same_order() {
    let stages: Vec<_> = read("ARCHITECTURE.md")
        .lines()
        .skip_while(|line| *line != "## Life of a request")
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("### ").map(str::to_string))
        .collect();
    let request = read("proxy/src/request.rs");
    let told: Vec<_> = request
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_lowercase()))
        .filter(|word| stages.iter().any(|stage| stage == word))
        .collect();
    let mut first = Vec::new();
    told.into_iter().for_each(|word| {
        if !first.contains(&word) {
            first.push(word);
        }
    });
    assert_eq!(first, stages, "proxy/src/request.rs tells another order");
    for stage in stages.iter().filter(|stage| *stage != "listen") {
        assert!(request.contains(&format!("mod {stage};")), "no module {stage} in proxy/src/request.rs");
    }
}

#[test]
fn every_path_that_is_named_exists() {
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = read(document);
        let paths = text.split('`').skip(1).step_by(2).filter(|quoted| {
            let folder =
                ["config/", "filters/", "proxy/", "control/", "bench/", "examples/", "docs/", ".ci/"];
            folder.iter().any(|start| quoted.starts_with(start)) && !quoted.contains([' ', '*'])
        });
        let mut count = 0;
        for path in paths {
            count += 1;
            assert!(root().join(path).exists(), "{document} names {path}, which is not there");
        }
        assert!(count > 5, "{document}: {count} paths found");
    }
}

#[test]
fn crates_depend_on_each_other_only_along_the_arrows() {
    let arrows: [(&str, &[&str]); 12] = [
        ("config", &[]),
        ("config/audit", &["config"]),
        ("config/client", &["config", "identity"]),
        ("config/identity", &[]),
        ("config/processes", &[]),
        ("filters", &["config"]),
        ("proxy", &["audit", "client", "config", "filters", "identity", "processes"]),
        ("proxy/testkit", &[]),
        ("proxy/sim", &["config", "filters", "identity", "proxy", "testkit"]),
        ("control", &["audit", "client", "config", "filters", "identity", "processes"]),
        ("bench", &["config", "filters", "identity", "proxy", "testkit"]),
        ("examples/demo", &[]),
    ];
    for (crate_, allowed) in arrows {
        let manifest = read(&format!("{crate_}/Cargo.toml"));
        let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
        // Tests may use the testkit, and anything that is above.
        let dependencies = dependencies.split("\n[").next().unwrap();
        for line in dependencies.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap();
            if let Some(ours) = name.strip_prefix("pilotfish-") {
                assert!(allowed.contains(&ours), "{crate_} must not depend on {name}");
            }
            let pure = ["config", "filters"].contains(&crate_);
            assert!(!(pure && name == "hyper"), "{crate_}: has nothing to do with HTTP");
        }
    }
}

/// The sidecar's engine is its own; hyper carries what the sidecar itself asks and tells (`ask`, OTLP), and is used nowhere else.
#[test]
fn hyper_carries_only_what_the_sidecar_itself_asks_and_tells() {
    let mut folders = vec![root().join("proxy/src")];
    let (mut users, mut files) = (Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read_to_string(&path).unwrap().contains("use hyper") {
                users.push(path.strip_prefix(root()).unwrap().display().to_string());
            } else {
                files += 1;
            }
        }
    }
    assert!(files > 100 && !users.is_empty(), "the pattern still fits: {files} files, {users:?}");
    let homes = ["proxy/src/ask/", "proxy/src/telemetry/otlp"];
    let allowed = |user: &String| homes.iter().any(|home| user.starts_with(home));
    assert!(users.iter().all(allowed), "{users:?}");
}

#[test]
fn every_example_is_linked_from_the_readme_and_every_link_leads_somewhere() {
    let readme = read("README.md");
    let linked: BTreeSet<_> = readme
        .split("](examples/")
        .skip(1)
        .filter_map(|rest| rest.split(')').next().map(str::to_string))
        .filter(|path| path.ends_with(".yaml"))
        .collect();
    let there: BTreeSet<_> = std::fs::read_dir(root().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    assert_eq!(linked, there);
}
