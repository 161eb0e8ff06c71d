//! What sidecars are asked while somebody waits: live calls, and why calls went as they did.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/tap?agent=A,B&capability=C&status=5xx&match=EXPR&rate=N` | lines of JSON, each a [`TapLine`], until the client leaves |
//! | `GET /v1/why?request=ID`, `?trace=ID`, `?last=N&agent=A` | [`Accounts`] |

pub use pilotfish_config::wire::{Account, TappedCall};
use serde::{Deserialize, Serialize};

/// One line of a tap. The first is a note.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TapLine {
    /// How the tap goes; also when nothing else came for some seconds.
    Note {
        /// It.
        note: TapNote,
    },
    /// A call that has ended.
    Call(Box<TappedCall>),
}

/// How a tap goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapNote {
    /// Sidecars that are looked at now.
    pub sidecars: usize,
    /// Calls so far that were not shown because there were more than the rate.
    pub limited: u64,
    /// Calls so far that were not shown because the reader was too slow.
    pub lost: u64,
}

/// What sidecars remember of the calls that were asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Accounts {
    /// In order of time.
    pub calls: Vec<Account>,
    /// How many more there are.
    pub left_off: u64,
    /// How many sidecars answered, ...
    pub answered: usize,
    /// ... and which did not within a second: `namespace/name`, the first 100.
    pub silent: Vec<String>,
    /// How many did not.
    pub silent_count: usize,
    /// Sidecars that are connected to other control planes of the same store, and were not asked.
    pub elsewhere: usize,
}
