//! mirror: copies of a call, whose answers are thrown away; they never slow the call itself.
