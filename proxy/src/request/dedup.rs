//! dedup: an inbound call with a key is done once, however often it arrives.
