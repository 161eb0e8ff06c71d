//! Whole policies, from YAML to the decision.

mod documented;
mod hostile;
mod istio;
mod naive;
mod scale;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pilotfish_config::model::StringMap;
use pilotfish_config::{Options, load_texts};

use super::*;
use crate::authz::{Chain, Claims, Principal, Who};
use crate::call::test_head::TestHead;
use crate::call::{Call, Caller};
use crate::clock::Micros;
use crate::compile::{CompileOptions, Resolved, compile};
use crate::plan::Plan;
use crate::state::State;

/// A document of that kind.
fn policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: \
         {namespace}}}\nspec: {spec}\n"
    )
}

/// The agent `httpbin` in `foo` of the mesh `mesh.example`.
fn options() -> CompileOptions {
    CompileOptions {
        agent: "httpbin".into(),
        namespace: "foo".into(),
        labels: StringMap::from([("version".into(), "v1".into())]),
        trust_domain: Some("mesh.example".into()),
        ..CompileOptions::default()
    }
}

fn plan_for(yaml: &str, options: &CompileOptions) -> Plan {
    let loaded = load_texts(&[("test.yaml", yaml)], &Options::default());
    let model = loaded.model.unwrap_or_else(|| panic!("{}", loaded.report));
    compile(&model, options, &Resolved::default(), &State::with_seed(1), Micros(0)).unwrap()
}

fn plan(yaml: &str) -> Plan {
    plan_for(yaml, &options())
}

/// A call, before it is asked for.
#[derive(Clone)]
struct Ask {
    head: TestHead,
    call: Call,
    ip: IpAddr,
    principal: Option<Principal>,
    remote_ip: Option<IpAddr>,
    destination: Option<SocketAddr>,
    arrived: Option<IpAddr>,
    sni: Option<String>,
    claims: Option<Arc<Claims>>,
    chain: Option<Chain>,
}

fn agent(id: &str) -> Principal {
    let parts: Vec<&str> = id.split('/').collect();
    let named = parts.get(1) == Some(&"ns");
    Principal {
        id: id.into(),
        trust_domain: parts[0].into(),
        namespace: parts.get(2).filter(|_| named).map(|part| (*part).into()),
        name: parts.get(4).filter(|_| named).map(|part| (*part).into()),
    }
}

/// `METHOD target`, from nobody.
fn ask(line: &str) -> Ask {
    let (method, target) = line.split_once(' ').unwrap();
    let head = TestHead { method: method.into(), ..TestHead::get("http", "httpbin.foo:8000", target) };
    Ask {
        head,
        call: Call::default(),
        ip: IpAddr::from([10, 1, 2, 3]),
        principal: None,
        remote_ip: None,
        destination: Some(SocketAddr::from(([10, 0, 0, 1], 8000))),
        arrived: None,
        sni: None,
        claims: None,
        chain: None,
    }
}

impl Ask {
    /// From an agent of the mesh, `namespace/name`.
    fn from(mut self, who: &str) -> Ask {
        let (namespace, name) = who.split_once('/').unwrap();
        self.principal = Some(agent(&format!("mesh.example/ns/{namespace}/agent/{name}")));
        self
    }

    fn header(mut self, name: &str, value: &str) -> Ask {
        self.head = self.head.with(name, value);
        self
    }

    fn host(mut self, host: &str) -> Ask {
        self.head.authority = host.into();
        self
    }

    fn claims(mut self, json: serde_json::Value) -> Ask {
        let serde_json::Value::Object(all) = json else { panic!("claims are an object") };
        let text = |name: &str| all.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let principal = format!("{}/{}", text("iss"), text("sub"));
        let audiences = match all.get("aud") {
            Some(serde_json::Value::Array(list)) => {
                list.iter().filter_map(|v| v.as_str()).map(Box::from).collect()
            }
            Some(serde_json::Value::String(one)) => [Box::from(one.as_str())].into(),
            _ => Box::default(),
        };
        let presenter = all.get("azp").and_then(|v| v.as_str()).map(Box::from);
        let space_delimited =
            [Box::from("scope"), Box::from("permission"), Box::from("provider.login.scope")].into();
        self.claims = Some(Arc::new(Claims {
            principal: principal.into(),
            audiences,
            presenter,
            all,
            space_delimited,
        }));
        self
    }

    fn with<T>(&self, decide: impl FnOnce(&Asking<'_>) -> T) -> T {
        self.with_rules(None, decide)
    }

    fn with_rules<T>(&self, rules: Option<&CallerRules>, decide: impl FnOnce(&Asking<'_>) -> T) -> T {
        let who = Who {
            principal: self.principal.as_ref(),
            remote_ip: self.remote_ip,
            destination: self.destination,
            arrived: self.arrived,
            sni: self.sni.as_deref(),
            claims: self.claims.as_ref(),
            chain: self.chain.as_ref(),
            rules,
            ..Who::default()
        };
        let caller = Caller { ip: self.ip, port: 80 };
        decide(&Asking { head: &self.head, call: &self.call, caller: &caller, who: &who })
    }

    /// `by`, or the reason and `by`. It is the same with the caller's rules at hand as it is without.
    fn decided(&self, plan: &Plan) -> String {
        let found = self.decided_with(None, plan);
        let rules = plan.caller_rules(self.principal.as_ref());
        assert_eq!(self.decided_with(rules.as_ref(), plan), found);
        found
    }

    fn decided_with(&self, rules: Option<&CallerRules>, plan: &Plan) -> String {
        self.with_rules(rules, |asking| {
            let judgement = plan.authz.policies.decide(asking);
            match &judgement.deny {
                Some(deny) => format!("{}: {}", deny.reason.word(), judgement.by),
                None => judgement.by.to_string(),
            }
        })
    }

    fn allowed(&self, plan: &Plan) -> bool {
        self.with(|asking| plan.authz.policies.decide(asking).deny.is_none())
    }
}

#[test]
fn without_a_policy_anybody_may_unless_the_mesh_is_closed() {
    assert_eq!(ask("GET /").decided(&plan("")), "");
    let closed = CompileOptions { default_deny: true, ..options() };
    assert_eq!(ask("GET /").from("foo/a").decided(&plan_for("", &closed)), "access-denied: --default-deny");
    let viewers = policy("foo", "viewers", "{rules: [{from: [{source: {principals: ['*/foo/agent/a']}}]}]}");
    let plan = plan_for(&viewers, &closed);
    assert_eq!(ask("GET /").from("foo/a").decided(&plan), "foo/viewers rule 1");
    assert_eq!(ask("GET /").from("foo/b").decided(&plan), "access-denied: foo/viewers no rule");
}

#[test]
fn policies_are_for_their_namespace_their_root_and_whom_they_select() {
    let denies = |yaml: &str| !ask("GET /").allowed(&plan(yaml));
    let deny = "{action: DENY, rules: [{}]}";
    assert!(denies(&policy("foo", "all", deny)));
    assert!(denies(&policy("istio-system", "all", deny)) && denies(&policy("pilotfish-system", "all", deny)));
    assert!(!denies(&policy("bar", "all", deny)));
    for (selector, selects) in [
        ("app: httpbin", true),
        ("pilotfish.dev/agent: httpbin", true),
        ("version: v1", true),
        ("{app: httpbin, version: v2}", false),
        ("app: other", false),
    ] {
        let selector = selector.trim_matches(['{', '}']);
        let spec = format!("{{action: DENY, rules: [{{}}], selector: {{matchLabels: {{{selector}}}}}}}");
        assert_eq!(denies(&policy("foo", "some", &spec)), selects, "{selector}");
        assert_eq!(denies(&policy("istio-system", "some", &spec)), selects, "{selector} in the root");
    }
    let target = |kind: &str| format!("{{action: DENY, rules: [{{}}], targetRefs: [{kind}]}}");
    assert!(denies(&policy("foo", "t", &target("{kind: Service, name: httpbin}"))));
    assert!(!denies(&policy("foo", "t", &target("{kind: Service, name: other}"))));
    let gateway = policy("foo", "t", &target("{kind: Gateway, group: gateway.networking.k8s.io, name: g}"));
    assert!(!denies(&gateway));
    assert!(plan(&gateway).warnings().concat().contains("foo/t: the target Gateway `g` does nothing here"));
}

#[test]
fn deny_comes_before_allow_and_each_says_by_what() {
    let yaml = policy(
        "foo",
        "a-deny",
        "{action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}, {to: [{operation: {methods: [PUT]}}]}]}",
    ) + &policy(
        "foo",
        "b-allow",
        "{rules: [{to: [{operation: {paths: [/other]}}]}, {to: [{operation: {methods: [GET, PUT]}}]}]}",
    );
    let plan = plan(&yaml);
    for (line, want) in [
        ("GET /", "foo/b-allow rule 2"),
        ("GET /other", "foo/b-allow rule 1"),
        ("GET /x", "access-denied: foo/a-deny rule 1"),
        ("PUT /x", "access-denied: foo/a-deny rule 1"),
        ("PUT /y", "access-denied: foo/a-deny rule 2"),
        ("POST /y", "access-denied: foo/b-allow no rule"),
    ] {
        assert_eq!(ask(line).decided(&plan), want, "{line}");
    }
}

#[test]
fn what_cannot_be_compiled_denies_its_workload_and_says_so() {
    let key = "experimental.envoy.filters.network.mysql_proxy[db]";
    let yaml = policy("foo", "db", &format!("{{rules: [{{}}, {{when: [{{key: '{key}', values: [a]}}]}}]}}"))
        + &policy("foo", "open", "{rules: [{}]}");
    let plan = plan(&yaml);
    ask("GET /").from("foo/a").with(|asking| {
        let judgement = plan.authorize(asking);
        let deny = judgement.deny.unwrap();
        let detail = deny.detail.unwrap();
        assert_eq!((deny.reason, &*judgement.by), (Reason::AccessDenied, "foo/db"));
        assert!(
            detail.contains("AuthorizationPolicy foo/db cannot be enforced") && detail.contains(key),
            "{detail}"
        );
    });
    let warning = plan.warnings().concat();
    assert!(
        warning.contains("AuthorizationPolicy foo/db: cannot be compiled, it denies its workload: rules[1]")
    );
    let custom =
        "{action: CUSTOM, provider: {name: nobody}, rules: [{to: [{operation: {paths: [/admin]}}]}]}";
    let unknown = self::plan(&policy("foo", "ask", custom));
    assert_eq!(ask("GET /").decided(&unknown), "access-denied: foo/ask");
    assert!(
        unknown
            .warnings()
            .concat()
            .contains("there is no AuthorizationProvider nobody in foo, pilotfish-system")
    );
    let dry = yaml.replace("name: db,", "name: db, annotations: {istio.io/dry-run: \"true\"},");
    let plan = self::plan(&dry);
    assert!(ask("GET /").allowed(&plan), "a dry run denies nobody");
    assert!(plan.warnings().concat().contains("as a dry run it does nothing"));
}

#[test]
fn a_dry_run_is_told_only_where_it_would_have_decided_otherwise() {
    let dry = |name: &str, spec: &str| {
        policy("foo", name, spec).replace(
            &format!("name: {name},"),
            &format!("name: {name}, annotations: {{istio.io/dry-run: 'true'}},"),
        )
    };
    let told = |yaml: &str, line: &str| {
        let plan = plan(yaml);
        ask(line).with(|asking| {
            let judgement = plan.authorize(asking);
            (judgement.deny.is_none(), judgement.dry_run.map(|by| by.to_string()))
        })
    };
    let path = |action: &str, path: &str| {
        format!("{{action: {action}, rules: [{{to: [{{operation: {{paths: ['{path}']}}}}]}}]}}")
    };
    let deny = dry("d", &path("DENY", "/x"));
    assert_eq!(told(&deny, "GET /x"), (true, Some("foo/d rule 1".into())));
    assert_eq!(told(&deny, "GET /y"), (true, None));
    let both = deny + &policy("foo", "real", &path("DENY", "/x"));
    assert_eq!(told(&both, "GET /x"), (false, None));
    let allow = dry("a", &path("ALLOW", "/x"));
    assert_eq!(told(&allow, "GET /x"), (true, None));
    assert_eq!(told(&allow, "GET /y"), (true, Some("foo/a no rule".into())));
    let wider = allow + &policy("foo", "real", &path("ALLOW", "/y"));
    assert_eq!(told(&wider, "GET /x"), (false, Some("foo/a rule 1".into())));
    assert_eq!(told(&wider, "GET /y"), (true, None));
    assert_eq!(told(&wider, "GET /z"), (false, None));
}

#[test]
fn audit_marks_and_changes_nothing() {
    let plan = plan(&policy(
        "foo",
        "a",
        "{action: AUDIT, rules: [{to: [{operation: {paths: ['/user/profile/*'], methods: [GET]}}]}]}",
    ));
    let audit = |line: &str| {
        ask(line).with(|asking| {
            let judgement = plan.authorize(asking);
            (judgement.deny.is_none(), judgement.audit)
        })
    };
    assert_eq!(audit("GET /user/profile/x"), (true, true));
    assert_eq!(audit("POST /user/profile/x"), (true, false));
}

#[test]
fn custom_asks_for_what_matches_and_one_provider_only() {
    let provider = |name: &str| {
        format!(
            "---\napiVersion: pilotfish.dev/v1\nkind: AuthorizationProvider\nmetadata: {{name: {name}, namespace: foo}}\nspec: {PROVIDER}\n"
        )
    };
    const PROVIDER: &str = "{grpc: {service: opa.foo, port: 9000}}";
    let custom = |name: &str, provider: &str, path: &str| {
        policy(
            "foo",
            name,
            &format!(
                "{{action: CUSTOM, provider: {{name: {provider}}}, rules: [{{to: [{{operation: {{paths: ['{path}']}}}}]}}]}}"
            ),
        )
    };
    let yaml = provider("opa") + &custom("a", "opa", "/admin*") + &custom("b", "foo/opa", "/x");
    let plan = plan(&yaml);
    let asked = |line: &str| {
        ask(line).with(|asking| {
            plan.custom(asking).map(|custom| (custom.provider.to_owned(), custom.by.to_owned()))
        })
    };
    assert_eq!(asked("GET /admin/1"), Some(("foo/opa".into(), "foo/a rule 1".into())));
    assert_eq!(asked("GET /x"), Some(("foo/opa".into(), "foo/b rule 1".into())));
    assert_eq!(asked("GET /"), None);
    let two = self::plan(&(yaml + &provider("other") + &custom("c", "other", "/y")));
    assert_eq!(ask("GET /").decided(&two), "access-denied: foo/c");
    assert!(two.warnings().concat().contains("two providers, foo/opa (foo/a rule 1) and foo/other"));
}
