//! What has to be reached, and whether it is.

use crate::peers::Peer;
use crate::record::{Record, Spread};
use crate::work::Work;

/// What a figure of ours is held against.
#[derive(Clone, Copy)]
pub enum Against {
    /// The same figure of a rival in the same round.
    Peer(Peer),
    /// Nothing: the figure itself has a limit.
    Itself,
}

/// One thing to reach.
pub struct Bar {
    /// Which workload.
    pub work: Work,
    /// What the workload was run at; empty: it has one way to run.
    pub at: &'static str,
    /// Whose figure.
    pub ours: Peer,
    /// The figure's name.
    pub value: &'static str,
    /// What it is in words.
    pub words: &'static str,
    /// What it is held against.
    pub against: Against,
    /// The most that the ratio, or the figure, may be.
    pub limit: f64,
    /// What to aim at beyond that.
    pub aim: Option<f64>,
}

const fn ratio(work: Work, value: &'static str, words: &'static str, peer: Peer, limit: f64) -> Bar {
    Bar { work, at: "", ours: Peer::Pilotfish, value, words, against: Against::Peer(peer), limit, aim: None }
}

const fn absolute(work: Work, ours: Peer, value: &'static str, words: &'static str, limit: f64) -> Bar {
    Bar { work, at: "", ours, value, words, against: Against::Itself, limit, aim: None }
}

const CPU: &str = "CPU per request";

/// All of them.
pub const BARS: [Bar; 55] = [
    Bar { aim: Some(0.85), ..ratio(Work::H1, "cpu_us", CPU, Peer::Haproxy, 1.05) },
    ratio(Work::H1, "cpu_us", CPU, Peer::Envoy, 0.35),
    ratio(Work::H1, "cpu_us", CPU, Peer::Pingora, 0.6),
    Bar {
        ours: Peer::PilotfishBig,
        ..ratio(Work::Table, "cpu_us", "CPU per request, big table ÷ small", Peer::Pilotfish, 1.10)
    },
    Bar { aim: Some(0.35), ..ratio(Work::Body, "cpu_us", "CPU per byte", Peer::Haproxy, 1.15) },
    ratio(Work::H2c, "cpu_us", CPU, Peer::Envoy, 0.6),
    Bar { aim: Some(1.0), ..ratio(Work::H2c, "cpu_us", CPU, Peer::Haproxy, 2.0) },
    ratio(Work::Hash, "cpu_us", CPU, Peer::Haproxy, 1.0),
    ratio(Work::Latency, "added_p50", "added latency p50", Peer::Haproxy, 1.05),
    ratio(Work::Latency, "added_p99", "added latency p99", Peer::Haproxy, 1.5),
    Bar { at: "100,000/s", ..ratio(Work::Events, "cpu_us", "CPU per event", Peer::Haproxy, 1.1) },
    Bar {
        at: "25,000/s",
        ..absolute(Work::Events, Peer::Pilotfish, "added_p99", "p99 added per event, us", 1000.0)
    },
    Bar {
        at: "100,000/s",
        ..absolute(Work::Events, Peer::Pilotfish, "added_p99", "p99 added per event, us", 1000.0)
    },
    absolute(Work::Idle, Peer::Pilotfish, "rss_mib", "resident at the start, MiB", 10.0),
    absolute(Work::Idle, Peer::Pilotfish, "kib_per_conn", "KiB for each idle connection", 12.0),
    absolute(Work::Reload, Peer::PilotfishBig, "reload_ms", "reload after the debounce, ms", 100.0),
    absolute(Work::Reload, Peer::PilotfishBig, "reload_max_ms", "slowest reload of a run, ms", 100.0),
    absolute(Work::Reload, Peer::PilotfishBig, "slowest_ms", "slowest request in a reload, ms", 5.0),
    absolute(Work::Reload, Peer::PilotfishBig, "errors", "failed requests", 0.0),
    // The aim is what HAProxy itself reaches with HTTP/2 between.
    Bar {
        aim: Some(0.66),
        ..ratio(Work::Mesh, "cpu_us", "CPU per request, both sides", Peer::Haproxy, 0.95)
    },
    ratio(Work::Mesh, "cpu_us", "CPU per request, both sides", Peer::Envoy, 0.4),
    // 2.5 and 1.4 times as many connections a second of the same core.
    ratio(Work::Handshakes, "cpu_us", "CPU per connection", Peer::Haproxy, 0.4),
    ratio(Work::Handshakes, "cpu_us", "CPU per connection", Peer::Envoy, 0.714),
    absolute(
        Work::Fleet,
        Peer::Control,
        "push_ms",
        "one route to 1,000 sidecars, beyond the debounce, ms",
        500.0,
    ),
    absolute(Work::Fleet, Peer::Control, "push_max_ms", "the slowest of them, ms", 500.0),
    absolute(
        Work::Fleet,
        Peer::Control,
        "delta_bytes",
        "one endpoint more among 10,000, bytes a sidecar",
        1024.0,
    ),
    absolute(Work::Fleet, Peer::Control, "fleet_rss_mib", "resident with 10,000 sidecars, MiB", 1536.0),
    absolute(Work::Fleet, Peer::Control, "heartbeat_cores", "heartbeats of 10,000 sidecars, cores", 0.5),
    absolute(
        Work::Nodes,
        Peer::Control,
        "lease_cores",
        "leases of 1,000 nodes with 10,000 agents, cores",
        0.5,
    ),
    absolute(
        Work::Start,
        Peer::Control,
        "beyond_ms",
        "apply to first answer beyond the agent's own start, ms",
        300.0,
    ),
    absolute(Work::Nodes, Peer::Control, "errors", "streams of nodes that ended", 0.0),
    absolute(
        Work::Placement,
        Peer::Control,
        "all_ms",
        "10,000 replicas on 1,000 nodes from nothing, ms",
        2000.0,
    ),
    absolute(Work::Placement, Peer::Control, "apart_all_ms", "the same, 1,000 of them apart, ms", 2000.0),
    absolute(Work::Placement, Peer::Control, "one_ms", "one more replica, ms", 5.0),
    absolute(Work::Placement, Peer::Control, "exact_lost_pct", "below an exact solver, %", 5.0),
    absolute(
        Work::Placement,
        Peer::Control,
        "rival_over_ours",
        "the better of best-fit and first-fit ÷ ours",
        1.0,
    ),
    absolute(Work::Spans, Peer::Control, "cores", "50,000 spans/s, cores", 1.0),
    absolute(Work::Spans, Peer::Control, "rate_missed_pct", "below 50,000 spans/s, %", 2.0),
    absolute(Work::Spans, Peer::Control, "errors", "batches refused at 50,000 spans/s", 0.0),
    absolute(Work::Spans, Peer::Control, "search_ms", "slowest search over a million spans, ms", 300.0),
    absolute(Work::Spans, Peer::Control, "rss_mib", "resident after a minute of 50,000 spans/s, MiB", 512.0),
    Bar {
        ours: Peer::PilotfishPolicies,
        ..ratio(Work::Policies, "cpu_us", "CPU per request, all policies ÷ none", Peer::Pilotfish, 1.08)
    },
    ratio(Work::Telemetry, "cpu_us", "CPU per request, metrics and 1 % of traces", Peer::PilotfishOff, 1.04),
    Bar {
        ours: Peer::PilotfishTraced,
        ..ratio(Work::Telemetry, "cpu_us", "CPU per request, every trace", Peer::PilotfishOff, 1.35)
    },
    Bar {
        ours: Peer::PilotfishTraced,
        ..ratio(Work::Telemetry, "cpu_us", "CPU per request, every trace", Peer::EnvoyTraced, 1.0)
    },
    ratio(Work::Authz, "cpu_us", "CPU per request, 1,000 rules ÷ none", Peer::PilotfishOpen, 1.03),
    Bar {
        ours: Peer::PilotfishAudited,
        ..ratio(Work::Authz, "cpu_us", "CPU per request, every call audited ÷ not", Peer::Pilotfish, 1.05)
    },
    absolute(Work::Roles, Peer::Control, "roles_ms", "10,000 roles pushed, ms", 200.0),
    absolute(Work::Tokens, Peer::Control, "known_us", "a token seen before, us", 2.0),
    absolute(Work::Tokens, Peer::Control, "es256_us", "a new ES256 token, us", 150.0),
    absolute(Work::Failing, Peer::Pilotfish, "failed_early_pct", "callers' errors in the first 2 s, %", 0.5),
    Bar {
        at: "one slow",
        ..absolute(Work::Slow, Peer::Pilotfish, "p99_over_even", "p99 with a slow endpoint ÷ without", 1.5)
    },
    absolute(Work::Storm, Peer::Pilotfish, "extra_pct", "requests that retries add, %", 20.0),
    absolute(Work::Overload, Peer::Pilotfish, "goodput_lost_pct", "capacity that is not used well, %", 10.0),
    absolute(Work::Overload, Peer::Pilotfish, "critical_lost_pct", "critical calls that fail, %", 1.0),
];

impl Bar {
    /// The ratio (or figure) over the rounds; none when one side was not measured.
    pub fn reached(&self, records: &[Record]) -> Option<Spread> {
        let figure = |peer: Peer, round: usize| {
            let same = |r: &&Record| {
                r.work == self.work
                    && r.peer == peer
                    && r.round == round
                    && (self.at.is_empty() || r.at == self.at)
            };
            records.iter().find(same).and_then(|r| r.values.get(self.value).copied())
        };
        let rounds = records.iter().filter(|r| r.work == self.work).map(|r| r.round).max()?;
        let each = (0..=rounds).filter_map(|round| {
            let ours = figure(self.ours, round)?;
            match self.against {
                Against::Itself => Some(ours),
                Against::Peer(peer) => figure(peer, round).filter(|f| *f > 0.0).map(|theirs| ours / theirs),
            }
        });
        Spread::of(each.collect())
    }

    /// The bar in words.
    pub fn text(&self) -> String {
        let at = if self.at.is_empty() { String::new() } else { format!(" at {}", self.at) };
        let limit = self.limit;
        match self.against {
            Against::Peer(Peer::Pilotfish) => format!("{}{at}: at most {limit:.2}", self.words),
            Against::Peer(peer) => format!("{}{at}: at most {limit:.2} x {}'s", self.words, peer.name()),
            Against::Itself => format!("{}{at}: at most {limit}", self.words),
        }
    }

    /// Whether the median reaches it.
    pub fn verdict(&self, spread: Option<Spread>) -> &'static str {
        match (spread, self.aim) {
            (None, _) => "not measured",
            (Some(s), Some(aim)) if s.median <= aim => "pass, and the aim",
            (Some(s), _) if s.median <= self.limit => "pass",
            _ => "MISS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Values;

    fn record(peer: Peer, round: usize, cpu: f64) -> Record {
        let values = Values::from([("cpu_us".to_owned(), cpu)]);
        Record { work: Work::H1, at: String::new(), peer, round, values }
    }

    #[test]
    fn a_bar_takes_the_median_of_the_rounds_ratios() {
        let mut records = Vec::new();
        for (round, (ours, theirs)) in [(10.0, 10.0), (9.0, 10.0), (30.0, 20.0)].into_iter().enumerate() {
            records.push(record(Peer::Pilotfish, round, ours));
            records.push(record(Peer::Haproxy, round, theirs));
        }
        let spread = BARS[0].reached(&records);
        assert_eq!(spread, Some(Spread { median: 1.0, min: 0.9, max: 1.5 }));
        assert_eq!(BARS[0].verdict(spread), "pass");
        assert_eq!(BARS[1].verdict(BARS[1].reached(&records)), "not measured");
    }
}
