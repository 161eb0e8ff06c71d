//! AgentSecurityPolicies that are valid and shut everybody out: permissions that nobody has, roles that nobody has, nothing classified
//! where everything has to be. Warnings.
//!
//! Agents may register without any document, so roles and bindings are only told of where their namespace declares agents.

use std::collections::{BTreeSet, HashMap};

use crate::model::{AgentSecurityPolicy, AuthenticationMethod, Model, ROOT_NAMESPACES, Subject};
use crate::raw::nearest;
use crate::yaml::{Node, clip_text};

use super::check::Cx;
use super::declared::Declared;
use super::reach::close;

/// So many names are looked at for one that is near.
const MOST_NAMES: usize = 1000;

/// Agents that documents declare, by namespace.
type Agents<'m> = HashMap<&'m str, BTreeSet<&'m str>>;

/// Checks the policies of `model`, written where `policies` say, and what needs them.
pub(super) fn check(
    cx: &mut Cx<'_>,
    policies: &[Node<'_>],
    bindings: &[Node<'_>],
    declared: &[Declared<'_>],
    model: &Model,
) {
    if model.agent_security_policies.is_empty() {
        return;
    }
    permissions(cx, declared, model);
    let mut agents = Agents::new();
    for cluster in &model.agent_clusters {
        let own = agents.entry(cluster.meta.namespace()).or_default();
        own.extend(cluster.agents.iter().map(|agent| agent.name.as_str()));
    }
    for (policy, node) in model.agent_security_policies.iter().zip(policies) {
        roles(cx, policy, *node, &agents, model);
        let classified = declared.iter().any(|own| own.has("classification"));
        if policy.classification_required && policy.classifications.is_empty() && !classified {
            let at = node.get("spec").and_then(|spec| spec.get("data_access")).unwrap_or(*node);
            let hint = "write `pilotfish.dev/classification` on a VirtualService or AgentCluster, or `data_access.classifications`";
            cx.warn(at, "everything has to be classified, and nothing is: every call is refused", hint);
        }
    }
    for (policy, node) in model.agent_security_policies.iter().zip(policies) {
        only_tokens(cx, policy, *node, model);
    }
    for (binding, node) in model.role_bindings.iter().zip(bindings) {
        for subject in &binding.subjects {
            let Subject::Agent { namespace, name } = subject else { continue };
            let known = agents.get(namespace.as_str()).filter(|known| !known.contains(name.as_str()));
            if let Some(near) = known.and_then(|known| close(name, known.iter().copied())) {
                let message = format!("no agent `{}` is declared in {namespace}", clip_text(name));
                cx.warn(*node, message, format!("did you mean `{near}`?"));
            }
        }
    }
}

fn governs(policy: &AgentSecurityPolicy, namespace: &str) -> bool {
    policy.meta.namespace() == namespace || ROOT_NAMESPACES.contains(&policy.meta.namespace())
}

/// A policy that takes nothing but tokens, where no document says whose tokens are good.
fn only_tokens(cx: &mut Cx<'_>, policy: &AgentSecurityPolicy, node: Node<'_>, model: &Model) {
    let root = |namespace: &str| ROOT_NAMESPACES.contains(&namespace);
    let own = policy.meta.namespace();
    let taken = model.request_authentications.iter().any(|tokens| {
        let namespace = tokens.meta.namespace();
        namespace == own || root(namespace) || root(own)
    });
    if policy.authentication_required
        && policy.authentication_methods == [AuthenticationMethod::OAuth2]
        && !taken
    {
        let at = node.get("spec").and_then(|spec| spec.get("authentication")).unwrap_or(node);
        let message = format!(
            "only tokens are taken, and no RequestAuthentication is for {own}: every call is refused"
        );
        cx.warn(at, message, "write one that says whose tokens are valid, or take `certificate` too");
    }
}

/// Permissions that calls need and no role gives.
fn permissions(cx: &mut Cx<'_>, declared: &[Declared<'_>], model: &Model) {
    for own in declared {
        let namespace = &*own.key.namespace;
        let governing = || model.agent_security_policies.iter().filter(|policy| governs(policy, namespace));
        let roles = || governing().flat_map(|policy| &policy.roles);
        if roles().next().is_none() {
            continue;
        }
        for value in own.values("permission") {
            let Some((domain, verb)) = value.value.split_once(':') else { continue };
            if roles().any(|role| role.permissions.iter().any(|given| given.gives(domain, verb))) {
                continue;
            }
            let given: Vec<String> = roles()
                .flat_map(|role| &role.permissions)
                .filter_map(|given| Some(format!("{}:{}", given.domain.as_deref()?, given.verb.as_deref()?)))
                .take(MOST_NAMES)
                .collect();
            let hint = nearest(value.value, given.iter().map(String::as_str)).map_or_else(
                || {
                    let policy = governing().next().map(|policy| policy.meta.key.to_string());
                    format!("give it to a role of {}", policy.unwrap_or_default())
                },
                |near| format!("did you mean `{near}`?"),
            );
            let message =
                format!("no role gives `{}`, so nobody may make these calls", clip_text(value.value));
            cx.warn(value.node, message, hint);
        }
    }
}

/// Roles that neither an agent of their name nor a binding has.
fn roles(cx: &mut Cx<'_>, policy: &AgentSecurityPolicy, node: Node<'_>, agents: &Agents<'_>, model: &Model) {
    let written =
        node.get("spec").and_then(|spec| spec.get("authorization")).and_then(|own| own.get("roles"));
    for role in &policy.roles {
        let (namespace, agent) =
            role.name.split_once('/').unwrap_or((policy.meta.namespace(), role.name.as_str()));
        let Some(known) = agents.get(namespace).filter(|known| !known.contains(agent)) else { continue };
        let bound = model.role_bindings.iter().any(|binding| {
            binding.role == role.name
                && [policy.meta.namespace(), ROOT_NAMESPACES[0], ROOT_NAMESPACES[1]]
                    .contains(&binding.meta.namespace())
                && binding.policy.as_deref().is_none_or(|wanted| wanted == policy.meta.name())
        });
        if bound {
            continue;
        }
        let at = written.into_iter().flat_map(Node::children);
        let at = at
            .filter_map(|own| own.get("name"))
            .find(|name| name.scalar().is_some_and(|scalar| scalar.text == role.name));
        let hint = close(agent, known.iter().copied()).map_or_else(
            || "bind it to somebody by a RoleBinding".to_owned(),
            |near| format!("did you mean `{near}`? Otherwise bind it by a RoleBinding"),
        );
        let message =
            format!("nobody has the role `{}`: no agent of {namespace} is called so", clip_text(&role.name));
        cx.warn(at.unwrap_or(node), message, hint);
    }
}
