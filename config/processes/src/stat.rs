//! What `/proc/<pid>/stat` says of a process (proc(5)).

use std::collections::BTreeMap;
use std::fs;

use crate::Id;

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Which process.
    pub id: Id,
    /// The program's name, 15 bytes at most.
    pub name: String,
    /// It has ended, and its parent has not asked how.
    pub zombie: bool,
    /// Its parent.
    pub parent: u32,
    /// Its session.
    pub session: u32,
    /// Time on cores, its own, in ticks.
    pub ticks: u64,
    /// Resident, in pages.
    pub pages: u64,
}

impl Stat {
    /// Of a process that is there.
    pub fn of(pid: u32) -> Option<Stat> {
        Stat::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(pid: u32, text: &str) -> Option<Stat> {
        // The name may hold anything, parentheses too: the last one closes it.
        let (before, after) = text.rsplit_once(") ")?;
        let name = before.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = after.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let small = |at: usize| number(at).and_then(|number| u32::try_from(number).ok());
        Some(Stat {
            id: Id { pid, start: number(19)? },
            name,
            zombie: matches!(fields.first(), Some(&"Z" | &"X" | &"x")),
            parent: small(1)?,
            session: small(3)?,
            ticks: number(11)?.saturating_add(number(12)?),
            pages: number(21)?,
        })
    }
}

/// Every process of the machine that is to be seen.
pub(crate) fn all() -> BTreeMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, Stat::of(pid)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_and_spaces_do_not_shift_fields() {
        let text = "7 (a ) b) S 5 7 7 0 -1 0 0 0 0 0 11 4 0 0 20 0 1 0 99 1000 12 0";
        let stat = Stat::parse(7, text).unwrap();
        assert_eq!(stat.name, "a ) b");
        assert_eq!((stat.id.start, stat.parent, stat.session), (99, 5, 7));
        assert_eq!((stat.ticks, stat.pages, stat.zombie), (15, 12, false));
        assert_eq!(Stat::parse(7, "7 (x"), None);
    }
}
