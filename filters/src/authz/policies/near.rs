//! What of a rule as it is written does not fit a call: how people are told why.

use pilotfish_config::model::{AuthorizationRule, Values};

use super::condition::{Attribute, Condition, Within};
use super::seen::{Lean, Seen};
use crate::authz::Asking;
use crate::compile::{of_operation, of_source};

/// What one condition wants that the call is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// `method`
    pub(crate) what: String,
    /// `it wants GET, HEAD`
    pub(crate) wants: String,
}

/// So many values are named.
const NAMED: usize = 4;

/// All that does not fit, of the source and of the operation that fit best; empty: the rule matches.
///
/// # Errors
/// The rule cannot be compiled; in words.
pub(crate) fn misfits(
    rule: &AuthorizationRule,
    within: Within<'_>,
    asking: &Asking<'_>,
    refuses: bool,
) -> Result<Vec<Misfit>, String> {
    let seen = Seen::new(asking);
    let lean = if refuses { Lean::Any } else { Lean::All };
    let failing = |pairs: &[(Attribute, &Values)]| -> Result<Vec<Misfit>, String> {
        let mut found = Vec::new();
        for (attribute, values) in pairs {
            let condition = Condition::new(attribute.clone(), values, within)?;
            if condition.is_some_and(|condition| !condition.holds(&seen, lean)) {
                found.push(Misfit { what: word(attribute).to_owned(), wants: wants(values) });
            }
        }
        Ok(found)
    };
    let best = |all: Vec<Vec<Misfit>>| all.into_iter().min_by_key(Vec::len).unwrap_or_default();
    let from = rule.from.iter().map(|source| failing(&of_source(source))).collect::<Result<_, _>>()?;
    let to = rule.to.iter().map(|operation| failing(&of_operation(operation))).collect::<Result<_, _>>()?;
    let mut found = best(from);
    found.extend(best(to));
    for condition in &rule.when {
        let failing = failing(&[(Attribute::parse(&condition.key)?, &condition.values)])?;
        found.extend(failing.into_iter().map(|misfit| Misfit { what: condition.key.clone(), ..misfit }));
    }
    Ok(found)
}

fn wants(values: &Values) -> String {
    let list = |values: &[String]| {
        let named = values.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = values.len().saturating_sub(NAMED);
        if more > 0 { format!("{named} or {more} more") } else { named }
    };
    match (values.any_of.as_slice(), values.none_of.as_slice()) {
        (any_of, []) => format!("it wants {}", list(any_of)),
        ([], none_of) => format!("it wants none of {}", list(none_of)),
        (any_of, none_of) => format!("it wants {} and none of {}", list(any_of), list(none_of)),
    }
}

fn word(attribute: &Attribute) -> &str {
    match attribute {
        Attribute::Principal => "principal",
        Attribute::Namespace => "namespace",
        Attribute::ServiceAccount => "service account",
        Attribute::TrustDomain => "trust domain",
        Attribute::SourceIp => "address",
        Attribute::RemoteIp => "remote address",
        Attribute::DestinationPort => "port",
        Attribute::RequestPrincipal => "request principal (from a token)",
        Attribute::Host => "host",
        Attribute::Method => "method",
        Attribute::Path => "path",
        _ => "condition",
    }
}
