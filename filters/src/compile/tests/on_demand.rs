//! Agents that are started when they are asked for: where calls to them lead while nobody is there, and who is meant.

use std::collections::BTreeMap;

use pilotfish_config::wire;

use super::*;
use crate::balance::Pick;
use crate::capability::{Constraint, Demand, parse_wanted};
use crate::on_demand::OnDemand;

const AGENTS: &str = "\
apiVersion: pilotfish.dev/v1
kind: AgentCluster
metadata: { name: lab }
spec:
  agents:
  - { name: ocr, replicas: 2, command: [ocr], capabilities: [text@1.2], labels: { tier: gold }, deployment: just_in_time }
  - { name: Warm, replicas: 2, command: [w], capabilities: [text@2], deployment: { strategy: pre_warmed, wait: 2s, max_waiting: 7 } }
  - { name: always, replicas: 2, command: [a], capabilities: [text] }
";

fn endpoint(agent: &str, n: u32, capacity: u32) -> wire::Endpoint {
    wire::Endpoint {
        id: format!("default/{agent}/{n}"),
        agent: agent.to_owned(),
        namespace: "default".to_owned(),
        trust_domain: None,
        address: (std::net::Ipv4Addr::from_bits(0x0a00_0000 + n), 15_006).into(),
        labels: BTreeMap::from([("gpu-model".to_owned(), "A100".to_owned())]),
        locality: Some("eu/a".to_owned()),
        weight: 1,
        capabilities: vec!["text@1.2".to_owned()],
        status: wire::Status::Ready,
        dedup_epoch: None,
        capacity,
    }
}

fn plan(more: &str, endpoints: &[wire::Endpoint]) -> Plan {
    let model = model(&format!("{AGENTS}---\n{more}")).with_endpoints(endpoints);
    compile(&model, &options(), &Resolved::default(), &State::with_seed(1), Micros(0)).unwrap()
}

fn cluster<'p>(plan: &'p Plan, name: &str) -> Option<&'p crate::cluster::Cluster> {
    plan.clusters().iter().find(|cluster| *cluster.name == *name).map(AsRef::as_ref)
}

fn meant(plan: &Plan, wanted: &str, constraint: &str, reason: Reason) -> Vec<String> {
    let demand = Demand {
        wanted: parse_wanted(wanted).unwrap(),
        constraint: Constraint::parse(constraint).unwrap(),
        ..Demand::default()
    };
    let deny = Deny::from(reason);
    plan.on_demand().for_demand(&demand, &deny, Micros(0)).map(|agent| agent.id.to_string()).collect()
}

#[test]
fn an_agent_on_demand_has_a_host_before_anybody_is_there() {
    let empty = plan("", &[]);
    for (name, wait, most) in [("ocr", 30, 100), ("warm", 2, 7)] {
        let cluster = cluster(&empty, &format!("{name}.default.svc.cluster.local:80")).unwrap();
        let agent = OnDemand::for_cluster(cluster, &Reason::NoEndpoint.into()).unwrap();
        assert_eq!((agent.wait.as_secs(), agent.most_waiting), (wait, most));
        assert!(OnDemand::for_cluster(cluster, &Reason::BreakerOpen.into()).is_none());
        assert_eq!(targets(&empty, &get(name, "/")), [format!("{name}.default.svc.cluster.local:80 1")]);
    }
    assert!(cluster(&empty, "always.default.svc.cluster.local:80").is_none());
    let full = plan("", &[endpoint("ocr", 1, 0)]);
    let known = cluster(&full, "ocr.default.svc.cluster.local:80").unwrap();
    assert_eq!(known.endpoints().len(), 1);
    assert!(OnDemand::for_cluster(known, &Reason::NoEndpoint.into()).is_none(), "it is there");
    assert!(OnDemand::for_cluster(known, &Reason::Overloaded.into()).is_some(), "more may come");
    // The same destination after a change.
    let route = route(&empty, &get("ocr", "/")).unwrap();
    let crate::plan::Action::Forward(split) = &route.rule.action else { panic!("no route") };
    let target = empty.same_target(&split.destinations()[0].target, 80, &full).unwrap();
    let id = target.cluster(80).unwrap().unwrap();
    assert_eq!(&*full.cluster(id).name, "ocr.default.svc.cluster.local:80");
}

#[test]
fn a_service_that_selects_its_instances_leads_to_it_too() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: { name: s }\nspec:\n  hosts: [read.test]\n  \
                 ports: [{ number: 80, name: http, protocol: HTTP }]\n  resolution: STATIC\n  workloadSelector: { labels: { tier: TIER } }\n";
    for (tier, leads) in [("gold", true), ("silver", false)] {
        let plan = plan(&entry.replace("TIER", tier), &[]);
        assert_eq!(cluster(&plan, "read.test:80").unwrap().on_demand.is_some(), leads, "{tier}");
    }
}

#[test]
fn who_could_be_meant_is_not_there_and_may_fit() {
    let empty = plan("", &[]);
    let nobody = |wanted, constraint| meant(&empty, wanted, constraint, Reason::NobodyQualifies);
    assert_eq!(nobody("text", ""), ["default/ocr", "default/Warm"]);
    assert_eq!(nobody("text@^2", ""), ["default/Warm"]);
    assert_eq!(nobody("text", "tier=gold, gpu-model=A100, region=eu"), ["default/ocr"]);
    assert_eq!(nobody("text", "tier!=gold"), [""; 0]);
    assert_eq!(nobody("text, more", ""), [""; 0]);
    assert_eq!(meant(&empty, "text", "", Reason::BadConstraint).len(), 2);
    assert_eq!(meant(&empty, "text", "", Reason::BreakerOpen), [""; 0]);
    let one = plan("", &[endpoint("ocr", 1, 0)]);
    assert_eq!(meant(&one, "text", "", Reason::NobodyQualifies), ["default/Warm"]);
    assert_eq!(meant(&one, "text", "", Reason::Overloaded), ["default/ocr", "default/Warm"]);
}

#[test]
fn an_endpoint_takes_as_many_calls_as_it_says_unless_a_rule_says_otherwise() {
    let host = "ocr.default.svc.cluster.local";
    let name = format!("{host}:80");
    let pick = |plan: &Plan| {
        let cluster = cluster(plan, &name).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let pick = Pick { key: None, now: Micros(0), tried: &[], remote: false, compared: None };
        let mut held = Vec::new();
        while held.len() < 20 {
            match cluster.pick(&pick, &mut rng) {
                Ok(lease) => held.push(lease),
                Err(deny) => {
                    assert_eq!(deny.reason, Reason::Overloaded);
                    assert!(cluster.line().is_some());
                    break;
                }
            }
        }
        held.len()
    };
    assert_eq!(pick(&plan("", &[endpoint("ocr", 1, 2), endpoint("ocr", 2, 3)])), 5);
    assert_eq!(pick(&plan("", &[endpoint("ocr", 1, 0), endpoint("ocr", 2, 3)])), 20);
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: d\n  annotations: {{ pilotfish.dev/max-concurrency: \"1\" }}\n\
         spec: {{ host: {host} }}\n"
    );
    assert_eq!(pick(&plan(&rule, &[endpoint("ocr", 1, 2), endpoint("ocr", 2, 3)])), 2);
}
