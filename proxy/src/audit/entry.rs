//! What workers note of decisions: raw texts, one after the other in a buffer that is used again, so that a record costs the worker a
//! copy of them.

use pilotfish_config::wire::AuditWhat;
use pilotfish_filters::trace::TraceId;
use pilotfish_filters::verdict::Reason;

/// A text of an entry; the order is that of [`Draft::push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Caller,
    RequestPrincipal,
    /// Each followed by a line end.
    Chain,
    Method,
    Path,
    /// `mcp`, `a2a` ...; empty: what is asked for is method and path.
    Protocol,
    RpcMethod,
    Name,
    Host,
    Permission,
    Resource,
    Class,
    Policy,
    Detail,
}

/// How many there are.
const FIELDS: usize = Field::Detail as usize + 1;

/// Decisions that may wait in a batch, ...
const MOST: usize = 16_384;
/// ... and bytes of their texts: while a disk hangs.
const MOST_TEXT: usize = 4 << 20;
/// A batch that took more keeps no room for as much.
const KEPT_TEXT: usize = 1 << 20;

/// How a decision ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outcome {
    #[default]
    Allowed,
    Denied,
    /// It is allowed; a policy that is tried would refuse it.
    WouldDeny,
}

impl Outcome {
    /// The word in the record.
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::Allowed => "allowed",
            Outcome::Denied => "denied",
            Outcome::WouldDeny => "would-deny",
        }
    }
}

/// One decision, without its texts.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// Nanoseconds since 1970.
    pub at: u64,
    pub what: AuditWhat,
    pub outbound: bool,
    pub outcome: Outcome,
    pub reason: Option<Reason>,
    pub trace: TraceId,
    /// It is kept; otherwise it only tells who calls, for those who look for the unusual.
    pub recorded: bool,
    /// Somebody looks for the unusual.
    pub watched: bool,
    /// Where its texts begin in the batch, and where those of the filled fields end.
    from: u32,
    ends: [u32; FIELDS],
    filled: usize,
}

/// What a worker noted since the audit thread looked last.
#[derive(Debug, Default)]
pub struct Batch {
    heads: Vec<Head>,
    text: String,
}

impl Batch {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Another decision, unless as much waits as may.
    pub fn begin(&mut self, at: u64) -> Option<Draft<'_>> {
        if self.heads.len() >= MOST || self.text.len() >= MOST_TEXT {
            return None;
        }
        let from = u32::try_from(self.text.len()).ok()?;
        let (heads, text) = (&mut self.heads, &mut self.text);
        let head = heads.push_mut(Head { at, recorded: true, from, ..Head::default() });
        Some(Draft { head, text })
    }

    /// What was noted, in that order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.heads.iter().map(|head| Entry { head, text: &self.text })
    }

    /// Empties it; the room stays for the next, unless it is that of a disk that hung.
    pub fn clear(&mut self) {
        if self.text.capacity() > KEPT_TEXT {
            *self = Batch::default();
        }
        self.heads.clear();
        self.text.clear();
    }
}

/// A decision that is noted.
#[derive(Debug)]
pub struct Draft<'b> {
    pub head: &'b mut Head,
    text: &'b mut String,
}

impl Draft<'_> {
    /// Notes at most `most` bytes of a text. Fields come in their order; those that are left out are empty.
    pub fn push(&mut self, field: Field, text: &str, most: usize) {
        let end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        while self.head.filled < field as usize {
            self.head.ends[self.head.filled] = end;
            self.head.filled += 1;
        }
        self.text.push_str(&text[..text.floor_char_boundary(most)]);
        self.head.ends[field as usize] = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
    }
}

/// A decision that was noted.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'b> {
    pub head: &'b Head,
    text: &'b str,
}

impl<'b> Entry<'b> {
    /// A text of it.
    pub fn get(&self, field: Field) -> &'b str {
        let (head, at) = (self.head, field as usize);
        if at > head.filled {
            return "";
        }
        let start = at.checked_sub(1).map_or(head.from, |before| head.ends[before]);
        self.text.get(start as usize..head.ends[at] as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_cut_and_those_left_out_are_empty() {
        let mut batch = Batch::default();
        for round in 0..2 {
            for at in 0..3 {
                let mut draft = batch.begin(at).unwrap();
                draft.push(Field::Caller, "caller", 4);
                draft.push(Field::Chain, "a\n", 9);
                draft.push(Field::Chain, "b\n", 9);
                draft.push(Field::Policy, "pol", 9);
            }
            assert_eq!(batch.entries().count(), 3, "round {round}");
            for (at, entry) in batch.entries().enumerate() {
                let all = [
                    Field::Caller,
                    Field::RequestPrincipal,
                    Field::Chain,
                    Field::Path,
                    Field::Policy,
                    Field::Detail,
                ];
                assert_eq!(entry.head.at, at as u64);
                assert_eq!(all.map(|field| entry.get(field)), ["call", "", "a\nb\n", "", "pol", ""]);
            }
            batch.clear();
        }
        batch.begin(0).unwrap();
        assert_eq!(batch.entries().next().unwrap().get(Field::Caller), "", "nothing was noted");
    }

    #[test]
    fn only_so_much_waits_and_the_room_for_it_is_given_back() {
        let mut batch = Batch::default();
        let long = "x".repeat(MOST_TEXT / 100);
        let mut kept = 0;
        while let Some(mut draft) = batch.begin(0) {
            draft.push(Field::Path, &long, usize::MAX);
            kept += 1;
        }
        assert_eq!(kept, 101);
        batch.clear();
        assert!(batch.is_empty() && batch.text.capacity() == 0);
        assert_eq!(std::iter::from_fn(|| batch.begin(0).map(drop)).count(), MOST);
    }
}
