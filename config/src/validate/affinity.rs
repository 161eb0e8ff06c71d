//! What agents of all documents say of one another: pools that are not there, affinities that nobody can meet.
//!
//! A required affinity lets a replica be placed only where one of the other agent is already. So agents that wait for one
//! another in a circle are never placed, which is an error; an agent that is near itself is no circle, since its first
//! replica may go anywhere. What is near has to be allowed to be near: an agent that has to be in one zone with
//! another, perhaps by way of a third, and away from it by zone or region, is an error too.

use std::collections::{HashMap, HashSet};

use crate::model::{Agent, AgentAffinity, AgentCluster, GpuPool, Model, Topology};
use crate::raw::nearest;
use crate::yaml::{Node, clip_text};

use super::agent::AgentDraft;
use super::check::Cx;
use super::regions::MOST_NEAR;

/// Steps of the search for contradictions, over all agents: hostile documents end it early.
const MOST_STEPS: usize = 1_000_000;

/// Reports them.
pub(super) fn check(cx: &mut Cx<'_>, drafts: &[AgentDraft<'_>], model: &Model) {
    let mut places: HashMap<&str, Node<'_>> = HashMap::new();
    let mut last: HashMap<&str, Node<'_>> = HashMap::new();
    for draft in drafts {
        places.entry(&draft.name).or_insert(draft.node);
        last.insert(&draft.name, draft.node);
    }
    let mut agents: Vec<(String, &Agent)> = Vec::new();
    let mut homes: HashMap<String, (&AgentCluster, bool)> = HashMap::new();
    for cluster in &model.agent_clusters {
        let by_agent = cluster.by_agent();
        for agent in &cluster.agents {
            let name = format!("{}/{}", cluster.meta.namespace(), agent.name);
            let counts = agent.replicas.is_some() || by_agent.contains_key(agent.name.as_str());
            match (homes.get(&name), last.get(name.as_str())) {
                (Some((first, true)), Some(place)) if counts && first.meta.key != cluster.meta.key => {
                    let message =
                        format!("{} says already how many of {} run", first.meta.key, clip_text(&name));
                    cx.warn(*place, message, "this one does not count; give one of them another name");
                }
                (Some(_), _) => {}
                (None, _) => {
                    homes.insert(name.clone(), (cluster, counts));
                    agents.push((name, agent));
                }
            }
        }
    }
    let pools = model.pools_by_name();
    let mut known: Vec<&str> = homes.keys().map(String::as_str).collect();
    known.sort_unstable();
    for (name, agent) in &agents {
        let Some(place) = places.get(name.as_str()) else { continue };
        let namespace = name.split_once('/').map_or("", |(namespace, _)| namespace);
        if let Some(wanted) =
            agent.rules.pool.as_ref().filter(|wanted| pools.get(namespace, wanted).is_none())
        {
            unknown_pool(cx, place.get("pool").unwrap_or(*place), wanted, &model.gpu_pools);
        }
        for (list, all) in
            [("affinity", &agent.rules.affinity), ("anti_affinity", &agent.rules.anti_affinity)]
        {
            for other in all.iter().filter(|other| !homes.contains_key(&other.agent)) {
                unknown_agent(cx, at(*place, list, &other.agent), other, &known);
            }
        }
    }
    let index: HashMap<&str, usize> =
        agents.iter().enumerate().map(|(i, (name, _))| (name.as_str(), i)).collect();
    let required = |list: &[AgentAffinity]| -> Vec<(usize, Topology)> {
        let of = list.iter().filter(|one| one.required);
        of.filter_map(|one| Some((*index.get(one.agent.as_str())?, one.topology))).collect()
    };
    let graph = Graph {
        near: agents.iter().map(|(_, agent)| required(&agent.rules.affinity)).collect(),
        away: agents.iter().map(|(_, agent)| required(&agent.rules.anti_affinity)).collect(),
    };
    let report = |cx: &mut Cx<'_>, agent: usize, list: &str, other: usize, message: String, hint: &str| {
        if let Some(place) = places.get(agents[agent].0.as_str()) {
            cx.error_hint(at(*place, list, &agents[other].0), message, hint);
        }
    };
    for circle in graph.circles() {
        let names: Vec<&str> =
            circle.iter().chain(circle.first()).map(|agent| agents[*agent].0.as_str()).collect();
        let message = format!(
            "agents wait for one another, and none can be placed first: {}",
            clip_text(&names.join(" -> "))
        );
        let hint = "make one of them a preference: `required: false`";
        let (first, next) = (circle[0], circle[1 % circle.len()]);
        report(cx, first, "affinity", next, message, hint);
    }
    for (agent, other, away, near) in graph.contradictions() {
        let name = &agents[other].0;
        let message = format!("it has to be in the same {near} as {name}, and away from it by {away}");
        report(cx, agent, "anti_affinity", other, message, "keep one of the two, or make one a preference");
    }
}

/// Which agents are near to and away from which.
struct Graph {
    near: Vec<Vec<(usize, Topology)>>,
    away: Vec<Vec<(usize, Topology)>>,
}

impl Graph {
    /// Agents that wait for one another in a circle; each once.
    fn circles(&self) -> Vec<Vec<usize>> {
        let others =
            |agent: usize| self.near[agent].iter().map(|(other, _)| *other).filter(move |o| *o != agent);
        let mut waiting: Vec<usize> = (0..self.near.len()).map(|agent| others(agent).count()).collect();
        let mut waited_for: Vec<Vec<usize>> = vec![Vec::new(); self.near.len()];
        for agent in 0..self.near.len() {
            others(agent).for_each(|other| waited_for[other].push(agent));
        }
        let mut free: Vec<usize> = (0..waiting.len()).filter(|agent| waiting[*agent] == 0).collect();
        while let Some(agent) = free.pop() {
            for next in &waited_for[agent] {
                waiting[*next] -= 1;
                if waiting[*next] == 0 {
                    free.push(*next);
                }
            }
        }
        // Those that are left wait for a circle, or are in one.
        let mut seen: HashMap<usize, usize> = HashMap::new();
        let mut circles = Vec::new();
        for start in (0..waiting.len()).filter(|agent| waiting[*agent] > 0) {
            let mut path = Vec::new();
            let mut at = start;
            while !seen.contains_key(&at) {
                seen.insert(at, start);
                path.push(at);
                let Some(next) = others(at).find(|next| waiting[*next] > 0) else { break };
                at = next;
            }
            if seen.get(&at) == Some(&start)
                && let Some(first) = path.iter().position(|agent| *agent == at)
                && path.len() - first > 1
            {
                circles.push(path.split_off(first));
            }
        }
        circles
    }

    /// The agent, the other, by what it has to be away from it, and within what it has to be near.
    fn contradictions(&self) -> Vec<(usize, usize, Topology, Topology)> {
        let mut steps = 0;
        let mut found = Vec::new();
        for (agent, away) in self.away.iter().enumerate() {
            for (other, topology) in away {
                let near = self
                    .reach(agent, *other, *topology, &mut steps)
                    .or_else(|| self.reach(*other, agent, *topology, &mut steps));
                if let Some(near) = near {
                    found.push((agent, *other, *topology, near));
                }
            }
        }
        found
    }

    /// Within what `to` has to be near `from`, if that is `most` or nearer.
    fn reach(&self, from: usize, to: usize, most: Topology, steps: &mut usize) -> Option<Topology> {
        [Topology::Node, Topology::Zone, Topology::Region].into_iter().filter(|within| *within <= most).find(
            |within| {
                let mut seen = HashSet::from([from]);
                let mut next = vec![from];
                while let Some(agent) = next.pop() {
                    for (other, topology) in &self.near[agent] {
                        *steps += 1;
                        if *steps > MOST_STEPS || topology > within {
                            continue;
                        }
                        if *other == to {
                            return true;
                        }
                        if seen.insert(*other) {
                            next.push(*other);
                        }
                    }
                }
                false
            },
        )
    }
}

/// Where an agent's list names another.
fn at<'n>(agent: Node<'n>, list: &str, other: &str) -> Node<'n> {
    let Some(list) = agent.get(list) else { return agent };
    let short = other.split_once('/').map_or(other, |(_, name)| name);
    let names = |entry: &Node<'n>| {
        let name = entry.get("agent").and_then(|name| name.scalar()).map(|name| name.text);
        name.is_some_and(|name| name == other || name == short)
    };
    list.children().find(names).unwrap_or(list)
}

fn unknown_agent(cx: &mut Cx<'_>, node: Node<'_>, other: &AgentAffinity, known: &[&str]) {
    let hint = match nearest(&other.agent, known.iter().take(MOST_NEAR).copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if other.required => "as long as there is none, nothing is placed that has to be near it".into(),
        None => "as long as there is none, it does nothing".into(),
    };
    cx.warn(node, format!("no AgentCluster here has an agent `{}`", clip_text(&other.agent)), hint);
}

fn unknown_pool(cx: &mut Cx<'_>, node: Node<'_>, wanted: &str, pools: &[GpuPool]) {
    let pools = &pools[..pools.len().min(MOST_NEAR)];
    let short = wanted.split_once('/').map_or(wanted, |(_, name)| name);
    let hint = match pools.iter().find(|pool| pool.meta.name() == short) {
        Some(pool) => format!("did you mean `{}/{}`?", pool.meta.namespace(), pool.meta.name()),
        None => match nearest(short, pools.iter().map(|pool| pool.meta.name())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "as long as there is none, the agent has no place".into(),
        },
    };
    cx.warn(node, format!("there is no GpuPool `{}` here", clip_text(wanted)), hint);
}
