//! AuthorizationPolicies that are valid and do not do what they seem to: rules that can never match, policies for nobody, ALLOW that
//! makes others useless. Warnings.

mod declared;
mod values;

use crate::model::{
    AuthorizationAction, AuthorizationPolicy, AuthorizationRule, Model, ROOT_NAMESPACES, Scope, StringMap,
    Values,
};
use crate::raw::AuthorizationPolicySpec;
use crate::yaml::Node;

use super::check::Cx;
use declared::Declared;
pub(super) use declared::close;

/// A policy and where it is written.
pub(super) struct Draft<'n> {
    pub(super) node: Node<'n>,
    pub(super) spec: AuthorizationPolicySpec<'n>,
}

/// Checks the AuthorizationPolicies of `model`, which are written where `drafts` say, in the same order. `trust_domain`: the mesh's
/// own, when it is known.
pub(super) fn check(cx: &mut Cx<'_>, drafts: &[Draft<'_>], model: &Model, trust_domain: Option<&str>) {
    if drafts.is_empty() {
        return;
    }
    let declared = Declared::of(model, trust_domain);
    for (policy, draft) in model.authorization_policies.iter().zip(drafts) {
        values::check(cx, &draft.spec);
        declared.check(cx, policy, draft);
        wide(cx, policy, draft, model);
    }
}

/// Rules that match every call, beside policies that are meant to tell calls apart.
fn wide(cx: &mut Cx<'_>, policy: &AuthorizationPolicy, draft: &Draft<'_>, model: &Model) {
    let deny = match policy.action {
        AuthorizationAction::Allow => false,
        AuthorizationAction::Deny => true,
        AuthorizationAction::Audit | AuthorizationAction::Custom => return,
    };
    if policy.is_dry_run() {
        return;
    }
    let Some(at) = policy.rules.iter().position(is_everything) else { return };
    let node = draft.spec.rules.as_ref().and_then(|rules| rules.get(at)).map_or(draft.node, |rule| rule.node);
    let mut useless: Vec<String> = model
        .authorization_policies
        .iter()
        .filter(|other| other.meta.key != policy.meta.key && other.action == AuthorizationAction::Allow)
        .filter(|other| !other.is_dry_run() && within(other, policy))
        .filter(|other| !other.rules.iter().any(is_everything))
        .map(|other| format!("{}/{}", other.meta.namespace(), other.meta.name()))
        .collect();
    let more = policy.rules.len() - 1;
    if more > 0 {
        useless.insert(0, format!("the other {} of this policy", if more == 1 { "rule" } else { "rules" }));
    }
    if useless.is_empty() {
        return;
    }
    let rest = useless.len().saturating_sub(3);
    useless.truncate(3);
    let mut names = useless.join(", ");
    if rest > 0 {
        names.push_str(&format!(" and {rest} more"));
    }
    let (does, hint) = match deny {
        true => ("denies everybody everything", "name who may not do what, or remove it"),
        false => ("lets everybody do everything", "ALLOW rules add up: name who may do what, or remove it"),
    };
    cx.warn(node, format!("this rule {does}, so nothing comes of {names}"), hint);
}

/// Whether a rule matches whatever anybody does.
fn is_everything(rule: &AuthorizationRule) -> bool {
    let none = |values: &[&Values]| values.iter().all(|own| own.any_of.is_empty() && own.none_of.is_empty());
    let any = |values: &Values| {
        values.none_of.is_empty() && values.any_of.iter().any(|value| matches!(value.as_str(), "*" | "/*"))
    };
    let from = |from: &crate::model::AuthorizationSource| {
        let others = [
            &from.request_principals,
            &from.service_accounts,
            &from.ip_blocks,
            &from.remote_ip_blocks,
            &from.trust_domains,
        ];
        let named = [&from.principals, &from.namespaces];
        none(&others) && named.iter().all(|own| any(own) || none(&[own])) && named.iter().any(|own| any(own))
    };
    let to = |to: &crate::model::AuthorizationOperation| {
        none(&[&to.hosts, &to.ports, &to.methods]) && any(&to.paths)
    };
    rule.when.is_empty()
        && (rule.from.is_empty() || rule.from.iter().any(from))
        && (rule.to.is_empty() || rule.to.iter().any(to))
}

/// Whether every workload of a policy is one of another policy too.
fn within(inner: &AuthorizationPolicy, outer: &AuthorizationPolicy) -> bool {
    let (own, all) = (inner.meta.namespace(), outer.meta.namespace());
    (own == all || ROOT_NAMESPACES.contains(&all))
        && outer.scope.targets.is_empty()
        && (outer.scope.selector.is_empty()
            || inner.scope.targets.is_empty() && includes(&inner.scope.selector, &outer.scope.selector))
}

fn includes(labels: &StringMap, wanted: &StringMap) -> bool {
    crate::model::includes(labels, wanted)
}

/// Whether two policies may be for one workload, as far as their namespaces and labels say.
fn meet(a: (&str, &Scope), b: (&str, &Scope)) -> bool {
    let root = |namespace: &str| ROOT_NAMESPACES.contains(&namespace);
    let same = a.0 == b.0 || root(a.0) || root(b.0);
    let contradict =
        |(key, value): (&String, &String)| b.1.selector.get(key).is_some_and(|other| other != value);
    same && !a.1.selector.iter().any(contradict)
}
