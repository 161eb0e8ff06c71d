//! The meaning of a set of resources: validated, defaults applied, names resolved. No serializer sees it.
//!
//! [`Model`] is what `filters::compile` reads. Whatever needed more than one document to know is already
//! done here: short host names are resolved, delegates are merged into their root VirtualService, the two
//! additions to Istio (undefined subsets, lent policies) are spelled out as ordinary subsets and policies.

mod agent;
mod agent_security_policy;
mod alert_rule;
mod authorization_provider;
pub mod concurrency;
mod destination_rule;
mod health;
mod host;
mod locality;
mod lookup;
mod matching;
mod meta;
mod observe;
mod outbound_credential;
pub mod permission;
mod placement;
mod policy;
mod rate_limit;
mod registration;
mod route;
mod security;
mod service;
mod sidecar;
mod taint;
mod trust;
mod virtual_service;

pub use agent::*;
pub use agent_security_policy::*;
pub use alert_rule::*;
pub use authorization_provider::*;
pub use concurrency::{AdaptiveConcurrency, Concurrency, QueueLimits};
pub use destination_rule::*;
pub use health::*;
pub use host::*;
pub use locality::*;
pub use lookup::*;
pub use matching::*;
pub use meta::*;
pub use observe::*;
pub use outbound_credential::*;
pub use permission::{BodyField, Permission, ResourcePiece, ResourceTemplate};
pub use placement::*;
pub use policy::*;
pub use rate_limit::*;
pub use registration::*;
pub use route::*;
pub use security::*;
pub use service::*;
pub use sidecar::*;
pub use taint::*;
pub use trust::*;
pub use virtual_service::*;

/// A whole, valid configuration. Lists are in load order: files by name, documents in file order.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Routing rules. A rule without hosts is a delegate: its routes are already merged into its roots.
    pub virtual_services: Vec<VirtualService>,
    /// Policies and subsets by host, the explicit form of the two additions to Istio included.
    pub destination_rules: Vec<DestinationRule>,
    /// Services and where they are.
    pub service_entries: Vec<ServiceEntry>,
    /// Single workloads, chosen by a [`ServiceEntry::workload_selector`].
    pub workload_entries: Vec<WorkloadEntry>,
    /// Agents that registered with the control plane ([`Model::set_endpoints`]); no document says them.
    pub registrations: Vec<Registration>,
    /// Templates of workloads.
    pub workload_groups: Vec<WorkloadGroup>,
    /// Agents and what they are able to do.
    pub agent_clusters: Vec<AgentCluster>,
    /// Governance of agents.
    pub agent_security_policies: Vec<AgentSecurityPolicy>,
    /// What a sidecar may reach.
    pub sidecars: Vec<Sidecar>,
    /// Who must speak mTLS.
    pub peer_authentications: Vec<PeerAuthentication>,
    /// Who may call what.
    pub authorization_policies: Vec<AuthorizationPolicy>,
    /// Whose tokens are valid.
    pub request_authentications: Vec<RequestAuthentication>,
    /// Tracing, metrics and access logs.
    pub telemetries: Vec<Telemetry>,
    /// Other meshes whose certificates are taken; no two have one name.
    pub trust_domains: Vec<TrustDomain>,
    /// How often something may be called.
    pub rate_limits: Vec<RateLimit>,
    /// When somebody has to look; for control planes.
    pub alert_rules: Vec<AlertRule>,
    /// Machines that documents declare.
    pub nodes: Vec<Node>,
    /// Which cards are given out how.
    pub gpu_pools: Vec<GpuPool>,
    /// How agents are started.
    pub agent_templates: Vec<AgentTemplate>,
    /// Where telemetry goes.
    pub telemetry_providers: Vec<TelemetryProvider>,
    /// Who has which role.
    pub role_bindings: Vec<RoleBinding>,
    /// Who is asked by the action CUSTOM.
    pub authorization_providers: Vec<AuthorizationProvider>,
    /// What sidecars show to hosts on their agents' behalf.
    pub outbound_credentials: Vec<OutboundCredential>,
}
