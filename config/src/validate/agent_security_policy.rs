//! AgentSecurityPolicy.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::model::permission::{Permission, check_resource};
use crate::model::{
    AgentRole, AgentSecurityPolicy, AuthenticationMethod, Encryption, Meta, Model, ROOT_NAMESPACES,
    SecureProtocol,
};
use crate::raw::{
    AgentSecurityPolicySpec, Bool, CommunicationSpec, DataAccessSpec, EncryptionWord, List, RoleSpec, Text,
    nearest,
};
use crate::units;
use crate::yaml::{Node, clip_text};

use super::check::{Cx, is_dns_label};

const METHODS: &[(&str, AuthenticationMethod)] =
    &[("certificate", AuthenticationMethod::Certificate), ("oauth2", AuthenticationMethod::OAuth2)];

const PROTOCOLS: &[(&str, SecureProtocol)] =
    &[("tls-1.3", SecureProtocol::Tls13), ("tls-1.2", SecureProtocol::Tls12), ("mtls", SecureProtocol::Mtls)];

/// How long the name of a class may be, bytes: it travels in a header.
const LONGEST_LEVEL: usize = 63;

/// Reads an AgentSecurityPolicy.
pub(super) fn agent_security_policy(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &AgentSecurityPolicySpec<'_>,
) -> AgentSecurityPolicy {
    let flag = |flag: Option<Bool<'_>>| flag.is_some_and(|flag| flag.value);
    let authentication = spec.authentication.as_ref();
    let communication = spec.communication.as_ref();
    let monitoring = spec.monitoring.as_ref();
    let data = spec.data_access.as_ref();
    let compliance = spec.compliance.as_ref();
    let levels = levels(cx, data);
    let required = authentication.is_some_and(|own| flag(own.required));
    if let Some(own) =
        authentication.filter(|own| !required && (own.methods.is_some() || own.token_lifetime.is_some()))
    {
        let hint = "write `required: true`; without it `token_lifetime` only takes their roles from tokens";
        cx.warn(own.node, "callers are asked for nothing: they need not say who they are", hint);
    }
    AgentSecurityPolicy {
        meta,
        authentication_required: required,
        authentication_methods: words(cx, authentication.and_then(|a| a.methods.as_ref()), METHODS),
        token_lifetime: authentication.and_then(|a| a.token_lifetime).and_then(|time| lifetime(cx, time.0)),
        delegation_required: authentication.is_some_and(|a| flag(a.delegation_required)),
        authorization_model: model(cx, spec),
        roles: roles(cx, spec, &levels),
        encryption: communication.and_then(|c| c.encryption).map(|word| match word.value {
            EncryptionWord::Required => Encryption::Required,
            EncryptionWord::Preferred => Encryption::Preferred,
            EncryptionWord::Disabled => Encryption::Disabled,
        }),
        protocols: protocols(cx, communication),
        classification_required: classification_required(cx, data, &levels),
        classifications: classifications(cx, data, &levels),
        access_levels: levels,
        audit_all_actions: monitoring.is_some_and(|m| flag(m.audit_all_actions)),
        log_data_access: monitoring.is_some_and(|m| flag(m.log_data_access)),
        alert_on_anomalies: monitoring.is_some_and(|m| flag(m.alert_on_anomalies)),
        audit_required: monitoring.is_some_and(|m| flag(m.audit_required)),
        frameworks: unique_texts(cx, compliance.and_then(|c| c.frameworks.as_ref())),
        retention: compliance.and_then(|c| c.retention_policy).and_then(|time| lifetime(cx, time)),
    }
}

/// A list of known words, each once.
fn words<T: Copy>(cx: &mut Cx<'_>, list: Option<&List<Text<'_>>>, known: &[(&str, T)]) -> Vec<T> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for text in list.into_iter().flatten() {
        let Some((_, word)) = known.iter().find(|(word, _)| *word == text.value) else {
            let hint = match nearest(text.value, known.iter().map(|(word, _)| *word)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let known: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
                    format!("known: {}", known.join(", "))
                }
            };
            cx.error_hint(text.node, format!("`{}` is not a known value", clip_text(text.value)), hint);
            continue;
        };
        once(cx, &mut seen, *text);
        found.push(*word);
    }
    found
}

/// Complains of a text that was there before.
fn once<'n>(cx: &mut Cx<'_>, seen: &mut HashSet<&'n str>, text: Text<'n>) {
    if !seen.insert(text.value) {
        cx.error(text.node, format!("`{}` is in the list already", clip_text(text.value)));
    }
}

fn unique_texts(cx: &mut Cx<'_>, list: Option<&List<Text<'_>>>) -> Vec<String> {
    let mut seen = HashSet::new();
    for text in list.into_iter().flatten() {
        once(cx, &mut seen, *text);
    }
    cx.texts(list)
}

fn model(cx: &mut Cx<'_>, spec: &AgentSecurityPolicySpec<'_>) -> Option<String> {
    let authorization = spec.authorization.as_ref()?;
    let Some(model) = authorization.model else {
        if authorization.roles.as_ref().is_some_and(Vec::is_empty) {
            let hint = "write `roles`, or leave `authorization` out";
            cx.error_hint(authorization.node, "there are no roles, so nobody could be given anything", hint);
        }
        return None;
    };
    if model.value != "rbac" {
        let message = format!("`{}` is not a known model", clip_text(model.value));
        cx.error_hint(model.node, message, "`rbac` is the only one");
    } else if authorization.roles.as_ref().is_none_or(Vec::is_empty) {
        cx.error_hint(
            model.node,
            "there are no roles, so nobody could be given anything",
            "write `roles`, or leave `authorization` out",
        );
    }
    Some(model.value.to_owned())
}

fn roles(cx: &mut Cx<'_>, spec: &AgentSecurityPolicySpec<'_>, levels: &[String]) -> Vec<AgentRole> {
    let list = spec.authorization.as_ref().and_then(|a| a.roles.as_ref());
    let mut seen = HashSet::new();
    let mut roles = Vec::with_capacity(list.map_or(0, Vec::len));
    for role in list.into_iter().flatten() {
        let Some(name) = role.name else { continue };
        role_name(cx, name);
        if !seen.insert(name.value) {
            let message = format!("the role `{}` is there already", clip_text(name.value));
            cx.error_hint(name.node, message, "put them into one");
        }
        roles.push(self::role(cx, role, name, levels));
    }
    roles
}

fn role_name(cx: &mut Cx<'_>, name: Text<'_>) {
    let good = match name.value.split_once('/') {
        Some((namespace, agent)) => is_dns_label(namespace) && super::placement::is_agent_name(agent),
        None => super::placement::is_agent_name(name.value),
    };
    if !good {
        let message = format!("`{}` is not the name of a role", clip_text(name.value));
        cx.error_hint(name.node, message, "an agent's name, or namespace/name");
    }
}

fn role(cx: &mut Cx<'_>, role: &RoleSpec<'_>, name: Text<'_>, levels: &[String]) -> AgentRole {
    let mut permissions = Vec::new();
    for text in role.permissions.iter().flatten() {
        match Permission::parse(text.value) {
            Ok(permission) => permissions.push(permission),
            Err((what, hint)) => {
                cx.error_hint(text.node, format!("`{}` {what}", clip_text(text.value)), hint)
            }
        }
    }
    let mut resources = Vec::new();
    for text in role.resources.iter().flatten() {
        match check_resource(text.value) {
            Ok(()) => resources.push(text.value.to_owned()),
            Err((what, hint)) => {
                cx.error_hint(text.node, format!("`{}` {what}", clip_text(text.value)), hint)
            }
        }
    }
    let is_empty = |list: &Option<List<Text<'_>>>| list.as_ref().is_none_or(Vec::is_empty);
    if is_empty(&role.permissions) || is_empty(&role.resources) {
        let message = format!("the role `{}` gives nothing", clip_text(name.value));
        cx.warn(name.node, message, "it needs `permissions` and `resources`");
    }
    let clearance = role.clearance.filter(|level| known_level(cx, *level, levels));
    AgentRole {
        name: name.value.to_owned(),
        permissions,
        resources,
        clearance: clearance.map(|level| level.value.to_owned()),
    }
}

fn protocols(cx: &mut Cx<'_>, spec: Option<&CommunicationSpec<'_>>) -> Vec<SecureProtocol> {
    let Some(spec) = spec else { return Vec::new() };
    let protocols = words(cx, spec.protocols.as_ref(), PROTOCOLS);
    if let Some(word) = spec.encryption.filter(|word| word.value == EncryptionWord::Disabled)
        && !protocols.is_empty()
    {
        let hint = "write `required`, or leave `protocols` out";
        cx.error_hint(word.node, "it contradicts `protocols`, all of which encrypt", hint);
    }
    let only_mtls = |only: &[SecureProtocol]| only == [SecureProtocol::Tls12];
    if let Some(list) = spec.protocols.as_ref().and_then(|list| list.first())
        && only_mtls(&protocols)
    {
        cx.error_hint(list.node, "the mesh speaks TLS 1.3 only", "write `tls-1.3` too");
    }
    protocols
}

fn levels(cx: &mut Cx<'_>, spec: Option<&DataAccessSpec<'_>>) -> Vec<String> {
    let list = spec.and_then(|data| data.access_levels.as_ref());
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    for text in list.into_iter().flatten() {
        let value = text.value;
        if value.is_empty() || value.len() > LONGEST_LEVEL || !value.bytes().all(good) {
            let message = format!("`{}` is not the name of a class", clip_text(value));
            cx.error_hint(text.node, message, "letters, digits, `-`, `_` and `.`, at most 63");
        }
    }
    unique_texts(cx, list)
}

/// Whether a class is one of the levels; complains if not.
fn known_level(cx: &mut Cx<'_>, level: Text<'_>, levels: &[String]) -> bool {
    let known = levels.iter().any(|known| known == level.value);
    if !known {
        let (message, hint) = unknown_level(level.value, levels);
        cx.error_hint(level.node, message, hint);
    }
    known
}

fn unknown_level(level: &str, levels: &[String]) -> (String, String) {
    let hint = match nearest(level, levels.iter().map(String::as_str)) {
        _ if levels.is_empty() => "write `access_levels`, from the least to the most secret".into(),
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", levels.join(", ")),
    };
    (format!("`{}` is none of the access levels", clip_text(level)), hint)
}

fn classification_required(cx: &mut Cx<'_>, spec: Option<&DataAccessSpec<'_>>, levels: &[String]) -> bool {
    let Some(flag) = spec.and_then(|data| data.classification_required).filter(|flag| flag.value) else {
        return false;
    };
    if levels.is_empty() {
        let hint = "write `access_levels`, from the least to the most secret";
        cx.error_hint(flag.node, "there are no access levels, so nothing could have a class", hint);
    }
    true
}

fn classifications(
    cx: &mut Cx<'_>,
    spec: Option<&DataAccessSpec<'_>>,
    levels: &[String],
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (resource, level) in spec.and_then(|data| data.classifications.as_ref()).into_iter().flatten() {
        if let Err((what, hint)) = check_resource(resource.value) {
            let message = format!("`{}` {what}", clip_text(resource.value));
            cx.diagnose.error_at_key(resource.node, message, Some(hint));
        }
        if known_level(cx, *level, levels) {
            found.push((resource.value.to_owned(), level.value.to_owned()));
        }
    }
    found
}

/// Seconds without a unit, or a duration that may also be in days, weeks or years.
fn lifetime(cx: &mut Cx<'_>, text: Text<'_>) -> Option<Duration> {
    let days = || {
        [("d", 1u64), ("w", 7), ("y", 365)].iter().find_map(|(unit, days)| {
            let number = text.value.strip_suffix(unit)?.parse::<u32>().ok()?;
            Some(Duration::from_secs(u64::from(number) * days * 86_400))
        })
    };
    let seconds = text.value.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    match seconds.or_else(days).map_or_else(|| units::duration(text.value), Ok) {
        Ok(time) if time.is_zero() => {
            cx.error_hint(text.node, "it is no time at all", "write a time above zero, such as 90d or 3600");
            None
        }
        Ok(time) => Some(time),
        Err(_) => {
            let hint = "seconds, or a number with a unit: 90d, 12h, 30m";
            cx.error_hint(text.node, format!("`{}` is not a duration", clip_text(text.value)), hint);
            None
        }
    }
}

/// Two policies that are for one workload have the same levels, since a class is a place among them. `nodes`: where each policy is
/// written.
pub(super) fn same_levels(cx: &mut Cx<'_>, model: &Model, nodes: &[Node<'_>]) {
    let root = |policy: &AgentSecurityPolicy| ROOT_NAMESPACES.contains(&policy.meta.namespace());
    let all = || model.agent_security_policies.iter().filter(|policy| !policy.access_levels.is_empty());
    let of_mesh = all().find(|policy| root(policy));
    let mut first: HashMap<&str, &AgentSecurityPolicy> = HashMap::new();
    for (policy, node) in model.agent_security_policies.iter().zip(nodes) {
        if policy.access_levels.is_empty() {
            continue;
        }
        let own = *first.entry(policy.meta.namespace()).or_insert(policy);
        let other =
            [Some(own), of_mesh].into_iter().flatten().find(|o| o.access_levels != policy.access_levels);
        if let Some(other) = other {
            let message = format!(
                "its access levels are not those of {}, which is for the same agents",
                other.meta.key
            );
            cx.error_hint(
                *node,
                message,
                "the same levels in the same order; or write them into one of the two",
            );
        }
    }
}

/// The access levels that hold in a namespace: its own policies', else those of the root namespaces.
pub(super) struct Levels<'m> {
    own: HashMap<&'m str, &'m [String]>,
    mesh: Option<&'m [String]>,
}

impl<'m> Levels<'m> {
    pub fn new(model: &'m Model) -> Levels<'m> {
        let mut levels = Levels { own: HashMap::new(), mesh: None };
        for policy in model.agent_security_policies.iter().filter(|policy| !policy.access_levels.is_empty()) {
            let namespace = policy.meta.namespace();
            levels.own.entry(namespace).or_insert(&policy.access_levels);
            if ROOT_NAMESPACES.contains(&namespace) {
                levels.mesh.get_or_insert(&policy.access_levels);
            }
        }
        levels
    }

    pub fn of(&self, namespace: &str) -> Option<&'m [String]> {
        self.own.get(namespace).copied().or(self.mesh)
    }
}

/// The same complaint of a class that an annotation names.
pub(super) fn check_level(cx: &mut Cx<'_>, level: Text<'_>, levels: &[String]) {
    known_level(cx, level, levels);
}
