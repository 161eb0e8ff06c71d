//! The rules that can be about one caller. Its identity does not change while its connection lives: they are found once for it and a
//! configuration, not for each call.

use super::Policies;
use super::index::{CallerHashes, Table};
use crate::authz::Principal;

/// Of each table, the numbers of the rules that can be about the caller.
#[derive(Debug)]
pub struct CallerRules {
    pub(super) hashes: CallerHashes,
    pub(super) custom: Few,
    pub(super) deny: Few,
    pub(super) allow: Few,
    pub(super) audit: Few,
    pub(super) dry_custom: Few,
    pub(super) dry_deny: Few,
    pub(super) dry_allow: Few,
}

/// `None`: too many to be asked one by one.
pub(super) type Few = Option<Box<[u32]>>;

impl Policies {
    /// Those of a caller; without an identity, those that may be about anybody. `None`: there are no rules at all.
    pub fn caller_rules(&self, principal: Option<&Principal>) -> Option<CallerRules> {
        if self.tables().all(Table::is_empty) {
            return None;
        }
        let hashes = CallerHashes::of(principal);
        let of = |table: &Table| table.of(&hashes);
        Some(CallerRules {
            custom: of(&self.custom),
            deny: of(&self.deny),
            allow: self.allow.as_ref().and_then(|allow| of(&allow.rules)),
            audit: of(&self.audit),
            dry_custom: of(&self.dry.custom),
            dry_deny: of(&self.dry.deny),
            dry_allow: self.dry.allow.as_ref().and_then(|allow| of(&allow.rules)),
            hashes,
        })
    }
}
