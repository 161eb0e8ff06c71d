//! Upstreams that fail in every way, seen from both sides: how often each call arrived, and that its caller gets a definite answer or
//! one that is visibly broken off, in time.
//!
//! Each row of [`rows`] is one way to fail. It is run with six kinds of calls (GET, PUT, a PUT that is too large to be kept, POST, POST with a key, gRPC), once with the
//! rules that hold when the YAML is silent and once with `retries`, each against an upstream of its own.

mod call;
mod rows;
mod upstream;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call::{Got, Kind};
use rows::{Row, Want, rows};
use upstream::Upstream;

use crate::support::{
    destination_rule, ensure, run_table, service_with, sidecar, virtual_service, wait_metric,
};

/// What limits a call, so that silence ends in a test's time.
const TIMEOUT: &str = "4s";
/// Within which every call has to have ended, on a machine that does much else.
const BOUND: Duration = Duration::from_secs(30);

/// One row with one kind of call under one set of rules.
struct Case {
    row: Row,
    kind: Kind,
    retries: bool,
    host: String,
    upstream: Upstream,
}

impl Case {
    async fn new(number: usize, row: Row, kind: Kind, retries: bool) -> Self {
        Case { row, kind, retries, host: format!("c{number}.test"), upstream: Upstream::start(&row).await }
    }

    fn yaml(&self) -> String {
        let host = &self.host;
        let protocol = if self.row.h2() { "HTTP2" } else { "HTTP" };
        let retries =
            "  retries: {attempts: 3, retryOn: \"5xx,reset,connect-failure,refused-stream\", backoff: 1ms}\n";
        let route = format!(
            "- route: [{{destination: {{host: {host}}}}}]\n  timeout: {TIMEOUT}\n{}",
            if self.retries { retries } else { "" }
        );
        let pool = if self.row.h2() { "UPGRADE" } else { "DO_NOT_UPGRADE" };
        let policy = format!("trafficPolicy: {{connectionPool: {{http: {{h2UpgradePolicy: {pool}}}}}}}");
        let name = host.replace('.', "-");
        service_with(host, protocol, &[(self.upstream.port(), "")])
            + &destination_rule(&name, host, &policy)
            + &virtual_service(&name, host, &route)
    }

    fn name(&self) -> String {
        let rules = if self.retries { "with retries" } else { "by default" };
        format!("{}, {:?} {rules}", self.row.name, self.kind)
    }

    async fn run(self, sidecar: SocketAddr) -> Result<(), String> {
        let (name, id) = (self.name(), format!("id-{}", self.host));
        let began = Instant::now();
        let got = tokio::time::timeout(BOUND, self.kind.call(sidecar, &self.host, &id)).await;
        let got = got.map_err(|_| format!("{name}: no end within {BOUND:?}"))?;
        let took = began.elapsed();
        self.judge(&got).map_err(|why| format!("{name}: {why}, after {took:?}"))?;
        let (safe, once) = if self.retries { self.row.retrying } else { self.row.default };
        let most = if self.kind.is_safe() { safe } else { once };
        // An arrival that has just happened may not have been noted yet; one too many would be by then.
        let mut arrivals = self.upstream.arrivals(&id);
        for _ in 0..100 {
            if arrivals >= most || (self.kind == Kind::LargePut && arrivals > 0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            arrivals = self.upstream.arrivals(&id);
        }
        // How much of a large body went up before its upstream failed, and so whether it can go up again, is chance.
        let least = if self.kind == Kind::LargePut { most.min(1) } else { most };
        ensure((least..=most).contains(&arrivals), || {
            format!("{name}: it arrived {arrivals} times, not {least} to {most}; {got:?}")
        })
    }

    fn judge(&self, got: &Got) -> Result<(), String> {
        let right = match (self.row.want, got) {
            (Want::Good(body), Got::Answer { status: 200, reason, body: own }) => {
                reason.is_empty() && own == body
            }
            (Want::Own(status), Got::Answer { status: own, reason, .. }) => {
                *own == status && reason.is_empty()
            }
            (Want::Refused(status, reasons), Got::Answer { status: own, reason, .. }) => {
                // To gRPC a refusal is a status of its own in an answer of 200.
                let status = if self.kind == Kind::Grpc { 200 } else { status };
                *own == status && reasons.contains(&reason.as_str())
            }
            (Want::Cut, Got::Cut) => true,
            _ => false,
        };
        ensure(right, || format!("wanted {:?}, got {got:?}", self.row.want))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failure_is_told_and_no_call_is_done_twice_without_permission() {
    let mut cases = Vec::new();
    for row in rows() {
        for kind in Kind::ALL {
            for retries in [false, true] {
                cases.push(Case::new(cases.len(), row, kind, retries).await);
            }
        }
    }
    let yaml: String = cases.iter().map(Case::yaml).collect();
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let outbound = sidecar.outbound;
    run_table(cases, |_, case| case.run(outbound)).await;
    for gauge in ["requests", "connections"] {
        wait_metric(&sidecar, &format!("pilotfish_{gauge}_active{{direction=\"outbound\"}}"), 0).await;
    }
    // The upstreams are gone by now, so what was kept of their connections has to be, too.
    wait_metric(&sidecar, "pilotfish_upstream_connections_active", 0).await;
}
