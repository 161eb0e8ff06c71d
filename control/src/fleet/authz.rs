//! Who may call whom, of the agents that are registered or declared, by the documents that sidecars have.

use std::collections::BTreeSet;

use pilotfish_config::wire::{Normalization, Reading};
use pilotfish_filters::compile::CompileOptions;

use super::Fleet;
use crate::api::types::{AuthzAnswer, AuthzCalls, AuthzMatrix, AuthzQuestion};
use crate::authz::matrix::{Agents, matrix};
use crate::authz::{Callee, explain};
use crate::resources::default_deny;

impl Fleet {
    /// What the sidecar of the agent that is called would decide.
    ///
    /// # Errors
    /// The question cannot be understood; in words.
    pub fn authz_explain(&self, question: &AuthzQuestion) -> Result<AuthzAnswer, String> {
        let view = self.shared.view();
        let Some((namespace, agent)) = question.to.split_once('/') else {
            return Err(format!("`{}` is no agent: NAMESPACE/NAME", question.to.escape_debug()));
        };
        let agents = self.authz_agents();
        let mut answers = Vec::new();
        for own in self.readings(&question.to, question) {
            let options = CompileOptions {
                agent: agent.to_owned(),
                namespace: namespace.to_owned(),
                labels: agents.labels(namespace, agent),
                trust_domain: Some(self.shared.settings.trust_domain.to_string()),
                normalization: own.normalization,
                default_deny: own.default_deny,
                ..CompileOptions::default()
            };
            let callee = Callee::new(&view.committed.model, options);
            for sends in self.readings(&question.from, question) {
                let mut answer = explain(&callee, sends.normalization, question, &view.actions)?;
                tell(own, sends, question, &mut answer.notes);
                answers.push(answer);
            }
        }
        // The strictest first.
        answers.sort_by_key(|answer| answer.allowed);
        let differ = answers.iter().any(|other| other.allowed != answers[0].allowed);
        let Some(mut answer) = answers.into_iter().next() else { return Err("nobody is asked".into()) };
        if differ {
            let note =
                "the sidecars of these agents run with different flags, and some of them would allow it";
            answer.notes.push(note.into());
        }
        if let Some(unknown) = agents.unknown(&question.to) {
            answer.notes.push(format!("{unknown}; it is taken to have no labels"));
        }
        let callers = question.via.iter().chain([&question.from]);
        answer.notes.extend(callers.filter_map(|own| agents.unknown(own)));
        Ok(answer)
    }

    /// Who may call whom.
    ///
    /// # Errors
    /// The calls cannot be understood; in words.
    pub fn authz_matrix(&self, calls: &AuthzCalls) -> Result<AuthzMatrix, String> {
        let view = self.shared.view();
        let domain = self.shared.settings.trust_domain.to_string();
        let mut found = matrix(&view.committed.model, &self.authz_agents(), &domain, calls, &view.actions)?;
        found.default_deny = default_deny::is_in(&view.committed);
        Ok(found)
    }

    /// What the flags of an agent's sidecars say, each once; the usual for an agent without any.
    fn readings(&self, name: &str, question: &AuthzQuestion) -> BTreeSet<Reading> {
        let mut found = BTreeSet::new();
        self.shared.registry.each(|own| {
            let facts = &own.facts;
            if name.split_once('/') == Some((facts.namespace.as_str(), facts.agent.as_str())) {
                found.insert(facts.reading);
            }
        });
        if found.is_empty() {
            found.insert(Reading::default());
        }
        let wanted = |own: Reading| Reading {
            normalization: question.normalization.unwrap_or(own.normalization),
            ..own
        };
        found.into_iter().map(wanted).collect()
    }

    fn authz_agents(&self) -> Agents {
        let mut agents = Agents::declared(&self.shared.view().committed.model);
        self.shared.registry.each(|own| {
            agents.add(
                &own.facts.namespace,
                &own.facts.agent,
                &own.facts.labels,
                own.facts.reading.default_deny,
            )
        });
        agents
    }
}

/// What of the flags is not the default, where nobody asked for something else.
fn tell(own: Reading, sends: Reading, question: &AuthzQuestion, notes: &mut Vec<String>) {
    let mut path = |who: &str, how: Normalization| {
        if question.normalization.is_none() && how != Normalization::default() {
            notes.push(format!("the {who} runs with --path-normalization {}", how.word()));
        }
    };
    path("callee's sidecar", own.normalization);
    path("caller's sidecar", sends.normalization);
    if own.trusted_hops > 0 && question.remote_ip.is_none() {
        notes.push(format!(
            "the callee's sidecar takes the client's address from x-forwarded-for (--trusted-hops {}): --remote-ip says it",
            own.trusted_hops
        ));
    }
}
