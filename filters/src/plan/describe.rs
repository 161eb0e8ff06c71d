//! The plan as JSON, for `/config` and for the control plane's page: hosts, rules and clusters.

use serde_json::{Value, json};

use super::{Action, Plan, Rule, Split, Target, WeightedDestination};
use crate::mirror::Mirror;

impl Plan {
    /// What this plan does, for a person: virtual hosts with their rules in order, services, capabilities.
    pub fn describe(&self) -> Value {
        let mut names = vec![Vec::new(); self.routes.hosts().len()];
        for (name, host) in self.routes.names() {
            if let Some(names) = names.get_mut(host as usize) {
                names.push(name);
            }
        }
        let hosts = names.into_iter().zip(self.routes.hosts()).map(|(mut names, host)| {
            names.sort_unstable();
            let rules: Vec<Value> = host.rules().iter().map(|rule| self.describe_rule(rule)).collect();
            json!({"hosts": names, "rules": rules})
        });
        let mut candidates: Vec<Value> = Vec::new();
        for candidate in self.catalogue.all() {
            let endpoint = &candidate.endpoint;
            let capabilities: Vec<String> = endpoint.capabilities.iter().map(ToString::to_string).collect();
            candidates.push(json!({
                "agent": endpoint.agent.as_deref(),
                "endpoint": endpoint.addr.to_string(),
                "capabilities": capabilities,
            }));
        }
        let clusters = self.clusters.iter().map(|cluster| {
            let endpoints: Vec<String> = cluster.endpoints().iter().map(|e| e.addr.to_string()).collect();
            json!({"name": &*cluster.name, "endpoints": endpoints})
        });
        json!({
            "virtual_hosts": hosts.collect::<Vec<_>>(),
            "clusters": clusters.collect::<Vec<_>>(),
            "catalogue": candidates,
            "outbound_policy": format!("{:?}", self.egress.mode()),
            "dedup": { "window_ms": self.own.dedup.window.as_millis() as u64, "keys": self.own.dedup.keys },
            "rate_limits": self.limits.describe(),
            "dns_names": &self.dns_names,
            "warnings": &self.warnings,
        })
    }

    /// What a rule does, with its policies.
    pub fn describe_rule(&self, rule: &Rule) -> Value {
        let action = match &rule.action {
            Action::Forward(split) => json!({"forward": self.describe_split(split)}),
            Action::Redirect(redirect) => json!({"redirect": redirect.status}),
            Action::Respond(response) => json!({"respond": response.status}),
        };
        json!({
            "name": &*rule.name,
            "action": action,
            "timeout_ms": rule.timeout.map(|t| t.as_millis() as u64),
            "times": rule.resilience.timeouts.describe(),
            "path": rule.resilience.path.or(&self.own.path).describe(),
            "affinity": rule.affinity.is_some(),
            "retries": rule.resilience.retry.describe(),
            "hedge": rule.resilience.hedge.map(|hedge| hedge.to_string()),
            "fault": rule.resilience.fault.as_ref().map(|fault| fault.describe()),
            "mirrors": rule.resilience.mirrors.iter().map(|m| self.describe_mirror(m)).collect::<Vec<_>>(),
            "cors": rule.resilience.cors.is_some(),
            "rate_limits": rule.resilience.limits.limits().map(|limit| &*limit.name).collect::<Vec<_>>(),
        })
    }

    fn describe_mirror(&self, mirror: &Mirror) -> Value {
        json!({"to": self.target_name(&mirror.target), "percent": mirror.share.as_percent()})
    }

    fn describe_split(&self, split: &Split) -> Vec<Value> {
        let one = |d: &WeightedDestination| json!({"to": self.target_name(&d.target), "weight": d.weight});
        split.destinations().iter().map(one).collect()
    }

    /// Where a destination leads, for a person.
    pub(crate) fn target_name(&self, target: &Target) -> String {
        match target {
            Target::Cluster(id) => self.cluster(*id).name.to_string(),
            Target::ByPort(ports) => {
                let host = ports.first().map(|(_, id)| &self.cluster(*id).host);
                host.map_or_else(String::new, |host| format!("{host} (the caller's port)"))
            }
            Target::Capability(target) => {
                let names: Vec<&str> = target.wanted.iter().map(|w| &*w.name).collect();
                let names = if names.is_empty() { "of the call".into() } else { names.join(", ") };
                format!("capability {names}")
            }
            Target::Unknown(what) => format!("unknown {what}"),
        }
    }
}
