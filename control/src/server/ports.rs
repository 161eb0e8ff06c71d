//! The listeners of traces: OTLP from this machine and from others, and Jaeger's API. The usual ports are other
//! programs' usual ports too, so only a listener that was asked for has to come up.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::connection::Protocol;
use super::listen::{named, optional, serve_plain};
use super::settings::{Listener, TraceSettings};
use super::{Control, Failure, jaeger, otlp};
use crate::log;

/// OpenTelemetry's ports, and Jaeger's.
const GRPC: u16 = 4317;
const HTTP: u16 = 4318;
const JAEGER: u16 = 16686;

type Open = (Option<TcpListener>, Option<SocketAddr>);

/// The open listeners.
#[derive(Debug)]
pub(super) struct Ports {
    grpc: Open,
    http: Open,
    others: Open,
    jaeger: Open,
}

impl Ports {
    /// Opens all that the settings ask for, and the usual ones where nobody else listens.
    ///
    /// # Errors
    /// One that was asked for cannot be opened.
    pub(super) fn open(settings: &TraceSettings) -> Result<Ports, Failure> {
        Ok(Ports {
            grpc: usual(settings.otlp_grpc, GRPC, "--otlp-grpc")?,
            http: usual(settings.otlp_http, HTTP, "--otlp-http")?,
            others: optional(settings.otlp_listen, "--otlp-listen")?,
            jaeger: usual(settings.jaeger, JAEGER, "--jaeger")?,
        })
    }

    /// Their addresses, by the names of their flags.
    pub(super) fn addresses(&self) -> [(&'static str, Option<SocketAddr>); 4] {
        [
            ("otlp-grpc", self.grpc.1),
            ("otlp-http", self.http.1),
            ("otlp-listen", self.others.1),
            ("jaeger", self.jaeger.1),
        ]
    }

    /// Serves on all of them from now on.
    pub(super) fn start(self, control: &Arc<Control>, acceptor: &TlsAcceptor) -> Vec<JoinHandle<()>> {
        let mut tasks = Vec::new();
        for (listener, protocol) in [(self.grpc.0, Protocol::Http2), (self.http.0, Protocol::Either)] {
            if let Some(listener) = listener {
                tasks.push(tokio::spawn(otlp::local(listener, protocol, control.clone())));
            }
        }
        if let Some(listener) = self.others.0 {
            tasks.push(tokio::spawn(otlp::others(listener, acceptor.clone(), control.clone())));
        }
        if let Some(listener) = self.jaeger.0 {
            let control = control.clone();
            tasks.push(tokio::spawn(serve_plain(listener, control.clone(), move |from, request, _| {
                jaeger::answer(control.clone(), from, request)
            })));
        }
        tasks
    }
}

/// A listener that was asked for has to come up; the usual one may be another's.
fn usual(asked: Option<Listener>, port: u16, flag: &'static str) -> Result<Open, Failure> {
    if let Some(listener) = asked {
        return optional(listener, flag);
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match named(address, flag) {
        Ok((listener, address)) => Ok((Some(listener), Some(address))),
        Err(failure) => {
            log::warn!("goes on without a usual port", flag = flag, why = failure);
            Ok((None, None))
        }
    }
}
