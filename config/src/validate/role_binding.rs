//! RoleBinding.

use std::collections::{HashMap, HashSet};

use crate::model::{Meta, Model, ROOT_NAMESPACES, RoleBinding, Subject};
use crate::raw::{RoleBindingSpec, SubjectSpec, Text, nearest};
use crate::yaml::{Node, clip_text};

use super::check::{Cx, is_dns_label};
use super::placement::is_agent_name;

/// So many names are looked at for one that is near.
const MOST_NAMES: usize = 1000;

/// Reads one.
pub(super) fn role_binding(cx: &mut Cx<'_>, meta: Meta, spec: &RoleBindingSpec<'_>) -> RoleBinding {
    let namespace = meta.namespace().to_owned();
    if spec.subjects.as_ref().is_some_and(Vec::is_empty) {
        cx.warn(spec.node, "it gives the role to nobody", "write `subjects`");
    }
    RoleBinding {
        role: spec.role.map(|role| cx.not_empty(role)).unwrap_or_default(),
        policy: spec.policy.map(|policy| cx.not_empty(policy)),
        subjects: spec.subjects.iter().flatten().filter_map(|one| subject(cx, &namespace, one)).collect(),
        meta,
    }
}

fn subject(cx: &mut Cx<'_>, own: &str, spec: &SubjectSpec<'_>) -> Option<Subject> {
    if let (Some(namespace), None) = (spec.namespace, spec.agent) {
        cx.error_hint(namespace.node, "`namespace` goes with `agent`", "a principal has its namespace in it");
    }
    let found = match (spec.agent, spec.principal, spec.request_principal) {
        (Some(agent), None, None) => {
            let namespace = spec.namespace.map_or(own, |namespace| namespace.value);
            if !is_dns_label(namespace) || !is_agent_name(agent.value) {
                let message = format!("`{}` is not the name of an agent", clip_text(agent.value));
                cx.error_hint(agent.node, message, "its name alone; patterns are for `principal`");
            }
            Subject::Agent { namespace: namespace.to_owned(), name: agent.value.to_owned() }
        }
        (None, Some(principal), None) => Subject::Principal(pattern(cx, principal)),
        (None, None, Some(principal)) => Subject::RequestPrincipal(pattern(cx, principal)),
        _ => {
            cx.error(spec.node, "a subject is one of `agent`, `principal` and `requestPrincipal`");
            return None;
        }
    };
    Some(found)
}

/// A text that may have `*` at one end.
fn pattern(cx: &mut Cx<'_>, text: Text<'_>) -> String {
    let inner = text.value.strip_prefix('*').or_else(|| text.value.strip_suffix('*')).unwrap_or(text.value);
    if inner.contains('*') {
        let message = format!("`{}` has `*` elsewhere than at one end", clip_text(text.value));
        cx.error_hint(text.node, message, "`prefix*`, `*suffix` or `*`");
    }
    if text.value.starts_with("spiffe://") {
        cx.error_hint(
            text.node,
            "a principal is written without `spiffe://`",
            "TRUST-DOMAIN/ns/NAMESPACE/agent/NAME",
        );
    }
    cx.not_empty(text)
}

/// Warns of roles that no policy has. `nodes`: where each binding is written.
pub(super) fn unknown_roles(cx: &mut Cx<'_>, model: &Model, nodes: &[Node<'_>]) {
    if model.role_bindings.is_empty() {
        return;
    }
    // By namespace: roles, and the policies that have each.
    let mut roles: HashMap<&str, HashMap<&str, HashSet<&str>>> = HashMap::new();
    for policy in &model.agent_security_policies {
        let known = roles.entry(policy.meta.namespace()).or_default();
        for role in &policy.roles {
            known.entry(&role.name).or_default().insert(policy.meta.name());
        }
    }
    for (binding, node) in model.role_bindings.iter().zip(nodes) {
        let namespace = binding.meta.namespace();
        // Those of a root namespace may be for any namespace's, which not everybody who reads this sees.
        if ROOT_NAMESPACES.contains(&namespace) {
            continue;
        }
        let known = roles.get(namespace);
        let policies = known.and_then(|known| known.get(binding.role.as_str()));
        let found = match (policies, &binding.policy) {
            (Some(policies), Some(policy)) => policies.contains(policy.as_str()),
            (policies, None) => policies.is_some(),
            (None, Some(_)) => false,
        };
        if !found {
            let near =
                nearest(&binding.role, known.into_iter().flat_map(HashMap::keys).take(MOST_NAMES).copied());
            let hint = near.map_or_else(
                || format!("write it in an AgentSecurityPolicy of {namespace}"),
                |near| format!("did you mean `{near}`?"),
            );
            let message = format!(
                "no AgentSecurityPolicy has the role `{}`, so this gives nothing",
                clip_text(&binding.role)
            );
            cx.warn(*node, message, hint);
        }
    }
}
