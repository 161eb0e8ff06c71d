//! What one worker thread owns. (First version: the request path lands here.)

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::listen::Direction;
use crate::server::Shared;
use crate::shutdown::OpenCalls;
use crate::telemetry::metrics::WorkerMetrics;

/// The state of one worker; connections share it by `Rc`.
#[derive(Debug)]
pub struct Worker {
    /// The worker's number, from 0.
    pub index: usize,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// This worker's own counters.
    pub metrics: Arc<WorkerMetrics>,
    /// Requests in flight, named in the log when the drain's deadline cuts them.
    pub open: Rc<OpenCalls>,
}

impl Worker {
    /// The state of worker `index`; runs on its thread, inside its runtime.
    pub fn new(index: usize, shared: Arc<Shared>) -> Self {
        let metrics = shared.metrics[index].clone();
        Worker { index, shared, metrics, open: Rc::default() }
    }

    /// Serves one accepted connection to its end.
    pub async fn serve(self: Rc<Self>, stream: TcpStream, peer: SocketAddr, direction: Direction) {
        drop((stream, peer, direction));
    }
}
