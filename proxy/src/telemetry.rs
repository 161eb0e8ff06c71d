//! What the sidecar tells about itself: metrics, its log, and the access log.

pub mod metrics;
