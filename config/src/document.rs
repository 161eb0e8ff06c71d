//! One document: what it is, whose it is, and its raw spec.

use std::sync::Arc;

use crate::diagnose::Diagnose;
use crate::kinds::{Dispatch, KindInfo, dispatch, kind_info, kind_names};
use crate::model::{Kind, Meta, ResourceKey, StringMap};
use crate::raw::{
    AgentClusterSpec, AgentSecurityPolicySpec, AgentTemplateSpec, AlertRuleSpec, AuthorizationPolicySpec,
    AuthorizationProviderSpec, DestinationRuleSpec, GpuPoolSpec, Metadata, NodeSpec, OutboundCredentialSpec,
    PeerAuthenticationSpec, RateLimitSpec, Raw, Reader, RequestAuthenticationSpec, RoleBindingSpec,
    ServiceEntrySpec, ServiceEntryStatusSpec, SidecarSpec, TelemetryProviderSpec, TelemetrySpec, TextMap,
    TrustDomainSpec, VirtualServiceSpec, WorkloadGroupSpec, WorkloadSpec, nearest,
};
use crate::validate::check::is_dns_label;
use crate::yaml::{Node, Type, clip_text};

/// A document of a kind that is read.
pub(crate) struct Document<'n> {
    pub node: Node<'n>,
    pub meta: Meta,
    /// As written, for checks of single annotations.
    pub annotations: Option<TextMap<'n>>,
    pub spec: Spec<'n>,
}

/// The raw spec of a document.
pub(crate) enum Spec<'n> {
    VirtualService(VirtualServiceSpec<'n>),
    DestinationRule(DestinationRuleSpec<'n>),
    ServiceEntry(ServiceEntrySpec<'n>),
    WorkloadEntry(WorkloadSpec<'n>),
    WorkloadGroup(WorkloadGroupSpec<'n>),
    AgentCluster(AgentClusterSpec<'n>),
    AgentTemplate(AgentTemplateSpec<'n>),
    GpuPool(GpuPoolSpec<'n>),
    Node(NodeSpec<'n>),
    AgentSecurityPolicy(AgentSecurityPolicySpec<'n>),
    Sidecar(SidecarSpec<'n>),
    PeerAuthentication(PeerAuthenticationSpec<'n>),
    AuthorizationPolicy(AuthorizationPolicySpec<'n>),
    RequestAuthentication(RequestAuthenticationSpec<'n>),
    Telemetry(TelemetrySpec<'n>),
    TrustDomain(TrustDomainSpec<'n>),
    RateLimit(RateLimitSpec<'n>),
    AlertRule(AlertRuleSpec<'n>),
    TelemetryProvider(TelemetryProviderSpec<'n>),
    RoleBinding(RoleBindingSpec<'n>),
    AuthorizationProvider(AuthorizationProviderSpec<'n>),
    OutboundCredential(Box<OutboundCredentialSpec<'n>>),
}

/// Reads a document, or the items of a List, into `out`.
pub(crate) fn read<'n>(
    node: Node<'n>,
    namespace: &str,
    diagnose: &mut Diagnose,
    out: &mut Vec<Document<'n>>,
) {
    if node.kind() != Type::Map {
        let message =
            format!("a document is a map with apiVersion and kind, found {}", node.kind().article());
        diagnose.error(node, message, None);
        return;
    }
    let (api_version, kind) = (text(node, "apiVersion", diagnose), text(node, "kind", diagnose));
    let (Some(api_version), Some(kind)) = (api_version, kind) else { return };
    match dispatch(api_version, kind) {
        Dispatch::Known(info) => out.extend(known(node, info, namespace, diagnose)),
        Dispatch::List => {
            let items = node.get("items").filter(|items| items.kind() == Type::List);
            for item in items.iter().flat_map(|items| items.children()) {
                read(item, namespace, diagnose, out);
            }
        }
        Dispatch::Foreign => {
            let own = kind_info(kind).map(|info| info.versions.join(", "));
            let (message, hint) = match own {
                Some(versions) => {
                    let of = clip_text(api_version);
                    (
                        format!("skipped: this {kind} is of {of}"),
                        Some(format!("Pilotfish's own is of {versions}")),
                    )
                }
                None => (format!("skipped: {kind} is not a kind that Pilotfish reads"), None),
            };
            diagnose.warn(node, message, hint);
        }
        Dispatch::WrongVersion(info) => {
            let message = format!("{kind} has no apiVersion `{}`", clip_text(api_version));
            let hint = format!("known: {}", info.versions.join(", "));
            diagnose.error(node.get("apiVersion").unwrap_or(node), message, Some(hint));
        }
        Dispatch::Unknown => {
            let message = format!("unknown kind `{}` of `{}`", clip_text(kind), clip_text(api_version));
            let hint = nearest(kind, kind_names()).map(|near| format!("did you mean `{near}`?"));
            diagnose.error(node.get("kind").unwrap_or(node), message, hint);
        }
    }
    diagnose.end_document();
}

fn text<'n>(node: Node<'n>, key: &str, diagnose: &mut Diagnose) -> Option<&'n str> {
    let Some(value) = node.get(key) else {
        let near = nearest(key, node.children().take(100).map(|child| child.key()));
        let hint = near.map(|near| format!("`{near}` is written instead"));
        diagnose.error(node, format!("the required field `{key}` is missing"), hint);
        return None;
    };
    match value.scalar() {
        Some(scalar) => Some(scalar.text),
        None => {
            diagnose.error(value, format!("expected a text, found {}", value.kind().article()), None);
            None
        }
    }
}

fn known<'n>(
    node: Node<'n>,
    info: &'static KindInfo,
    default_namespace: &str,
    diagnose: &mut Diagnose,
) -> Option<Document<'n>> {
    const KEYS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];
    for child in node.children().filter(|child| !KEYS.contains(&child.key())) {
        let near = nearest(child.key(), KEYS.iter().copied());
        let in_spec = info.spec.field(child.key()).map(|_| "it belongs into `spec`".to_owned());
        let hint = in_spec.or(near.map(|near| format!("did you mean `{near}`?")));
        diagnose.error_at_key(child, format!("unknown field of {}", info.kind), hint);
    }
    if let Some(status) = node.get("status").filter(|_| info.kind == Kind::ServiceEntry) {
        ServiceEntryStatusSpec::read(status, &mut Reader { diagnose });
    }
    let metadata = match node.get("metadata") {
        Some(metadata) => Metadata::read(metadata, &mut Reader { diagnose }),
        None => {
            diagnose.error(node, "the required field `metadata` is missing".into(), None);
            None
        }
    };
    let spec = match node.get("spec") {
        Some(spec) => read_spec(spec, info.kind, diagnose),
        None if info.spec_required => {
            diagnose.error(node, "the required field `spec` is missing".into(), None);
            None
        }
        None => read_spec(node.hollow(), info.kind, diagnose),
    };
    let metadata = metadata?;
    let meta = meta(node, info.kind, &metadata, default_namespace, diagnose)?;
    Some(Document { node, meta, annotations: metadata.annotations, spec: spec? })
}

fn read_spec<'n>(node: Node<'n>, kind: Kind, diagnose: &mut Diagnose) -> Option<Spec<'n>> {
    let reader = &mut Reader { diagnose };
    Some(match kind {
        Kind::VirtualService => Spec::VirtualService(Raw::read(node, reader)?),
        Kind::DestinationRule => Spec::DestinationRule(Raw::read(node, reader)?),
        Kind::ServiceEntry => Spec::ServiceEntry(Raw::read(node, reader)?),
        Kind::WorkloadEntry => Spec::WorkloadEntry(Raw::read(node, reader)?),
        Kind::WorkloadGroup => Spec::WorkloadGroup(Raw::read(node, reader)?),
        Kind::AgentCluster => Spec::AgentCluster(Raw::read(node, reader)?),
        Kind::AgentTemplate => Spec::AgentTemplate(Raw::read(node, reader)?),
        Kind::GpuPool => Spec::GpuPool(Raw::read(node, reader)?),
        Kind::Node => Spec::Node(Raw::read(node, reader)?),
        Kind::AgentSecurityPolicy => Spec::AgentSecurityPolicy(Raw::read(node, reader)?),
        Kind::Sidecar => Spec::Sidecar(Raw::read(node, reader)?),
        Kind::PeerAuthentication => Spec::PeerAuthentication(Raw::read(node, reader)?),
        Kind::AuthorizationPolicy => Spec::AuthorizationPolicy(Raw::read(node, reader)?),
        Kind::RequestAuthentication => Spec::RequestAuthentication(Raw::read(node, reader)?),
        Kind::Telemetry => Spec::Telemetry(Raw::read(node, reader)?),
        Kind::TrustDomain => Spec::TrustDomain(Raw::read(node, reader)?),
        Kind::RateLimit => Spec::RateLimit(Raw::read(node, reader)?),
        Kind::AlertRule => Spec::AlertRule(Raw::read(node, reader)?),
        Kind::TelemetryProvider => Spec::TelemetryProvider(Raw::read(node, reader)?),
        Kind::RoleBinding => Spec::RoleBinding(Raw::read(node, reader)?),
        Kind::AuthorizationProvider => Spec::AuthorizationProvider(Raw::read(node, reader)?),
        Kind::OutboundCredential => Spec::OutboundCredential(Box::new(Raw::read(node, reader)?)),
    })
}

fn meta(
    node: Node<'_>,
    kind: Kind,
    metadata: &Metadata<'_>,
    default_namespace: &str,
    diagnose: &mut Diagnose,
) -> Option<Meta> {
    let Some(name) = metadata.name else {
        // A name of another type was reported as such.
        if metadata.node.get("name").is_none() {
            diagnose.error(metadata.node, "the required field `name` is missing".into(), None);
        }
        return None;
    };
    if name.value.is_empty() || name.value.len() > 253 || name.value.contains(['/', '\n']) {
        diagnose.error(name.node, format!("`{}` is not a resource name", clip_text(name.value)), None);
    } else if !name.value.split('.').all(is_dns_label) {
        let hint = "Kubernetes allows letters, digits, `-` and `.`".to_owned();
        diagnose.warn(
            name.node,
            format!("Kubernetes would refuse the name `{}`", clip_text(name.value)),
            Some(hint),
        );
    }
    if let Some(namespace) = metadata.namespace.filter(|namespace| !is_dns_label(namespace.value)) {
        diagnose.error(namespace.node, format!("`{}` is not a namespace", clip_text(namespace.value)), None);
    }
    let namespace: Arc<str> =
        metadata.namespace.map_or(default_namespace, |namespace| namespace.value).into();
    let key = ResourceKey { kind, namespace, name: name.value.into() };
    let labels = string_map(metadata.labels.as_ref());
    let annotations = string_map(metadata.annotations.as_ref());
    Some(Meta { key, labels, annotations, source: node.source() })
}

fn string_map(map: Option<&TextMap<'_>>) -> StringMap {
    let pairs = map.into_iter().flatten();
    pairs.map(|(key, value)| (key.value.to_owned(), value.value.to_owned())).collect()
}
