//! Traces: taken from sidecars and from whoever speaks OTLP, kept in a bounded window on disk, searched, analysed.

pub mod analysis;
pub mod batch;
pub mod convert;
pub mod jaeger;
pub mod span;
pub mod store;
mod wire;
