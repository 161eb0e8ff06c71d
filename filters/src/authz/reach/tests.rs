//! `Yes` and `No` hold for every call; and where they are expected, they are said.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fastrand::Rng;
use pilotfish_config::{Options, load_texts};
use serde_json::json;

use super::*;
use crate::authz::{Principal, Who};
use crate::call::test_head::TestHead;
use crate::call::{Call, Caller, Protocol, Understood};
use crate::clock::Micros;
use crate::compile::{CompileOptions, Resolved, compile};
use crate::explain::authz::claims;
use crate::state::State;

fn plan(yaml: &str) -> Plan {
    let loaded = load_texts(&[("test.yaml", yaml)], &Options::default());
    let model = loaded.model.unwrap_or_else(|| panic!("{}\n{yaml}", loaded.report));
    let options = CompileOptions {
        agent: "callee".into(),
        namespace: "foo".into(),
        trust_domain: Some("mesh".into()),
        ..CompileOptions::default()
    };
    compile(&model, &options, &Resolved::default(), &State::with_seed(1), Micros(0)).unwrap()
}

fn caller(name: &str) -> Principal {
    Principal {
        id: format!("mesh/ns/foo/agent/{name}").into(),
        trust_domain: "mesh".into(),
        namespace: Some("foo".into()),
        name: Some(name.into()),
    }
}

fn pick<'a>(rng: &mut Rng, all: &[&'a str]) -> &'a str {
    all[rng.usize(..all.len())]
}

const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
const PATHS: [&str; 4] = ["/a", "/a/b", "/b", "/c"];
const TEAMS: [&str; 3] = ["red", "blue", ""];
const TOOLS: [&str; 3] = ["read", "write", ""];
const AGENTS: [&str; 3] = ["one", "two", "three"];

/// A field, or nothing.
fn field(rng: &mut Rng, name: &str, values: &[&str]) -> String {
    let list = |rng: &mut Rng| {
        let count = rng.usize(1..3);
        (0..count).map(|_| format!("'{}'", pick(rng, values))).collect::<Vec<_>>().join(", ")
    };
    let not = format!("not{}{}", name[..1].to_uppercase(), &name[1..]);
    match rng.u8(..6) {
        0 | 1 => format!("{name}: [{}], ", list(rng)),
        2 => format!("{not}: [{}], ", list(rng)),
        3 => format!("{name}: [{}], {not}: [{}], ", list(rng), list(rng)),
        _ => String::new(),
    }
}

fn policy(rng: &mut Rng, number: usize) -> String {
    let action = pick(rng, &["ALLOW", "ALLOW", "DENY", "AUDIT"]);
    let mut text = format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{number}, namespace: foo}}\nspec:\n  \
         action: {action}\n  rules:\n"
    );
    for _ in 0..rng.usize(1..3) {
        let principals = ["mesh/ns/foo/agent/one", "cluster.local/ns/foo/sa/two", "*/three", "*"];
        let from =
            field(rng, "principals", &principals) + &field(rng, "ipBlocks", &["10.0.0.0/8", "10.0.0.1"]);
        let to = field(rng, "methods", &METHODS)
            + &field(rng, "paths", &["/a", "/a/*", "*", "/{*}/b"])
            + &field(rng, "ports", &["80", "81"]);
        let mut when = Vec::new();
        for (key, values) in [
            ("request.headers[x-team]", &["red", "*", "b*"][..]),
            ("pilotfish.mcp.tool", &["read", "*"]),
            ("request.auth.claims[groups]", &["admin"]),
            ("pilotfish.delegation.depth", &["0", ">=1"]),
        ] {
            if rng.u8(..5) == 0 {
                let name = pick(rng, &["values", "notValues"]);
                when.push(format!("{{key: '{key}', {name}: ['{}']}}", pick(rng, values)));
            }
        }
        let mut rule = Vec::new();
        if !from.is_empty() {
            rule.push(format!("from: [{{source: {{{from}}}}}]"));
        }
        if !to.is_empty() {
            rule.push(format!("to: [{{operation: {{{to}}}}}]"));
        }
        if !when.is_empty() {
            rule.push(format!("when: [{}]", when.join(", ")));
        }
        text += &format!("  - {{{}}}\n", rule.join(", "));
    }
    text
}

fn roles(rng: &mut Rng) -> String {
    let mut text = String::from(
        "---\napiVersion: pilotfish.dev/v1\nkind: AgentSecurityPolicy\nmetadata: {name: roles, namespace: foo}\nspec:\n  authorization:\n    \
         model: rbac\n    roles:\n",
    );
    for name in ["one", "two"] {
        let permission = pick(rng, &["'*:*'", "http:read", "'http:*'", "mcp:call"]);
        let resource = pick(rng, &["'*'", "a", "'a/*'", "tools/read"]);
        text += &format!("    - {{name: {name}, permissions: [{permission}], resources: [{resource}]}}\n");
    }
    text
}

/// What is not known of a call.
struct Rest {
    head: TestHead,
    call: Call,
    ip: IpAddr,
    claims: Option<Arc<crate::authz::Claims>>,
    destination: Option<SocketAddr>,
}

fn any_call(rng: &mut Rng) -> Rest {
    let mut head = TestHead {
        method: pick(rng, &METHODS).into(),
        ..TestHead::get("http", "callee.foo", pick(rng, &PATHS))
    };
    let team = pick(rng, &TEAMS);
    if !team.is_empty() {
        head = head.with("x-team", team);
    }
    let tool = pick(rng, &TOOLS);
    let call = match tool {
        "" => Call::default(),
        tool => Call {
            protocol: Protocol::Mcp,
            rpc_method: Some("tools/call".into()),
            tool: Some(tool.into()),
            body: if rng.u8(..4) == 0 { Understood::Doubtful } else { Understood::Whole },
            ..Call::default()
        },
    };
    let token = |groups: &str| {
        Arc::new(claims(
            json!({"iss": "i", "sub": "s", "groups": [groups]}).as_object().cloned().unwrap_or_default(),
        ))
    };
    Rest {
        head,
        call,
        ip: if rng.bool() { [10, 0, 0, 1] } else { [192, 168, 0, 1] }.into(),
        claims: rng.bool().then(|| token(["admin", "other"][rng.usize(..2)])),
        destination: rng.bool().then(|| SocketAddr::from(([127, 0, 0, 1], 80 + u16::from(rng.bool())))),
    }
}

fn who<'a>(principal: &'a Principal, rest: &'a Rest) -> Who<'a> {
    Who {
        principal: Some(principal),
        claims: rest.claims.as_ref(),
        destination: rest.destination,
        ..Who::default()
    }
}

#[test]
fn what_is_said_of_all_calls_holds_for_each() {
    let mut said = [0; 3];
    for seed in 0..400 {
        let mut rng = Rng::with_seed(seed);
        let mut yaml: String = (0..rng.usize(1..4)).map(|number| policy(&mut rng, number)).collect();
        if rng.u8(..3) == 0 {
            yaml += &roles(&mut rng);
        }
        let plan = plan(&yaml);
        for name in AGENTS {
            let principal = caller(name);
            let model = any_call(&mut rng);
            let fixed = rng.u8(..8);
            let (method, path, call) = (fixed & 1 > 0, fixed & 2 > 0, fixed & 4 > 0);
            let caller = Caller { ip: model.ip, port: 80 };
            let own = Who { principal: Some(&principal), ..Who::default() };
            let asking = Asking { head: &model.head, call: &model.call, caller: &caller, who: &own };
            let (reach, _) = plan.reach(&Known { asking: &asking, method, path, call });
            said[reach as usize] += 1;
            for _ in 0..40 {
                let mut rest = any_call(&mut rng);
                if method {
                    rest.head.method.clone_from(&model.head.method);
                }
                if path {
                    rest.head.target.clone_from(&model.head.target);
                }
                if call {
                    rest.call = model.call.clone();
                }
                let caller = Caller { ip: rest.ip, port: 80 };
                let who = who(&principal, &rest);
                let asking = Asking { head: &rest.head, call: &rest.call, caller: &caller, who: &who };
                let judged = plan.authorize(&asking);
                let same = match reach {
                    Reach::Yes => judged.deny.is_none(),
                    Reach::No => judged.deny.is_some(),
                    Reach::Some => true,
                };
                assert!(
                    same,
                    "seed {seed}, {name}: {reach:?}, yet {judged:?} for {:?} {:?}\n{yaml}",
                    rest.head, rest.call
                );
            }
        }
    }
    assert!(said.iter().all(|count| *count > 50), "{said:?}");
}

#[test]
fn what_is_certain_is_said() {
    let policy = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: foo}}\nspec: {spec}\n"
        )
    };
    let reach = |yaml: &str, name: &str| {
        let (principal, head, call) =
            (caller(name), TestHead::get("http", "callee.foo", "/a"), Call::default());
        let peer = Caller { ip: [10, 0, 0, 1].into(), port: 80 };
        let who = Who { principal: Some(&principal), ..Who::default() };
        let asking = Asking { head: &head, call: &call, caller: &peer, who: &who };
        plan(yaml).reach(&Known { asking: &asking, method: false, path: false, call: false }).0
    };
    assert_eq!(reach("", "one"), Reach::Yes);
    assert_eq!(reach(&policy("{}"), "one"), Reach::No);
    let one = policy("{rules: [{from: [{source: {principals: [mesh/ns/foo/sa/one]}}]}]}");
    assert_eq!((reach(&one, "one"), reach(&one, "two")), (Reach::Yes, Reach::No));
    let get =
        policy("{rules: [{from: [{source: {principals: ['*/one']}}], to: [{operation: {methods: [GET]}}]}]}");
    assert_eq!((reach(&get, "one"), reach(&get, "two")), (Reach::Some, Reach::No));
    let deny = policy("{action: DENY, rules: [{from: [{source: {notPrincipals: ['*/one']}}]}]}");
    assert_eq!((reach(&deny, "one"), reach(&deny, "two")), (Reach::Yes, Reach::No));
}
