//! AgentSecurityPolicy and RoleBinding, from YAML to what is decided of a call.

use std::sync::Arc;

use super::*;
use crate::authz::{Asking, Chain, Claims, Judgement, Principal, Who};
use crate::call::{Protocol, Understood};

/// The users' policy, as they wrote it.
const USERS: &str = include_str!("governance/users.yaml");

const TRUST_DOMAIN: &str = "mesh.example";

fn agent(name: &str) -> Principal {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    in_domain(TRUST_DOMAIN, namespace, name)
}

fn in_domain(trust_domain: &str, namespace: &str, name: &str) -> Principal {
    Principal {
        id: format!("{trust_domain}/ns/{namespace}/agent/{name}").into(),
        trust_domain: trust_domain.into(),
        namespace: Some(namespace.into()),
        name: Some(name.into()),
    }
}

/// The sidecar of the agent `callee` in `default`.
fn governed(yaml: &str) -> Plan {
    let options = CompileOptions {
        agent: "callee".into(),
        trust_domain: Some(TRUST_DOMAIN.into()),
        ..CompileOptions { labels: Default::default(), ..options() }
    };
    let plan = plan_of(&model(yaml), &options);
    assert!(plan.warnings().is_empty(), "{:?}", plan.warnings());
    plan
}

/// One call.
#[derive(Clone)]
struct Asked {
    head: TestHead,
    call: Call,
    principal: Option<Principal>,
    claims: Option<Arc<Claims>>,
    chain: Chain,
    unix: u64,
}

fn asks(from: &str, method: &str, target: &str) -> Asked {
    let mut head = get("callee", target);
    head.method = method.into();
    Asked {
        head,
        call: Call::default(),
        principal: (!from.is_empty()).then(|| agent(from)),
        claims: None,
        chain: Chain::default(),
        unix: 10_000,
    }
}

impl Asked {
    fn by(mut self, agents: &[&str]) -> Asked {
        self.chain.agents = agents.iter().map(|name| agent(name)).collect();
        self
    }

    fn with(mut self, name: &str, value: &str) -> Asked {
        self.head = self.head.with(name, value);
        self
    }

    fn at(mut self, authority: &str) -> Asked {
        self.head.authority = authority.into();
        self
    }

    fn tool(mut self, name: &str) -> Asked {
        self.call = Call {
            protocol: Protocol::Mcp,
            rpc_method: Some("tools/call".into()),
            tool: Some(name.into()),
            body: Understood::Whole,
            ..Call::default()
        };
        self
    }

    fn token(mut self, subject: &str, issued: u64, ends: u64) -> Asked {
        let mut claims = Claims { principal: format!("iss/{subject}").into(), ..Claims::default() };
        claims.all.insert("iat".into(), issued.into());
        claims.all.insert("exp".into(), ends.into());
        self.claims = Some(Arc::new(claims));
        self
    }

    fn judged<R>(&self, plan: &Plan, look: impl FnOnce(&Judgement<'_>) -> R) -> R {
        let who = Who {
            principal: self.principal.as_ref(),
            claims: self.claims.as_ref(),
            chain: Some(&self.chain),
            unix: self.unix,
            ..Who::default()
        };
        let caller = caller(80);
        let asking = Asking { head: &self.head, call: &self.call, caller: &caller, who: &who };
        look(&plan.authorize(&asking))
    }

    /// The word of the refusal, or `ok`.
    fn word(&self, plan: &Plan) -> &'static str {
        self.judged(plan, |judgement| judgement.deny.as_ref().map_or("ok", |deny| deny.reason.word()))
    }

    fn detail(&self, plan: &Plan) -> String {
        self.judged(plan, |judgement| {
            judgement.deny.as_ref().and_then(|deny| deny.detail.as_deref()).unwrap_or_default().to_owned()
        })
    }

    fn need(&self, plan: &Plan) -> String {
        self.judged(plan, |judgement| format!("{} {}", judgement.permission, judgement.resource))
    }
}

fn routes(annotations: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: callee\n  annotations:\n{annotations}\nspec:\n  \
         hosts: [callee]\n  http:\n{rules}\n"
    ) + &service("callee", 80)
}

/// A policy with one role for `a`.
fn rbac(permissions: &str, resources: &str) -> String {
    format!(
        "apiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {{name: p}}\nspec:\n  authorization:\n    model: rbac\n    roles:\n    \
         - {{name: a, permissions: {permissions}, resources: {resources}}}\n"
    )
}

const CONVERSATIONS: &str = "    pilotfish.dev/permission.talk: nlp:process\n    pilotfish.dev/resource.talk: conversations/{id}\n    \
                             pilotfish.dev/classification.talk: public\n    pilotfish.dev/classification: public";
const TALK: &str = "  - name: talk\n    match: [{uri: {prefix: /v1/conversations/}}]\n    route: [{destination: {host: callee}}]\n  \
                    - name: rest\n    route: [{destination: {host: callee}}]";

#[test]
fn the_users_policy_is_enforced_as_written() {
    let plan = governed(&(USERS.to_owned() + &routes(CONVERSATIONS, TALK)));
    let talk = |from: &str| asks(from, "POST", "/v1/conversations/17/messages");
    assert_eq!(talk("conversation-agent").word(&plan), "ok");
    assert_eq!(talk("conversation-agent").need(&plan), "nlp:process conversations/17");
    assert_eq!(talk("admin-agent").word(&plan), "ok");
    assert_eq!(talk("stranger").word(&plan), "access-denied");
    let detail = talk("stranger").detail(&plan);
    assert!(
        detail.contains("agent default/stranger has no role that gives nlp:process on conversations/17"),
        "{detail}"
    );
    assert!(detail.contains("RoleBinding"), "{detail}");
    // Of `/` no resource is left by default.
    let root = governed(&rbac("['nlp:process']", "['conversations/*']"));
    let detail = asks("a", "GET", "/").detail(&root);
    assert!(detail.contains("no role that gives http:read on the path /;"), "{detail}");
    // Another permission than the role's.
    let other = asks("conversation-agent", "POST", "/admin");
    assert_eq!(other.word(&plan), "access-denied");
    assert!(
        other.detail(&plan).contains("http:write on admin; roles: conversation-agent"),
        "{}",
        other.detail(&plan)
    );
    assert_eq!(asks("admin-agent", "POST", "/admin").word(&plan), "ok");
    // Nobody, without and with a token.
    assert_eq!(talk("").word(&plan), "encryption-required");
    // The same name elsewhere is somebody else.
    assert_eq!(talk("other/conversation-agent").word(&plan), "access-denied");
    let mut foreign = talk("");
    foreign.principal = Some(in_domain("elsewhere.example", "default", "admin-agent"));
    assert_eq!(foreign.word(&plan), "access-denied");
    let governance = plan.governance();
    assert!(governance.audit_all && governance.log_access && governance.alert_on_anomalies);
    assert_eq!(governance.retention, Some(std::time::Duration::from_secs(90 * 86_400)));
    assert!(governance.encrypted && governance.tls13_only);
}

#[test]
fn what_has_no_class_is_refused_where_one_is_required() {
    let plan = governed(USERS);
    let call = asks("admin-agent", "POST", "/x");
    assert_eq!(call.word(&plan), "access-denied");
    assert!(call.detail(&plan).contains("pilotfish.dev/classification"), "{}", call.detail(&plan));
}

#[test]
fn a_caller_has_to_say_who_it_is() {
    let policy = |methods: &str| {
        let spec =
            format!("{{authentication: {{required: true, methods: {methods}, token_lifetime: 3600}}}}");
        governed(&format!("apiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"))
    };
    let both = policy("[certificate, oauth2]");
    let token = |issued, ends| asks("", "GET", "/").token("u", issued, ends);
    assert_eq!(asks("a", "GET", "/").word(&both), "ok");
    assert_eq!(asks("", "GET", "/").word(&both), "unauthenticated");
    assert_eq!(token(9_000, 12_000).word(&both), "ok");
    assert_eq!(token(9_000, 12_601).word(&both), "unauthenticated", "valid for longer than an hour");
    assert_eq!(token(6_000, 9_600).word(&both), "unauthenticated", "older than an hour");
    let mut without = token(9_000, 12_000);
    without.claims = Some(Arc::new(Claims { principal: "iss/u".into(), ..Claims::default() }));
    assert_eq!(without.word(&both), "unauthenticated");
    assert!(without.detail(&both).contains("(iat)"));
    assert_eq!(asks("a", "GET", "/").word(&policy("[oauth2]")), "unauthenticated");
    assert_eq!(token(9_000, 12_000).word(&policy("[certificate]")), "unauthenticated");
}

#[test]
fn each_policy_that_asks_who_calls_is_answered() {
    let policy = |name: &str, method: &str| {
        format!(
            "---\napiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {{name: {name}}}\nspec: {{authentication: {{required: true, \
             methods: [{method}]}}}}\n"
        )
    };
    let plan = governed(&(policy("p", "certificate") + &policy("q", "oauth2")));
    let token = |from: &str| asks(from, "GET", "/").token("u", 9_000, 12_000);
    assert_eq!(token("a").word(&plan), "ok", "both");
    assert_eq!(asks("a", "GET", "/").word(&plan), "unauthenticated");
    assert!(asks("a", "GET", "/").detail(&plan).contains("wants a token: the caller shows none"));
    assert_eq!(token("").word(&plan), "unauthenticated");
    assert!(token("").detail(&plan).contains("wants a certificate of the mesh"));
}

#[test]
fn plaintext_is_none_of_the_protocols_that_a_policy_names() {
    let policy = |spec: &str| {
        governed(&format!(
            "apiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {{name: p}}\nspec: {{communication: {spec}}}\n"
        ))
    };
    for (spec, refused) in [
        ("{encryption: required}", true),
        ("{protocols: [tls-1.3]}", true),
        ("{protocols: [mtls]}", true),
        ("{encryption: preferred, protocols: [tls-1.3]}", false),
        ("{encryption: preferred, protocols: [tls-1.3, mtls]}", true),
        ("{encryption: disabled}", false),
        ("{}", false),
    ] {
        let plan = policy(spec);
        let word = if refused { "encryption-required" } else { "ok" };
        assert_eq!(asks("", "GET", "/").word(&plan), word, "{spec}");
        assert_eq!(asks("a", "GET", "/").word(&plan), "ok", "{spec}");
        let outward = spec.contains("required") || spec.starts_with("{protocols");
        assert_eq!(plan.governance().encrypted, outward, "{spec}");
    }
}

#[test]
fn known_protocols_need_something_by_default() {
    let plan = governed(&rbac(
        "['mcp:call', 'a2a:send', 'model:invoke', 'http:read']",
        "['tools/search', 'skills/*', 'models/small/*', 'docs/*']",
    ));
    assert_eq!(asks("a", "POST", "/mcp").tool("search").word(&plan), "ok");
    assert_eq!(asks("a", "POST", "/mcp").tool("delete").word(&plan), "access-denied");
    for hostile in ["", "../search", "*", "search/../delete", "a\u{0}b"] {
        assert_eq!(asks("a", "POST", "/mcp").tool(hostile).word(&plan), "access-denied", "{hostile}");
    }
    let mut doubtful = asks("a", "POST", "/mcp").tool("search");
    doubtful.call.body = Understood::Doubtful;
    assert_eq!(doubtful.word(&plan), "not-decidable");
    let with = |call: Call| Asked { call, ..asks("a", "POST", "/") };
    let a2a = |method: &str, skill: Option<&str>| {
        with(Call {
            protocol: Protocol::A2a,
            rpc_method: Some(method.into()),
            skill: skill.map(Box::from),
            ..Call::default()
        })
    };
    assert_eq!(a2a("message/send", Some("translate")).word(&plan), "ok");
    assert_eq!(a2a("message/send", Some("translate")).need(&plan), "a2a:send skills/translate");
    assert_eq!(a2a("message/send", None).need(&plan), "a2a:send a2a/message/send");
    assert_eq!(a2a("tasks/get", Some("translate")).word(&plan), "access-denied");
    assert_eq!(a2a("tasks/cancel", None).need(&plan), "a2a:send a2a/tasks/cancel");
    let model =
        |name: &str| with(Call { protocol: Protocol::OpenAi, model: Some(name.into()), ..Call::default() });
    assert_eq!(model("small/one").word(&plan), "ok");
    assert_eq!(model("large").word(&plan), "access-denied");
    assert_eq!(asks("a", "GET", "/docs/x").word(&plan), "ok");
    assert_eq!(asks("a", "PUT", "/docs/x").need(&plan), "http:write docs/x");
    assert_eq!(asks("a", "PUT", "/docs/x").word(&plan), "access-denied");
    for hostile in
        ["/docs/../secret", "/docs/%2e%2e/secret", "/docs%2Fx", "/docs/..;/secret", "/docs//x", "/docs/%252e"]
    {
        assert_eq!(asks("a", "GET", hostile).word(&plan), "access-denied", "{hostile}");
    }
    assert!(plan.authz_reads_body());
}

#[test]
fn templates_take_one_safe_value() {
    let annotations = "    pilotfish.dev/permission: nlp:process\n    pilotfish.dev/resource.by-path: c/{path.2}\n    \
                       pilotfish.dev/resource.by-header: c/{header.x-conv}\n    pilotfish.dev/resource.by-body: c/{body.contextId}\n    \
                       pilotfish.dev/resource.named: c/{id}\n    pilotfish.dev/resource-path.named: /x/y/{id}";
    let rule = |name: &str, path: &str| {
        format!(
            "  - name: {name}\n    match: [{{uri: {{prefix: {path}}}}}]\n    route: [{{destination: {{host: callee}}}}]\n"
        )
    };
    let rules = rule("by-path", "/path/")
        + &rule("by-header", "/header")
        + &rule("by-body", "/body")
        + &rule("named", "/x/");
    let plan = governed(&(rbac("['nlp:*']", "['c/1']") + &routes(annotations, &rules)));
    assert_eq!(asks("a", "GET", "/path/1/more").word(&plan), "ok");
    for hostile in
        ["/path/2", "/path/", "/path", "/path/1%2f2", "/path/%2e%2e", "/path/..", "/path/*", "/path/1;2"]
    {
        assert_eq!(asks("a", "GET", hostile).word(&plan), "access-denied", "{hostile}");
    }
    assert_eq!(asks("a", "GET", "/header").with("x-conv", "1").word(&plan), "ok");
    assert_eq!(
        asks("a", "GET", "/header").with("x-conv", "1").with("x-conv", "1").word(&plan),
        "access-denied"
    );
    for hostile in ["", "2", "1/2", "..", "*", "1%2e", "1, 1"] {
        assert_eq!(
            asks("a", "GET", "/header").with("x-conv", hostile).word(&plan),
            "access-denied",
            "{hostile}"
        );
    }
    let mut body = asks("a", "POST", "/body");
    assert_eq!(body.word(&plan), "access-denied", "there is none");
    body.call.context_id = Some("1".into());
    assert_eq!(body.word(&plan), "ok");
    body.call.body = Understood::Doubtful;
    assert_eq!(body.word(&plan), "not-decidable");
    assert_eq!(asks("a", "GET", "/x/y/1").word(&plan), "ok");
    assert_eq!(asks("a", "GET", "/x/y/2").word(&plan), "access-denied");
}

#[test]
fn an_id_after_its_segment_is_there_once() {
    let annotations =
        "    pilotfish.dev/permission: nlp:process\n    pilotfish.dev/resource: conversations/{id}";
    let plan = governed(
        &(rbac("['nlp:process']", "['conversations/1']")
            + &routes(annotations, "  - route: [{destination: {host: callee}}]")),
    );
    let get = |path: &str| asks("a", "GET", path).word(&plan);
    assert_eq!(get("/v1/conversations/1"), "ok");
    assert_eq!(get("/conversations/1/messages"), "ok");
    for hostile in [
        "/conversations/1/conversations/2",
        "/conversations/conversations/1",
        "/conversations",
        "/conversations/",
        "/v1/1",
        "/Conversations/1",
    ] {
        assert_eq!(get(hostile), "access-denied", "{hostile}");
    }
}

#[test]
fn another_host_is_no_way_around_what_routes_declare() {
    let annotations = "    pilotfish.dev/permission: nlp:process";
    let plan = governed(
        &(rbac("['http:*']", "['*']") + &routes(annotations, "  - route: [{destination: {host: callee}}]")),
    );
    for host in [
        "callee",
        "callee:80",
        "CALLEE.default",
        "callee.default.svc.cluster.local.",
        "elsewhere",
        "127.0.0.1",
        "",
    ] {
        assert_eq!(
            asks("a", "GET", "/").at(host).need(&plan).split(' ').next(),
            Some("nlp:process"),
            "{host}"
        );
    }
}

#[test]
fn what_a_rule_asks_for_cannot_be_hidden_from_it() {
    let annotations = "    pilotfish.dev/permission.wipe: x:wipe\n    pilotfish.dev/permission.rest: x:read\n    \
                       pilotfish.dev/resource.wipe: all\n    pilotfish.dev/resource.rest: all";
    let plan = |condition: &str| {
        let rules = format!(
            "  - name: wipe\n    match: [{condition}]\n    route: [{{destination: {{host: callee}}}}]\n  - name: rest\n    route: \
             [{{destination: {{host: callee}}}}]"
        );
        governed(&(rbac("['x:read']", "['*']") + &routes(annotations, &rules)))
    };
    let with = |lines: &[&str]| {
        let mut asked = asks("a", "GET", "/");
        asked.head.headers.extend(lines.iter().map(|value| ("x-op".into(), (*value).into())));
        asked
    };
    let header = plan("{headers: {x-op: {exact: wipe}}}");
    for lines in [&["wipe"][..], &["wipe", "x"], &["x", "wipe"], &["x,wipe"], &["wipe,"]] {
        assert_eq!(with(lines).word(&header), "access-denied", "{lines:?}");
    }
    for lines in [&[][..], &["x"], &["x", "y"], &["x,y"], &["wiper"]] {
        assert_eq!(with(lines).word(&header), "ok", "{lines:?}");
    }
    assert!(
        header.decisive_headers().iter().any(|name| **name == *"x-op"),
        "nothing that looks like it goes on"
    );
    let without = plan("{withoutHeaders: {x-op: {exact: read}}}");
    for lines in [&[][..], &["x"], &["read", "x"], &["read,x"]] {
        assert_eq!(with(lines).word(&without), "access-denied", "{lines:?}");
    }
    assert_eq!(with(&["read"]).word(&without), "ok");
    let query = plan("{queryParams: {op: {exact: wipe}}}");
    for target in
        ["/?op=wipe", "/?op=x&op=wipe", "/?op=wipe&op=x", "/?%6fp=wipe", "/?op=%77ipe", "/?a&op=wipe"]
    {
        assert_eq!(asks("a", "GET", target).word(&query), "access-denied", "{target}");
    }
    for target in ["/", "/?op=x", "/?op=wiper", "/?oop=wipe", "/?op"] {
        assert_eq!(asks("a", "GET", target).word(&query), "ok", "{target}");
    }
    let method = plan("{method: {exact: DELETE}}");
    assert_eq!(asks("a", "DELETE", "/").word(&method), "access-denied");
    assert_eq!(asks("a", "Delete", "/").word(&method), "access-denied");
    assert_eq!(asks("a", "GET", "/").word(&method), "ok");
    // Where there are several, a rule that is met by the first hides none of those after it.
    let prefix = plan("{uri: {prefix: /x}}, {headers: {x-op: {prefix: wi}}}");
    assert_eq!(with(&["wi", "x"]).word(&prefix), "access-denied");
}

#[test]
fn rules_that_ask_who_calls_or_change_the_path_do_not_hide_those_after_them() {
    let annotations = "    pilotfish.dev/permission.low: a:low\n    pilotfish.dev/permission.moved: a:moved\n    pilotfish.dev/permission.high: a:high";
    let rules = "  - name: low\n    match: [{uri: {prefix: /x}, sourceLabels: {app: trusted}}]\n    route: [{destination: {host: callee}}]\n  \
                 - name: moved\n    match: [{uri: {prefix: /chat}}]\n    rewrite: {uri: /y}\n    route: [{destination: {host: callee}}]\n  \
                 - name: high\n    match: [{uri: {prefix: /x}}, {uri: {prefix: /y}}]\n    route: [{destination: {host: callee}}]";
    let plan = |permissions: &str| governed(&(rbac(permissions, "['*']") + &routes(annotations, rules)));
    let low = plan("['a:low', 'a:moved']");
    assert_eq!(asks("a", "GET", "/x").word(&low), "access-denied");
    assert_eq!(asks("a", "GET", "/y").word(&low), "access-denied");
    assert_eq!(asks("a", "GET", "/x").word(&plan("['a:low', 'a:high']")), "ok");
    assert_eq!(asks("a", "GET", "/y").word(&plan("['a:moved', 'a:high']")), "ok");
}

#[test]
fn capabilities_declare_and_a_header_does_not_replace_the_body() {
    let cluster = "---\napiVersion: v1\nkind: AgentCluster\nmetadata:\n  name: c\n  annotations:\n    \
                   pilotfish.dev/permission.translate: nlp:process\n    pilotfish.dev/permission.callee: agent:use\nspec:\n  agents:\n  \
                   - {name: callee, capabilities: [translate, other]}\n";
    let plan = governed(&(rbac("['nlp:process', 'agent:use']", "['*']") + cluster));
    let named = |capability: &str| {
        let mut asked = asks("a", "POST", "/");
        asked.call.capabilities.push(capability.into());
        asked
    };
    assert_eq!(named("Translate@1").need(&plan), "nlp:process ");
    assert_eq!(named("other").need(&plan), "agent:use ");
    assert_eq!(asks("a", "POST", "/").need(&plan), "agent:use ");
    let mut both = named("translate").tool("delete");
    both.call.capabilities.push("translate".into());
    assert_eq!(both.word(&plan), "access-denied", "the tool counts too");
    let mut skill = named("other");
    skill.call = Call {
        protocol: Protocol::A2a,
        rpc_method: Some("message/send".into()),
        skill: Some("translate".into()),
        ..Call::default()
    };
    assert_eq!(skill.need(&plan), "nlp:process ");
}

#[test]
fn others_documents_declare_nothing() {
    let theirs = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: v\n  namespace: evil\n  annotations: \
                  {pilotfish.dev/permission: a:free}\nspec:\n  hosts: [callee.default.svc.cluster.local]\n  http:\n  - route: [{destination: {host: \
                  callee.default.svc.cluster.local}}]\n";
    let plan = governed(&(rbac("['a:free']", "['*']") + theirs + &service("callee", 80)));
    assert_eq!(asks("a", "GET", "/x").need(&plan), "http:read x");
}

#[test]
fn roles_are_given_by_name_and_by_bindings() {
    let binding = |namespace: &str, rest: &str| {
        format!(
            "---\napiVersion: pilotfish.dev/v1\nkind: RoleBinding\nmetadata: {{name: b{}, namespace: {namespace}}}\nspec: {rest}\n",
            rest.len()
        )
    };
    let yaml = rbac("['http:*']", "['*']")
        + &binding("default", "{role: a, subjects: [{agent: b}, {agent: c, namespace: other}]}")
        + &binding(
            "default",
            "{role: a, subjects: [{principal: 'cluster.local/ns/default/sa/d'}, {principal: 'partner.example/ns/*'}]}",
        )
        + &binding("default", "{role: a, policy: p, subjects: [{requestPrincipal: 'iss/user-*'}]}")
        + &binding("pilotfish-system", "{role: a, subjects: [{agent: root}]}")
        + &binding("evil", "{role: a, subjects: [{agent: e}, {agent: f, namespace: default}]}");
    let plan = governed(&yaml);
    for good in ["a", "b", "other/c", "d", "pilotfish-system/root"] {
        assert_eq!(asks(good, "GET", "/").word(&plan), "ok", "{good}");
    }
    for bad in ["c", "other/a", "other/b", "evil/e", "f", "pilotfish-system/a"] {
        assert_eq!(asks(bad, "GET", "/").word(&plan), "access-denied", "{bad}");
    }
    let mut partner = asks("", "GET", "/");
    partner.principal = Some(in_domain("partner.example", "x", "y"));
    assert_eq!(partner.word(&plan), "ok");
    partner.principal = Some(in_domain("partner.example.evil", "x", "y"));
    assert_eq!(partner.word(&plan), "access-denied");
    assert_eq!(asks("", "GET", "/").token("user-1", 0, 1).word(&plan), "ok");
    assert_eq!(asks("", "GET", "/").token("root", 0, 1).word(&plan), "access-denied");
}

#[test]
fn namespaces_that_are_called_as_the_words_of_identities() {
    let to = |principal: &str| {
        rbac("['http:*']", "['*']")
            + "---\napiVersion: pilotfish.dev/v1\nkind: RoleBinding\nmetadata: {name: b, namespace: default}\nspec: {role: a, subjects: \
               [{principal: '"
            + principal
            + "'}]}\n"
    };
    for (principal, who, word) in [
        ("cluster.local/ns/sa/sa/x", "sa/x", "ok"),
        ("cluster.local/ns/sa/agent/x", "sa/x", "ok"),
        ("cluster.local/ns/sa/sa/x", "agent/x", "access-denied"),
        ("cluster.local/ns/agent/agent/x", "sa/x", "access-denied"),
        ("cluster.local/ns/agent/agent/x", "agent/x", "ok"),
        ("cluster.local/ns/sa/sa/*", "sa/x", "ok"),
        ("*/sa/x", "sa/x", "ok"),
        ("*/sa/sa/x", "sa/x", "ok"),
        ("*/sa/x", "sa/y", "access-denied"),
    ] {
        assert_eq!(asks(who, "GET", "/").word(&governed(&to(principal))), word, "{principal} {who}");
    }
}

#[test]
fn a_root_policy_names_agents_with_their_namespace() {
    let policy = "apiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {name: p, namespace: pilotfish-system}\nspec:\n  authorization:\n    \
                  roles:\n    - {name: a, permissions: ['*:*'], resources: ['*']}\n    - {name: default/b, permissions: ['*:*'], resources: ['*']}\n";
    let plan = governed(policy);
    assert_eq!(asks("default/a", "GET", "/").word(&plan), "access-denied");
    assert_eq!(asks("pilotfish-system/a", "GET", "/").word(&plan), "ok");
    assert_eq!(asks("default/b", "GET", "/").word(&plan), "ok");
}

#[test]
fn permissions_only_shrink_along_a_chain() {
    let plan = governed(&(USERS.to_owned() + &routes(CONVERSATIONS, TALK)));
    let talk = |from: &str| asks(from, "POST", "/v1/conversations/17");
    assert_eq!(talk("admin-agent").by(&["conversation-agent"]).word(&plan), "ok");
    assert_eq!(talk("admin-agent").by(&["stranger"]).word(&plan), "access-denied");
    let detail = talk("admin-agent").by(&["admin-agent", "stranger"]).detail(&plan);
    assert!(
        detail.contains("agent default/stranger has no role") && detail.contains("acts for it"),
        "{detail}"
    );
    assert_eq!(
        asks("admin-agent", "POST", "/admin").by(&["conversation-agent"]).word(&plan),
        "access-denied"
    );
    assert_eq!(asks("admin-agent", "POST", "/admin").by(&["admin-agent"]).word(&plan), "ok");
}

#[test]
fn clearance_is_the_highest_of_the_roles_and_the_lowest_of_the_chain() {
    let policy = "apiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {name: p}\nspec:\n  authorization:\n    roles:\n    \
                  - {name: low, permissions: ['http:*'], resources: ['*']}\n    \
                  - {name: mid, permissions: ['http:*'], resources: ['*'], clearance: internal}\n    \
                  - {name: all, permissions: ['*:*'], resources: ['*']}\n  data_access:\n    access_levels: [public, internal, secret]\n    \
                  classifications: {'docs/*': public, 'docs/in-*': internal, 'docs/in-secret*': secret}\n\
                  ---\napiVersion: pilotfish.dev/v1\nkind: RoleBinding\nmetadata: {name: b}\nspec: {role: mid, subjects: [{agent: low2}]}\n";
    let plan = governed(policy);
    let get = |from: &str, path: &str| asks(from, "GET", path);
    assert_eq!(get("low", "/docs/a").word(&plan), "ok");
    assert_eq!(get("low", "/docs/in-a").word(&plan), "classified");
    assert_eq!(get("low", "/docs/%69n-a").word(&plan), "classified", "however it is written");
    assert_eq!(get("mid", "/docs/in-a").word(&plan), "ok");
    assert_eq!(get("mid", "/docs/in-secret").word(&plan), "classified");
    assert_eq!(get("all", "/docs/in-secret").word(&plan), "ok");
    assert_eq!(get("all", "/docs/in-secret").by(&["mid"]).word(&plan), "classified");
    assert_eq!(get("all", "/other").word(&plan), "ok", "nothing requires a class");
    let clearance = |asked: Asked| asked.judged(&plan, |judgement| judgement.clearance);
    assert_eq!(clearance(get("low2", "/docs/in-a").by(&[])), Some(1));
    assert_eq!(clearance(get("all", "/docs/a").by(&["mid", "low"])), Some(0));
    assert!(
        get("mid", "/docs/in-secret")
            .detail(&plan)
            .contains("this is secret, and agent default/mid may see what is internal at most")
    );
    assert_eq!(plan.governance().level("Internal"), 1);
    assert_eq!(plan.governance().level("cosmic"), 2, "an unknown class is the highest");
}

#[test]
fn a_thousand_roles_cost_what_one_does() {
    use std::fmt::Write as _;
    let mut yaml = String::from(
        "apiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {name: p}\nspec:\n  authorization:\n    roles:\n",
    );
    for n in 0..10_000 {
        let _ = writeln!(
            yaml,
            "    - {{name: agent-{n}, permissions: ['nlp:process', 'http:read'], resources: ['c/{n}/*', 'public/*']}}"
        );
    }
    let plan = governed(&yaml);
    assert_eq!(asks("agent-9999", "GET", "/c/9999/x").word(&plan), "ok");
    assert_eq!(asks("agent-9998", "GET", "/c/9999/x").word(&plan), "access-denied");
}
