//! `placement plan`: a dry run on nodes from files, or on those of a control plane.

use std::collections::BTreeMap;
use std::path::Path;

use pilotfish_config::wire::Key;
use pilotfish_control::api::types::{GpuRow, NodeRow, PlacementView, ReplicaRow, Resource};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::scripted::{Ran, Scripted, ok, pilotfish, ran, write};

/// AgentClusters as people write them.
fn fixture(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/tests/placement").join(name);
    file.display().to_string()
}

/// Machines in the three regions of `support-worldwide.yaml`, with a few large cards.
const FLEET: &str = "
apiVersion: pilotfish.dev/v1
kind: Node
metadata: {name: us}
spec: {region: us-east, zone: us-east-1a, cpu: '64', memory: 256Gi, count: 60, max_replicas: 200}
---
apiVersion: pilotfish.dev/v1
kind: Node
metadata: {name: eu}
spec: {region: eu-central, zone: eu-central-1a, cpu: '64', memory: 256Gi, count: 45, max_replicas: 200}
---
apiVersion: pilotfish.dev/v1
kind: Node
metadata: {name: gpu}
spec:
  region: eu-central
  cpu: '96'
  memory: 1Ti
  count: 2
  gpus: [{model: NVIDIA A100-SXM4-80GB, memory: 80Gi, count: 8}]
";

const ASIA: &str = "---
apiVersion: pilotfish.dev/v1
kind: Node
metadata: {name: ap}
spec: {region: ap-southeast, cpu: '64', memory: 256Gi, count: 36, max_replicas: 200}
";

/// One agent that is all right but for what is written of it.
fn agents(spec: &str) -> String {
    format!(
        "apiVersion: pilotfish.dev/v1\nkind: AgentCluster\nmetadata: {{name: research, namespace: lab}}\nspec:\n{spec}"
    )
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        write(self.0.path(), name, text)
    }

    /// A dry run; no control plane is there.
    fn plan(&self, agents: &str, fleet: &str, more: &[&str]) -> Ran {
        let fleet = self.write("fleet.yaml", fleet);
        let args = [&["placement", "plan", "-f", agents, "--nodes", &fleet], more].concat();
        ran(pilotfish(&args))
    }
}

/// Parts between empty lines; nodes are left to placement's own tests, but for their sum.
fn parts(ran: &Ran) -> Vec<&str> {
    let mut parts: Vec<&str> = ran.out.trim_end().split("\n\n").collect();
    parts[1] = parts[1].lines().last().unwrap();
    parts
}

#[test]
fn a_whole_world_of_agents_has_its_place() {
    let files = Files::new();
    let ran = files.plan(&fixture("support-worldwide.yaml"), &format!("{FLEET}{ASIA}"), &[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let table = "\
AGENT               NAMESPACE  REGION        STRATEGY  WANTED  PLACED  MISSING  WAITING
conversation_agent  default    us-east       static      3000    3000        0  no command
conversation_agent  default    eu-central    static      2500    2500        0  no command
conversation_agent  default    ap-southeast  static      2000    2000        0  no command
knowledge_agent     default    us-east       static       150     150        0  no command
knowledge_agent     default    eu-central    static       125     125        0  no command
knowledge_agent     default    ap-southeast  static       100     100        0  no command
escalation_agent    default    us-east       static        50      50        0  no command
escalation_agent    default    eu-central    static        45      45        0  no command
escalation_agent    default    ap-southeast  static        35      35        0  no command";
    let found = parts(&ran);
    assert_eq!(found[0], table, "{}", ran.out);
    assert_eq!(found[1], "143 nodes: 8315 of 9216 cores, 16.2 TiB of 37.2 TiB, 0 of 16 GPUs given out");
    assert_eq!(found[3], "all 8005 replicas have a place");
    assert!(found[2].starts_with("note: default/conversation_agent would wait: no command: give it one by"));
    let line =
        "support-worldwide.yaml:7:13: warning: spec.replicas: 10000 replicas, but the regions add up to 8005";
    assert!(ran.err.contains(line), "{}", ran.err);
    // Said of the file once, not again as a note.
    assert!(!ran.out.contains("add up to 8005"), "{}", ran.out);
    assert!(ran.out.contains("... 123 more nodes; -o wide shows all\n"), "{}", ran.out);
}

#[test]
fn who_asks_for_too_much_is_told_what_is_missing() {
    let files = Files::new();
    let ran = files.plan(&fixture("support-hierarchy.yaml"), FLEET, &[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let found = parts(&ran);
    assert_eq!(
        found[0],
        "AGENT               NAMESPACE   STRATEGY  WANTED  PLACED  MISSING  WAITING\n\
         conversation-agent  production  static        50      16       34  no command\n\
         escalation-agent    production  static        10      10        0  no command"
    );
    assert_eq!(found[1], "107 nodes: 42 of 6912 cores, 84 GiB of 28.2 TiB, 16 of 16 GPUs given out");
    let start = "production/conversation-agent: 34 of 50 replicas have no place\n\
                 Each needs 2 cores, 4 GiB of memory, 1 GPU; together: 68 cores, 136 GiB of memory, 34 GPUs.\n\
                 NODES  WHY NOT\n\
                 \x20 105  no GPU\n\
                 \x20   2  1 GPU wanted, at most 0 free\nHint: ";
    assert!(found[2].starts_with(start), "{}", found[2]);
    assert_eq!(found[4], "34 of 60 replicas have no place");
}

/// What nodes were given, checked by adding up again what would start on each.
#[test]
fn the_answer_as_data_adds_up() {
    let files = Files::new();
    let ran = files.plan(&fixture("support-hierarchy.yaml"), FLEET, &["-o", "json"]);
    assert_eq!(ran.code, Some(1));
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(answer["unplaced"][0]["count"], 34);
    let mut cards: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut replicas: BTreeMap<String, u64> = BTreeMap::new();
    for start in answer["starts"].as_array().unwrap() {
        let node = start["node"].as_str().unwrap().to_owned();
        for share in start["gpus"].as_array().unwrap() {
            *cards.entry((node.clone(), share["gpu"].as_str().unwrap().to_owned())).or_default() += 1;
        }
        *replicas.entry(node).or_default() += 1;
    }
    assert!(cards.len() == 16 && cards.values().all(|count| *count == 1), "{cards:?}");
    for node in answer["nodes"].as_array().unwrap() {
        let own = replicas.remove(node["name"].as_str().unwrap()).unwrap_or_default();
        assert_eq!(node["replicas"], own, "{node}");
        assert!(node["cpu_milli"][0].as_u64() <= node["cpu_milli"][1].as_u64(), "{node}");
    }
    assert!(replicas.is_empty(), "{replicas:?}");
    let names: Vec<&str> =
        answer["nodes"].as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!((names[0], names[1], names[9]), ("eu-1", "eu-2", "eu-10"));
}

#[test]
fn more_than_any_node_has_and_regions_without_nodes() {
    let files = Files::new();
    let greedy = agents(
        "  agents:\n  - {name: trainer, replicas: 3, command: [train], resources: {cpu: '4', memory: 32Gi, gpu: '16'}}\n",
    );
    let ran = files.plan(&files.write("greedy.yaml", &greedy), FLEET, &[]);
    assert_eq!(ran.code, Some(1));
    for words in
        ["2  16 GPUs", "16 GPUs wanted, and node gpu-1 has the most: 8", "3 of 3 replicas have no place"]
    {
        assert!(ran.out.contains(words), "no {words:?} in {}", ran.out);
    }
    assert!(!ran.out.contains("WAITING"), "{}", ran.out);
    let ran = files.plan(&fixture("support-worldwide.yaml"), FLEET, &[]);
    assert_eq!(ran.code, Some(1));
    let words = "no node is in region ap-southeast: nodes are in eu-central, us-east";
    assert!(ran.out.contains(words), "{}", ran.out);
}

#[test]
fn what_is_wrong_with_the_files_is_said_with_its_line() {
    let files = Files::new();
    let good = files.write("good.yaml", &agents("  agents:\n  - {name: a, replicas: 1, command: [a]}\n"));
    let bad = files
        .write("bad.yaml", &agents("  agents:\n  - {name: a, replicas: 1, resources: {cpu: 4 cores}}\n"));
    files.plan(&bad, FLEET, &[]).fails(1, &["bad.yaml:6:", "error: ", "cpu"]);
    let fleet = "apiVersion: pilotfish.dev/v1\nkind: Node\nmetadata: {name: n}\nspec: {cpus: '4'}\n";
    files.plan(&good, fleet, &[]).fails(1, &["fleet.yaml:4:8: error: ", "cpus", "cpu"]);
    files.plan("/none.yaml", FLEET, &[]).fails(1, &["/none.yaml"]);
    files
        .plan(&good, &agents("  agents: []\n").replace("research", "other"), &[])
        .fails(2, &["of the kind Node"]);
    let nodes = files.write("nodes.yaml", FLEET);
    let command = pilotfish(&["placement", "plan", "-f", &nodes]);
    ran(command).fails(2, &["no AgentCluster with agents"]);
    // Nodes may be among the files; without any, a control plane is asked.
    let both = format!("{}---{FLEET}", agents("  agents:\n  - {name: a, replicas: 1, command: [a]}\n"));
    let both = files.write("both.yaml", &both);
    assert_eq!(ran(pilotfish(&["placement", "plan", "-f", &both])).code, Some(0));
    ran(pilotfish(&["placement", "plan", "-f", &good, "--data", "/nowhere"]))
        .fails(4, &["no socket /nowhere/pilotfish.sock", "no Node documents were given with --nodes"]);
    ran(pilotfish(&["placement", "plan"])).fails(2, &["--file"]);
}

/// One node with two cards, one of which is taken by an agent that is stored, and a document that would be replaced.
fn control() -> Scripted {
    let stored = |name: &str, agent: &str, gpus: u32| {
        let body = json!({"apiVersion": "pilotfish.dev/v1", "kind": "AgentCluster",
            "metadata": {"name": name, "namespace": "lab"},
            "spec": {"agents": [{"name": agent, "replicas": 1, "command": ["x"], "resources": {"cpu": "1", "gpu": gpus.to_string()}}]}});
        Resource {
            key: Key { kind: "AgentCluster".into(), namespace: "lab".into(), name: name.into() },
            version: 1,
            source: "stored.yaml:1".into(),
            body: RawValue::from_string(body.to_string()).unwrap(),
            yaml: String::new(),
        }
    };
    let gib = 1u64 << 30;
    let card = |id: &str| GpuRow {
        id: id.into(),
        model: "NVIDIA L4".into(),
        memory: (0, 24 * gib),
        ..GpuRow::default()
    };
    let view = PlacementView {
        nodes: vec![NodeRow {
            name: "n1".into(),
            status: "ready".into(),
            locality: Some("eu/eu-a".into()),
            cpu_milli: (1000, 8000),
            memory: (0, 32 * gib),
            gpus: vec![card("0"), card("1")],
            replicas: 1,
            ..NodeRow::default()
        }],
        replicas: vec![ReplicaRow {
            id: "lab/holder/aaaaaaaaaa".into(),
            group: "lab/holder".into(),
            node: Some("n1".into()),
            status: "ready".into(),
            gpus: vec![serde_json::from_value(json!({"gpu": "0", "memory": 24 * gib})).unwrap()],
            ..ReplicaRow::default()
        }],
        ..PlacementView::default()
    };
    Scripted::on_socket(move |asked| match asked.line.as_str() {
        "GET /v1/placement" => Some(ok(&view)),
        "GET /v1/resources" => Some(ok(&[stored("other", "holder", 1), stored("research", "trainer", 9)])),
        _ => None,
    })
}

#[test]
fn on_the_nodes_of_a_control_plane_what_runs_there_counts() {
    let control = control();
    let spec = |gpus: u32| {
        agents(&format!(
            "  agents:\n  - {{name: trainer, replicas: {gpus}, command: [x], resources: {{cpu: '1', gpu: '1'}}}}\n"
        ))
    };
    let one = control.file("one.yaml", &spec(1));
    control.run(&["placement", "plan", "-f", &one]).says(
        "AGENT    NAMESPACE  STRATEGY  WANTED  PLACED  MISSING\n\
         trainer  lab        static         1       1        0\n\
         holder   lab        static         1       1        0\n\n\
         NODE  LOCALITY  REPLICAS  CPU      MEMORY  GPUS     GPU MEMORY\n\
         n1    eu/eu-a          2  2/8  0 B/32 GiB   2/2  48 GiB/48 GiB\n\
         1 node: 2 of 8 cores, 0 B of 32 GiB, 2 of 2 GPUs given out\n\n\
         all 2 replicas have a place\n",
    );
    let two = control.file("two.yaml", &spec(2));
    let ran = control.run(&["placement", "plan", "-f", &two]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("lab/trainer: 1 of 2 replicas has no place\n"), "{}", ran.out);
    let ran = control.run(&["placement", "plan", "-f", &two, "--empty", "-o", "json"]);
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(answer["starts"].as_array().unwrap().len(), 2);
}
