//! How an AgentCluster's agents are placed: priority, pool, affinity, budgets, when replicas run.

use std::time::Duration;

use crate::model::{AgentAffinity, Deployment, Disruption, OnDemand, PlacementRules, Toleration, Topology};
use crate::raw::{
    AffinitySpec, AgentSpec, DeploymentSpec, DeploymentTable, DisruptionSpec, Int, List, OperatorWord,
    Quantity, StrategyWord, Text, Time, TolerationSpec, TolerationTable, TopologyWord,
};
use crate::units::print_duration;
use crate::yaml::{Node, clip_text};

use super::check::{Cx, is_dns_label};
use super::node::effect;

/// Kubernetes' highest for users, and its negative.
const HIGHEST_PRIORITY: i32 = 1_000_000_000;
/// Other agents in each of the two lists.
const MOST_AFFINITIES: usize = 32;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads how an agent is placed.
pub(super) fn rules(cx: &mut Cx<'_>, spec: &AgentSpec<'_>) -> PlacementRules {
    let deployment = spec.deployment.as_ref().map_or(Deployment::Static, |spec| deployment(cx, spec));
    let gang = spec.gang.is_some_and(|gang| gang.value);
    if let (true, Some(written)) = (gang && deployment != Deployment::Static, spec.gang) {
        let message = format!("does nothing with the deployment `{}`", deployment.word());
        cx.warn(written.node, message, "replicas that come one by one are placed one by one");
    }
    PlacementRules {
        priority: spec.priority.map_or(0, |priority| {
            if !(-HIGHEST_PRIORITY..=HIGHEST_PRIORITY).contains(&priority.value) {
                let hint = format!("-{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}");
                cx.error_hint(priority.node, format!("{} is out of range", priority.value), hint);
            }
            priority.value
        }),
        pool: spec.pool.map(|pool| self::pool(cx, pool)),
        node_selector: cx.labels(spec.node_selector.as_ref()),
        tolerations: spec.tolerations.iter().flatten().filter_map(|spec| toleration(cx, spec)).collect(),
        affinity: affinities(cx, spec.affinity.as_ref()),
        anti_affinity: affinities(cx, spec.anti_affinity.as_ref()),
        gang,
        disruption: spec
            .disruption_budget
            .as_ref()
            .map_or(Disruption::default(), |spec| disruption(cx, spec)),
        deployment,
        capacity: spec.capacity.map(|capacity| {
            number(cx, capacity, 1, 1_000_000);
            capacity.value
        }),
    }
}

/// A whole number within bounds.
pub(super) fn number(cx: &mut Cx<'_>, number: Int<'_>, least: u32, most: u32) {
    if !(least..=most).contains(&number.value) {
        cx.error_hint(number.node, format!("{} is out of range", number.value), format!("{least} to {most}"));
    }
}

/// A time within bounds.
pub(super) fn in_range(cx: &mut Cx<'_>, time: Time<'_>, least: Duration, most: Duration) -> Duration {
    if !(least..=most).contains(&time.value) {
        let message = format!("{} is out of range", print_duration(time.value));
        cx.error_hint(time.node, message, format!("{} to {}", print_duration(least), print_duration(most)));
    }
    time.value
}

/// `20%`, whole.
pub(super) fn percent(cx: &mut Cx<'_>, quantity: Quantity<'_>) -> Option<u8> {
    let text = quantity.0;
    let percent = share(text.value);
    if percent.is_none() {
        let message = format!("`{}` is not a percentage", clip_text(text.value));
        cx.error_hint(text.node, message, "a whole number with its sign, 0% to 100%");
    }
    percent
}

fn share(text: &str) -> Option<u8> {
    let digits = text.strip_suffix('%')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|percent| plain && *percent <= 100)
}

/// The name of an agent: as `agents[].name`, or a key with `_` that stands for one.
pub(super) fn is_agent_name(name: &str) -> bool {
    is_dns_label(&name.replace('_', "-"))
}

fn pool(cx: &mut Cx<'_>, text: Text<'_>) -> String {
    let (namespace, name) = text.value.split_once('/').unwrap_or((&cx.namespace, text.value));
    if !is_dns_label(namespace) || !name.split('.').all(is_dns_label) {
        let message = format!("`{}` is not a GpuPool", clip_text(text.value));
        cx.error_hint(text.node, message, "write `name` or `namespace/name`");
    }
    text.value.to_owned()
}

fn affinities(cx: &mut Cx<'_>, list: Option<&List<AffinitySpec<'_>>>) -> Vec<AgentAffinity> {
    let mut read = Vec::new();
    for spec in list.into_iter().flatten() {
        if read.len() == MOST_AFFINITIES {
            cx.error(spec.node, format!("more than {MOST_AFFINITIES} of them"));
            break;
        }
        let Some(agent) = spec.agent else { continue };
        let (namespace, name) = agent.value.split_once('/').unwrap_or((&cx.namespace, agent.value));
        if !is_dns_label(namespace) || !is_agent_name(name) {
            let message = format!("`{}` is not an agent", clip_text(agent.value));
            cx.error_hint(agent.node, message, "write `name` or `namespace/name`");
            continue;
        }
        let topology = match spec.topology.map(|word| word.value) {
            None | Some(TopologyWord::Node) => Topology::Node,
            Some(TopologyWord::Zone) => Topology::Zone,
            Some(TopologyWord::Region) => Topology::Region,
        };
        let required = spec.required.is_some_and(|required| required.value);
        read.push(AgentAffinity { agent: format!("{namespace}/{name}"), topology, required });
    }
    read
}

fn toleration(cx: &mut Cx<'_>, spec: &TolerationSpec<'_>) -> Option<Toleration> {
    let (node, toleration) = match spec {
        TolerationSpec::Short(text) => (text.node, Toleration::parse(text.value)),
        TolerationSpec::Long(table) => (table.node, spelled_out(table)),
    };
    toleration.map_err(|why| cx.error(node, format!("not a toleration: {why}"))).ok()
}

fn spelled_out(table: &TolerationTable<'_>) -> Result<Toleration, String> {
    let key = table.key.map(|key| key.value.to_owned()).filter(|key| !key.is_empty());
    let exists = table.operator.is_some_and(|operator| operator.value == OperatorWord::Exists);
    let value = table.value.map(|value| value.value.to_owned());
    if exists && value.as_ref().is_some_and(|value| !value.is_empty()) {
        return Err("with the operator `Exists` any value is meant: write none".into());
    }
    if key.is_none() && !exists {
        return Err("without a key every taint is meant: write the operator `Exists`".into());
    }
    let value = if exists { None } else { Some(value.unwrap_or_default()) };
    let toleration = Toleration { key, value, effect: table.effect.map(|word| effect(word.value)) };
    toleration.check()?;
    Ok(toleration)
}

fn disruption(cx: &mut Cx<'_>, spec: &DisruptionSpec<'_>) -> Disruption {
    let Some(most) = spec.max_unavailable else { return Disruption::default() };
    let text = most.0;
    if text.value.ends_with('%') {
        return percent(cx, most).map_or(Disruption::default(), Disruption::Percent);
    }
    match text.value.parse() {
        Ok(count) => Disruption::Count(count),
        Err(_) => {
            let message = format!("`{}` is not a number of replicas", clip_text(text.value));
            cx.error_hint(text.node, message, "a whole number, or a share as 25%");
            Disruption::default()
        }
    }
}

fn deployment(cx: &mut Cx<'_>, spec: &DeploymentSpec<'_>) -> Deployment {
    let settings = spec.settings.as_deref();
    if let Some(settings) = settings {
        without_meaning(cx, settings, spec.strategy.value);
    }
    let default = OnDemand::default();
    let on_demand = OnDemand {
        idle: settings
            .and_then(|settings| settings.idle)
            .map_or(default.idle, |idle| in_range(cx, idle, SECOND, DAY)),
        wait: settings
            .and_then(|settings| settings.wait)
            .map_or(default.wait, |wait| in_range(cx, wait, SECOND / 10, 600 * SECOND)),
        most_waiting: settings.and_then(|settings| settings.max_waiting).map_or(
            default.most_waiting,
            |most| {
                number(cx, most, 1, 10_000);
                most.value
            },
        ),
    };
    match spec.strategy.value {
        StrategyWord::Static => Deployment::Static,
        StrategyWord::JustInTime => Deployment::JustInTime(on_demand),
        StrategyWord::PreWarmed => {
            let warm = settings.and_then(|settings| settings.warm).map_or(1, |warm| warm.value);
            Deployment::PreWarmed { warm, on_demand }
        }
    }
}

/// Settings that the strategy does not look at: somebody means something that would not happen.
fn without_meaning(cx: &mut Cx<'_>, settings: &DeploymentTable<'_>, strategy: StrategyWord) {
    let on_demand = strategy != StrategyWord::Static;
    let fields: [(Option<Node<'_>>, bool, &str); 4] = [
        (settings.warm.map(|field| field.node), strategy == StrategyWord::PreWarmed, "pre_warmed"),
        (settings.idle.map(|field| field.node), on_demand, "pre_warmed and just_in_time"),
        (settings.wait.map(|field| field.node), on_demand, "pre_warmed and just_in_time"),
        (settings.max_waiting.map(|field| field.node), on_demand, "pre_warmed and just_in_time"),
    ];
    for (node, used, of) in fields {
        if let Some(node) = node.filter(|_| !used) {
            cx.error_hint(node, "this strategy does not look at it", format!("it is for {of}"));
        }
    }
}
