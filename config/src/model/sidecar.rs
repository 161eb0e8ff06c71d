//! Sidecar: what a sidecar listens to and may reach. `ingress`, and a listener of `egress` of its own, are not enforced yet.

use super::{ConnectionPool, Destination, Meta, StringMap};

/// Scope and limits of a sidecar.
#[derive(Debug, Clone)]
pub struct Sidecar {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// Labels of the workloads that it is for; empty: all of its namespace.
    pub workload_selector: StringMap,
    /// Ports that it serves (not enforced yet).
    pub ingress: Vec<SidecarIngress>,
    /// What it may reach: the `hosts` of all listeners together. Empty: all that is exported to it.
    pub egress: Vec<SidecarEgress>,
    /// Limits towards the agent.
    pub inbound_connection_pool: Option<ConnectionPool>,
    /// What happens to unknown destinations; `None`: as the process says.
    pub outbound: Option<OutboundMode>,
    /// Where unknown destinations are sent (not enforced yet).
    pub egress_proxy: Option<Destination>,
}

/// What happens to calls to unknown destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutboundMode {
    /// They are refused.
    RegistryOnly,
    /// They pass. The default of the mesh.
    #[default]
    AllowAny,
}

/// A port that a sidecar serves.
#[derive(Debug, Clone)]
pub struct SidecarIngress {
    /// The port.
    pub port: SidecarPort,
    /// Address to bind.
    pub bind: Option<String>,
    /// `DEFAULT`, `IPTABLES` or `NONE`.
    pub capture_mode: String,
    /// `127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`.
    pub default_endpoint: Option<String>,
    /// Limits.
    pub connection_pool: Option<ConnectionPool>,
}

/// What a sidecar may reach.
#[derive(Debug, Clone)]
pub struct SidecarEgress {
    /// The port.
    pub port: Option<SidecarPort>,
    /// Address to bind.
    pub bind: Option<String>,
    /// `DEFAULT`, `IPTABLES` or `NONE`.
    pub capture_mode: String,
    /// `namespace/host`.
    pub hosts: Vec<String>,
}

/// A port of a sidecar's listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarPort {
    /// Number.
    pub number: u16,
    /// Protocol as written.
    pub protocol: String,
    /// Name.
    pub name: String,
}
