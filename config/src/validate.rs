//! Raw documents to the model: every rule that needs more than one field or more than one document.

mod additions;
mod affinity;
mod agent;
mod agent_security_policy;
mod alert_rule;
pub mod annotations;
mod authorization_provider;
mod base64;
pub(crate) mod check;
mod cors;
mod declared;
mod delegate;
mod destination_rule;
mod duties;
mod fault;
mod governed;
mod headers;
mod health;
mod http_route;
mod l4;
mod load_balancer;
mod matching;
mod merge;
mod mirrors;
mod node;
mod observe;
mod outbound_credential;
mod placement;
mod pool;
mod rate_limit;
mod reach;
mod references;
mod regions;
mod retry;
mod role_binding;
mod runtime;
mod security;
mod service;
mod sidecar;
mod telemetry_provider;
mod trust;
mod virtual_service;

use std::collections::HashMap;

use crate::Options;
use crate::diagnose::Diagnose;
use crate::document::{Document, Spec};
use crate::model::{Model, ResourceKey, TrustDomain};
use crate::yaml::Node;

use check::Cx;
use destination_rule::DestinationRuleDraft;
use rate_limit::RateLimitDraft;
use virtual_service::VirtualServiceDraft;

/// What is known while documents are read, with places for messages.
#[derive(Default)]
struct Drafts<'n> {
    virtual_services: Vec<VirtualServiceDraft<'n>>,
    destination_rules: Vec<DestinationRuleDraft<'n>>,
    /// The place of each ServiceEntry, WorkloadEntry and PeerAuthentication, in the model's order.
    services: Vec<Node<'n>>,
    workloads: Vec<Node<'n>>,
    peers: Vec<Node<'n>>,
    authorization: Vec<reach::Draft<'n>>,
    trust_domains: Vec<(TrustDomain, Node<'n>)>,
    rate_limits: Vec<RateLimitDraft<'n>>,
    telemetries: Vec<Node<'n>>,
    providers: Vec<observe::Mention<'n>>,
    agents: Vec<agent::AgentDraft<'n>>,
    governance: Vec<Node<'n>>,
    role_bindings: Vec<Node<'n>>,
    declared: Vec<declared::Declared<'n>>,
}

/// Validates all documents. The model is only good if no error was reported.
pub(crate) fn validate(documents: Vec<Document<'_>>, options: &Options, diagnose: &mut Diagnose) -> Model {
    unique(&documents, diagnose);
    let mut cx = Cx::new(diagnose, options.strict_istio);
    let mut model = Model::default();
    let mut drafts = Drafts::default();
    for document in documents {
        cx.enter(&document.meta.key.namespace);
        annotations::check(&mut cx, document.meta.key.kind, document.annotations.as_ref());
        drafts.declared.extend(declared::note(&document.meta.key, document.annotations.as_ref()));
        one(&mut cx, document, &mut model, &mut drafts);
    }
    merge::destination_rules(&mut cx, &mut drafts.destination_rules);
    delegate::merge(&mut cx, &mut drafts.virtual_services);
    additions::spell_out(&mut cx, &mut drafts, options);
    references::check(&mut cx, &drafts, &model, &options.registered);
    reach::check(&mut cx, &drafts.authorization, &model, options.trust_domain.as_deref());
    rate_limit::unknown_targets(&mut cx, &drafts, &model);
    observe::unknown_providers(&mut cx, &drafts.providers, &model);
    observe::without_effect(&mut cx, &drafts.telemetries, &model);
    affinity::check(&mut cx, &drafts.agents, &model);
    trust::unique(&mut cx, &drafts.trust_domains);
    agent_security_policy::same_levels(&mut cx, &model, &drafts.governance);
    role_binding::unknown_roles(&mut cx, &model, &drafts.role_bindings);
    model.trust_domains = drafts.trust_domains.into_iter().map(|(domain, _)| domain).collect();
    model.rate_limits = drafts.rate_limits.into_iter().map(|draft| draft.limit).collect();
    model.virtual_services = drafts.virtual_services.into_iter().map(|draft| draft.service).collect();
    model.destination_rules = drafts.destination_rules.into_iter().map(|draft| draft.rule).collect();
    declared::check(&mut cx, &drafts.declared, &model);
    governed::check(&mut cx, &drafts.governance, &drafts.role_bindings, &drafts.declared, &model);
    model
}

fn one<'n>(cx: &mut Cx<'_>, document: Document<'n>, model: &mut Model, drafts: &mut Drafts<'n>) {
    let Document { node, meta, spec, annotations } = document;
    match spec {
        Spec::VirtualService(spec) => {
            drafts.virtual_services.push(virtual_service::virtual_service(cx, meta, &spec));
        }
        Spec::DestinationRule(spec) => {
            let policies = annotations::PolicyAnnotations::read(&meta.annotations);
            drafts.destination_rules.extend(destination_rule::destination_rule(cx, meta, &spec, &policies));
        }
        Spec::ServiceEntry(spec) => {
            model.service_entries.push(service::service_entry(cx, meta, &spec));
            drafts.services.push(spec.node);
        }
        Spec::WorkloadEntry(spec) => {
            model.workload_entries.push(service::workload_entry(cx, meta, &spec));
            drafts.workloads.push(node);
        }
        Spec::WorkloadGroup(spec) => model.workload_groups.extend(service::workload_group(cx, meta, &spec)),
        Spec::AgentCluster(spec) => {
            let annotations = annotations.as_ref();
            let cluster = agent::agent_cluster(cx, meta, annotations, &spec, &mut drafts.agents);
            model.agent_clusters.push(cluster);
        }
        Spec::AgentTemplate(spec) => model.agent_templates.push(runtime::agent_template(cx, meta, &spec)),
        Spec::GpuPool(spec) => model.gpu_pools.push(node::gpu_pool(cx, meta, &spec)),
        Spec::Node(spec) => node::node(cx, meta, &spec, &mut model.nodes),
        Spec::AgentSecurityPolicy(spec) => {
            let policy = agent_security_policy::agent_security_policy(cx, meta, &spec);
            model.agent_security_policies.push(policy);
            drafts.governance.push(node);
        }
        Spec::Sidecar(spec) => model.sidecars.push(sidecar::sidecar(cx, meta, &spec)),
        Spec::PeerAuthentication(spec) => {
            model.peer_authentications.push(security::peer_authentication(cx, meta, &spec));
            drafts.peers.push(node);
        }
        Spec::AuthorizationPolicy(spec) => {
            model.authorization_policies.push(security::authorization_policy(cx, meta, &spec));
            drafts.authorization.push(reach::Draft { node, spec });
        }
        Spec::RequestAuthentication(spec) => {
            model.request_authentications.push(security::request_authentication(cx, meta, &spec));
        }
        Spec::AlertRule(spec) => model.alert_rules.extend(alert_rule::alert_rule(cx, meta, &spec)),
        Spec::Telemetry(spec) => {
            model.telemetries.push(observe::telemetry(cx, meta, &spec, &mut drafts.providers));
            drafts.telemetries.push(node);
        }
        Spec::TelemetryProvider(spec) => {
            model.telemetry_providers.extend(telemetry_provider::telemetry_provider(cx, meta, &spec));
        }
        Spec::RoleBinding(spec) => {
            model.role_bindings.push(role_binding::role_binding(cx, meta, &spec));
            drafts.role_bindings.push(node);
        }
        Spec::AuthorizationProvider(spec) => {
            let provider = authorization_provider::authorization_provider(cx, meta, &spec);
            model.authorization_providers.extend(provider);
        }
        Spec::OutboundCredential(spec) => {
            model.outbound_credentials.extend(outbound_credential::outbound_credential(cx, meta, &spec));
        }
        Spec::RateLimit(spec) => {
            drafts.rate_limits.extend(rate_limit::rate_limit(cx, meta, &spec));
        }
        Spec::TrustDomain(spec) => {
            drafts.trust_domains.extend(trust::trust_domain(cx, meta, &spec).map(|domain| (domain, node)));
        }
    }
}

/// No two resources with one key.
fn unique(documents: &[Document<'_>], diagnose: &mut Diagnose) {
    let mut seen: HashMap<&ResourceKey, &Document<'_>> = HashMap::new();
    for document in documents {
        if let Some(first) = seen.insert(&document.meta.key, document) {
            let message = format!("{} is already at {}", document.meta.key, first.meta.source);
            diagnose.error(document.node, message, Some("give it another name, or remove one".into()));
        }
    }
}
