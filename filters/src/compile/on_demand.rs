//! Agents that AgentCluster documents start on demand, as far as this sidecar may call them.

use std::collections::HashSet;
use std::sync::Arc;

use pilotfish_config::model::{Deployment, Host, Model, OnDemand};

use crate::clock::Micros;
use crate::on_demand::OnDemandAgent;
use crate::view::View;

/// One of them, and the labels that its document gives to all its instances.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) agent: Arc<OnDemandAgent>,
    pub(crate) namespace: String,
    pub(crate) labels: pilotfish_config::model::StringMap,
    /// The host that callers know it by.
    pub(crate) host: Box<str>,
}

/// All of them, each once.
pub(super) fn agents(model: &Model, view: &View<'_>, now: Micros) -> Vec<Started> {
    let mut known = HashSet::new();
    let mut found = Vec::new();
    for cluster in &model.agent_clusters {
        let namespace = cluster.meta.namespace();
        for agent in &cluster.agents {
            let (Deployment::JustInTime(how) | Deployment::PreWarmed { on_demand: how, .. }) =
                agent.rules.deployment
            else {
                continue;
            };
            let host = host(&agent.name, namespace);
            if !known.insert(host.clone()) || !view.sees_host(namespace, &Host::verbatim(&host)) {
                continue;
            }
            let OnDemand { wait, most_waiting, .. } = how;
            let labels = agent.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let offers = (agent.capabilities.clone().into(), labels);
            let made = OnDemandAgent::new((namespace, &agent.name), (wait, most_waiting), offers, now);
            found.push(Started {
                agent: Arc::new(made),
                namespace: namespace.to_owned(),
                labels: agent.labels.clone(),
                host: host.into(),
            });
        }
    }
    found
}

/// The host that an agent has without a ServiceEntry.
pub(super) fn host(agent: &str, namespace: &str) -> String {
    format!("{}.{namespace}.svc.cluster.local", agent.to_ascii_lowercase())
}
