//! Telemetry on the wire: OTLP's messages, and the ways in which they get to a collector or to the control plane.
//!
//! | file | what |
//! |---|---|
//! | [`pb`] | protobuf, written directly into a buffer |
//! | [`resource`] | who the sidecar is |
//! | [`spans`] | a call's record as SERVER and CLIENT spans |
//! | [`target`] | where telemetry goes, and how |
//! | [`send`] | one exchange with a target, and what its answer means |
//! | [`control`] | the control plane as a target |
//! | [`relay`] | the agent's own spans, taken on the loopback and passed on |
//! | [`lane`] | batches that wait for a target; patience with one that is away |
//!
//! Spans are not made by the SDK's exporters (`opentelemetry-otlp` 0.33): those take log records and metrics only from the
//! SDK's own pipelines (`SdkLogRecord::new` and the fields of `ResourceMetrics` are private to `opentelemetry_sdk`), and a span
//! as `SpanData`, whose vectors of attributes would be allocated once there and once more as messages. So all three signals go
//! one way of our own, with the messages of `opentelemetry-proto`; only spans, of which there are many, are written directly.

pub mod control;
pub mod lane;
pub mod pb;
pub mod relay;
pub mod resource;
pub mod send;
pub mod spans;
pub mod target;
