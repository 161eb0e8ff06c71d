//! Who may call this workload: AuthorizationPolicies and AgentSecurityPolicies that are for it.

use pilotfish_config::model::{
    AuthorizationAction, AuthorizationOperation, AuthorizationPolicy, AuthorizationRule, AuthorizationSource,
    Model, ROOT_NAMESPACES, Values,
};

use super::CompileOptions;
use super::selected::{labels, selects};
use crate::authz::Authz;
use crate::authz::policies::condition::{Attribute, Condition, Within};
use crate::authz::policies::index::Table;
use crate::authz::policies::rule::Rule;
use crate::authz::policies::{Allow, Dry, Policies};

/// What refuses under `--default-deny` where no policy allows.
const DEFAULT_DENY: &str = "--default-deny";

/// What holds for the workload of `options`. A policy that cannot be compiled denies its workload; `warnings` say so.
pub(super) fn compile(model: &Model, options: &CompileOptions, warnings: &mut Vec<Box<str>>) -> Authz {
    let policies = policies(model, options, warnings);
    let governance = super::governance::compile(model, options, warnings);
    Authz { policies, governance }
}

/// Policies of one kind, enforced or not, while they are gathered.
#[derive(Default)]
struct Gathered<'m> {
    custom: Vec<Rule>,
    deny: Vec<Rule>,
    allow: Vec<Rule>,
    audit: Vec<Rule>,
    /// The ALLOW policies, with or without rules.
    allowing: Vec<&'m AuthorizationPolicy>,
}

/// The policies that are for the workload, by name.
pub(crate) fn written<'m>(
    model: &'m Model,
    options: &CompileOptions,
    warnings: &mut Vec<Box<str>>,
) -> Vec<&'m AuthorizationPolicy> {
    let labels = labels(options);
    let mut own: Vec<&AuthorizationPolicy> = Vec::new();
    for policy in &model.authorization_policies {
        if selects(model, options, &labels, &policy.meta, &policy.scope, warnings) {
            own.push(policy);
        }
    }
    own.sort_by_key(|policy| (policy.meta.namespace(), policy.meta.name()));
    own
}

fn policies(model: &Model, options: &CompileOptions, warnings: &mut Vec<Box<str>>) -> Policies {
    let own = written(model, options, warnings);
    let (mut enforced, mut dry, mut broken) = (Gathered::default(), Gathered::default(), Vec::new());
    for policy in own {
        let is_dry = policy.is_dry_run();
        let gathered = if is_dry { &mut dry } else { &mut enforced };
        let compiled =
            rules(model, options, policy).and_then(|rules| same_provider(&gathered.custom, rules, policy));
        let rules = match compiled {
            Ok(rules) => rules,
            Err(why) => {
                let line = format!("{}: {}: cannot be compiled", policy.meta.source, policy.meta.key);
                let so = if is_dry { "as a dry run it does nothing" } else { "it denies its workload" };
                warnings.push(format!("{line}, {so}: {why}").into());
                if !is_dry {
                    broken.push((name(policy).into(), why.into()));
                }
                continue;
            }
        };
        match policy.action {
            AuthorizationAction::Custom => gathered.custom.extend(rules),
            AuthorizationAction::Deny => gathered.deny.extend(rules),
            AuthorizationAction::Audit => gathered.audit.extend(rules),
            AuthorizationAction::Allow => {
                gathered.allow.extend(rules);
                gathered.allowing.push(policy);
            }
        }
    }
    Policies {
        allow: allow(enforced.allow, &enforced.allowing, options.default_deny),
        dry: Dry {
            allow: allow(dry.allow, &dry.allowing, false),
            custom: Table::new(dry.custom),
            deny: Table::new(dry.deny),
        },
        custom: Table::new(enforced.custom),
        deny: Table::new(enforced.deny),
        audit: Table::new(enforced.audit),
        broken: broken.into(),
        reads_body: false,
    }
    .settled()
}

fn name(policy: &AuthorizationPolicy) -> String {
    format!("{}/{}", policy.meta.namespace(), policy.meta.name())
}

fn allow(rules: Vec<Rule>, policies: &[&AuthorizationPolicy], default_deny: bool) -> Option<Allow> {
    let nobody = match policies {
        [] if default_deny => DEFAULT_DENY.to_owned(),
        [] => return None,
        [only] => format!("{} no rule", name(only)),
        [first, more @ ..] => format!("{} and {} more no rule", name(first), more.len()),
    };
    Some(Allow { rules: Table::new(rules), nobody: nobody.into() })
}

/// Only one provider is asked for a workload, as in Istio: what a second one would have to say must not be lost.
fn same_provider(
    before: &[Rule],
    rules: Vec<Rule>,
    policy: &AuthorizationPolicy,
) -> Result<Vec<Rule>, String> {
    if policy.action != AuthorizationAction::Custom {
        return Ok(rules);
    }
    match (before.first(), rules.first()) {
        (Some(one), Some(other)) if one.provider != other.provider => Err(format!(
            "the workload has CUSTOM policies of two providers, {} ({}) and {}; there can be one",
            one.provider, one.by, other.provider
        )),
        _ => Ok(rules),
    }
}

fn rules(model: &Model, options: &CompileOptions, policy: &AuthorizationPolicy) -> Result<Vec<Rule>, String> {
    let provider = match &policy.provider {
        Some(provider) => self::provider(model, policy, provider)?,
        None => String::new(),
    };
    let within = Within { namespace: policy.meta.namespace(), trust_domain: options.trust_domain.as_deref() };
    let name = name(policy);
    let compiled = policy.rules.iter().enumerate().map(|(at, written)| {
        let by = format!("{name} rule {}", at + 1);
        rule(written, within, by.into(), provider.as_str().into())
            .map_err(|why| format!("rules[{at}]: {why}"))
    });
    compiled.collect()
}

/// The `namespace/name` of an AuthorizationProvider, which the policy names with or without its namespace.
fn provider(model: &Model, policy: &AuthorizationPolicy, name: &str) -> Result<String, String> {
    let has = |namespace: &str, name: &str| {
        model
            .authorization_providers
            .iter()
            .any(|own| own.meta.namespace() == namespace && own.meta.name() == name)
    };
    if let Some((namespace, own)) = name.split_once('/') {
        return has(namespace, own)
            .then(|| name.to_owned())
            .ok_or_else(|| format!("there is no AuthorizationProvider {name}"));
    }
    let mut namespaces = std::iter::once(policy.meta.namespace()).chain(ROOT_NAMESPACES);
    namespaces
        .find(|namespace| has(namespace, name))
        .map(|namespace| format!("{namespace}/{name}"))
        .ok_or_else(|| {
            let own = policy.meta.namespace();
            format!("there is no AuthorizationProvider {name} in {own}, {}", ROOT_NAMESPACES.join(", "))
        })
}

fn rule(
    written: &AuthorizationRule,
    within: Within<'_>,
    by: Box<str>,
    provider: Box<str>,
) -> Result<Rule, String> {
    let list = |pairs: &[(Attribute, &Values)]| -> Result<Box<[Condition]>, String> {
        let made = pairs.iter().map(|(attribute, values)| Condition::new(attribute.clone(), values, within));
        made.filter_map(Result::transpose).collect()
    };
    let from = written.from.iter().map(|source| list(&of_source(source))).collect::<Result<_, String>>()?;
    let to =
        written.to.iter().map(|operation| list(&of_operation(operation))).collect::<Result<_, String>>()?;
    let mut when = Vec::with_capacity(written.when.len());
    for condition in &written.when {
        let attribute = Attribute::parse(&condition.key)?;
        let made = Condition::new(attribute, &condition.values, within)
            .map_err(|why| format!("{}: {why}", condition.key))?;
        when.extend(made);
    }
    Ok(Rule { by, from, to, when: when.into(), provider })
}

/// What is cheap to ask comes first.
pub(crate) fn of_source(source: &AuthorizationSource) -> [(Attribute, &Values); 7] {
    [
        (Attribute::Principal, &source.principals),
        (Attribute::Namespace, &source.namespaces),
        (Attribute::ServiceAccount, &source.service_accounts),
        (Attribute::TrustDomain, &source.trust_domains),
        (Attribute::SourceIp, &source.ip_blocks),
        (Attribute::RemoteIp, &source.remote_ip_blocks),
        (Attribute::RequestPrincipal, &source.request_principals),
    ]
}

/// The same of an operation.
pub(crate) fn of_operation(operation: &AuthorizationOperation) -> [(Attribute, &Values); 4] {
    [
        (Attribute::Method, &operation.methods),
        (Attribute::DestinationPort, &operation.ports),
        (Attribute::Path, &operation.paths),
        (Attribute::Host, &operation.hosts),
    ]
}
