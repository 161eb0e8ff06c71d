//! What the sidecar tells about itself: metrics, traces, its log, and the access log.

pub mod access_log;
pub mod account;
pub mod agentic;
pub mod call;
pub mod export;
pub mod log;
pub mod metrics;
pub mod otlp;
pub mod recall;
pub mod ring;
pub mod series;
pub mod tap;
pub mod tracing;
pub use pilotfish_config::text;
