//! Which rule and endpoint a request would get from an agent's sidecar, without sending it: its plan is compiled here,
//! from what it is given, and asked as it would be there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pilotfish_config::model::Locality;
use pilotfish_filters::clock::Micros;
use pilotfish_filters::compile::{CompileOptions, compile};
use pilotfish_filters::explain::{Asked, explain};
use pilotfish_filters::plan::Plan;
use pilotfish_filters::state::State;
use tokio::time::Instant;

use super::registration::Facts;
use super::scope::Scope;
use super::view::View;
use super::{Fleet, Shared};
use crate::api::types::{Explanation, Question};

/// Plans that are kept, for the next question about the same agent.
const KEPT: usize = 8;

/// Compiled plans, the newest last.
#[derive(Debug, Default)]
pub(super) struct Plans(Mutex<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    agent: String,
    /// The view that it was made of: another version is another plan.
    version: u64,
    documents: u64,
    plan: Arc<Plan>,
}

impl Fleet {
    /// What a sidecar of this agent would do with a request.
    ///
    /// # Errors
    /// The question cannot be answered: why, for a person.
    pub fn explain(&self, question: &Question) -> Result<Explanation, String> {
        let mut asked = Asked::new(&question.method, &question.url)?.body(question.body.clone());
        for (name, value) in &question.headers {
            asked = asked.header(name, value);
        }
        let plan = self.shared.plan(&question.namespace, &question.agent)?;
        let (now, instant) = (Micros(self.shared.now().saturating_mul(1000)), Instant::now());
        for registration in self.shared.registry.all() {
            if let Some(ranked) = self.shared.ranks.of(&registration.id, instant) {
                let latency = Duration::from_micros(ranked.rank.latency_us);
                plan.merge_report(now, &registration.id, latency, ranked.rank.success);
            }
        }
        let told = explain(&plan, &asked, now);
        Ok(Explanation {
            lines: told.lines,
            rule: told.rule,
            cluster: told.cluster,
            candidates: told.candidates,
            refused: told.refused,
        })
    }
}

impl Shared {
    fn plan(&self, namespace: &str, agent: &str) -> Result<Arc<Plan>, String> {
        let view = self.view();
        let (name, versions) = (format!("{namespace}/{agent}"), (view.version, view.committed.version));
        let mut kept = self.plans.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |own: &&Kept| own.agent == name && (own.version, own.documents) == versions;
        if let Some(own) = kept.iter().find(same) {
            return Ok(own.plan.clone());
        }
        let plan = Arc::new(self.compiled(&view, namespace, agent)?);
        kept.retain(|own| own.agent != name);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(Kept { agent: name, version: versions.0, documents: versions.1, plan: plan.clone() });
        Ok(plan)
    }

    /// For the agent's first instance; for one without labels when none is registered.
    fn compiled(&self, view: &View, namespace: &str, agent: &str) -> Result<Plan, String> {
        let instances = self.registry.instances(&format!("{namespace}/{agent}"));
        let facts = instances.first().map_or_else(|| unknown(namespace, agent), |own| own.facts.clone());
        let scope = Scope::of(&view.committed, &facts);
        let shown = view.endpoints.iter().map(|(_, shown)| &shown.endpoint);
        let mut seen: Vec<_> = shown.filter(|endpoint| scope.endpoint(endpoint)).collect();
        seen.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let model = (*view.committed.model).clone().with_endpoints(seen);
        let options = CompileOptions {
            agent: facts.agent,
            namespace: facts.namespace,
            labels: facts.labels,
            locality: facts.locality.as_deref().map(Locality::parse).unwrap_or_default(),
            trust_domain: Some(self.settings.trust_domain.to_string()),
            ..CompileOptions::default()
        };
        let now = Micros(self.now().saturating_mul(1000));
        compile(&model, &options, &Default::default(), &State::default(), now).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            format!("a sidecar of this agent refuses the documents: {}", errors.join("; "))
        })
    }
}

fn unknown(namespace: &str, agent: &str) -> Facts {
    Facts {
        agent: agent.to_owned(),
        namespace: namespace.to_owned(),
        instance: String::new(),
        labels: Default::default(),
        locality: None,
        address: None,
        weight: 1,
        capabilities: Vec::new(),
        build: String::new(),
        dedup_epoch: None,
        capacity: 0,
        signs_chains: true,
        reading: Default::default(),
    }
}
