//! The Sidecar document of the workload: how many calls its agent serves at once, and `inboundConnectionPool`; and what the
//! annotations about calls at once mean, which a DestinationRule has too.

use std::sync::Arc;

use pilotfish_config::model::{Concurrency, Model, PortProtocol, Sidecar, TrafficPolicy};

use super::CompileOptions;
use super::cluster::policy;
use crate::cluster::{Cluster, ClusterSpec, Kind};
use crate::concurrency::{Bounds, Limit};
use crate::plan::ToAgent;
use crate::shed::QueuePolicy;
use crate::state::Pass;

pub(super) fn compile(model: &Model, options: &CompileOptions, pass: &mut Pass<'_>) -> ToAgent {
    let sidecar = model.sidecar(&options.namespace, &options.labels);
    let said = sidecar.map(|sidecar| Concurrency::of(&sidecar.meta)).unwrap_or_default();
    // Each caller counts its own calls only; here all are counted.
    let own = (options.capacity > 0).then_some(Limit::Fixed(options.capacity));
    let gate = limit(&said).or(own).map(|limit| {
        let gate = pass.inbound_gate();
        gate.configure(limit, queue(&said));
        gate
    });
    ToAgent { gate, pool: sidecar.and_then(|sidecar| pool(sidecar, pass)) }
}

/// The limit that annotations ask for, if any does.
pub(super) fn limit(said: &Concurrency) -> Option<Limit> {
    let adaptive = said.adaptive.map(|found| {
        let max = found.max.min(said.max.unwrap_or(u32::MAX));
        Limit::Adaptive(Bounds { min: found.min.min(max), max })
    });
    adaptive.or(said.max.map(Limit::Fixed))
}

/// Who waits.
pub(super) fn queue(said: &Concurrency) -> QueuePolicy {
    said.queue.map_or_else(QueuePolicy::default, |queue| QueuePolicy { size: queue.size, wait: queue.wait })
}

fn pool(sidecar: &Sidecar, pass: &mut Pass<'_>) -> Option<Arc<Cluster>> {
    let policy = TrafficPolicy {
        connection_pool: Some(sidecar.inbound_connection_pool.clone()?),
        ..TrafficPolicy::default()
    };
    let spec = ClusterSpec {
        host: "inbound".into(),
        kind: Kind::Original,
        settings: policy::settings(&policy, PortProtocol::Http, &[]),
        ..ClusterSpec::default()
    };
    Some(Arc::new(Cluster::new(spec, Vec::new(), &[], pass)))
}
