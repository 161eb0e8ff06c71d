//! Where configuration comes from: load, compile, publish. One thread of its own does all three, so that no request
//! waits for them; it runs at a lower priority than the workers.
//!
//! Only a set that is valid as a whole is published. Otherwise the last good snapshot goes on serving, and the log,
//! `/config` and a metric say so.

pub mod control;
pub mod file;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use pilotfish_config::model::{Locality, MtlsMode, OutboundMode};
use pilotfish_config::{Loaded, Model, Options, Report, Severity};
use pilotfish_filters::compile::cluster::dns_names;
use pilotfish_filters::compile::{CompileOptions, compile};

use crate::bootstrap::{OutboundPolicy, Settings};
use crate::credentials;
use crate::resolve::Answers;
use crate::server::Shared;
use crate::snapshot::Snapshot;
use crate::telemetry::log;
use crate::tls::outside::OutsideSet;

/// How long a configuration waits for names that it is the first to use; then it is published without them.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// What the last attempt to take a configuration came to, for `/config` and the metrics. No worker reads it.
#[derive(Debug, Default)]
pub struct Status {
    last: Mutex<Attempt>,
    accepted: AtomicU64,
    rejected: AtomicU64,
}

/// One attempt to take a configuration.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    /// When it ended; `None` before the first.
    pub at: Option<SystemTime>,
    /// How long load, validation, compilation and publication took.
    pub took: Duration,
    /// What was said about it.
    pub report: Report,
    /// Why it was refused; `None` when it was published.
    pub refused: Option<Refused>,
}

impl Status {
    /// The last attempt.
    pub fn last(&self) -> Attempt {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the last attempt was published.
    pub fn last_accepted(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).refused.is_none()
    }

    /// Attempts that were published.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Acquire)
    }

    /// Attempts that left the last good snapshot serving.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Acquire)
    }

    fn record(&self, attempt: Attempt) {
        let counter = if attempt.refused.is_none() { &self.accepted } else { &self.rejected };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = attempt;
        // Who sees it counted can ask what became of it.
        counter.fetch_add(1, Release);
    }
}

/// Why a set of documents is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// One line a reason, as a person should read them.
    pub lines: Vec<String>,
}

/// Documents that were loaded and validated, good or not.
#[derive(Debug)]
pub struct Prepared {
    loaded: Loaded,
    took: Duration,
}

/// Loads, compiles and publishes; lives on the configuration thread after the start.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    paths: Vec<PathBuf>,
    options: Options,
    compile: CompileOptions,
    model: Model,
    resources: usize,
    /// The names that are kept up to date.
    following: Vec<Box<str>>,
    /// The addresses that the newest plan was compiled with.
    answers: Arc<Answers>,
    /// The sidecar's trust domain, by which it was compiled.
    trust_domain: Option<String>,
    /// Snapshots that were replaced and that a request may still hold. They are dropped here, never on a worker.
    graveyard: Vec<Arc<Snapshot>>,
    said: HashSet<String>,
    /// Whether a set without documents is taken: a control plane says what it means, a folder may be half deleted.
    empty_is_meant: bool,
}

impl From<Loaded> for Prepared {
    fn from(loaded: Loaded) -> Self {
        Prepared { loaded, took: Duration::ZERO }
    }
}

impl Publisher {
    /// A publisher of what `--config` names.
    pub fn new(shared: Arc<Shared>) -> Self {
        let settings = &shared.settings;
        Publisher {
            paths: settings.config.iter().cloned().collect(),
            options: Options {
                strict_istio: settings.strict_istio,
                default_namespace: settings.namespace.clone(),
                ..Options::default()
            },
            compile: compile_options(settings),
            model: Model::default(),
            resources: 0,
            following: Vec::new(),
            answers: Arc::default(),
            trust_domain: None,
            graveyard: Vec::new(),
            said: HashSet::new(),
            empty_is_meant: false,
            shared,
        }
    }

    /// Loads the documents and publishes them when they are valid as a whole.
    ///
    /// # Errors
    /// Why they are not; the last good snapshot goes on serving.
    pub fn reload(&mut self) -> Result<(), Refused> {
        let prepared = self.prepare();
        self.finish(prepared)
    }

    /// Loads and validates the documents as they are now. Changes nothing.
    pub fn prepare(&self) -> Prepared {
        let start = Instant::now();
        let loaded = pilotfish_config::load(&self.paths, &self.options);
        Prepared { loaded, took: start.elapsed() }
    }

    /// Publishes what was loaded when it is valid as a whole.
    ///
    /// # Errors
    /// Why it is not; the last good snapshot goes on serving.
    pub fn finish(&mut self, prepared: Prepared) -> Result<(), Refused> {
        let start = Instant::now();
        let Loaded { model, report } = prepared.loaded;
        let result = self.judge(model, &report).and_then(|model| self.take(model, report.resources));
        if result.is_ok() {
            self.say_warnings(&report);
        }
        let attempt = Attempt {
            at: Some(SystemTime::now()),
            took: prepared.took + start.elapsed(),
            report,
            refused: result.as_ref().err().cloned(),
        };
        self.shared.config.record(attempt);
        result
    }

    /// Whether a loaded set may serve at all.
    fn judge(&self, model: Option<Model>, report: &Report) -> Result<Model, Refused> {
        let Some(model) = model else {
            let errors = report.diagnostics.iter().filter(|d| d.severity == Severity::Error);
            return Err(Refused { lines: errors.map(ToString::to_string).collect() });
        };
        if !self.empty_is_meant && report.resources == 0 && self.shared.snapshots.newest().resources > 0 {
            let line = "no document is left; a restart serves without any, if that is meant".to_owned();
            return Err(Refused { lines: vec![line] });
        }
        Ok(model)
    }

    /// Publishes a judged model with the addresses of its names.
    fn take(&mut self, model: Model, resources: usize) -> Result<(), Refused> {
        let names = self.names(&model);
        // Until the new plan serves, the old one's names are kept up to date too.
        let both: Vec<Box<str>> = self.following.iter().chain(&names).cloned().collect();
        if !both.is_empty() {
            self.shared.dns.follow(&both, FIRST_ANSWERS);
        }
        let result = self.publish(&model, resources);
        if result.is_ok() {
            self.following = names;
            let probe = model.probe_for(&self.compile.namespace, &self.compile.labels).cloned();
            *self.shared.probe.lock().unwrap_or_else(PoisonError::into_inner) = probe;
            self.model = model;
            self.resources = resources;
        }
        if !both.is_empty() {
            self.shared.dns.follow(&self.following, Duration::ZERO);
        }
        result
    }

    /// Every name whose addresses have to be known: those of the documents, and the local agent's.
    fn names(&self, model: &Model) -> Vec<Box<str>> {
        let mut names = dns_names(model, &self.compile.place()).into_vec();
        let app = self.shared.settings.app.as_ref().filter(|app| app.host.parse::<IpAddr>().is_err());
        names.extend(app.map(|app| Box::from(app.host.to_ascii_lowercase())));
        names
    }

    /// Where the local agent listens, as far as its name resolves.
    fn agent(&self, answers: &Answers) -> Option<SocketAddr> {
        let app = self.shared.settings.app.as_ref()?;
        let ip = match app.host.parse() {
            Ok(ip) => ip,
            Err(_) => *answers.get(app.host.to_ascii_lowercase().as_str())?.first()?,
        };
        Some(SocketAddr::new(ip, app.port))
    }

    /// Who the plan is for, by the identity of the moment.
    fn options_now(&self) -> CompileOptions {
        let trust_domain = self.shared.tls.own().map(|own| own.id.trust_domain().to_string());
        // Who is to have an identity takes nobody without one, also before it is there.
        let settings = &self.shared.settings;
        let expected = settings.identity_cert.is_some()
            || settings.control.workload_api.is_some()
            || !settings.control.addresses.is_empty();
        let default_mtls = expected.then_some(MtlsMode::Strict);
        CompileOptions { trust_domain, default_mtls, ..self.compile.clone() }
    }

    /// Compiles `model` and makes it the newest snapshot.
    fn publish(&mut self, model: &Model, resources: usize) -> Result<(), Refused> {
        let answers = self.shared.dns.answers();
        let shared = &self.shared;
        let options = self.options_now();
        let plan = compile(model, &options, &answers, &shared.state, shared.clock.now())
            .map_err(|errors| Refused { lines: errors.iter().map(ToString::to_string).collect() })?;
        if let Some(strict) = plan.strict_by()
            && options.trust_domain.is_none()
        {
            let line = format!(
                "{strict}: error: mode STRICT, but this sidecar has no identity: join a control plane, or give \
                 --identity-cert, --identity-key and --trust-bundle"
            );
            return Err(Refused { lines: vec![line] });
        }
        let outside = OutsideSet::of_plan(&plan).map_err(|lines| Refused { lines })?;
        let version = shared.snapshots.version() + 1;
        let agent = self.agent(&answers);
        let issuers = shared.tokens.follow(plan.tokens());
        let credentials = credentials::follow(shared, &plan);
        let published = SystemTime::now();
        let snapshot = Snapshot { version, plan, outside, issuers, credentials, agent, resources, published };
        snapshot.plan.settle_limits(shared.clock.now());
        shared.exporter.follow(&snapshot.plan);
        self.answers = answers;
        self.trust_domain = options.trust_domain;
        self.graveyard.push(self.shared.snapshots.publish(Arc::new(snapshot)));
        self.shared.starts.look();
        self.shared.tokens.look();
        self.bury();
        Ok(())
    }

    /// Compiles the same documents again if their names resolve to other addresses than before, or the sidecar is of another
    /// trust domain.
    ///
    /// # Errors
    /// Why the plan cannot be compiled; the last good snapshot goes on serving.
    pub fn republish(&mut self) -> Result<(), Refused> {
        if self.answers == self.shared.dns.answers() && self.trust_domain == self.options_now().trust_domain {
            return Ok(());
        }
        let model = std::mem::take(&mut self.model);
        let result = self.publish(&model, self.resources);
        self.model = model;
        result
    }

    /// Drops the replaced snapshots that no request holds any more. Gives whether any is left.
    pub fn bury(&mut self) -> bool {
        self.graveyard.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        !self.graveyard.is_empty()
    }

    /// Logs what became of a change while the process serves.
    pub fn say(&self, result: &Result<(), Refused>) {
        let version = self.shared.snapshots.version();
        match result {
            Ok(()) => {
                let took = format!("{:.1?}", self.shared.config.last().took);
                log::info!("configuration taken", version = version, documents = self.resources, took = took);
            }
            Err(refused) => {
                log::error!("configuration refused, the last good one goes on serving", version = version);
                for line in &refused.lines {
                    log::error!(line);
                }
            }
        }
    }

    /// Logs the warnings that the configuration before did not have.
    fn say_warnings(&mut self, report: &Report) {
        let warnings = report.diagnostics.iter().filter(|d| d.severity == Severity::Warning);
        let mut warnings: HashSet<String> = warnings.map(ToString::to_string).collect();
        let newest = self.shared.snapshots.newest();
        warnings.extend(newest.plan.warnings().iter().map(|line| line.to_string()));
        let mut new: Vec<&String> = warnings.difference(&self.said).collect();
        new.sort_unstable();
        for line in new {
            log::warn!(line);
        }
        self.said = warnings;
    }
}

/// Who the plan is for.
/// A variable that a document names.
#[expect(clippy::disallowed_methods, reason = "customTags of Telemetry documents: no setting of the process")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn compile_options(settings: &Settings) -> CompileOptions {
    CompileOptions {
        agent: settings.agent.clone(),
        namespace: settings.namespace.clone(),
        labels: settings.labels.iter().cloned().collect(),
        locality: settings.locality.as_deref().map(Locality::parse).unwrap_or_default(),
        outbound: match settings.outbound_policy {
            OutboundPolicy::AllowAny => OutboundMode::AllowAny,
            OutboundPolicy::RegistryOnly => OutboundMode::RegistryOnly,
        },
        alone: settings.control.addresses.is_empty(),
        environment: Some(environment),
        capacity: settings.supervise.capacity,
        normalization: settings.reading.path_normalization.into(),
        default_deny: settings.default_deny,
        ..CompileOptions::default()
    }
}

#[cfg(test)]
mod tests;
