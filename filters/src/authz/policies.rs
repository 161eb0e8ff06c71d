//! AuthorizationPolicies of one workload, compiled to an index.
//!
//! CUSTOM, then DENY, then ALLOW, as Istio does: a DENY rule that matches refuses; when there is any ALLOW policy, one of their rules
//! has to match. AUDIT marks the call. Policies with `istio.io/dry-run` are decided beside that, and only told.

pub(crate) mod caller;
pub(crate) mod condition;
pub(crate) mod index;
pub(crate) mod near;
mod reach;
pub(crate) mod rule;
mod seen;
pub(crate) mod text;

use std::borrow::Cow;

use super::{Asking, Judgement};
use crate::verdict::{Deny, Reason};
pub use caller::CallerRules;
use index::Table;
use rule::Rule;
use seen::{Lean, Seen};

/// Those that are for this workload.
#[derive(Debug, Default)]
pub struct Policies {
    pub(crate) custom: Table,
    pub(crate) deny: Table,
    pub(crate) allow: Option<Allow>,
    pub(crate) audit: Table,
    /// What is decided and told, not enforced.
    pub(crate) dry: Dry,
    /// Policies that cannot be compiled, each with why: nobody gets in while there are any.
    pub(crate) broken: Box<[(Box<str>, Box<str>)]>,
    pub(crate) reads_body: bool,
}

/// ALLOW policies: there is at least one.
#[derive(Debug)]
pub(crate) struct Allow {
    pub(crate) rules: Table,
    /// What is told when no rule of them matches: `default/viewers no rule`.
    pub(crate) nobody: Box<str>,
}

/// Policies that are not enforced.
#[derive(Debug, Default)]
pub(crate) struct Dry {
    pub(crate) custom: Table,
    pub(crate) deny: Table,
    pub(crate) allow: Option<Allow>,
}

/// An authorizer that has to be asked.
#[derive(Debug, Clone, Copy)]
pub struct Custom<'p> {
    /// The AuthorizationProvider's `namespace/name`: a place in [`crate::authorizer::Authorizers`].
    pub provider: &'p str,
    /// The policy and rule that want it.
    pub by: &'p str,
    /// Its answer is recorded, not obeyed.
    pub dry_run: bool,
}

impl Policies {
    /// Sees whether any of them asks for what only a body says.
    pub(crate) fn settled(mut self) -> Policies {
        let reads_body = self.tables().any(Table::reads_body);
        self.reads_body = reads_body;
        self
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        let allow = [&self.allow, &self.dry.allow].into_iter().flatten().map(|allow| &allow.rules);
        let others = [&self.custom, &self.deny, &self.audit, &self.dry.custom, &self.dry.deny];
        others.into_iter().chain(allow)
    }

    /// The first CUSTOM policy that matches; one that is enforced comes before a dry run. All of them ask the same provider, as
    /// in Istio, so no other has to be asked.
    pub fn custom(&self, asking: &Asking<'_>) -> Option<Custom<'_>> {
        if self.custom.is_empty() && self.dry.custom.is_empty() {
            return None;
        }
        let seen = Seen::new(asking);
        if let Some(rule) = self.custom.find(&seen, Lean::Any, |own| &own.custom) {
            return Some(Custom { provider: &rule.provider, by: &rule.by, dry_run: false });
        }
        let rule = self.dry.custom.find(&seen, Lean::Any, |own| &own.dry_custom)?;
        Some(Custom { provider: &rule.provider, by: &rule.by, dry_run: true })
    }

    /// DENY, then ALLOW.
    pub fn decide(&self, asking: &Asking<'_>) -> Judgement<'_> {
        if let Some((policy, why)) = self.broken.first() {
            let detail =
                format!("AuthorizationPolicy {policy} cannot be enforced, so nobody may call: {why}");
            return Judgement {
                by: Cow::Borrowed(policy),
                ..Judgement::refused(Reason::AccessDenied, detail)
            };
        }
        let seen = Seen::new(asking);
        let (deny, by) = self.enforced(&seen);
        let dry_run = self.dry_run(&seen, deny.is_some(), by);
        let audit = self.audit.find(&seen, Lean::Any, |own| &own.audit).is_some();
        Judgement { deny, by: Cow::Borrowed(by), dry_run, audit, ..Judgement::default() }
    }

    fn enforced(&self, seen: &Seen<'_>) -> (Option<Deny>, &str) {
        if let Some(rule) = self.deny.find(seen, Lean::Any, |own| &own.deny) {
            return (Some(denied(seen, rule)), &rule.by);
        }
        seen.take_doubt();
        let Some(allow) = &self.allow else { return (None, "") };
        match allow.rules.find(seen, Lean::All, |own| &own.allow) {
            Some(rule) => (None, &rule.by),
            None => (Some(not_allowed(seen, &allow.nobody)), &allow.nobody),
        }
    }

    /// The dry-run policy by which the call would have been decided otherwise, were they enforced too.
    fn dry_run(&self, seen: &Seen<'_>, refused: bool, by: &str) -> Option<Cow<'_, str>> {
        if let Some(rule) = self.dry.deny.find(seen, Lean::Any, |own| &own.dry_deny) {
            return (!refused).then_some(Cow::Borrowed(&*rule.by));
        }
        let dry = self.dry.allow.as_ref()?;
        let allowed = dry.rules.find(seen, Lean::All, |own| &own.dry_allow);
        match &self.allow {
            // It was refused because no ALLOW rule matched; this one does.
            Some(allow) if refused && *by == *allow.nobody => allowed.map(|rule| Cow::Borrowed(&*rule.by)),
            None if !refused && allowed.is_none() => Some(Cow::Borrowed(&*dry.nobody)),
            _ => None,
        }
    }

    /// Whether any of them asks for what only a body says.
    pub fn reads_body(&self) -> bool {
        self.reads_body
    }

    /// The headers that rules ask for.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &str> {
        self.tables().flat_map(Table::rules).flat_map(Rule::headers)
    }

    /// The AuthorizationProviders that CUSTOM policies name, each as `namespace/name`.
    pub fn providers(&self) -> Vec<&str> {
        let rules = self.custom.rules().iter().chain(self.dry.custom.rules());
        let mut providers: Vec<&str> = rules.map(|rule| &*rule.provider).collect();
        providers.sort_unstable();
        providers.dedup();
        providers
    }
}

fn denied(seen: &Seen<'_>, rule: &Rule) -> Deny {
    // Was it this rule that asked for what cannot be known?
    seen.take_doubt();
    if rule.matches(seen, Lean::Any) && seen.take_doubt() {
        return undecided(&rule.by);
    }
    Deny::with(Reason::AccessDenied, format!("AuthorizationPolicy {} denies this", rule.by))
}

fn not_allowed(seen: &Seen<'_>, nobody: &str) -> Deny {
    if seen.take_doubt() {
        return undecided(nobody);
    }
    let who = seen.principal().map_or("a caller without an identity of the mesh", |own| &*own.id);
    let head = seen.asking.head;
    let what = format!("{} {}", head.method(), crate::redact::path(head.path()));
    let detail = format!(
        "no ALLOW rule lets {who} do {what} (of AuthorizationPolicy {nobody} matches); an ALLOW policy for this workload has to name both"
    );
    Deny::with(Reason::AccessDenied, detail)
}

fn undecided(by: &str) -> Deny {
    let detail = format!(
        "AuthorizationPolicy {by}: it hangs on what the body says, and the body cannot be understood without doubt: send plain \
         JSON, uncompressed, one call at a time, each key once; or on who began the call, and its caller serves several calls: \
         let that agent pass on the header x-pilotfish-call that it gets"
    );
    Deny::with(Reason::NotDecidable, detail)
}

#[cfg(test)]
mod tests;
