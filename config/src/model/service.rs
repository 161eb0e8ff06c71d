//! ServiceEntry, WorkloadEntry and WorkloadGroup: services and where they are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{ExportTo, HealthCheck, Host, Locality, Meta, StringMap, Wish};

/// A service and its endpoints.
#[derive(Debug, Clone)]
pub struct ServiceEntry {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// Its hosts, resolved; wildcards only with resolution NONE (or DYNAMIC_DNS).
    pub hosts: Vec<Host>,
    /// Its virtual addresses, IP or CIDR.
    pub addresses: Vec<String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// In the mesh or not.
    pub location: Location,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Endpoints written in it. With [`Resolution::Dns`] and none: the hosts themselves are looked up.
    pub endpoints: Vec<Workload>,
    /// Chooses WorkloadEntries of its namespace by labels; see [`super::Model::workloads_of`].
    pub workload_selector: Option<StringMap>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// Names of which an endpoint's certificate must have one.
    pub subject_alt_names: Vec<String>,
    /// `pilotfish.dev/health-check`.
    pub health_check: Wish<HealthCheck>,
}

impl ServiceEntry {
    /// The port with that number; the only one when there is just one and `number` is `None`.
    pub fn port(&self, number: Option<u16>) -> Option<&ServicePort> {
        match number {
            Some(number) => self.ports.iter().find(|port| port.number == number),
            None => self.ports.first().filter(|_| self.ports.len() == 1),
        }
    }

    /// The port at which `workload` serves `port`: its own by the port's name, else `targetPort`, else the number.
    pub fn endpoint_port(&self, workload: &Workload, port: &ServicePort) -> u16 {
        workload.ports.get(&port.name).copied().or(port.target_port).unwrap_or(port.number)
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The number that callers use.
    pub number: u16,
    /// What is spoken there.
    pub protocol: PortProtocol,
    /// Its name.
    pub name: String,
    /// The number at the endpoints, if it differs.
    pub target_port: Option<u16>,
}

/// What is spoken at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PortProtocol {
    /// HTTP/1.1 (upgrades included).
    Http,
    /// HTTP/2, prior knowledge.
    Http2,
    /// gRPC, over HTTP/2.
    Grpc,
    /// gRPC-Web, over HTTP/1.1.
    GrpcWeb,
    /// HTTP inside TLS.
    Https,
    /// Opaque TLS.
    Tls,
    /// Opaque bytes.
    #[default]
    Tcp,
    /// Not written: to be told from the first bytes.
    Auto,
    /// Another one that Istio knows (UDP, Mongo, MySQL, Redis, HBONE), handled as opaque bytes.
    Other,
}

impl PortProtocol {
    /// Whether HTTP rules apply.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb | Self::Auto)
    }

    /// Whether the upstream is spoken to in HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
}

/// In the mesh or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Location {
    /// Outside (the default).
    #[default]
    External,
    /// Inside.
    Internal,
}

/// How endpoints are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resolution {
    /// The address that the caller asked for.
    #[default]
    None,
    /// The addresses written in `endpoints`.
    Static,
    /// Names are looked up; every address is an endpoint.
    Dns,
    /// Names are looked up; new connections use the first address.
    DnsRoundRobin,
    /// The name of each request is looked up.
    DynamicDns,
}

/// One endpoint as written in a ServiceEntry or WorkloadEntry.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Where it is.
    pub address: Address,
    /// Its ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Its labels, for subsets, constraints and failover.
    pub labels: StringMap,
    /// The network that it is in.
    pub network: Option<String>,
    /// Its locality.
    pub locality: Locality,
    /// Its share (1 by default, as in Envoy).
    pub weight: u32,
    /// Its service account.
    pub service_account: Option<String>,
    /// The agent that runs there, by the label or annotation `pilotfish.dev/agent`; see [`super::Model::agent`].
    pub agent: Option<String>,
    /// Whether its port is its sidecar's inbound port (`pilotfish.dev/mesh: "true"`).
    pub mesh: bool,
    /// The trust domain of its identity, when that is not the reader's own (`pilotfish.dev/trust-domain`).
    pub trust_domain: Option<String>,
}

/// Where a workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address.
    Ip(IpAddr),
    /// A name to look up.
    Name(Host),
    /// A Unix socket.
    Unix(String),
    /// Nothing written: reachable through another network's gateway only.
    Absent,
}

/// One workload of its own.
#[derive(Debug, Clone)]
pub struct WorkloadEntry {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// What it says.
    pub workload: Workload,
}

/// A template of workloads. Its `probe` is enforced, for workloads that have its labels.
#[derive(Debug, Clone)]
pub struct WorkloadGroup {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// Labels for its workloads.
    pub labels: StringMap,
    /// Annotations for its workloads.
    pub annotations: StringMap,
    /// What its workloads have in common.
    pub template: Workload,
    /// How readiness is probed.
    pub probe: Option<Probe>,
}

impl WorkloadGroup {
    /// The labels that its workloads have: those of its template, and those that `metadata` adds.
    pub fn workload_labels(&self) -> impl Iterator<Item = (&String, &String)> + Clone {
        let added = self.labels.iter().filter(|(key, _)| !self.template.labels.contains_key(*key));
        self.template.labels.iter().chain(added)
    }
}

/// How readiness is probed.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Seconds before the first.
    pub initial_delay_seconds: u32,
    /// Seconds for an answer.
    pub timeout_seconds: u32,
    /// Seconds between probes.
    pub period_seconds: u32,
    /// Good answers in a row to be ready.
    pub success_threshold: u32,
    /// Bad answers in a row to be not ready.
    pub failure_threshold: u32,
    /// By what.
    pub method: ProbeMethod,
}

/// By what readiness is probed.
#[derive(Debug, Clone, PartialEq)]
pub enum ProbeMethod {
    /// An HTTP GET.
    HttpGet {
        /// Path.
        path: String,
        /// Port.
        port: u16,
        /// Host header and address.
        host: Option<String>,
        /// `HTTP` or `HTTPS`.
        scheme: String,
        /// Headers.
        headers: Vec<(String, String)>,
    },
    /// A TCP connection.
    Tcp {
        /// Address.
        host: Option<String>,
        /// Port.
        port: u16,
    },
    /// A command.
    Exec(Vec<String>),
    /// gRPC health.
    Grpc {
        /// Port.
        port: u16,
        /// Service.
        service: Option<String>,
    },
}
