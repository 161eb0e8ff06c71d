//! Reports of whole configurations.

use pilotfish_config::{Options, load_texts};

use super::*;

const POLICY: &str = "
apiVersion: v1
kind: AgentSecurityPolicy
metadata: {name: p}
spec:
  authentication: {required: true, methods: [certificate], token_lifetime: 3600}
  authorization:
    model: rbac
    roles:
    - {name: a, permissions: [nlp:process], resources: [conversations/*]}
    - {name: nobody, permissions: ['*:*'], resources: ['*']}
  communication: {encryption: required, protocols: [tls-1.3, mtls]}
  data_access: {classification_required: true, access_levels: [public, secret]}
  monitoring: {audit_all_actions: true}
  compliance: {frameworks: [gdpr, SOX, hipaa, iso27001], retention_policy: 90d}
---
apiVersion: pilotfish.dev/v1
kind: RoleBinding
metadata: {name: b}
spec: {role: a, subjects: [{agent: b}, {requestPrincipal: 'iss/*'}]}
---
apiVersion: v1
kind: AgentCluster
metadata: {name: c}
spec: {agents: [{name: a}, {name: b}]}
";

fn reported(yaml: &str, registered: &[&str]) -> PolicyReports {
    let loaded = load_texts(&[("test.yaml", yaml)], &Options::default());
    let model = loaded.model.unwrap_or_else(|| panic!("{}", loaded.report));
    report(&model, registered.iter().map(|agent| (*agent).to_owned()))
}

#[test]
fn each_line_says_how_it_is_enforced() {
    let reports = reported(POLICY, &["default/r", "other/x"]);
    let [policy] = &*reports.policies else { panic!("{reports:?}") };
    assert_eq!(policy.policy, "default/p");
    assert_eq!(policy.agents, ["default/a", "default/b", "default/r"]);
    let fields: Vec<(&str, &str)> =
        policy.lines.iter().map(|l| (l.field.as_str(), l.says.as_str())).collect();
    for wanted in [
        ("authentication.required", "true"),
        ("authentication.token_lifetime", "1h"),
        ("authorization.model", "rbac"),
        ("communication.protocols", "mtls"),
        ("data_access.access_levels", "public < secret"),
        ("compliance.retention_policy", "90d"),
    ] {
        assert!(fields.contains(&wanted), "{wanted:?} is not in {fields:?}");
    }
    assert!(policy.lines.iter().all(|line| !line.how.is_empty()));
    let held: Vec<_> = policy
        .roles
        .iter()
        .map(|role| (role.role.as_str(), role.held_by.join(" "), role.clearance.as_str()))
        .collect();
    assert_eq!(
        held,
        [("a", "default/a default/b token iss/*".to_owned(), "public"), ("nobody", String::new(), "secret")]
    );
}

#[test]
fn frameworks_are_not_promised() {
    let reports = reported(POLICY, &[]);
    let frameworks = &reports.policies[0].frameworks;
    for framework in &frameworks[..3] {
        let states: Vec<Enforced> = framework.asks.iter().map(|line| line.state).collect();
        assert!(states.contains(&Enforced::Enforced) && states.contains(&Enforced::Not), "{framework:?}");
    }
    assert!(frameworks[3].asks.is_empty(), "nothing is known of it");
    let line = |of: usize, part: &str| {
        frameworks[of].asks.iter().find(|line| line.asks.contains(part)).unwrap_or_else(|| panic!("{part}"))
    };
    assert_eq!(line(0, "in transit").state, Enforced::Partly);
    assert_eq!(line(1, "seven years").state, Enforced::Not, "90 days are not seven years");
    assert_eq!(line(2, "at rest").state, Enforced::Not);
    let bare = "apiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {name: p}\nspec: {compliance: {frameworks: [gdpr]}}\n";
    let asks = &reported(bare, &[]).policies[0].frameworks[0].asks;
    let transit = asks.iter().find(|line| line.asks.contains("in transit"));
    assert_eq!(transit.map(|line| line.state), Some(Enforced::NotAskedFor));
}
