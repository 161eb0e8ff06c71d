//! Receivers of OTLP: what others send about their calls, kept in the trace store.

mod body;
mod grpc;
mod http;
mod listen;

use std::sync::Arc;

use super::token_file::FileToken;
pub(super) use body::{LONGEST, Room};
pub(super) use http::take;
pub(super) use listen::{local, others};

/// What is answered to whoever sends anything else.
const ONLY_TRACES: &str = "only traces are taken here (TraceService/Export, /v1/traces); set OTEL_METRICS_EXPORTER and \
                           OTEL_LOGS_EXPORTER to `none`, or give them another endpoint";
/// Bytes of bodies that are read at the same time, of sidecars and of all others.
const SIDECARS: usize = 64 << 20;
const OTHERS: usize = 32 << 20;
/// Bytes a second, and at once, that come without a credential: more than 100,000 spans.
const RATE: f64 = 64e6;

/// What the receivers may take.
#[derive(Debug)]
pub(super) struct Otlp {
    /// Of sidecars.
    pub(super) sidecars: Arc<Room>,
    /// Of programs on this machine.
    pub(super) local: Arc<Room>,
    /// Of those who come over the network.
    pub(super) others: Arc<Room>,
    /// What they may show instead of a certificate.
    pub(super) token: Option<FileToken>,
}

impl Otlp {
    pub(super) fn new(token: Option<FileToken>) -> Otlp {
        Otlp {
            sidecars: Room::new(SIDECARS, None),
            local: Room::new(OTHERS, Some(RATE)),
            others: Room::new(OTHERS, Some(RATE)),
            token,
        }
    }
}
