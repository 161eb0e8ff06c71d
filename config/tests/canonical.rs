//! Documents as JSON and as YAML for people: whatever is read, is read back as the same.

use std::path::Path;
use std::time::Duration;

use pilotfish_config::{Admitted, Loaded, Options, admit, load_documents, load_texts, to_json, to_yaml};

use crate::computed;

/// What a model says, without the places where it is written.
fn meaning(loaded: &Loaded) -> String {
    let model = loaded.model.as_ref().unwrap_or_else(|| panic!("{}", loaded.report));
    let places = regex::Regex::new(r"Source \{[^}]*\}").unwrap();
    places.replace_all(&format!("{model:#?}"), "Source").into_owned()
}

/// The lines of a meaning, sorted: the order of keys in a map is the author's in the model, and means nothing.
fn unordered(meaning: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = meaning.lines().collect();
    lines.sort_unstable();
    lines
}

fn documents(admitted: &[Admitted]) -> impl Iterator<Item = (&str, &str)> {
    admitted.iter().map(|one| (one.source.as_str(), one.json.as_str()))
}

/// Every way back from JSON and YAML means what `text` means, and gives the same JSON.
fn goes_round(name: &str, text: &str) {
    let options = Options::default();
    let (loaded, admitted) = admit(&[(name, text)], &options);
    assert_eq!(loaded.report.resources, admitted.len(), "{name}");
    let expected = meaning(&load_documents(documents(&admitted), &options));
    assert_eq!(unordered(&meaning(&loaded)), unordered(&expected), "{name}");
    let pairs: Vec<(&str, &str)> = documents(&admitted).collect();
    assert_eq!(meaning(&load_texts(&pairs, &options)), expected, "{name}");
    let yaml: Vec<String> = admitted.iter().map(|one| to_yaml(&one.json).unwrap()).collect();
    let (again, second) = admit(&[(name, &yaml.join("---\n"))], &options);
    assert_eq!(meaning(&again), expected, "{name}:\n{}", yaml.join("---\n"));
    let json = |all: &[Admitted]| all.iter().map(|one| one.json.clone()).collect::<Vec<_>>();
    assert_eq!(json(&admitted), json(&second), "{name}");
    for one in &admitted {
        let value: serde_json::Value = serde_json::from_str(&one.json).unwrap();
        assert_eq!(value["metadata"]["namespace"], *one.key.namespace);
    }
}

#[test]
fn every_example_goes_round() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    for below in ["", "agents/mesh", "demo/mesh"] {
        for entry in std::fs::read_dir(folder.join(below)).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_some_and(|ext| ext == "yaml") {
                let text = std::fs::read_to_string(&file).unwrap();
                goes_round(&file.file_name().unwrap().to_string_lossy(), &text);
                count += 1;
            }
        }
    }
    assert!(count > 30);
}

#[test]
fn every_valid_text_of_the_tests_goes_round() {
    goes_round("references.yaml", include_str!("invalid/references.yaml"));
    goes_round(
        "odd.yaml",
        "apiVersion: v1\nkind: List\nitems:\n\
         - apiVersion: pilotfish.dev/v1\n  kind: AgentCluster\n  metadata: {name: c, uid: x, creationTimestamp: null}\n  \
         spec:\n    agents:\n    - name: a\n      replicas: 0x10\n      \
         capabilities: [nlu@1.10, {name: b, version: 1.10}, {name: c, version: 2}]\n      \
         resources: {cpu: .5, memory: 4Gi}\n    auto_scaling: {enabled: yes, target_utilization: 70%}\n\
         - apiVersion: networking.istio.io/v1\n  kind: DestinationRule\n  metadata: {name: d, namespace: other}\n  \
         spec:\n    host: h.example\n    trafficPolicy:\n      connectionPool:\n        \
         tcp: {maxConnections: +5}\n        http: {useClientProtocol: on, idleTimeout: 5s}\n    \
         subsets: &s\n    - {name: v1, labels: {version: \"0.5\", on: \"yes\", empty: \"\"}}\n\
         - apiVersion: security.istio.io/v1\n  kind: PeerAuthentication\n  metadata: {name: p}\n  \
         spec: {selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: DISABLE}, 9090: null}}\n\
         - apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: foreign}\n",
    );
}

#[test]
fn formatting_does_not_matter_and_content_does() {
    let json = |text: &str| admit(&[("a.yaml", text)], &Options::default()).1.remove(0).json;
    let head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n";
    let one = json(&format!(
        "{head}metadata:\n  name: v\nspec:\n  hosts: [a.example]\n  http:\n  - directResponse: {{status: 200}}\n"
    ));
    let other = json(
        "# a comment\n{\"spec\": {\"http\": [{\"directResponse\": {\"status\": 200}, \"timeout\": null}], \
         'hosts': ['a.example']}, kind: VirtualService, apiVersion: networking.istio.io/v1, \
         metadata: {uid: 1, namespace: default, name: v}, status: {a: b}}",
    );
    assert_eq!(one, other);
    assert_eq!(
        one,
        "{\"apiVersion\":\"networking.istio.io/v1\",\"kind\":\"VirtualService\",\
         \"metadata\":{\"name\":\"v\",\"namespace\":\"default\"},\
         \"spec\":{\"hosts\":[\"a.example\"],\"http\":[{\"directResponse\":{\"status\":200}}]}}"
    );
    let quoted = |label: &str| {
        json(&format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: w}}\n\
             spec: {{address: 10.0.0.1, labels: {{a: {label}}}}}\n"
        ))
    };
    assert!(quoted("\"0.5\"").contains("\"a\":\"0.5\""));
    assert_eq!(quoted("word"), quoted("'word'"));
}

#[test]
fn errors_admit_nothing_and_messages_name_the_authors_line() {
    let good = "apiVersion: pilotfish.dev/v1\nkind: AgentCluster\nmetadata: {name: c}\nspec: {agents: []}\n";
    let twice = format!("{good}---\n{good}");
    let (loaded, admitted) = admit(&[("a.yaml", &twice)], &Options::default());
    assert!(loaded.model.is_none() && admitted.is_empty());
    assert!(loaded.report.to_string().contains("AgentCluster default/c is already at a.yaml:1:1"));
    let (_, admitted) = admit(&[("a.yaml", &format!("\n\n{good}"))], &Options::default());
    assert_eq!(admitted[0].source, "a.yaml:3");
    let broken = admitted[0].json.replace("agents", "agnets");
    let report = load_documents([(admitted[0].source.as_str(), broken.as_str())], &Options::default()).report;
    assert_eq!((&*report.diagnostics[0].file, report.diagnostics[0].line), ("a.yaml", 3));
    let far = load_documents([("a.yaml:4294967295", broken.as_str())], &Options::default()).report;
    assert!(far.errors() > 0);
}

/// A value of JSON by chance, with texts that are hard for YAML.
fn any(rng: &mut fastrand::Rng, depth: u32) -> serde_json::Value {
    const TEXTS: [&str; 34] = [
        "",
        " ",
        "~",
        "null",
        "yes",
        "No",
        "true",
        "0x1F",
        "1.5",
        "1:30",
        "2024-01-01",
        "- a",
        "a: b",
        "a #b",
        "#",
        "'",
        "\"",
        "\\",
        "a\nb",
        "a\nb\n",
        "a\n\n b\n\n",
        "\n",
        "\ta",
        "a\u{85}b",
        "\u{2028}",
        "\u{feff}",
        "\u{1F600}",
        "\u{7f}",
        "%a",
        "@a",
        "[",
        "{a}",
        "a:",
        "spiffe://d/ns/n",
    ];
    let text = |rng: &mut fastrand::Rng| match rng.u8(..4) {
        0 => (0..rng.usize(..6)).map(|_| rng.char(..)).collect(),
        1 => (0..rng.usize(..9)).map(|_| TEXTS[rng.usize(..TEXTS.len())]).collect::<Vec<_>>().join(" "),
        _ => TEXTS[rng.usize(..TEXTS.len())].to_owned(),
    };
    match rng.u8(..if depth > 4 { 4 } else { 8 }) {
        0 => serde_json::Value::Null,
        1 => rng.bool().into(),
        2 => rng.i64(-1000..1000).into(),
        3 => text(rng).into(),
        4 | 5 => (0..rng.usize(..4)).map(|_| any(rng, depth + 1)).collect(),
        _ => (0..rng.usize(..4))
            .map(|_| (text(rng).replace('\u{0}', "0"), any(rng, depth + 1)))
            .filter(|(key, _)| key != "<<")
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

#[test]
fn any_json_goes_through_yaml_and_back() {
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..3000 {
        let value = serde_json::json!({ "root": any(&mut rng, 0) });
        let json = to_json(&value.to_string()).unwrap_or_else(|| panic!("{value}"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value, "{value}");
        let yaml = to_yaml(&json).unwrap();
        assert_eq!(to_json(&yaml).as_deref(), Some(json.as_str()), "{json}\n{yaml}");
    }
}

#[test]
fn long_keys_and_texts_go_through() {
    for length in [1000, 1025, 5000, 100_000] {
        let long = "k".repeat(length);
        let value = serde_json::json!({ long.clone(): { long.clone(): [long.clone(), { "a": long }] } });
        let json = to_json(&value.to_string()).unwrap_or_else(|| panic!("{length}"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
        assert_eq!(to_json(&to_yaml(&json).unwrap_or_default()).as_deref(), Some(json.as_str()), "{length}");
    }
}

#[test]
fn yaml_for_people_looks_as_kubectl_prints_it() {
    let yaml = "a: b\nbundle: |\n  -----BEGIN-----\n  x=\n  -----END-----\nempty: {}\nhosts:\n- a.example\n- \"*\"\n\
                http:\n- match:\n  - uri:\n      prefix: /a\n  name: one\n  weights: [1, 2]\nport: 80\nquoted: \"80\"\n";
    let expected = yaml.replace("[1, 2]", "\n  - 1\n  - 2").replace("weights: \n", "weights:\n");
    assert_eq!(to_yaml(yaml).unwrap(), expected);
}

#[test]
fn ten_thousand_small_documents_load_quickly() {
    let texts: Vec<String> = (0..10_000)
        .map(|n| match n % 3 {
            0 => format!(
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: s{n}}}\nspec: {{hosts: \
                 [s{n}.example], resolution: STATIC, location: MESH_INTERNAL, ports: [{{number: 80, name: http, \
                 protocol: HTTP}}], workloadSelector: {{labels: {{app: s{n}}}}}}}\n"
            ),
            1 => format!(
                "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: w{n}}}\nspec: {{address: \
                 10.0.0.1, labels: {{app: s{}, pilotfish.dev/agent: a{n}}}}}\n",
                n - 1
            ),
            _ => format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v{n}}}\nspec: {{hosts: \
                 [s{0}.example], http: [{{route: [{{destination: {{host: s{0}.example, port: {{number: 80}}}}}}]}}]}}\n",
                n - 2
            ),
        })
        .collect();
    let pairs: Vec<(&str, &str)> = texts.iter().map(|text| ("many.yaml", text.as_str())).collect();
    let (loaded, admitted) = admit(&pairs, &Options::default());
    assert_eq!(admitted.len(), 10_000, "{}", loaded.report);
    let start = computed();
    let loaded = load_documents(documents(&admitted), &Options::default());
    let took = computed() - start;
    assert!(loaded.model.is_some(), "{}", loaded.report);
    // 1.6 s unoptimized.
    assert!(took < Duration::from_secs(30), "{took:?}");
}
