//! `invalid/*.yaml` each with the exact report in `invalid/*.txt`. `UPDATE_GOLDEN=1` writes them anew: read the
//! difference before you commit it.

use std::path::Path;

use pilotfish_config::{Options, load_texts};

#[test]
fn every_invalid_file_gives_its_report() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/invalid");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|ext| ext != "yaml") {
            continue;
        }
        count += 1;
        let name = file.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let options = Options { trust_domain: Some("mesh.local".into()), ..Options::default() };
        let loaded = load_texts(&[(name, &text)], &options);
        let valid = ["references.yaml", "reach.yaml"].contains(&name);
        assert_eq!(loaded.model.is_some(), valid, "{name}");
        let report = loaded.report.to_string();
        let golden = file.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &report).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(report, expected, "{name}");
    }
    assert!(count >= 12);
}

#[test]
fn three_errors_in_one_document_and_two_in_the_next_are_all_reported() {
    let text = include_str!("invalid/five.yaml");
    let report = super::load(text).report;
    let errors: Vec<(u32, &str)> = report
        .diagnostics
        .iter()
        .filter(|d| d.severity == pilotfish_config::Severity::Error)
        .map(|d| (d.line, d.path.as_str()))
        .collect();
    let expected = [
        (8, "spec.http[0].tiemout"),
        (12, "spec.http[0].route[0].weight"),
        (13, "spec.http[1].timeout"),
        (25, "spec.trafficPolicy.loadBalancer.simple"),
        (27, "spec.subsets[0]"),
    ];
    assert_eq!(errors, expected);
}
