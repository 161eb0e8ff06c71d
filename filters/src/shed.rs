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
