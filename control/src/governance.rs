//! What AgentSecurityPolicies say, and what of it is enforced: for `pilotfish policy report`, with and without a control plane.

mod frameworks;

use std::collections::{BTreeSet, HashMap};

use pilotfish_config::model::{
    AgentRole, AgentSecurityPolicy, AuthenticationMethod, Encryption, Model, Permission, ROOT_NAMESPACES,
    RoleBinding, SecureProtocol, Subject,
};
use pilotfish_config::units::print_duration;

use crate::api::types::{Enforced, Framework, PolicyLine, PolicyReport, PolicyReports, PolicyRole};

/// Reports of every policy of a model. `registered`: agents besides those of its documents, `namespace/name`.
pub fn report(model: &Model, registered: impl IntoIterator<Item = String>) -> PolicyReports {
    let mut agents: BTreeSet<String> = registered.into_iter().collect();
    for cluster in &model.agent_clusters {
        let namespace = cluster.meta.namespace();
        agents.extend(cluster.agents.iter().map(|agent| format!("{namespace}/{}", agent.name)));
    }
    let mut bindings: HashMap<&str, Vec<&RoleBinding>> = HashMap::new();
    for binding in &model.role_bindings {
        bindings.entry(&binding.role).or_default().push(binding);
    }
    let mut policies: Vec<PolicyReport> = model
        .agent_security_policies
        .iter()
        .map(|policy| PolicyReport {
            policy: format!("{}/{}", policy.meta.namespace(), policy.meta.name()),
            agents: agents.iter().filter(|agent| is_for(policy, agent)).cloned().collect(),
            lines: lines(policy),
            roles: policy.roles.iter().map(|own| role(policy, own, &bindings, &agents)).collect(),
            frameworks: policy
                .frameworks
                .iter()
                .map(|name| Framework { name: name.clone(), asks: frameworks::asks(name, policy) })
                .collect(),
        })
        .collect();
    policies.sort_by(|a, b| a.policy.cmp(&b.policy));
    PolicyReports { policies }
}

fn is_root(policy: &AgentSecurityPolicy) -> bool {
    ROOT_NAMESPACES.contains(&policy.meta.namespace())
}

fn is_for(policy: &AgentSecurityPolicy, agent: &str) -> bool {
    let namespace = agent.split('/').next().unwrap_or_default();
    is_root(policy) || namespace == policy.meta.namespace()
}

/// One line, if it is written.
fn line(field: &str, says: impl Into<String>, state: Enforced, how: &str) -> PolicyLine {
    PolicyLine { field: field.into(), says: says.into(), state, how: how.into() }
}

/// What it says, in the order in which policies are written.
fn lines(policy: &AgentSecurityPolicy) -> Vec<PolicyLine> {
    let mut lines = Vec::new();
    authentication(policy, &mut lines);
    delegation(policy, &mut lines);
    if policy.is_rbac() {
        let says = policy.authorization_model.as_deref().unwrap_or("rbac");
        lines.push(line(
            "authorization.model",
            says,
            Enforced::Enforced,
            "the sidecar of who is called asks for a permission on a resource, of the caller and of everybody for whom it acts; else 403 \
             access-denied",
        ));
    }
    communication(policy, &mut lines);
    data_access(policy, &mut lines);
    monitoring(policy, &mut lines);
    if let Some(time) = policy.retention {
        lines.push(line(
            "compliance.retention_policy",
            print_days(time),
            Enforced::Enforced,
            "of records of the audit log: kept so long, then erased; the agents' own data is not Pilotfish's",
        ));
    }
    lines
}

fn authentication(policy: &AgentSecurityPolicy, lines: &mut Vec<PolicyLine>) {
    if policy.authentication_required {
        let how = "the sidecar of who is called; else 401 unauthenticated";
        lines.push(line("authentication.required", "true", Enforced::Enforced, how));
    }
    for method in &policy.authentication_methods {
        let (says, how) = match method {
            AuthenticationMethod::Certificate => {
                ("certificate", "a certificate of the mesh, verified in mutual TLS")
            }
            AuthenticationMethod::OAuth2 => {
                ("oauth2", "a token that a RequestAuthentication of the agent takes")
            }
        };
        let (state, how) = match policy.authentication_required {
            true => (Enforced::Enforced, how),
            false => (Enforced::Not, "nothing is asked of callers without `required: true`"),
        };
        lines.push(line("authentication.methods", says, state, how));
    }
    if let Some(time) = policy.token_lifetime {
        let how =
            "a token that is valid for longer, or is older, does not count; nor does one without iat and exp";
        lines.push(line("authentication.token_lifetime", print_duration(time), Enforced::Enforced, how));
    }
}

fn delegation(policy: &AgentSecurityPolicy, lines: &mut Vec<PolicyLine>) {
    if policy.delegation_required {
        let how = "the sidecar of who is called: a call of the mesh whose sidecar does not say for whom it is gets 403 delegation-required";
        lines.push(line("authentication.delegation_required", "true", Enforced::Enforced, how));
    }
}

fn communication(policy: &AgentSecurityPolicy, lines: &mut Vec<PolicyLine>) {
    let needed = policy.needs_encryption().then_some(Encryption::Required);
    if let Some(encryption) = policy.encryption.or(needed) {
        let (says, state, how) = match encryption {
            Encryption::Required if policy.encryption.is_none() => (
                "",
                Enforced::Partly,
                "none of `protocols` is plaintext, so calls in plaintext are refused, as by `encryption: required`",
            ),
            Encryption::Required => (
                "required",
                Enforced::Partly,
                "calls in plaintext are refused, from others and to others (403 encryption-required); what an agent sends through a CONNECT \
                 tunnel, or past its sidecar, is not looked into",
            ),
            Encryption::Preferred => ("preferred", Enforced::Enforced, "sidecars of one mesh always encrypt"),
            Encryption::Disabled => ("disabled", Enforced::Not, "sidecars of one mesh encrypt all the same"),
        };
        lines.push(line("communication.encryption", says, state, how));
    }
    for protocol in &policy.protocols {
        let how = match protocol {
            SecureProtocol::Mtls => "no caller without a certificate of the mesh",
            SecureProtocol::Tls13 if policy.protocols.contains(&SecureProtocol::Tls12) => {
                "sidecars speak TLS 1.3 only; hosts outside of the mesh may speak 1.2"
            }
            SecureProtocol::Tls13 => "sidecars speak TLS 1.3 only; hosts outside of the mesh have to, too",
            SecureProtocol::Tls12 => "only to hosts outside of the mesh",
        };
        lines.push(line("communication.protocols", protocol.word(), Enforced::Enforced, how));
    }
}

fn data_access(policy: &AgentSecurityPolicy, lines: &mut Vec<PolicyLine>) {
    if policy.classification_required {
        let how =
            "a call that nothing gives a class is refused; answers say their own in agent-classification";
        lines.push(line("data_access.classification_required", "true", Enforced::Enforced, how));
    }
    if !policy.access_levels.is_empty() {
        let how = "whoever is cleared for less gets no answer of more: held back where it is given, and where it is taken";
        lines.push(line(
            "data_access.access_levels",
            policy.access_levels.join(" < "),
            Enforced::Enforced,
            how,
        ));
    }
    for (resource, class) in &policy.classifications {
        let how = "calls about it are of this class, or of a higher one that something else gives them";
        lines.push(line(
            "data_access.classifications",
            format!("{resource}: {class}"),
            Enforced::Enforced,
            how,
        ));
    }
}

fn monitoring(policy: &AgentSecurityPolicy, lines: &mut Vec<PolicyLine>) {
    let flags = [
        (
            policy.audit_all_actions,
            "monitoring.audit_all_actions",
            "every decision is a record of the audit log, chained by hashes (`pilotfish audit verify`)",
        ),
        (
            policy.log_data_access,
            "monitoring.log_data_access",
            "every call about classified data is a record",
        ),
        (
            policy.alert_on_anomalies,
            "monitoring.alert_on_anomalies",
            "unusual callers are records of the audit log (what: anomaly)",
        ),
        (
            policy.audit_required,
            "monitoring.audit_required",
            "a call whose record cannot be kept is refused: 503 audit-unavailable",
        ),
    ];
    for (_, field, how) in flags.into_iter().filter(|(said, ..)| *said) {
        lines.push(line(field, "true", Enforced::Enforced, how));
    }
    if policy.audit_all_actions && !policy.audit_required {
        let how = "a record that cannot be kept leaves a marked gap; `audit_required: true` refuses the call instead";
        lines.push(line("monitoring.audit_required", "", Enforced::NotAskedFor, how));
    }
}

fn role(
    policy: &AgentSecurityPolicy,
    role: &AgentRole,
    bindings: &HashMap<&str, Vec<&RoleBinding>>,
    agents: &BTreeSet<String>,
) -> PolicyRole {
    let namespace = policy.meta.namespace();
    let own = match role.name.contains('/') {
        true => role.name.clone(),
        false => format!("{namespace}/{}", role.name),
    };
    let mut held_by: Vec<String> = agents.get(&own).cloned().into_iter().collect();
    for binding in bindings.get(role.name.as_str()).into_iter().flatten() {
        let home = binding.meta.namespace();
        let applies = home == namespace || ROOT_NAMESPACES.contains(&home);
        if !applies || binding.policy.as_deref().is_some_and(|wanted| wanted != policy.meta.name()) {
            continue;
        }
        held_by.extend(binding.subjects.iter().map(|subject| match subject {
            Subject::Agent { namespace, name } => format!("{namespace}/{name}"),
            Subject::Principal(pattern) => format!("principal {pattern}"),
            Subject::RequestPrincipal(pattern) => format!("token {pattern}"),
        }));
    }
    held_by.sort();
    held_by.dedup();
    let levels = &policy.access_levels;
    let default = if role.is_all() { levels.last() } else { levels.first() };
    PolicyRole {
        role: role.name.clone(),
        permissions: role.permissions.iter().map(permission).collect(),
        resources: role.resources.clone(),
        clearance: role.clearance.as_ref().or(default).cloned().unwrap_or_default(),
        held_by,
    }
}

fn permission(permission: &Permission) -> String {
    let part = |part: &Option<Box<str>>| part.as_deref().unwrap_or("*").to_owned();
    format!("{}:{}", part(&permission.domain), part(&permission.verb))
}

/// A time in days where it is one in days.
fn print_days(time: std::time::Duration) -> String {
    const DAY: u64 = 86_400;
    match time.as_secs() {
        seconds if seconds > 0 && seconds.is_multiple_of(DAY) => format!("{}d", seconds / DAY),
        _ => print_duration(time),
    }
}

#[cfg(test)]
mod tests;
