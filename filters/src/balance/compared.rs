//! What a choice weighed, kept for whoever asks later why it was this one.

use std::cell::Cell;
use std::net::SocketAddr;

/// The two endpoints of which the cheaper was taken, and among how many they were drawn. The balancer writes it on its way.
#[derive(Debug, Default)]
pub struct Compared {
    able: Cell<usize>,
    pair: Cell<Option<[(SocketAddr, f32); 2]>>,
}

impl Compared {
    /// These two are compared; a choice that compares several times keeps the last.
    pub(crate) fn note(&self, a: (SocketAddr, f32), b: (SocketAddr, f32)) {
        self.pair.set(Some([a, b]));
    }

    /// So many qualify.
    pub(crate) fn note_able(&self, able: usize) {
        self.able.set(able);
    }

    /// How many qualified, if that was found out on the way; 0: it was not.
    pub fn able(&self) -> usize {
        self.able.get()
    }

    /// What the chosen one cost, and the other of the two with its cost. None: nothing was compared, or not with this one.
    pub fn seen_from(&self, chosen: SocketAddr) -> Option<(f32, (SocketAddr, f32))> {
        match self.pair.get()? {
            [own, other] if own.0 == chosen => Some((own.1, other)),
            [other, own] if own.0 == chosen => Some((own.1, other)),
            _ => None,
        }
    }
}
