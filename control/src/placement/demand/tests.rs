//! Documents to groups: the two shapes of AgentCluster that people bring, and what each field changes.

use std::collections::HashMap;

use pilotfish_config::model::Deployment;
use pilotfish_config::{Model, Options, load_texts};

use super::{Demand, demand};

fn model(text: &str) -> Model {
    let loaded = load_texts(&[("test.yaml", text)], &Options::default());
    loaded.model.unwrap_or_else(|| panic!("{}", loaded.report))
}

fn of(text: &str) -> Demand {
    demand(&model(text), &|_| None)
}

/// Groups with their numbers.
fn numbers(demand: &Demand) -> Vec<(&str, u32)> {
    demand.groups.iter().map(|wanted| (&*wanted.group.id, wanted.group.wanted)).collect()
}

fn cluster(agents: &str) -> String {
    format!(
        "apiVersion: pilotfish.dev/v1\nkind: AgentCluster\nmetadata: {{name: c}}\nspec:\n  agents:\n{agents}"
    )
}

const SUPPORT: &str = include_str!("../../../../config/tests/placement/support-worldwide.yaml");
const HIERARCHY: &str = include_str!("../../../../config/tests/placement/support-hierarchy.yaml");

#[test]
fn what_regions_say_is_what_is_placed() {
    let demand = of(SUPPORT);
    let sum: u32 = demand.groups.iter().map(|wanted| wanted.group.wanted).sum();
    assert_eq!((demand.groups.len(), sum), (9, 8005));
    assert!(numbers(&demand).contains(&("default/conversation_agent@us-east", 3000)));
    assert!(numbers(&demand).contains(&("default/escalation_agent@ap-southeast", 35)));
    let knowledge = demand.groups.iter().find(|wanted| wanted.group.agent == "knowledge_agent").unwrap();
    let need = &knowledge.group.need;
    assert_eq!((need.cpu_milli, need.memory, need.gpus), (2000, 4 << 30, 0));
    assert_eq!(demand.notes, ["default/support-worldwide: 10000 replicas, but the regions add up to 8005"]);
    assert!(demand.groups.iter().all(|wanted| {
        wanted.waiting.as_deref().is_some_and(|why| why.starts_with("no command: give it one by"))
    }));
}

#[test]
fn agents_without_regions_run_anywhere() {
    let demand = of(HIERARCHY);
    let groups = numbers(&demand);
    assert_eq!(groups, [("production/conversation-agent", 50), ("production/escalation-agent", 10)]);
    let first = &demand.groups[0];
    assert_eq!((first.group.need.gpus, first.group.region.as_deref()), (1, None));
    assert_eq!((first.group.cluster.as_str(), first.without.len()), ("production/support-hierarchy", 0));
    assert!(demand.notes.is_empty(), "{:?}", demand.notes);
}

#[test]
fn a_fleet_of_twelve_regions_adds_up() {
    let demand = of(include_str!("../../../../config/tests/placement/twelve-regions.yaml"));
    let sum: u32 = demand.groups.iter().map(|wanted| wanted.group.wanted).sum();
    let regions: std::collections::HashSet<_> =
        demand.groups.iter().filter_map(|wanted| wanted.group.region.as_deref()).collect();
    assert_eq!((sum, regions.len()), (10_000, 12));
    assert!(demand.groups.iter().all(|wanted| wanted.waiting.is_none()));
    let cards: usize = demand.machines.iter().map(|machine| machine.gpus.len()).sum();
    assert_eq!((demand.machines.len(), cards), (1_000, 4_000));
}

#[test]
fn what_only_says_capabilities_is_not_placed() {
    assert!(of(&cluster("  - {name: a, capabilities: [x]}\n")).groups.is_empty());
    assert_eq!(numbers(&of(&cluster("  - {name: a, command: run}\n"))), [("default/a", 1)]);
    assert_eq!(numbers(&of(&cluster("  - {name: a, image: x/y:1}\n"))), [("default/a", 1)]);
    assert_eq!(numbers(&of(&cluster("  - {name: a, replicas: 0}\n"))), [("default/a", 0)]);
}

#[test]
fn a_command_comes_from_the_agent_then_an_annotation_then_a_template() {
    let template = |namespace: &str, command: &str| {
        format!(
            "---\napiVersion: pilotfish.dev/v1\nkind: AgentTemplate\nmetadata: {{name: c, namespace: {namespace}}}\nspec: {{command: \
             {command}, env: {{A: template, B: template}}, resources: {{cpu: 1, memory: 1Gi, gpuMemory: 8Gi}}}}\n"
        )
    };
    let text = format!(
        "apiVersion: pilotfish.dev/v1\nkind: AgentCluster\nmetadata:\n  name: c\n  annotations:\n    pilotfish.dev/command.b: of-b \
         'two words'\nspec:\n  agents:\n  - {{name: a, replicas: 1, command: [own, x]}}\n  - {{name: b, replicas: 1}}\n  - \
         {{name: c, replicas: 1, env: {{A: own}}, resources: {{cpu: 2}}}}\n  - {{name: d, replicas: 1, image: x/y:1}}\n{}{}",
        template("default", "of-c"),
        template("pilotfish-system", "of-root")
    );
    let demand = of(&text);
    let commands: Vec<_> =
        demand.groups.iter().map(|wanted| wanted.group.runtime.command.join("|")).collect();
    assert_eq!(commands, ["own|x", "of-b|two words", "of-c", ""]);
    let (c, d) = (&demand.groups[2].group, &demand.groups[3]);
    assert_eq!((c.runtime.env["A"].as_str(), c.runtime.env["B"].as_str()), ("own", "template"));
    assert_eq!((c.need.cpu_milli, c.need.memory, c.need.gpu_memory), (2000, 1 << 30, 8 << 30));
    assert!(d.waiting.as_deref().is_some_and(|why| why.contains("`image` needs the Kubernetes executor")));
    // A template of the root namespace is everybody's.
    let elsewhere = text.replace("metadata:\n  name: c\n", "metadata:\n  name: c\n  namespace: team\n");
    assert_eq!(of(&elsewhere).groups[2].group.runtime.command, ["of-root"]);
}

#[test]
fn numbers_by_hand_are_shared_out_by_what_documents_say() {
    let with = |set: &[(&'static str, u32)]| {
        let set: HashMap<&str, u32> = set.iter().copied().collect();
        let demand = demand(&model(SUPPORT), &|id| set.get(id).copied());
        let escalation = numbers(&demand).into_iter().filter(|(id, _)| id.contains("escalation"));
        escalation.map(|(_, count)| count).collect::<Vec<_>>()
    };
    assert_eq!(with(&[]), [50, 45, 35]);
    assert_eq!(with(&[("default/escalation_agent", 260)]), [100, 90, 70]);
    assert_eq!(with(&[("default/escalation_agent", 131)]), [51, 45, 35]);
    assert_eq!(with(&[("default/escalation_agent", 0)]), [0, 0, 0]);
    assert_eq!(with(&[("default/escalation_agent@eu-central", 5)]), [50, 5, 35]);
    assert_eq!(
        with(&[("default/escalation_agent", 90), ("default/escalation_agent@eu-central", 5)]),
        [50, 5, 35]
    );
    let all: u64 = with(&[("default/escalation_agent", u32::MAX)]).into_iter().map(u64::from).sum();
    assert_eq!(all, u64::from(u32::MAX));
}

#[test]
fn a_generation_is_what_needs_a_new_start() {
    let generation = |fields: &str| {
        let text = cluster(&format!("  - {{name: a, command: run, {fields}}}\n"));
        of(&text).groups[0].group.generation.clone()
    };
    let plain = generation("replicas: 1");
    assert_eq!(plain.len(), 16);
    for same in ["replicas: 5", "priority: 7", "gang: true", "deployment: just_in_time", "capabilities: [x]"]
    {
        assert_eq!(generation(same), plain, "{same}");
    }
    for other in [
        "env: {A: b}",
        "resources: {cpu: 1}",
        "probe: grpc",
        "labels: {a: b}",
        "capacity: 2",
        "working_dir: /x",
        "stop_timeout: 3s",
        "node_selector: {a: b}",
        "image: x",
    ] {
        assert_ne!(generation(other), plain, "{other}");
    }
    assert_ne!(generation("env: {A: bc}"), generation("env: {Ab: c}"));
}

#[test]
fn levels_switch_duties_off() {
    let text =
        HIERARCHY.replace("          - failure_recovery\n", "").replace("          - agent_placement\n", "");
    let demand = of(&text);
    assert_eq!(demand.groups[0].without, ["agent_placement", "failure_recovery"]);
    let before = of(HIERARCHY).groups[0].group.generation.clone();
    assert_ne!(demand.groups[0].group.generation, before, "the supervisor is started without a duty");
    let text = HIERARCHY
        .replace("          - resource_allocation\n", "")
        .replace("          - policy_enforcement\n", "");
    let need = &of(&text).groups[0].group.need;
    assert_eq!((need.cpu_milli, need.memory, need.gpus), (0, 0, 1), "cards are given out all the same");
}

#[test]
fn pools_deployments_and_names_are_resolved() {
    let text = format!(
        "{}---\napiVersion: pilotfish.dev/v1\nkind: GpuPool\nmetadata: {{name: z, namespace: pilotfish-system}}\nspec: {{sharing: \
         fractional, reserved: {{share: 20%}}}}\n---\napiVersion: pilotfish.dev/v1\nkind: GpuPool\nmetadata: {{name: b}}\nspec: {{}}\n",
        cluster(
            "  - {name: a, command: x, pool: z, replicas: 4, deployment: {strategy: pre_warmed, warm: 2, idle: 1m}, affinity: \
             [{agent: b, required: true}]}\n  - {name: b, command: x, pool: b}\n"
        )
    );
    let demand = of(&text);
    let names: Vec<&str> = demand.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["default/b", "pilotfish-system/z"]);
    let pools: Vec<_> = demand.groups.iter().map(|wanted| wanted.group.pool.as_deref().unwrap()).collect();
    assert_eq!(pools, ["pilotfish-system/z", "default/b"]);
    let Deployment::PreWarmed { warm: 2, on_demand } = demand.groups[0].deployment else { panic!() };
    assert_eq!((on_demand.idle.as_secs(), on_demand.most_waiting), (60, 100));
    assert_eq!(demand.groups[0].group.affinity[0].agent, "default/b");
    assert_eq!((demand.pools[1].reserved_percent, demand.pools[1].reserve_priority), (20, 1));
}
