//! The accept loops: one listener per worker and direction.

/// Which way a connection's requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the local agent into the mesh.
    Outbound,
    /// From the mesh to the local agent.
    Inbound,
}

impl Direction {
    /// Both, in the order of their numbers.
    pub const ALL: [Direction; 2] = [Direction::Outbound, Direction::Inbound];

    /// The word in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        }
    }
}
