//! Agents that registered with the control plane: workloads that no document says.

use std::sync::Arc;

use super::{Address, Capability, Locality, Model, Workload};
use crate::wire;

/// One instance of an agent. It serves exactly as a WorkloadEntry with `pilotfish.dev/agent` and
/// `pilotfish.dev/mesh: "true"` does, at one port whatever a service's port says.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// [`wire::Endpoint::id`].
    pub id: Arc<str>,
    /// The agent's namespace.
    pub namespace: Arc<str>,
    /// Where it is; without ports.
    pub workload: Workload,
    /// Its sidecar's inbound port.
    pub port: u16,
    /// What it is able to do, AgentCluster documents included.
    pub capabilities: Arc<[Capability]>,
    /// It says that it is not well: chosen only when no other is ready.
    pub degraded: bool,
    /// Calls that it takes at a time; 0: no limit.
    pub capacity: u32,
    /// Which window its sidecar's deduplication has; `None`: it does not deduplicate.
    pub dedup: Option<Arc<str>>,
}

impl Registration {
    /// What a message says. Capabilities that cannot be read are left out: the control plane let none such in, so
    /// they are of a later version.
    pub fn new(endpoint: &wire::Endpoint) -> Registration {
        let capabilities = endpoint.capabilities.iter().filter_map(|text| Capability::parse(text).ok());
        Registration {
            id: endpoint.id.as_str().into(),
            namespace: endpoint.namespace.as_str().into(),
            workload: Workload {
                address: Address::Ip(endpoint.address.ip()),
                ports: Default::default(),
                labels: endpoint.labels.clone(),
                network: None,
                locality: endpoint.locality.as_deref().map(Locality::parse).unwrap_or_default(),
                weight: endpoint.weight.max(1),
                service_account: None,
                agent: Some(endpoint.agent.clone()),
                mesh: true,
                trust_domain: endpoint.trust_domain.clone(),
            },
            port: endpoint.address.port(),
            capabilities: capabilities.collect(),
            degraded: endpoint.status == wire::Status::Degraded,
            capacity: endpoint.capacity,
            dedup: endpoint.dedup_epoch.as_deref().map(Arc::from),
        }
    }
}

impl Model {
    /// Replaces the registered agents by those of `endpoints`; one that may not be chosen is left out.
    pub fn set_endpoints<'e>(&mut self, endpoints: impl IntoIterator<Item = &'e wire::Endpoint>) {
        let routable = endpoints.into_iter().filter(|endpoint| endpoint.status.is_routable());
        self.registrations = routable.map(Registration::new).collect();
    }

    /// This model with these registered agents in place of those that it had.
    #[must_use]
    pub fn with_endpoints<'e>(mut self, endpoints: impl IntoIterator<Item = &'e wire::Endpoint>) -> Model {
        self.set_endpoints(endpoints);
        self
    }
}
