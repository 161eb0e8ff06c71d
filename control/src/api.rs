//! The control plane's HTTP interface: what the command line, the page and the sidecars ask, and the answers.

pub mod analysis;
pub mod live;
pub mod types;
