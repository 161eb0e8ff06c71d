//! Policies and calls of which not everything is known.

use super::Policies;
use super::condition::{Attribute, Condition};
use super::index::Table;
use super::rule::Rule;
use super::seen::{Lean, Seen};
use crate::authz::reach::{Known, Reach};

impl Policies {
    /// How far such calls get, and whether an authorizer is asked about any.
    pub(in crate::authz) fn reach(&self, known: &Known<'_>) -> (Reach, bool) {
        if !self.broken.is_empty() {
            return (Reach::No, false);
        }
        let seen = Seen::new(known.asking);
        let denied = any(&self.deny, known, &seen);
        let allowed = self.allow.as_ref().map_or(Reach::Yes, |allow| any(&allow.rules, known, &seen));
        (denied.not().min(allowed), any(&self.custom, known, &seen) != Reach::No)
    }
}

fn any(table: &Table, known: &Known<'_>, seen: &Seen<'_>) -> Reach {
    table.rules().iter().map(|rule| of_rule(rule, known, seen)).max().unwrap_or(Reach::No)
}

fn of_rule(rule: &Rule, known: &Known<'_>, seen: &Seen<'_>) -> Reach {
    let all = |conditions: &[Condition]| {
        conditions.iter().map(|own| of_condition(own, known, seen)).min().unwrap_or(Reach::Yes)
    };
    let any = |lists: &[Box<[Condition]>]| lists.iter().map(|list| all(list)).max().unwrap_or(Reach::Yes);
    any(&rule.from).min(any(&rule.to)).min(all(&rule.when))
}

fn of_condition(condition: &Condition, known: &Known<'_>, seen: &Seen<'_>) -> Reach {
    let is_known = match &condition.attribute {
        Attribute::Principal
        | Attribute::Namespace
        | Attribute::ServiceAccount
        | Attribute::TrustDomain
        // It acts for itself.
        | Attribute::Depth
        | Attribute::Origin
        | Attribute::Agents => true,
        Attribute::Method => known.method,
        Attribute::Path => known.path,
        Attribute::Protocol
        | Attribute::Capability
        | Attribute::RpcMethod(_)
        | Attribute::Skill
        | Attribute::Tool
        | Attribute::Model => known.call,
        Attribute::SourceIp
        | Attribute::RemoteIp
        | Attribute::DestinationIp
        | Attribute::DestinationPort
        | Attribute::Sni
        | Attribute::RequestPrincipal
        | Attribute::Audiences
        | Attribute::Presenter
        | Attribute::Claim(_)
        | Attribute::Metadata(_)
        | Attribute::Header(_)
        | Attribute::Host => false,
    };
    let holds = |lean| condition.holds(seen, lean);
    match (is_known, holds(Lean::Any), holds(Lean::All)) {
        (true, any, all) if any == all => Reach::of(any),
        _ => Reach::Some,
    }
}
