//! AgentSecurityPolicy.

use std::time::Duration;

use crate::model::{AgentRole, AgentSecurityPolicy, Meta};
use crate::raw::{AgentSecurityPolicySpec, Bool, EncryptionWord, List, Text};
use crate::units;
use crate::yaml::clip_text;

use super::agent::texts;
use super::check::Cx;

/// Reads an AgentSecurityPolicy.
pub(super) fn agent_security_policy(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &AgentSecurityPolicySpec<'_>,
) -> AgentSecurityPolicy {
    let flag = |flag: Option<Bool<'_>>| flag.is_some_and(|flag| flag.value);
    let authentication = spec.authentication.as_ref();
    let authorization = spec.authorization.as_ref();
    let communication = spec.communication.as_ref();
    let monitoring = spec.monitoring.as_ref();
    AgentSecurityPolicy {
        meta,
        authentication_required: authentication.is_some_and(|a| flag(a.required)),
        authentication_methods: texts(authentication.and_then(|a| a.methods.as_ref())),
        token_lifetime: authentication.and_then(|a| a.token_lifetime).and_then(|time| lifetime(cx, time.0)),
        authorization_model: authorization.and_then(|a| a.model).map(|model| model.value.to_owned()),
        roles: authorization
            .and_then(|a| a.roles.as_ref())
            .into_iter()
            .flatten()
            .map(|role| AgentRole {
                name: role.name.map_or(String::new(), |name| name.value.to_owned()),
                permissions: permissions(cx, role.permissions.as_ref()),
                resources: texts(role.resources.as_ref()),
            })
            .collect(),
        encryption: communication.and_then(|c| c.encryption).map(|word| {
            match word.value {
                EncryptionWord::Required => "required",
                EncryptionWord::Preferred => "preferred",
                EncryptionWord::Disabled => "disabled",
            }
            .to_owned()
        }),
        protocols: texts(communication.and_then(|c| c.protocols.as_ref())),
        classification_required: spec.data_access.as_ref().is_some_and(|d| flag(d.classification_required)),
        access_levels: texts(spec.data_access.as_ref().and_then(|d| d.access_levels.as_ref())),
        audit_all_actions: monitoring.is_some_and(|m| flag(m.audit_all_actions)),
        log_data_access: monitoring.is_some_and(|m| flag(m.log_data_access)),
        alert_on_anomalies: monitoring.is_some_and(|m| flag(m.alert_on_anomalies)),
        frameworks: texts(spec.compliance.as_ref().and_then(|c| c.frameworks.as_ref())),
        retention: spec
            .compliance
            .as_ref()
            .and_then(|c| c.retention_policy)
            .and_then(|time| lifetime(cx, time)),
    }
}

fn permissions(cx: &mut Cx<'_>, list: Option<&List<Text<'_>>>) -> Vec<String> {
    for text in list.into_iter().flatten().filter(|text| text.value.split(':').count() != 2) {
        let message = format!("`{}` is not a permission", clip_text(text.value));
        cx.error_hint(text.node, message, "write area:verb, such as knowledge:read");
    }
    texts(list)
}

/// Seconds without a unit, or a duration that may also be in days, weeks or years.
fn lifetime(cx: &mut Cx<'_>, text: Text<'_>) -> Option<Duration> {
    if let Ok(seconds) = text.value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let days = [("d", 1u64), ("w", 7), ("y", 365)].iter().find_map(|(unit, days)| {
        text.value
            .strip_suffix(unit)
            .and_then(|number| number.parse::<u32>().ok())
            .map(|n| u64::from(n) * days)
    });
    if let Some(days) = days {
        return Some(Duration::from_secs(days * 86_400));
    }
    match units::duration(text.value) {
        Ok(time) => Some(time),
        Err(_) => {
            let hint = "seconds, or a number with a unit: 90d, 12h, 30m";
            cx.error_hint(text.node, format!("`{}` is not a duration", clip_text(text.value)), hint);
            None
        }
    }
}
