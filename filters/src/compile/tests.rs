//! Whole configurations, from YAML to the answer for a request.

mod capability;
mod destinations;
mod examples;
mod governance;
mod hosts;
mod matching;
mod mesh_example;
mod on_demand;
mod policies;
mod rate_limit;
mod registered;
mod scale;
mod scoped;
mod security;
mod telemetry;

use pilotfish_config::model::Model;
use pilotfish_config::{Options, load_texts};

use super::*;
use crate::call::Call;
use crate::call::test_head::{TestHead, caller};
use crate::plan::{Action, Matched, Target};
use crate::verdict::{Deny, Reason};

/// The model of these documents, which must be valid.
fn model(yaml: &str) -> Model {
    let loaded = load_texts(&[("test.yaml", yaml)], &Options::default());
    loaded.model.unwrap_or_else(|| panic!("{}", loaded.report))
}

/// The sidecar of the agent `caller` in `default`, labelled `app: caller`.
fn options() -> CompileOptions {
    CompileOptions {
        agent: "caller".into(),
        namespace: "default".into(),
        labels: [("app".to_owned(), "caller".to_owned())].into(),
        ..CompileOptions::default()
    }
}

fn plan_of(model: &Model, options: &CompileOptions) -> Plan {
    compile(model, options, &Resolved::default(), &State::with_seed(1), Micros(0)).unwrap()
}

fn plan(yaml: &str) -> Plan {
    plan_of(&model(yaml), &options())
}

fn get(authority: &str, target: &str) -> TestHead {
    TestHead::get("http", authority, target)
}

fn route<'p>(plan: &'p Plan, head: &TestHead) -> Result<Matched<'p>, Deny> {
    let port = crate::route::split_authority(&head.authority).1.unwrap_or(80);
    plan.route(head, &Call::default(), &caller(port))
}

/// The name of the rule that matches without `namespace/service/`; `-` when none does.
fn rule(plan: &Plan, head: &TestHead) -> String {
    match route(plan, head) {
        Ok(matched) => matched.rule.name.rsplit('/').next().unwrap_or_default().to_owned(),
        Err(deny) => {
            assert_eq!(deny.reason, Reason::NoRoute);
            "-".to_owned()
        }
    }
}

/// Where a request goes: the names of the clusters with their weights, or the reason why nowhere.
fn targets(plan: &Plan, head: &TestHead) -> Vec<String> {
    let port = crate::route::split_authority(&head.authority).1.unwrap_or(80);
    match route(plan, head).map(|matched| &matched.rule.action) {
        Ok(Action::Forward(split)) => split
            .destinations()
            .iter()
            .map(|d| match d.target.cluster(port) {
                Ok(Some(id)) => format!("{} {}", plan.cluster(id).name, d.weight),
                Ok(None) => format!("capability {}", d.weight),
                Err(deny) => deny.reason.word().to_owned(),
            })
            .collect(),
        Ok(_) => vec!["answered".to_owned()],
        Err(deny) => vec![deny.reason.word().to_owned()],
    }
}

/// A service in `default` with one endpoint at `port`.
fn service(name: &str, port: u16) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  \
         hosts: [{name}.default.svc.cluster.local]\n  resolution: STATIC\n  location: MESH_INTERNAL\n  \
         ports: [{{number: {port}, name: http, protocol: HTTP}}]\n  \
         endpoints: [{{address: 127.0.0.1, labels: {{version: v1}}}}]\n"
    )
}

/// A VirtualService for `hosts` whose rules are given as YAML at the depth of a list under `http:`.
fn virtual_service(name: &str, hosts: &str, http: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  \
         hosts: {hosts}\n  http:\n{http}\n"
    )
}
