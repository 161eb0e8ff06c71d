//! RoleBinding.

use crate::model::{Meta, RoleBinding, Subject};
use crate::raw::{RoleBindingSpec, SubjectSpec};

use super::check::Cx;

/// Reads one.
pub(super) fn role_binding(cx: &mut Cx<'_>, meta: Meta, spec: &RoleBindingSpec<'_>) -> RoleBinding {
    let namespace = meta.namespace().to_owned();
    RoleBinding {
        role: spec.role.map(|role| cx.not_empty(role)).unwrap_or_default(),
        policy: spec.policy.map(|policy| cx.not_empty(policy)),
        subjects: spec.subjects.iter().flatten().filter_map(|one| subject(cx, &namespace, one)).collect(),
        meta,
    }
}

fn subject(cx: &mut Cx<'_>, own: &str, spec: &SubjectSpec<'_>) -> Option<Subject> {
    let found = match (spec.agent, spec.principal, spec.request_principal) {
        (Some(agent), None, None) => Subject::Agent {
            namespace: spec.namespace.map_or(own, |namespace| namespace.value).to_owned(),
            name: cx.not_empty(agent),
        },
        (None, Some(principal), None) => Subject::Principal(cx.not_empty(principal)),
        (None, None, Some(principal)) => Subject::RequestPrincipal(cx.not_empty(principal)),
        _ => {
            cx.error(spec.node, "a subject is one of `agent`, `principal` and `requestPrincipal`");
            return None;
        }
    };
    Some(found)
}
