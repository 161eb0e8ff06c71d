//! Who may call whom, of the agents that are registered or declared, by the documents that sidecars have.

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
        let options = CompileOptions {
            agent: agent.to_owned(),
            namespace: namespace.to_owned(),
            labels: agents.labels(namespace, agent),
            trust_domain: Some(self.shared.settings.trust_domain.to_string()),
            ..CompileOptions::default()
        };
        let mut answer = explain(&Callee::new(&view.committed.model, options), question, &view.actions)?;
        if !agents.has(namespace, agent) {
            answer.notes.push(format!(
                "no agent {namespace}/{agent} is registered or declared; it is taken to have no labels"
            ));
        }
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

    fn authz_agents(&self) -> Agents {
        let mut agents = Agents::declared(&self.shared.view().committed.model);
        self.shared
            .registry
            .each(|own| agents.add(&own.facts.namespace, &own.facts.agent, &own.facts.labels));
        agents
    }
}
