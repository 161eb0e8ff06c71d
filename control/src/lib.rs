//! The control plane (`pilotfish serve`) and the command line that talks to it.

pub mod actions;
pub mod alerts;
pub mod api;
pub mod audit;
pub mod authz;
pub mod backup;
pub mod ca;
pub mod cli;
pub mod dashboards;
pub mod fleet;
pub mod governance;
pub mod log;
pub mod node;
pub mod orchestrator;
pub mod paths;
pub mod placement;
pub mod resources;
pub mod server;
pub mod store;
pub mod traces;
