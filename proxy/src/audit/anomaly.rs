//! What is unusual about a caller: many refusals within a minute, or a first call that is refused. Told once a minute for each caller.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;

/// So many refusals within a minute are unusual.
const MANY: u32 = 10;
/// A minute, nanoseconds.
const MINUTE: u64 = 60_000_000_000;
/// Callers that are remembered; of more, the one is forgotten that was silent the longest.
const MOST: usize = 4096;

/// Who called, and how that went.
#[derive(Debug, Default)]
pub struct Callers(BTreeMap<Box<str>, Caller>);

#[derive(Debug)]
struct Caller {
    heard: u64,
    /// Since when refusals are counted, and how many there were.
    since: u64,
    refused: u32,
    /// When it was told of last.
    told: Option<u64>,
}

impl Callers {
    /// Hears of a call at `now`, nanoseconds since 1970; what is unusual about it.
    pub fn hear(&mut self, caller: &str, refused: bool, now: u64) -> Option<String> {
        if self.0.len() >= MOST && !self.0.contains_key(caller) {
            let silent = self.0.iter().min_by_key(|(_, known)| known.heard).map(|(name, _)| name.clone());
            silent.and_then(|name| self.0.remove(&name));
        }
        let (known, new) = match self.0.entry(caller.into()) {
            Place::Vacant(place) => {
                (place.insert(Caller { heard: now, since: now, refused: 0, told: None }), true)
            }
            Place::Occupied(place) => (place.into_mut(), false),
        };
        known.heard = now;
        if !refused {
            return None;
        }
        if now.abs_diff(known.since) >= MINUTE {
            (known.since, known.refused) = (now, 0);
        }
        known.refused += 1;
        let what = match known.refused {
            _ if new => "a caller that was never seen before called what it may not".to_owned(),
            refused if refused >= MANY => format!("{refused} refusals within a minute"),
            _ => return None,
        };
        // The first call is told of at once; many refusals after it are another thing, and so is each further minute.
        let many = known.refused >= MANY;
        let quiet = known.told.is_some_and(|told| now.abs_diff(told) < MINUTE);
        if quiet {
            return None;
        }
        if many || new {
            known.told = many.then_some(now);
        }
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unusual_is_told_once_a_minute() {
        let mut callers = Callers::default();
        assert_eq!(callers.hear("good", false, 1), None);
        assert!(callers.hear("new", true, 1).unwrap().contains("never seen"));
        let mut told = Vec::new();
        for n in 1..=30 {
            told.extend(callers.hear("good", true, n).map(|what| (n, what)));
        }
        assert_eq!(told, [(10, "10 refusals within a minute".to_owned())]);
        // Nine in each minute are nothing unusual.
        let mut told = 0;
        for n in 0..90 {
            told += usize::from(callers.hear("slow", n > 0, n * MINUTE / 9).is_some());
        }
        assert_eq!(told, 0);
        // Another minute of them is told of again.
        let again = (0..20).filter_map(|n| callers.hear("good", true, 2 * MINUTE + n)).count();
        assert_eq!(again, 1);
    }

    #[test]
    fn only_so_many_callers_are_remembered() {
        let mut callers = Callers::default();
        for n in 0..2 * MOST as u64 {
            callers.hear(&n.to_string(), false, n);
        }
        assert_eq!(callers.0.len(), MOST);
        assert!(!callers.0.contains_key("0") && callers.0.contains_key("8191"));
    }
}
