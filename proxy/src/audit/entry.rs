//! What a worker notes of a decision: raw texts in one buffer that is used again, so that a record costs the worker a copy of them.

use pilotfish_config::wire::AuditWhat;
use pilotfish_filters::trace::TraceId;
use pilotfish_filters::verdict::Reason;

/// A text of an entry; the order is that of [`Entry::push`].
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

/// One decision.
#[derive(Debug, Default)]
pub struct Entry {
    /// Whose pool it comes from.
    pub worker: usize,
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
    text: String,
    ends: [u32; FIELDS],
    filled: usize,
}

impl Entry {
    /// Empties it; the room for its texts stays.
    pub fn begin(&mut self, at: u64) {
        self.at = at;
        (self.what, self.outcome, self.reason) = (AuditWhat::Decision, Outcome::Allowed, None);
        (self.outbound, self.recorded, self.watched) = (false, true, false);
        self.trace = TraceId::default();
        self.text.clear();
        self.filled = 0;
    }

    /// Notes at most `most` bytes of a text. Fields come in their order; those that are left out are empty.
    pub fn push(&mut self, field: Field, text: &str, most: usize) {
        self.fill(field);
        self.text.push_str(&text[..text.floor_char_boundary(most)]);
    }

    fn fill(&mut self, field: Field) {
        let end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        while self.filled < field as usize {
            self.ends[self.filled] = end;
            self.filled += 1;
        }
    }

    /// What was noted.
    pub fn get(&self, field: Field) -> &str {
        let at = field as usize;
        let end = |at: usize| if at < self.filled { self.ends[at] as usize } else { self.text.len() };
        if at > self.filled {
            return "";
        }
        let start = at.checked_sub(1).map_or(0, end);
        self.text.get(start..end(at)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_cut_and_those_left_out_are_empty() {
        let mut entry = Entry::default();
        for _ in 0..2 {
            entry.begin(1);
            entry.push(Field::Caller, "caller", 4);
            entry.push(Field::Chain, "a\n", 9);
            entry.push(Field::Chain, "b\n", 9);
            entry.push(Field::Policy, "pol", 9);
            let all = [
                Field::Caller,
                Field::RequestPrincipal,
                Field::Chain,
                Field::Path,
                Field::Policy,
                Field::Detail,
            ];
            assert_eq!(all.map(|field| entry.get(field)), ["call", "", "a\nb\n", "", "pol", ""]);
        }
    }
}
