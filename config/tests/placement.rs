//! AgentClusters as people bring them, Nodes and pools: what they mean, and what is said of them.

use pilotfish_config::model::{
    Deployment, Disruption, Duties, GpuSharing, Model, TaintEffect, Toleration, Topology,
};

use super::{load, model};

const WORLDWIDE: &str = include_str!("placement/support-worldwide.yaml");
const HIERARCHY: &str = include_str!("placement/support-hierarchy.yaml");

fn example(name: &str) -> Model {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    model(&std::fs::read_to_string(file).unwrap())
}

#[test]
fn a_cluster_with_regions_says_what_is_placed_and_how_names_are_taken() {
    let loaded = load(WORLDWIDE);
    let said: Vec<String> =
        loaded.report.diagnostics.iter().map(|found| format!("{} {}", found.line, found.message)).collect();
    assert_eq!(
        said,
        [
            "7 10000 replicas, but the regions add up to 8005",
            "11 `conversation_agents` is taken as the agent `conversation_agent`",
            "12 `knowledge_agents` is taken as the agent `knowledge_agent`",
            "13 `escalation_agents` is taken as the agent `escalation_agent`",
            "25 checked, and not acted on yet",
        ]
    );
    let hint = loaded.report.diagnostics[0].hint.as_deref();
    assert_eq!(hint, Some("8005 are placed; make them agree"));
    let model = loaded.model.unwrap();
    let cluster = &model.agent_clusters[0];
    let agents: Vec<&str> = cluster.agents.iter().map(|agent| agent.name.as_str()).collect();
    assert_eq!(agents, ["conversation_agent", "knowledge_agent", "escalation_agent"]);
    assert_eq!(
        cluster.by_agent()["escalation_agent"],
        [("us-east", 50), ("eu-central", 45), ("ap-southeast", 35)]
    );
    let escalation = &cluster.agents[2].resources;
    assert_eq!(
        (escalation.cpu_milli, escalation.memory, escalation.gpu),
        (Some(500), Some(1 << 30), Some(0))
    );
}

#[test]
fn a_cluster_with_levels_loads_without_a_word() {
    let loaded = load(HIERARCHY);
    assert!(loaded.report.diagnostics.is_empty(), "{}", loaded.report);
    let cluster = &loaded.model.unwrap().agent_clusters[0];
    assert_eq!(cluster.duties, Duties::default());
    let agent = &cluster.agents[0];
    assert_eq!((agent.replicas, agent.resources.gpu, agent.capabilities.len()), (Some(50), Some(1), 3));
    assert_eq!((agent.rules.deployment, agent.rules.disruption), (Deployment::Static, Disruption::Count(1)));
}

#[test]
fn a_level_does_what_it_lists_and_others_do_everything() {
    let duties = |levels: &str| {
        let head = "apiVersion: v1\nkind: AgentCluster\nmetadata: {name: c}\nspec: {orchestrator: {levels: [";
        model(&format!("{head}{levels}]}}}}\n")).agent_clusters[0].duties.off()
    };
    assert!(duties("").is_empty());
    assert!(duties("{name: node-controller}").is_empty());
    assert_eq!(
        duties("{name: node-controller, responsibilities: [local_scheduling]}"),
        ["health_monitoring", "resource_optimization"]
    );
    assert_eq!(
        duties(
            "{name: cluster-controller, responsibilities: [resource_allocation, policy_enforcement]}, {name: agent-supervisor, \
                responsibilities: [failure_recovery]}"
        ),
        ["agent_placement", "task_coordination", "performance_optimization"]
    );
}

#[test]
fn a_fleet_of_twelve_regions_loads_without_a_word() {
    let loaded = load(include_str!("placement/twelve-regions.yaml"));
    assert!(loaded.report.diagnostics.is_empty(), "{}", loaded.report);
    let model = loaded.model.unwrap();
    let cluster = &model.agent_clusters[0];
    let sum: u32 =
        cluster.regions.iter().flat_map(|region| &region.agent_distribution).map(|(_, count)| count).sum();
    assert_eq!((cluster.regions.len(), cluster.agents.len(), sum), (12, 5, 10_000));
    assert_eq!(cluster.agents[1].runtime.command, ["python3", "-m", "agent"]);
    let names: std::collections::HashSet<&str> = model.nodes.iter().map(|node| node.meta.name()).collect();
    assert_eq!((model.nodes.len(), names.len()), (1_000, 1_000));
}

#[test]
fn placement_is_typed() {
    let model = example("placement.yaml");
    let agents = &model.agent_clusters[0].agents;
    assert_eq!(agents[1].runtime.command.last().unwrap(), "a reader");
    assert_eq!(agents[1].rules.disruption, Disruption::Percent(25));
    let near = &agents[1].rules.affinity[0];
    assert_eq!(
        (near.agent.as_str(), near.topology, near.required),
        ("research/planner", Topology::Region, true)
    );
    let tolerates = Toleration {
        key: Some("dedicated".into()),
        value: Some("research".into()),
        effect: Some(TaintEffect::NoSchedule),
    };
    assert_eq!(agents[2].rules.tolerations, [tolerates]);
    let nodes = example("node.yaml").nodes;
    assert_eq!(nodes.len(), 7);
    assert_eq!(nodes[6].taints[0].to_string(), "dedicated=research:NoSchedule");
    assert_eq!(
        (nodes[3].meta.name(), nodes[3].gpus.len(), nodes[3].gpus[7].id.as_str()),
        ("us-east-gpu-4", 8, "7")
    );
    let cards = &nodes[4].gpus;
    assert_eq!((cards[0].slices.len(), cards[0].slices[4].memory), (5, 10 << 30));
    assert_eq!(cards[1].health, Err("fell off the bus".to_owned()));
    assert!(nodes[5].unschedulable && nodes[0].cpu_milli == 96_000);
    let pools = example("gpu-pool.yaml");
    assert_eq!(pools.gpu_pools[0].sharing, GpuSharing::Fractional);
    assert!(pools.pools_by_name().get("research", "shared").is_some());
}

#[test]
fn cards_that_are_alike_have_names_of_their_own() {
    let head = "apiVersion: pilotfish.dev/v1\nkind: Node\nmetadata: {name: n}\nspec: {gpus: [";
    let card = "model: A100, memory: 40Gi, slices: [{profile: 1g.5gb, count: 2}]";
    let node =
        &model(&format!("{head}{{{card}}}, {{{card}, count: 2}}, {{id: GPU-x, {card}, count: 2}}]}}\n"))
            .nodes[0];
    let ids: Vec<&str> = node.gpus.iter().map(|gpu| gpu.id.as_str()).collect();
    assert_eq!(ids, ["0", "1", "2", "GPU-x-0", "GPU-x-1"]);
    let slices: std::collections::HashSet<&str> =
        node.gpus.iter().flat_map(|gpu| &gpu.slices).map(|slice| slice.id.as_str()).collect();
    assert_eq!(slices.len(), 10, "{slices:?}");
}

#[test]
fn secrets_of_an_environment_are_not_printed() {
    let text = "apiVersion: v1\nkind: AgentCluster\nmetadata: {name: c}\nspec: {agents: [{name: a, command: run hidden, env: {KEY: \
                hidden}}]}\n";
    let printed = format!("{:?}", model(text));
    assert!(printed.contains("KEY") && !printed.contains("hidden"), "{printed}");
    let wrong = load(&text.replace("KEY: hidden", "PORT: hidden")).report.to_string();
    assert!(wrong.contains("PORT") && !wrong.contains("hidden"), "{wrong}");
}
