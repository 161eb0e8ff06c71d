//! What every resource has: its key, its labels and annotations, and where it was written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// String to string, sorted; labels and annotations.
pub type StringMap = BTreeMap<String, String>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// The kinds that Pilotfish reads.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $name,)+ }
        impl Kind {
            /// Every kind, in the order of declaration.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)+];
            /// The name as in YAML.
            pub const fn name(self) -> &'static str { match self { $(Kind::$name => stringify!($name),)+ } }
        }
    };
}

kinds! {
    /// Routing rules for one or more hosts.
    VirtualService,
    /// Load balancing, limits and subsets of one host.
    DestinationRule,
    /// A service and its endpoints.
    ServiceEntry,
    /// One workload of a service.
    WorkloadEntry,
    /// A template of workloads.
    WorkloadGroup,
    /// Agents and what they are able to do.
    AgentCluster,
    /// How agents of a name are started.
    AgentTemplate,
    /// Cards that are given out under one rule.
    GpuPool,
    /// A machine that runs agents.
    Node,
    /// Governance of agents.
    AgentSecurityPolicy,
    /// Scope and limits of a sidecar.
    Sidecar,
    /// Whether peers must speak mTLS.
    PeerAuthentication,
    /// Who may call what.
    AuthorizationPolicy,
    /// Whose tokens are valid.
    RequestAuthentication,
    /// Tracing, metrics, access logs.
    Telemetry,
    /// Another mesh whose certificates are taken.
    TrustDomain,
    /// How often something may be called.
    RateLimit,
    /// When somebody has to look at an agent.
    AlertRule,
    /// Where telemetry goes.
    TelemetryProvider,
    /// Who has a role of an AgentSecurityPolicy.
    RoleBinding,
    /// Who is asked by AuthorizationPolicies with the action CUSTOM.
    AuthorizationProvider,
    /// What the sidecar shows to a host on its agent's behalf.
    OutboundCredential,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What makes a resource unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// The kind.
    pub kind: Kind,
    /// `metadata.namespace`, else the loader's default namespace.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A place in a file. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The path as it was given, or a name for text from memory.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Key, labels, annotations and place of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The key.
    pub key: ResourceKey,
    /// `metadata.labels`.
    pub labels: StringMap,
    /// `metadata.annotations`.
    pub annotations: StringMap,
    /// Where the document starts.
    pub source: Source,
}

impl Meta {
    /// The value of our annotation `pilotfish.dev/NAME`.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(&format!("pilotfish.dev/{name}")).map(String::as_str)
    }

    /// The same for one rule of a VirtualService: `pilotfish.dev/NAME.RULE` counts before `pilotfish.dev/NAME`.
    pub fn annotation_for(&self, name: &str, rule: Option<&str>) -> Option<&str> {
        let own = rule.and_then(|rule| self.annotation(&format!("{name}.{rule}")));
        own.or_else(|| self.annotation(name))
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.key.name
    }
}

/// Who may see a resource (`exportTo`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ExportTo {
    /// `*`, and the default: every namespace.
    #[default]
    All,
    /// `~`: nobody.
    Nobody,
    /// These namespaces only; `.` is already replaced by the resource's own.
    Namespaces(Vec<String>),
}

impl ExportTo {
    /// Whether a sidecar in `namespace` sees the resource.
    pub fn reaches(&self, namespace: &str) -> bool {
        match self {
            ExportTo::All => true,
            ExportTo::Nobody => false,
            ExportTo::Namespaces(list) => list.iter().any(|n| n == namespace),
        }
    }
}
