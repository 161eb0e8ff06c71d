//! Who waits and who is refused when the limit is reached: priorities, a bounded queue, CoDel.

/// How important a call is (`agent-priority`). The order is the order of importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Refused first.
    Sheddable,
    /// What holds when nobody says.
    #[default]
    Default,
    /// Refused last.
    Critical,
}

impl Priority {
    /// Reads a word of `agent-priority`, of `max-priority`; `None` for an unknown one.
    pub fn parse(word: &[u8]) -> Option<Priority> {
        [Priority::Sheddable, Priority::Default, Priority::Critical]
            .into_iter()
            .find(|priority| word.trim_ascii().eq_ignore_ascii_case(priority.word().as_bytes()))
    }

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Priority::Sheddable => "sheddable",
            Priority::Default => "default",
            Priority::Critical => "critical",
        }
    }
}
