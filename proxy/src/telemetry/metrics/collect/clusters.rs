//! What clusters have under way now: connections, calls, calls that wait, retries. Only what is not nothing is told.

use pilotfish_filters::cluster::Cluster;

use crate::server::Shared;
use crate::telemetry::metrics::family::{Families, Kind};
use crate::telemetry::series::SLOTS;

pub(super) fn collect(page: &mut Families, shared: &Shared) {
    let newest = shared.snapshots.newest();
    type Now = (&'static str, &'static str, fn(&Cluster) -> u32);
    let gauges: [Now; 6] = [
        (
            "pilotfish_cluster_connections",
            "Connections to the cluster's endpoints that are open.",
            |cluster| cluster.limits.connections(),
        ),
        ("pilotfish_cluster_requests_active", "Calls to the cluster that are under way.", |cluster| {
            cluster.limits.requests()
        }),
        (
            "pilotfish_cluster_requests_pending",
            "Calls to the cluster that wait for a connection.",
            |cluster| cluster.limits.pending(),
        ),
        (
            "pilotfish_cluster_requests_queued",
            "Calls to the cluster that wait for a place at an endpoint.",
            |cluster| cluster.line().map_or(0, |line| line.waiting()),
        ),
        (
            "pilotfish_cluster_retries_active",
            "Tries after the first that are under way: what the retry budget is reckoned with.",
            |cluster| cluster.limits.budget().active(),
        ),
        (
            "pilotfish_cluster_endpoints_ejected",
            "Endpoints of the cluster that outlier detection has put aside.",
            |cluster| cluster.limits.ejected(),
        ),
    ];
    for (name, help, value) in gauges {
        page.family(name, Kind::Gauge, help);
        let busy = newest.plan.clusters().iter().map(|cluster| (cluster, value(cluster)));
        for (cluster, value) in busy.filter(|(_, value)| *value > 0).take(SLOTS) {
            page.by("cluster", cluster.name.to_string(), value);
        }
    }
}
