//! The rules that can be about one caller. Its identity does not change while its connection lives: they are found once for it and a
//! configuration, not for each call.

use super::Policies;
use super::index::{CallerHashes, Table};
use crate::authz::Principal;

/// Of each table, the numbers of the rules that can be about the caller; `None`: too many to be asked one by one.
#[derive(Debug)]
pub struct CallerRules {
    pub(super) hashes: CallerHashes,
    custom: Few,
    deny: Few,
    allow: Few,
    audit: Few,
    dry_custom: Few,
    dry_deny: Few,
    dry_allow: Few,
}

type Few = Option<Box<[u32]>>;

impl Policies {
    /// Those of a caller; without an identity, those that may be about anybody.
    pub fn caller_rules(&self, principal: Option<&Principal>) -> CallerRules {
        let hashes = CallerHashes::of(principal);
        let of = |table: &Table| table.of(&hashes);
        CallerRules {
            custom: of(&self.custom),
            deny: of(&self.deny),
            allow: self.allow.as_ref().and_then(|allow| of(&allow.rules)),
            audit: of(&self.audit),
            dry_custom: of(&self.dry.custom),
            dry_deny: of(&self.dry.deny),
            dry_allow: self.dry.allow.as_ref().and_then(|allow| of(&allow.rules)),
            hashes,
        }
    }
}

impl CallerRules {
    pub(super) fn custom(&self) -> Option<&[u32]> {
        self.custom.as_deref()
    }

    pub(super) fn deny(&self) -> Option<&[u32]> {
        self.deny.as_deref()
    }

    pub(super) fn allow(&self) -> Option<&[u32]> {
        self.allow.as_deref()
    }

    pub(super) fn audit(&self) -> Option<&[u32]> {
        self.audit.as_deref()
    }

    pub(super) fn dry_custom(&self) -> Option<&[u32]> {
        self.dry_custom.as_deref()
    }

    pub(super) fn dry_deny(&self) -> Option<&[u32]> {
        self.dry_deny.as_deref()
    }

    pub(super) fn dry_allow(&self) -> Option<&[u32]> {
        self.dry_allow.as_deref()
    }
}
