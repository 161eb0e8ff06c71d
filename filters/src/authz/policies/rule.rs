//! One rule of a policy: from any of its sources, to any of its operations, when all of its conditions hold.

use super::condition::{Attribute, Condition};
use super::seen::{Lean, Seen};

/// A rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// `namespace/policy rule 2`
    pub(crate) by: Box<str>,
    /// Each a list of conditions that all have to hold; none at all: anybody.
    pub(crate) from: Box<[Box<[Condition]>]>,
    /// The same for operations; none at all: anything.
    pub(crate) to: Box<[Box<[Condition]>]>,
    /// All of them have to hold.
    pub(crate) when: Box<[Condition]>,
    /// Who is asked, when the action is CUSTOM.
    pub(crate) provider: Box<str>,
}

impl Rule {
    pub(super) fn matches(&self, seen: &Seen<'_>, lean: Lean) -> bool {
        let all = |conditions: &[Condition]| conditions.iter().all(|condition| condition.holds(seen, lean));
        let any = |lists: &[Box<[Condition]>]| lists.is_empty() || lists.iter().any(|list| all(list));
        any(&self.from) && any(&self.to) && all(&self.when)
    }

    /// Whether anything of it may need the body.
    pub(super) fn reads_body(&self) -> bool {
        self.conditions().any(|condition| condition.attribute.reads_body())
    }

    /// The headers that it asks for.
    pub(super) fn headers(&self) -> impl Iterator<Item = &str> {
        self.conditions().filter_map(|condition| match &condition.attribute {
            Attribute::Header(name) => Some(&**name),
            _ => None,
        })
    }

    fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.from.iter().chain(&self.to).flatten().chain(&self.when)
    }
}
