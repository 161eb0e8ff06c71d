//! Who leads: one record in the store, taken by compare-and-set, renewed while its holder lives.
//!
//! No clocks are compared: a follower takes over when the record has not *changed* for a whole lease by its own monotonic clock.
//! The term is the store's revision of the taking over, so it counts up; every write of the leader expects the record as it
//! last wrote it, so one that was overtaken writes nothing any more, and nodes refuse lower terms.
