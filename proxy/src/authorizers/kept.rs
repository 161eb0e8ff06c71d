//! Answers of authorizers that still hold, bounded. Keys are whole, not hashed: two calls must never share an answer by chance.

use std::collections::BTreeMap;

use pilotfish_filters::clock::Micros;

use super::{Answer, Refused, metadata};

/// Answers of one generation; there are two.
const MANY: usize = 2048;
/// Longest key that is kept, bytes.
pub(super) const LONGEST_KEY: usize = 4096;
/// Longest answer that is kept, bytes.
const LONGEST: usize = 4096;

/// The answers. When the newer half is full it becomes the older, and what was in that is forgotten: no search for what to drop.
#[derive(Debug, Default)]
pub(super) struct Kept {
    newer: BTreeMap<Box<[u8]>, (Micros, Answer)>,
    older: BTreeMap<Box<[u8]>, (Micros, Answer)>,
}

impl Kept {
    pub(super) fn get(&self, key: &[u8], now: Micros) -> Option<Answer> {
        let (until, answer) = self.newer.get(key).or_else(|| self.older.get(key))?;
        (now < *until).then(|| answer.clone())
    }

    pub(super) fn put(&mut self, key: Box<[u8]>, answer: &Answer, until: Micros) {
        if key.len() > LONGEST_KEY || size(answer) > LONGEST {
            return;
        }
        if self.newer.len() >= MANY {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key, (until, answer.clone()));
    }
}

fn size(answer: &Answer) -> usize {
    match answer {
        Answer::Allowed(allowed) => {
            let edits = allowed.to_upstream.iter().chain(&allowed.to_downstream);
            let edits: usize = edits.map(|edit| edit.name.len() + edit.value.len()).sum();
            let set: usize = allowed.query_set.iter().map(|(name, value)| name.len() + value.len()).sum();
            let gone = allowed.remove.iter().chain(&allowed.query_remove);
            // As much as they may have; they are too rare to be measured.
            let metadata = if allowed.metadata.is_some() { metadata::LONGEST } else { 0 };
            edits + set + gone.map(|name| name.len()).sum::<usize>() + metadata
        }
        Answer::Refused(Refused { headers, body, .. }) => {
            body.len() + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Allowed;
    use super::*;

    fn key(number: usize) -> Box<[u8]> {
        Box::from(number.to_be_bytes())
    }

    #[test]
    fn answers_hold_until_their_time_and_are_bounded() {
        let mut kept = Kept::default();
        let yes = Answer::Allowed(Allowed::default());
        kept.put(key(0), &yes, Micros(10));
        assert_eq!(kept.get(&key(0), Micros(9)), Some(yes.clone()));
        assert_eq!(kept.get(&key(0), Micros(10)), None);
        for number in 0..10 * MANY {
            kept.put(key(number), &yes, Micros(1000));
            assert!(kept.newer.len() + kept.older.len() <= 2 * MANY);
        }
        assert!(kept.get(&key(10 * MANY - 1), Micros(0)).is_some());
        assert!(kept.get(&key(1), Micros(0)).is_none());
    }

    #[test]
    fn what_is_large_is_not_kept() {
        let mut kept = Kept::default();
        let no = Answer::Refused(Refused {
            status: 403,
            headers: Vec::new(),
            body: vec![b'x'; LONGEST + 1].into(),
        });
        kept.put(key(1), &no, Micros(10));
        kept.put(vec![0; LONGEST_KEY + 1].into(), &Answer::Allowed(Allowed::default()), Micros(10));
        assert!(kept.newer.is_empty());
    }
}
