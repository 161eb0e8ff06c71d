//! The audit log on a disk: lines chained by hashes, in files that end after a while. How it is written, read and verified; the same
//! for sidecars, for the control plane's copy and for `pilotfish audit verify`.
//!
//! A folder is one chain: `<first record>.jsonl`, each a stretch of it, and `head.json`, which says how far it goes, so that an end
//! that was cut off is missed. A line's `hash` is SHA-256, in base64url, over the line (without its end) in which the hash of the line
//! before stands in the place of its own. That hash is in the line before; the first line of a file says it in a field `prev`, which
//! stands before all others and is not part of what is hashed. The first record of a chain hangs on a hash of the chain's name.
//! Records that grew too old go with their whole file; an `erased` record behind them says which, and carries the hash on which what
//! is left hangs.

pub mod chain;
pub mod folder;
pub mod reader;
pub mod verify;
pub mod writer;

pub use chain::{Hash, Line, Tip};
pub use folder::{Anchor, Head};
pub use verify::{Finding, Report, verify};
pub use writer::{Opened, Writer};
