//! Every file of `examples/` compiles into a plan that has rules, clusters or a catalogue.

use std::path::{Path, PathBuf};

use pilotfish_config::load;

use super::*;

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let entries = ["", "agents/mesh"].iter().flat_map(|below| std::fs::read_dir(folder.join(below)).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect()
}

#[test]
fn every_example_compiles_and_does_something() {
    let files = examples();
    assert!(files.len() >= 30, "{files:?}");
    for file in files {
        let loaded = load(std::slice::from_ref(&file), &Options::default());
        let model = loaded.model.unwrap_or_else(|| panic!("{}", loaded.report));
        let plan = compile(&model, &options(), &Resolved::default(), &State::with_seed(1), Micros(0));
        let plan = plan.unwrap_or_else(|errors| panic!("{}: {errors:?}", file.display()));
        let does_nothing = plan.routes.hosts().is_empty() && plan.clusters.is_empty();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // The last ones are for the control plane.
        let without_rules = [
            "authorization.yaml",
            "delegation.yaml",
            "external-authorizer.yaml",
            "skills.yaml",
            "tokens.yaml",
            "sidecar-outbound.yaml",
            "dedup.yaml",
            "telemetry.yaml",
            "alert-rule.yaml",
            "agent-template.yaml",
            "gpu-pool.yaml",
            "node.yaml",
            "placement.yaml",
        ];
        assert_eq!(does_nothing, without_rules.contains(&&*name), "{name}");
        // Their endpoints come from elsewhere.
        let elsewhere = ["agent-service-mesh.yaml", "agent-security-policy.yaml"];
        assert_eq!(!plan.warnings.is_empty(), elsewhere.contains(&&*name), "{name}: {:?}", plan.warnings);
    }
}
