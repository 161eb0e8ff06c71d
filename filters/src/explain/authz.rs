//! Whether a call would be allowed, and why: decided by the code that decides in sidecars, told with what the documents say.

use pilotfish_config::model::{AuthorizationAction, AuthorizationPolicy, Model};
use serde_json::{Map, Value};

use crate::authz::policies::condition::Within;
use crate::authz::policies::near::{Misfit, misfits};
use crate::authz::{Asking, Claims, Principal};
use crate::call::Call;
use crate::compile::{CompileOptions, written};
use crate::plan::Plan;

/// So many policies are told of.
const MOST: usize = 50;

/// What would become of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Whether it is allowed, external authorizers apart.
    pub allowed: bool,
    /// The refusal's word, `access-denied`.
    pub reason: Option<String>,
    /// Its HTTP status.
    pub status: Option<u16>,
    /// Why, for a person.
    pub detail: Option<String>,
    /// The policy and rule that decided; empty: no policy is for the callee.
    pub by: String,
    /// Where that policy is written, `file:line:column`.
    pub written: Option<String>,
    /// The AuthorizationProvider that is asked first, by which policy, and whether that is a dry run.
    pub asks: Option<(String, String, bool)>,
    /// The dry run that would decide otherwise.
    pub dry_run: Option<String>,
    /// Whether the decision is recorded even when it allows.
    pub audit: bool,
    /// The permission that the call needs, when permissions are asked for.
    pub permission: Option<String>,
    /// On which resource.
    pub resource: Option<String>,
    /// The class of what it asks for.
    pub class: Option<String>,
    /// The highest class that the caller may get.
    pub clearance: Option<String>,
    /// The caller's roles, each with whether it gives the permission.
    pub roles: Vec<(String, bool)>,
    /// Every AuthorizationPolicy that is for the callee.
    pub policies: Vec<PolicySays>,
    /// What to write so that the call is allowed.
    pub advice: Option<String>,
}

/// What one policy says of the call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicySays {
    /// `namespace/name`.
    pub policy: String,
    /// `ALLOW`, `DENY`, `AUDIT`, `CUSTOM`.
    pub action: &'static str,
    /// It is only recorded.
    pub dry_run: bool,
    /// Where it is written.
    pub written: String,
    /// The first rule that matches, from 1.
    pub rule: Option<usize>,
    /// Otherwise the rule that nearly does, and what does not fit.
    pub near: Option<(usize, Vec<String>)>,
    /// Why it cannot be compiled.
    pub broken: Option<String>,
}

/// Explains the decision of the sidecar with this plan, which was compiled of `model` with `options`.
pub fn explain(plan: &Plan, model: &Model, options: &CompileOptions, asking: &Asking<'_>) -> Told {
    let judgement = plan.authorize(asking);
    let governance = plan.governance();
    let class = |class: usize| governance.level_name(class).to_owned();
    let own: Vec<&AuthorizationPolicy> = written(model, options, &mut Vec::new());
    let mut told = Told {
        allowed: judgement.deny.is_none(),
        reason: judgement.deny.as_ref().map(|deny| deny.reason.word().to_owned()),
        status: judgement.deny.as_ref().map(|deny| deny.reason.status()),
        detail: judgement.deny.as_ref().and_then(|deny| deny.detail.as_deref()).map(str::to_owned),
        by: judgement.by.to_string(),
        asks: plan.custom(asking).map(|own| (own.provider.to_owned(), own.by.to_owned(), own.dry_run)),
        dry_run: judgement.dry_run.as_deref().map(str::to_owned),
        audit: judgement.audit,
        permission: some(&judgement.permission),
        resource: some(&judgement.resource),
        class: judgement.class.map(class),
        clearance: judgement.clearance.map(class),
        policies: own.iter().take(MOST).map(|policy| says(policy, options, asking)).collect(),
        ..Told::default()
    };
    told.written = place(&told.by, &own, model);
    if let Some(principal) = asking.who.principal.filter(|_| governance.is_rbac()) {
        // Without a need nothing was weighed: an AuthorizationPolicy refused before.
        if let Some(permission) = &told.permission {
            let giving = governance.roles_giving(principal, permission, &judgement.resource);
            let roles = governance.roles_of(principal).into_iter();
            told.roles = roles.map(|role| (role.to_owned(), giving.contains(&role))).collect();
        }
    }
    told.advice = judgement.deny.is_some().then(|| advice(&told, asking)).flatten();
    told
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Where the first policy that decided is written.
fn place(by: &str, own: &[&AuthorizationPolicy], model: &Model) -> Option<String> {
    let name = by.split([' ', ',']).next().filter(|name| !name.is_empty())?;
    let is =
        |meta: &&pilotfish_config::model::Meta| name.split_once('/') == Some((meta.namespace(), meta.name()));
    let rules = own.iter().map(|policy| &policy.meta);
    let roles = model.agent_security_policies.iter().map(|policy| &policy.meta);
    rules.chain(roles).find(is).map(|meta| meta.source.to_string())
}

fn says(policy: &AuthorizationPolicy, options: &CompileOptions, asking: &Asking<'_>) -> PolicySays {
    let action = match policy.action {
        AuthorizationAction::Allow => "ALLOW",
        AuthorizationAction::Deny => "DENY",
        AuthorizationAction::Audit => "AUDIT",
        AuthorizationAction::Custom => "CUSTOM",
    };
    let mut says = PolicySays {
        policy: format!("{}/{}", policy.meta.namespace(), policy.meta.name()),
        action,
        dry_run: policy.is_dry_run(),
        written: policy.meta.source.to_string(),
        ..PolicySays::default()
    };
    let within = Within { namespace: policy.meta.namespace(), trust_domain: options.trust_domain.as_deref() };
    let refuses = policy.action != AuthorizationAction::Allow;
    let mut near: Option<(usize, Vec<Misfit>)> = None;
    for (at, rule) in policy.rules.iter().enumerate() {
        match misfits(rule, within, asking, refuses) {
            Err(why) => says.broken = Some(format!("rules[{at}]: {why}")),
            Ok(none) if none.is_empty() => {
                says.rule.get_or_insert(at + 1);
            }
            Ok(some) if near.as_ref().is_none_or(|(_, known)| distance(&some) < distance(known)) => {
                near = Some((at + 1, some));
            }
            Ok(_) => {}
        }
    }
    says.near = near
        .filter(|_| says.rule.is_none())
        .map(|(rule, misfits)| (rule, misfits.iter().map(|misfit| sentence(misfit, asking)).collect()));
    says
}

/// A rule that names the caller is nearer than one that names another: its author thought of this caller.
fn distance(misfits: &[Misfit]) -> (usize, usize) {
    let others =
        |misfit: &&Misfit| matches!(misfit.what.as_str(), "principal" | "namespace" | "service account");
    (misfits.iter().filter(others).count(), misfits.len())
}

/// `method: it wants GET, and this is POST`
fn sentence(misfit: &Misfit, asking: &Asking<'_>) -> String {
    let principal = asking.who.principal;
    let is = match misfit.what.as_str() {
        "method" => Some(asking.head.method().to_owned()),
        "path" => Some(asking.head.path().to_owned()),
        "host" => Some(asking.head.authority().to_owned()),
        "principal" | "source.principal" => principal.map(|own| own.id.to_string()),
        "namespace" | "source.namespace" => {
            principal.and_then(|own| own.namespace.as_deref()).map(str::to_owned)
        }
        "trust domain" | "source.trustDomain" => principal.map(|own| own.trust_domain.to_string()),
        "service account" | "source.serviceAccount" => {
            principal.and_then(|own| own.name.as_deref()).map(str::to_owned)
        }
        "address" | "source.ip" => Some(asking.caller.ip.to_string()),
        "port" | "destination.port" => asking.who.destination.map(|own| own.port().to_string()),
        "pilotfish.mcp.tool" => tool(asking.call).map(str::to_owned),
        "pilotfish.a2a.skill" => asking.call.skill.as_deref().map(str::to_owned),
        "pilotfish.model" => asking.call.model.as_deref().map(str::to_owned),
        "pilotfish.delegation.depth" => Some(asking.who.chain.map_or(0, |own| own.agents.len()).to_string()),
        _ => None,
    };
    match is {
        Some(is) => format!("{}: {}, and this is {is}", misfit.what, misfit.wants),
        None => format!("{}: {}, and the call has none that fits", misfit.what, misfit.wants),
    }
}

/// What would let it through.
fn advice(told: &Told, asking: &Asking<'_>) -> Option<String> {
    let who = asking.who.principal?;
    if let Some(refusing) =
        told.policies.iter().find(|own| own.action == "DENY" && !own.dry_run && own.rule.is_some())
    {
        return Some(format!(
            "DENY comes before every ALLOW: narrow rule {} of {} ({}), with `notPrincipals` for instance",
            refusing.rule.unwrap_or_default(),
            refusing.policy,
            refusing.written
        ));
    }
    if let Some(broken) = told.policies.iter().find(|own| own.broken.is_some() && !own.dry_run) {
        return Some(format!("mend {} ({}): it cannot be enforced", broken.policy, broken.written));
    }
    if let Some(permission) = &told.permission {
        if told.roles.iter().any(|(_, gives)| *gives) {
            return None;
        }
        let Some(resource) = told.resource.as_deref() else {
            return Some(format!(
                "let the call say on what: `pilotfish.dev/resource` on its VirtualService says what to take from it; only a role with \
                 {permission} on all resources (`*`) needs nothing"
            ));
        };
        return Some(format!(
            "write a role with permissions [\"{permission}\"] and resources [\"{resource}\"] into {}, called `{}` or bound by a \
             RoleBinding to the agent {}",
            told.by,
            who.name.as_deref().unwrap_or("NAME"),
            agent(who)
        ));
    }
    let allows =
        told.policies.iter().any(|own| own.action == "ALLOW" && !own.dry_run) || told.by == "--default-deny";
    allows.then(|| {
        format!(
            "add to an ALLOW policy for this agent the rule {{from: [{{source: {{principals: [\"{}\"]}}}}], to: [{{operation: {{methods: \
             [\"{}\"], paths: [\"{}\"]}}}}]{}}}",
            who.id,
            asking.head.method(),
            asking.head.path(),
            only(asking.call)
        )
    })
}

/// The conditions with which a rule lets in no more than this call: a path alone has all tools, skills and models on it.
fn only(call: &Call) -> String {
    let says = [
        ("pilotfish.mcp.tool", tool(call)),
        ("pilotfish.a2a.skill", call.skill.as_deref()),
        ("pilotfish.model", call.model.as_deref()),
    ];
    let conditions: Vec<String> = says
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{{key: {key}, values: [{}]}}", Value::from(value?))))
        .collect();
    if conditions.is_empty() { String::new() } else { format!(", when: [{}]", conditions.join(", ")) }
}

/// The tool that is called; prompts and resources have names too.
fn tool(call: &Call) -> Option<&str> {
    call.tool.as_deref().filter(|_| call.rpc_method.as_deref() == Some("tools/call"))
}

fn agent(who: &Principal) -> String {
    match (&who.namespace, &who.name) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => who.id.to_string(),
    }
}

/// What a token's payload says, taken at its word: nothing is verified here.
pub fn claims(payload: Map<String, Value>) -> Claims {
    let text = |name: &str| payload.get(name).and_then(Value::as_str);
    let principal = match (text("iss"), text("sub")) {
        (Some(issuer), Some(subject)) => format!("{issuer}/{subject}").into(),
        _ => Box::default(),
    };
    let audiences = match payload.get("aud") {
        Some(Value::String(one)) => [one.as_str().into()].into(),
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(Box::from).collect(),
        _ => Box::default(),
    };
    Claims {
        principal,
        audiences,
        presenter: text("azp").map(Box::from),
        space_delimited: ["scope", "permission"].map(Box::from).into(),
        all: payload,
    }
}
