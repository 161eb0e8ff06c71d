//! What the sidecar tells about itself: metrics, its log, and the access log.

pub mod access_log;
pub mod log;
pub mod metrics;
pub mod series;
pub use pilotfish_config::text;
