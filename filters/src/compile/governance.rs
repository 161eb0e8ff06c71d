//! AgentSecurityPolicies and RoleBindings that are for this workload.

mod declared;

use std::collections::HashMap;

use pilotfish_config::model::{
    AgentSecurityPolicy, AuthenticationMethod, Model, ROOT_NAMESPACES, RoleBinding, SecureProtocol, Subject,
};

use super::CompileOptions;
use crate::authz::Principal;
use crate::authz::governance::glob::Glob;
use crate::authz::governance::roles::{Role, Roles};
use crate::authz::governance::{Governance, Methods};
pub(crate) use declared::declares;
pub(super) use declared::{blocks, hosts, overlaps};

/// What holds for the workload of `options`: the policies of its namespace and of the root namespaces, each demand of each.
pub(super) fn compile(model: &Model, options: &CompileOptions, warnings: &mut Vec<Box<str>>) -> Governance {
    let policies: Vec<&AgentSecurityPolicy> =
        model.agent_security_policies.iter().filter(|policy| governs(policy, &options.namespace)).collect();
    if policies.is_empty() {
        return Governance::default();
    }
    let any = |asks: fn(&AgentSecurityPolicy) -> bool| policies.iter().any(|policy| asks(policy));
    let levels: Vec<&str> = policies
        .iter()
        .map(|policy| policy.access_levels.as_slice())
        .find(|levels| !levels.is_empty())
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let protocol = |wanted| policies.iter().any(|policy| policy.protocols.contains(&wanted));
    let roles = roles(model, &policies, &levels, options);
    let rbac = any(AgentSecurityPolicy::is_rbac);
    let declarations = match rbac || !levels.is_empty() {
        true => declared::compile(model, options, &levels, warnings),
        false => Default::default(),
    };
    let mut governance = Governance {
        by: policies.iter().map(|policy| name(policy)).collect::<Vec<_>>().join(", ").into(),
        audit_all: any(|policy| policy.audit_all_actions),
        log_access: any(|policy| policy.log_data_access),
        alert_on_anomalies: any(|policy| policy.alert_on_anomalies),
        audit_required: any(|policy| policy.audit_required),
        // "Exactly so long": of several the shortest, so that nothing is kept longer than any of them allows.
        retention: policies.iter().filter_map(|policy| policy.retention).min(),
        encrypted: any(AgentSecurityPolicy::needs_encryption),
        chain_required: any(|policy| policy.delegation_required),
        certificate: protocol(SecureProtocol::Mtls),
        tls13_only: protocol(SecureProtocol::Tls13) && !protocol(SecureProtocol::Tls12),
        authentication: methods(&policies),
        token_lifetime: policies.iter().filter_map(|policy| policy.token_lifetime).min(),
        classification_required: any(|policy| policy.classification_required),
        classifications: policies
            .iter()
            .flat_map(|policy| &policy.classifications)
            .filter_map(|(resource, class)| Some((Glob::new(resource), level(&levels, class)?)))
            .collect(),
        levels: levels.iter().map(|level| (*level).into()).collect(),
        rbac,
        roles,
        declarations,
        own_clearance: None,
    };
    governance.own_clearance = (!levels.is_empty()).then(|| governance.clearance_of(&own(options)));
    governance
}

/// Whether a policy is for the workloads of a namespace.
pub(crate) fn governs(policy: &AgentSecurityPolicy, namespace: &str) -> bool {
    policy.meta.namespace() == namespace || ROOT_NAMESPACES.contains(&policy.meta.namespace())
}

fn name(policy: &AgentSecurityPolicy) -> String {
    format!("{}/{}", policy.meta.namespace(), policy.meta.name())
}

/// The place of a class.
fn level(levels: &[&str], class: &str) -> Option<usize> {
    levels.iter().position(|level| *level == class)
}

/// The workload's own agent, as its callees know it.
fn own(options: &CompileOptions) -> Principal {
    let trust_domain = options.trust_domain.as_deref().unwrap_or_default();
    Principal {
        id: format!("{trust_domain}/ns/{}/agent/{}", options.namespace, options.agent).into(),
        trust_domain: trust_domain.into(),
        namespace: Some(options.namespace.as_str().into()),
        name: Some(options.agent.as_str().into()),
    }
}

/// What each policy that asks takes, each once; without a list both ways are enough.
fn methods(policies: &[&AgentSecurityPolicy]) -> Box<[Methods]> {
    let mut all = Vec::new();
    for policy in policies.iter().filter(|policy| policy.authentication_required) {
        let has = |method| {
            policy.authentication_methods.is_empty() || policy.authentication_methods.contains(&method)
        };
        let methods = Methods {
            certificate: has(AuthenticationMethod::Certificate),
            token: has(AuthenticationMethod::OAuth2),
        };
        if !all.contains(&methods) {
            all.push(methods);
        }
    }
    all.into()
}

/// Every role, given to the agent of its name and to whom RoleBindings give it.
fn roles(
    model: &Model,
    policies: &[&AgentSecurityPolicy],
    levels: &[&str],
    options: &CompileOptions,
) -> Roles {
    let mut roles = Roles::new(options.trust_domain.as_deref().unwrap_or_default());
    let mut bindings: HashMap<&str, Vec<&RoleBinding>> = HashMap::new();
    for binding in &model.role_bindings {
        bindings.entry(&binding.role).or_default().push(binding);
    }
    for policy in policies {
        let (namespace, by) = (policy.meta.namespace(), name(policy));
        for role in &policy.roles {
            let all = role.is_all();
            let clearance = role.clearance.as_deref().and_then(|class| level(levels, class));
            let default = if all { levels.len().saturating_sub(1) } else { 0 };
            let place = roles.add(Role {
                by: format!("{by} role {}", role.name).into(),
                permissions: role.permissions.clone().into(),
                resources: role.resources.iter().map(|resource| Glob::new(resource)).collect(),
                clearance: clearance.unwrap_or(default),
                all,
            });
            let (of, agent) = role.name.split_once('/').unwrap_or((namespace, &role.name));
            roles.bind_agent(of, agent, place);
            let bound = bindings.get(role.name.as_str()).into_iter().flatten();
            for binding in bound.filter(|binding| binds(binding, policy)) {
                bind(&mut roles, &binding.subjects, place);
            }
        }
    }
    roles
}

/// Whether a binding is about a policy's roles: of its namespace, or of a root namespace.
pub(crate) fn binds(binding: &RoleBinding, policy: &AgentSecurityPolicy) -> bool {
    let namespace = binding.meta.namespace();
    (namespace == policy.meta.namespace() || ROOT_NAMESPACES.contains(&namespace))
        && binding.policy.as_deref().is_none_or(|wanted| wanted == policy.meta.name())
}

fn bind(roles: &mut Roles, subjects: &[Subject], place: u32) {
    for subject in subjects {
        match subject {
            Subject::Agent { namespace, name } => roles.bind_agent(namespace, name, place),
            Subject::Principal(pattern) => roles.bind_principal(pattern, place),
            Subject::RequestPrincipal(pattern) => roles.bind_token(pattern, place),
        }
    }
}
