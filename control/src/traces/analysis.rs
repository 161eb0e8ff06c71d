//! What a trace says: where its time went, what to do about it.
