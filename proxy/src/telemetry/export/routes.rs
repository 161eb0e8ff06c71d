//! Where the spans and log records of each direction go: to the default, or to the providers that Telemetry documents name.

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use pilotfish_filters::telemetry::Collector as Provider;

use super::Why;
use super::gather::{Ends, SpanBatch};
use crate::bootstrap::otlp::{Plan, Way, environment, provider};
use crate::clock::Epoch;
use crate::listen::Direction;
use crate::server::Shared;
use crate::telemetry::call::CallRecord;
use crate::telemetry::log;
use crate::telemetry::otlp::lane::{Counts, Lane};
use crate::telemetry::otlp::send::Sender;
use crate::telemetry::otlp::spans::Spans;
use crate::telemetry::otlp::target::{Signal, Target};

/// What documents call the collector of flags and variables.
const OTLP: &str = "otlp";
/// What they call the control plane.
const CONTROL: &str = "pilotfish";

/// A place where one signal goes.
struct Destination {
    name: Box<str>,
    signal: Signal,
    /// What its document says; none for what flags and variables say.
    provider: Option<Provider>,
    lane: Lane,
    spans: SpanBatch,
    logs: Vec<LogRecord>,
}

/// All of them, as the newest configuration wants it.
pub struct Routes {
    shared: Arc<Shared>,
    plan: Plan,
    counts: [Arc<Counts>; 3],
    ends: Ends,
    version: u64,
    destinations: Vec<Destination>,
    /// Positions of destinations, by signal and direction.
    ways: [[Vec<usize>; 2]; 3],
}

impl Routes {
    /// By flags, variables, and the newest configuration.
    pub fn new(shared: Arc<Shared>, plan: Plan, counts: [Arc<Counts>; 3], ends: Ends) -> Routes {
        let version = shared.snapshots.version();
        let (destinations, ways) = (Vec::new(), Default::default());
        let mut routes = Routes { shared, plan, counts, ends, version, destinations, ways };
        routes.lay();
        routes
    }

    /// Follows the configuration.
    pub fn follow(&mut self) {
        let version = self.shared.snapshots.version();
        if version != self.version {
            self.version = version;
            self.lay();
        }
    }

    /// What a default stands for, and what a name does.
    fn lay(&mut self) {
        let newest = self.shared.snapshots.newest();
        let known = newest.plan.telemetry_providers();
        // What is gathered for those that are no more wanted goes there all the same.
        self.send();
        let mut before = std::mem::take(&mut self.destinations);
        let policies = [newest.plan.client_telemetry(), newest.plan.server_telemetry()];
        for signal in Signal::ALL {
            for direction in Direction::ALL {
                let policy = policies[direction as usize];
                let names: &[Box<str>] = match signal {
                    Signal::Traces => &policy.tracing.providers,
                    Signal::Logs => &policy.access_log.providers,
                    Signal::Metrics => &[],
                };
                let default = [Box::from("")];
                let names = if names.is_empty() { &default } else { names };
                let mut ways: Vec<usize> = names
                    .iter()
                    .filter_map(|name| self.destination(signal, name, known, &mut before))
                    .collect();
                ways.sort_unstable();
                ways.dedup();
                self.ways[signal as usize][direction as usize] = ways;
            }
        }
    }

    /// The position of the destination, which is made if need be. `None`: nothing goes there.
    fn destination(
        &mut self,
        signal: Signal,
        name: &str,
        known: &[Provider],
        before: &mut Vec<Destination>,
    ) -> Option<usize> {
        let way = &self.plan.ways[signal as usize];
        let control = signal == Signal::Traces && !self.shared.settings.control.addresses.is_empty();
        // The default is a collector, if there is one, else the control plane.
        let (name, provider) = match (way, name) {
            (Way::Off, _) => return None,
            (Way::Collector(_), "" | OTLP) => (OTLP, None),
            (_, "" | OTLP | CONTROL) if control => (CONTROL, None),
            (_, "" | OTLP | CONTROL) => return None,
            (_, name) => (name, Some(known.iter().find(|one| *one.name == *name)?)),
        };
        let is = |one: &Destination| {
            one.signal == signal && *one.name == *name && one.provider.as_ref() == provider
        };
        if let Some(at) = self.destinations.iter().position(is) {
            return Some(at);
        }
        let destination = match before.iter().position(is) {
            Some(at) => before.swap_remove(at),
            None => self.open(signal, name, provider)?,
        };
        self.destinations.push(destination);
        Some(self.destinations.len() - 1)
    }

    fn open(&self, signal: Signal, name: &str, document: Option<&Provider>) -> Option<Destination> {
        let target = match (&self.plan.ways[signal as usize], document) {
            (_, Some(document)) => match provider::collector(document, signal, &environment) {
                Ok(collector) => Target::Collector(Box::new(collector)),
                Err(why) => {
                    log::error!("nothing is sent to a TelemetryProvider", provider = name, why = why);
                    return None;
                }
            },
            (Way::Collector(collector), None) if name == OTLP => Target::Collector(collector.clone()),
            _ => Target::Control,
        };
        let (shown, counts) = (target.to_string(), self.counts[signal as usize].clone());
        let lane = Lane::start(&shown, signal, Sender::new(self.shared.clone(), target), counts);
        Some(Destination {
            name: name.into(),
            signal,
            provider: document.cloned(),
            lane,
            spans: SpanBatch::default(),
            logs: Vec::new(),
        })
    }

    /// Gathers the spans of a call.
    pub fn call(&mut self, made: &mut Spans, call: &CallRecord, why: Why, epoch: Epoch) {
        for at in &self.ways[Signal::Traces as usize][call.direction as usize] {
            let Some(destination) = self.destinations.get_mut(*at) else { continue };
            let batch = &mut destination.spans;
            batch.count += made.append(&mut batch.spans, call, why, epoch);
            if batch.is_full(self.plan.batching.batch) {
                destination.send_spans(&self.ends);
            }
        }
    }

    /// Gathers a log record.
    pub fn log(&mut self, direction: Direction, record: &LogRecord) {
        for at in &self.ways[Signal::Logs as usize][direction as usize] {
            let Some(destination) = self.destinations.get_mut(*at) else { continue };
            destination.logs.push(record.clone());
            if destination.logs.len() >= self.plan.batching.batch {
                destination.send_logs(&self.ends);
            }
        }
    }

    /// Sends what is gathered.
    pub fn send(&mut self) {
        for destination in &mut self.destinations {
            destination.send_spans(&self.ends);
            destination.send_logs(&self.ends);
        }
    }

    /// Whether metrics go anywhere.
    pub fn takes_metrics(&self) -> bool {
        !self.ways[Signal::Metrics as usize][0].is_empty()
    }

    /// Sends metrics.
    pub fn metrics(&self, metrics: Vec<Metric>) {
        let count = metrics.len() as u64;
        let message: Bytes = self.ends.metrics(metrics);
        for at in &self.ways[Signal::Metrics as usize][0] {
            if let Some(destination) = self.destinations.get(*at) {
                destination.lane.push(message.clone(), count);
            }
        }
    }

    /// Every lane, to wait for.
    pub fn lanes(&self) -> Vec<Lane> {
        self.destinations.iter().map(|destination| destination.lane.clone()).collect()
    }
}

impl Destination {
    fn send_spans(&mut self, ends: &Ends) {
        if self.spans.count > 0 {
            let (message, count) = self.spans.take(ends);
            self.lane.push(message, count);
        }
    }

    fn send_logs(&mut self, ends: &Ends) {
        if !self.logs.is_empty() {
            let records = std::mem::take(&mut self.logs);
            let count = records.len() as u64;
            self.lane.push(ends.logs(records), count);
        }
    }
}
