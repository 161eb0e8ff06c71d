//! What is known of frameworks: what each asks for, and how far a policy and Pilotfish meet it. No framework is met by a mesh alone.

use std::time::Duration;

use pilotfish_config::model::AgentSecurityPolicy;

use crate::api::types::{Enforced, FrameworkLine};

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// What a framework asks for; empty: nothing is known of it.
pub(super) fn asks(name: &str, policy: &AgentSecurityPolicy) -> Vec<FrameworkLine> {
    match name.to_ascii_lowercase().as_str() {
        "gdpr" => gdpr(policy),
        "sox" => sox(policy),
        "hipaa" => hipaa(policy),
        _ => Vec::new(),
    }
}

fn line(asks: &str, state: Enforced, how: impl Into<String>) -> FrameworkLine {
    FrameworkLine { asks: asks.into(), state, how: how.into() }
}

/// Something that Pilotfish does not do.
fn not(asks: &str, how: &str) -> FrameworkLine {
    line(asks, Enforced::Not, how)
}

/// What the policy may ask for: enforced when it does.
fn when(asked: bool, asks: &str, how: &str, write: &str) -> FrameworkLine {
    match asked {
        true => line(asks, Enforced::Enforced, how),
        false => line(asks, Enforced::NotAskedFor, format!("write {write}")),
    }
}

fn transit(asks: &str, policy: &AgentSecurityPolicy) -> FrameworkLine {
    match policy.needs_encryption() {
        true => line(
            asks,
            Enforced::Partly,
            "TLS 1.3 between sidecars, plaintext refused; not of what goes past a sidecar or through a CONNECT tunnel",
        ),
        false => line(asks, Enforced::NotAskedFor, "write communication.encryption: required"),
    }
}

fn authentication(asks: &str, policy: &AgentSecurityPolicy) -> FrameworkLine {
    let how = "callers show a certificate of the mesh or a token; which person is behind an agent says only a token";
    when(policy.authentication_required, asks, how, "authentication.required: true")
}

fn access(asks: &str, policy: &AgentSecurityPolicy) -> FrameworkLine {
    let how = "roles, permissions and resources of calls between agents; not within an agent or its database";
    when(policy.is_rbac(), asks, how, "authorization.roles")
}

fn audit(asks: &str, policy: &AgentSecurityPolicy) -> FrameworkLine {
    match policy.audit_all_actions {
        true => line(
            asks,
            Enforced::Enforced,
            "each decision is recorded: who, for whom, what, outcome; no payloads",
        ),
        false => line(
            asks,
            Enforced::Partly,
            "only refusals are recorded; write monitoring.audit_all_actions: true",
        ),
    }
}

fn integrity(asks: &str) -> FrameworkLine {
    let how = "the log is append-only and chained by hashes; `pilotfish audit verify` finds an edit, a removal, a truncation";
    line(asks, Enforced::Enforced, how)
}

/// Records have to be kept for so many years.
fn kept(asks: &str, years: u32, policy: &AgentSecurityPolicy) -> FrameworkLine {
    match policy.retention {
        Some(time) if time >= YEAR * years => line(
            asks,
            Enforced::Partly,
            "the audit log is kept so long; the agents' own records are not Pilotfish's",
        ),
        Some(_) => not(
            asks,
            &format!(
                "retention_policy erases the audit log sooner than after {years} years: ship it elsewhere before, or write {years}y"
            ),
        ),
        None => line(asks, Enforced::NotAskedFor, format!("write compliance.retention_policy: {years}y")),
    }
}

fn gdpr(policy: &AgentSecurityPolicy) -> Vec<FrameworkLine> {
    let minimum = "data minimisation: agents see what they need (art. 5(1)(c), 25)";
    vec![
        transit("encryption in transit (art. 32(1)(a))", policy),
        not("encryption at rest (art. 32(1)(a))", "agents' disks and databases: encrypt them where they are"),
        authentication("who has access is known (art. 32)", policy),
        access("access control (art. 32(1)(b))", policy),
        when(
            policy.classification_required,
            minimum,
            "answers are held back by their class; what is personal data, and for which purpose, is not known to a mesh",
            "data_access.classification_required: true",
        ),
        audit("accountability: an audit trail (art. 5(2))", policy),
        integrity("integrity of the audit trail (art. 5(1)(f))"),
        match policy.retention {
            Some(_) => line(
                "storage limitation (art. 5(1)(e))",
                Enforced::Partly,
                "audit records are erased in time; agents' own data is not Pilotfish's",
            ),
            None => line(
                "storage limitation (art. 5(1)(e))",
                Enforced::NotAskedFor,
                "write compliance.retention_policy",
            ),
        },
        not(
            "requests of data subjects: access, erasure, portability (art. 15 to 22)",
            "by whoever keeps the data",
        ),
        not(
            "records of processing, impact assessments (art. 30, 35)",
            "paperwork; the audit log may be a source",
        ),
        not(
            "notification of breaches within 72 h (art. 33, 34)",
            "anomalies are recorded; nobody is notified by Pilotfish",
        ),
        not(
            "contracts with processors, transfers abroad (art. 28, 44 to 49)",
            "paperwork; `outbound: REGISTRY_ONLY` limits where agents can send",
        ),
    ]
}

fn sox(policy: &AgentSecurityPolicy) -> Vec<FrameworkLine> {
    vec![
        access("access control over financial systems (section 404)", policy),
        authentication("who did it is known (section 404)", policy),
        audit("an audit trail (section 404)", policy),
        integrity("records are not altered (section 802)"),
        kept("records are kept for seven years (section 802)", 7, policy),
        line(
            "changes are controlled (section 404)",
            Enforced::Partly,
            "each change of documents has an author and can be undone (`pilotfish history`); nobody has to approve it",
        ),
        not(
            "segregation of duties, and its review",
            "roles can be kept apart; nobody checks that they are, or reviews them",
        ),
        not("certification by officers, reports (section 302, 906)", "paperwork"),
        not("backup and recovery of financial data", "by whoever keeps the data"),
    ]
}

fn hipaa(policy: &AgentSecurityPolicy) -> Vec<FrameworkLine> {
    vec![
        access("access control (45 CFR 164.312(a)(1))", policy),
        not(
            "encryption at rest (164.312(a)(2)(iv))",
            "agents' disks and databases: encrypt them where they are",
        ),
        audit("audit controls (164.312(b))", policy),
        line(
            "integrity (164.312(c)(1))",
            Enforced::Partly,
            "of the audit log, and of calls on their way; agents' own data is not Pilotfish's",
        ),
        authentication("person or entity authentication (164.312(d))", policy),
        transit("transmission security (164.312(e)(1))", policy),
        when(
            policy.classification_required,
            "minimum necessary (164.502(b))",
            "answers are held back by their class; what is health information is what you classify so",
            "data_access.classification_required: true",
        ),
        kept("documentation is kept for six years (164.316(b)(2))", 6, policy),
        not("business associate agreements (164.504(e))", "paperwork, with whoever serves your models too"),
        not("risk analysis, training, contingency plans (164.308)", "paperwork"),
        not(
            "notification of breaches (164.400 to 164.414)",
            "anomalies are recorded; nobody is notified by Pilotfish",
        ),
    ]
}
