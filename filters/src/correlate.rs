//! Which inbound call an outbound call belongs to, for agents that drop headers.
