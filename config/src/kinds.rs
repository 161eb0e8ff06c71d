//! Which documents are ours, which are somebody else's, and which are mistakes.

use crate::model::Kind;
use crate::raw::{
    AgentClusterSpec, AgentSecurityPolicySpec, AgentTemplateSpec, AlertRuleSpec, AuthorizationPolicySpec,
    AuthorizationProviderSpec, DestinationRuleSpec, GpuPoolSpec, NodeSpec, Object, OutboundCredentialSpec,
    PeerAuthenticationSpec, RateLimitSpec, Raw, RequestAuthenticationSpec, RoleBindingSpec, ServiceEntrySpec,
    Shape, SidecarSpec, TelemetryProviderSpec, TelemetrySpec, TrustDomainSpec, VirtualServiceSpec,
    WorkloadGroupSpec, WorkloadSpec,
};

/// What is known of a kind.
#[derive(Debug)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// The `apiVersion`s under which it is written, newest first.
    pub versions: &'static [&'static str],
    /// The table of its `spec`.
    pub spec: &'static Object,
    /// Without a `spec` it is an error.
    pub spec_required: bool,
}

const NETWORKING: &[&str] =
    &["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
const SECURITY: &[&str] = &["security.istio.io/v1", "security.istio.io/v1beta1"];
const TELEMETRY: &[&str] = &["telemetry.istio.io/v1", "telemetry.istio.io/v1alpha1"];
const OURS_ONLY: &[&str] = &["pilotfish.dev/v1"];
const OURS: &[&str] = &["pilotfish.dev/v1", "v1"];

const fn info<'n, S: Raw<'n>>(
    kind: Kind,
    versions: &'static [&'static str],
    spec_required: bool,
) -> KindInfo {
    let Shape::Object(spec) = S::SHAPE else { panic!("a spec is an object") };
    KindInfo { kind, versions, spec, spec_required }
}

/// Every kind that is read.
pub static KINDS: &[KindInfo] = &[
    info::<VirtualServiceSpec>(Kind::VirtualService, NETWORKING, true),
    info::<DestinationRuleSpec>(Kind::DestinationRule, NETWORKING, true),
    info::<ServiceEntrySpec>(Kind::ServiceEntry, NETWORKING, true),
    info::<WorkloadSpec>(Kind::WorkloadEntry, NETWORKING, true),
    info::<WorkloadGroupSpec>(Kind::WorkloadGroup, NETWORKING, true),
    info::<AgentClusterSpec>(Kind::AgentCluster, OURS, true),
    info::<AgentTemplateSpec>(Kind::AgentTemplate, OURS_ONLY, true),
    info::<GpuPoolSpec>(Kind::GpuPool, OURS_ONLY, true),
    info::<NodeSpec>(Kind::Node, OURS_ONLY, true),
    info::<AgentSecurityPolicySpec>(Kind::AgentSecurityPolicy, OURS, true),
    info::<SidecarSpec>(Kind::Sidecar, NETWORKING, false),
    info::<PeerAuthenticationSpec>(Kind::PeerAuthentication, SECURITY, false),
    info::<AuthorizationPolicySpec>(Kind::AuthorizationPolicy, SECURITY, false),
    info::<RequestAuthenticationSpec>(Kind::RequestAuthentication, SECURITY, false),
    info::<TelemetrySpec>(Kind::Telemetry, TELEMETRY, false),
    info::<TrustDomainSpec>(Kind::TrustDomain, OURS_ONLY, true),
    info::<RateLimitSpec>(Kind::RateLimit, OURS_ONLY, true),
    info::<AlertRuleSpec>(Kind::AlertRule, OURS_ONLY, true),
    info::<TelemetryProviderSpec>(Kind::TelemetryProvider, OURS_ONLY, true),
    info::<RoleBindingSpec>(Kind::RoleBinding, OURS_ONLY, true),
    info::<AuthorizationProviderSpec>(Kind::AuthorizationProvider, OURS_ONLY, true),
    info::<OutboundCredentialSpec>(Kind::OutboundCredential, OURS_ONLY, true),
];

/// What is known of `kind`.
pub fn kind_info(kind: &str) -> Option<&'static KindInfo> {
    KINDS.iter().find(|info| info.kind.name() == kind)
}

/// What a document is, by its `apiVersion` and `kind`.
#[derive(Debug)]
pub enum Dispatch {
    /// One of ours.
    Known(&'static KindInfo),
    /// A List: its items are documents.
    List,
    /// Kubernetes' or Istio's; not for us.
    Foreign,
    /// Our kind under an `apiVersion` that it does not have.
    WrongVersion(&'static KindInfo),
    /// A mistake.
    Unknown,
}

/// Kinds of Istio, of Kubernetes' core and of its usual companions that share files with ours.
const FOREIGN: &[&str] = &[
    "Gateway",
    "EnvoyFilter",
    "ProxyConfig",
    "WasmPlugin",
    "TrafficExtension",
    "IstioOperator",
    "Service",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "Pod",
    "Job",
    "CronJob",
    "Namespace",
    "ConfigMap",
    "Secret",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "Ingress",
    "IngressClass",
    "NetworkPolicy",
    "Endpoints",
    "EndpointSlice",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "StorageClass",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "CustomResourceDefinition",
    "LimitRange",
    "ResourceQuota",
    "ReplicationController",
    "PodTemplate",
    "Node",
    "Event",
    "Binding",
    "ComponentStatus",
    "PriorityClass",
    "Lease",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "APIService",
    "CertificateSigningRequest",
    "RuntimeClass",
    "Kustomization",
    "HTTPRoute",
    "GRPCRoute",
    "TCPRoute",
    "TLSRoute",
    "GatewayClass",
    "ReferenceGrant",
    "MeshConfig",
];

/// Groups whose kinds are never ours.
fn is_foreign_group(group: &str) -> bool {
    const GROUPS: &[&str] = &["apps", "batch", "policy", "autoscaling", "extensions", "networking", "rbac"];
    GROUPS.contains(&group)
        || group.ends_with(".k8s.io")
        || group.ends_with(".x-k8s.io")
        || group.ends_with(".istio.io")
        || (group.contains('.') && group != "pilotfish.dev")
}

/// Decides what a document is.
pub fn dispatch(api_version: &str, kind: &str) -> Dispatch {
    let (group, _) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if let Some(info) = kind_info(kind) {
        if info.versions.contains(&api_version) {
            return Dispatch::Known(info);
        }
        let own = info.versions.iter().any(|known| known.rsplit_once('/').is_some_and(|(g, _)| g == group));
        // Kubernetes has a kind of the same name in its core: Node.
        let core = group.is_empty() && !own && FOREIGN.contains(&kind);
        let foreign = core || is_foreign_group(group) && !own && !group.ends_with("istio.io");
        return if foreign { Dispatch::Foreign } else { Dispatch::WrongVersion(info) };
    }
    let typed = kind.strip_suffix("List").and_then(kind_info);
    if (kind == "List" && api_version == "v1")
        || typed.is_some_and(|info| info.versions.contains(&api_version))
    {
        return Dispatch::List;
    }
    // Within Istio's own groups a kind has to be one of Istio's; elsewhere any kind may exist.
    let own_group = group.is_empty() || group == "pilotfish.dev" || group.ends_with(".istio.io");
    let foreign = if own_group { FOREIGN.contains(&kind) } else { is_foreign_group(group) };
    if foreign { Dispatch::Foreign } else { Dispatch::Unknown }
}

/// Every kind name that means something, for hints.
pub fn kind_names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|info| info.kind.name()).chain(FOREIGN.iter().copied())
}
