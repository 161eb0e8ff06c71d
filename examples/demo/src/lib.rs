//! The demo, in the order in which it happens: a control plane, agents, a sidecar beside each that joins it, YAML
//! pushed to them, traffic, tables.
//!
//! | module | what |
//! |---|---|
//! | [`agent`] | what a demo agent answers: text, a token stream, a WebSocket echo |
//! | [`job`] | what the demo asks the calling agent to do, and what it reports back (JSON lines over its stdin and stdout) |
//! | [`caller`] | the calling agent's other half: carries out jobs through its own sidecar |
//! | [`children`] | processes: start, wait for the ready line, keep the log, stop |
//! | [`control`] | the control plane, and the command line that talks to it |
//! | [`mesh`] | who runs where, and the YAML that is pushed |
//! | [`access_log`] | which rule matched, read back from the calling sidecar's own access log |
//! | [`scenes`] | what is shown, one function a row |
//! | [`table`] | the table and its colours |

pub mod access_log;
pub mod agent;
pub mod caller;
pub mod children;
pub mod control;
pub mod job;
pub mod mesh;
pub mod scenes;
pub mod table;
