//! Every file of `examples/` loads; only those that show warnings have any.

use std::path::{Path, PathBuf};

use pilotfish_config::{Options, load};

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut files: Vec<PathBuf> = ["", "agents/mesh"]
        .iter()
        .flat_map(|below| std::fs::read_dir(folder.join(below)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|file| file.extension().is_some_and(|ext| ext == "yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_example_loads() {
    let files = examples();
    assert!(files.len() >= 30, "{files:?}");
    for file in files {
        let loaded = load(std::slice::from_ref(&file), &Options::default());
        assert!(loaded.model.is_some(), "{}", loaded.report);
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let shows_warnings = ["agent-service-mesh.yaml", "not-enforced-yet.yaml"].contains(&name.as_str());
        assert_eq!(loaded.report.warnings() > 0, shows_warnings, "{}", loaded.report);
    }
}

#[test]
fn the_agent_service_mesh_says_what_it_means_in_warnings() {
    let file = examples().into_iter().find(|file| file.ends_with("agent-service-mesh.yaml")).unwrap();
    let loaded = load(&[file], &Options::default());
    let report = loaded.report.to_string();
    for part in [
        "websocketUpgrade: does nothing; Upgrade",
        "defines the subset `v1`, `v2`; it is taken as the label `version`",
        "  - name: v2\n    labels:\n      version: v2",
        "its trafficPolicy is used for nlp-agent-service.default.svc.cluster.local, streaming-agent-service",
        "      consistentHash:\n        httpHeaderName:",
    ] {
        assert!(report.contains(part), "{part} is not in:\n{report}");
    }
}

#[test]
fn what_the_warnings_print_loads_and_means_the_same() {
    let file = examples().into_iter().find(|file| file.ends_with("agent-service-mesh.yaml")).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let implicit = super::load(&text);
    let printed: Vec<String> = implicit
        .report
        .diagnostics
        .iter()
        .filter_map(|d| Some(d.hint.as_deref()?.split_once("write it out:\n")?.1.to_owned()))
        .collect();
    assert_eq!(printed.len(), 2);
    let explicit = super::load(&format!("{text}---\n{}", printed.join("\n---\n")));
    assert!(!explicit.report.to_string().contains("write it out"), "{}", explicit.report);
    let (implicit, explicit) = (implicit.model.unwrap(), explicit.model.unwrap());
    for host in
        ["nlp-agent-service.default.svc.cluster.local", "streaming-agent-service.default.svc.cluster.local"]
    {
        let rules =
            [&implicit, &explicit].map(|model| model.destination_rule(host, "default").unwrap().clone());
        assert_eq!(rules[0].policy, rules[1].policy, "{host}");
        for subset in ["v1", "v2"] {
            let labels = rules.each_ref().map(|rule| rule.subset(subset).map(|s| s.labels.clone()));
            assert_eq!(labels[0], labels[1], "{host} {subset}");
        }
    }
}
