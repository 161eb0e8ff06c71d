//! Children that were left to this process, which is their subreaper.

use std::collections::BTreeSet;

use rustix::process::{WaitOptions, waitpid};

use crate::Id;
use crate::id::number;
use crate::stat::all;

/// Asks a child that has ended how; of another's child, or one that runs, nothing comes.
pub(crate) fn reap(id: Id) {
    let _ = number(id).map(|pid| waitpid(Some(pid), WaitOptions::NOHANG));
}

/// Orphans that became this process's children and ended: they are asked how, so that they do not pile up. What this process
/// started itself is waited for elsewhere within milliseconds; only who was a zombie at two looks is taken.
#[derive(Debug, Default)]
pub struct Orphans(BTreeSet<Id>);

impl Orphans {
    /// One look.
    pub fn reap(&mut self) {
        let own = std::process::id();
        let ended = all().into_values().filter(|stat| stat.zombie && stat.parent == own);
        let ended: BTreeSet<Id> = ended.map(|stat| stat.id).collect();
        for id in ended.intersection(&self.0) {
            reap(*id);
        }
        self.0 = ended;
    }
}
