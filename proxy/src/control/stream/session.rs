//! One stream from its hello to its end.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pilotfish_client::{Address, Connection, Cut, Messages, Problem, Proof};
use pilotfish_config::wire::node::NotStarted;
use pilotfish_config::wire::{
    Heartbeat, Hello, LONGEST_TO_SIDECAR, LimitUse, MAJOR, Rank, Reading, Report, Resume, Status, ToControl,
    ToSidecar, Update, Versions, Welcome,
};
use tokio::time::{Instant, MissedTickBehavior};

use super::Stream;
use super::asked::Asked;
use crate::audit::ship::Shipping;
use crate::control::connect::connect;
use crate::control::limits::Uses;
use crate::control::reports::Reports;
use crate::listen::Direction;
use crate::shutdown::Phase;
use crate::source::control::Offer;
use crate::source::file::Event;
use crate::starts::Told;
use crate::telemetry::log;
use crate::telemetry::tap::Looking;

/// From the hello to the welcome.
const WELCOME: Duration = Duration::from_secs(5);
/// A control plane that takes nothing for so long is dead.
const TAKES_NOTHING: Duration = Duration::from_secs(5);
/// Heartbeats come at least this often and at most this rarely, whatever a control plane asks for.
const HEARTBEAT: (u64, u64) = (100, 60_000);
/// How often there may be something to report.
const TICK: Duration = Duration::from_secs(1);
/// How often it is said again that calls wait for agents.
const ASKS: Duration = Duration::from_secs(1);
/// How often there may be something to report of rate limits.
const LIMITS: Duration = Duration::from_millis(500);
/// How often calls are told that somebody looks at, one message for each who looks ...
const TAPPED: Duration = Duration::from_millis(100);
/// ... and how long each of them takes: a control plane takes a hundred messages within a second.
const TAPPED_EACH: Duration = Duration::from_millis(25);

/// Why a stream ended.
#[derive(Debug)]
pub enum Ended {
    /// The control plane is away, or went away.
    Lost(String),
    /// It does not serve this sidecar.
    Refused {
        /// Why, for people.
        reason: String,
        /// Whether that may change by itself.
        retry: bool,
    },
    /// What it sends is no message.
    Broken(String),
}

fn lost(error: impl std::fmt::Display) -> Ended {
    Ended::Lost(error.to_string())
}

impl From<Problem> for Ended {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Away(why) => Ended::Lost(why),
            Problem::Impostor(reason) | Problem::Refused(reason) => Ended::Refused { reason, retry: false },
        }
    }
}

impl From<Cut> for Ended {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Away(why) => Ended::Lost(why),
            Cut::Broken(why) => Ended::Broken(why),
        }
    }
}

impl Stream {
    /// One stream to this control plane.
    pub(super) async fn session(&mut self, address: &Address) -> Ended {
        match self.serve(address).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn serve(&mut self, address: &Address) -> Result<std::convert::Infallible, Ended> {
        let proof = Proof::Live(self.member.identity().clone());
        let mut connection = connect(&self.member.shared, address, &proof).await?;
        let hello = self.hello(&connection).await?;
        let alive = connection.alive();
        let opened = open(&mut connection, hello);
        let (mut messages, welcome) = tokio::time::timeout(WELCOME, opened)
            .await
            .map_err(|_| lost("it did not answer the hello"))??;
        if welcome.versions.major != MAJOR {
            let (theirs, own) = (welcome.versions.major, MAJOR);
            return Err(Ended::Broken(format!(
                "it speaks version {theirs} of the protocol, this sidecar {own}"
            )));
        }
        self.uses = Uses::default();
        self.member.set_connected(true);
        log::info!(
            "control plane connected",
            control = address,
            name = welcome.control,
            build = welcome.versions.build
        );
        tokio::select! {
            biased;
            ended = self.exchange(&mut messages, &welcome) => ended,
            cut = alive => Err(cut.into()),
        }
    }

    async fn hello(&self, connection: &Connection) -> Result<Hello, Ended> {
        let settings = &self.member.shared.settings;
        let control = &settings.control;
        let address = match &control.advertise {
            Some(advertise) => {
                let addresses = self.member.shared.dns.lookup(&advertise.host).await;
                let addresses =
                    addresses.map_err(|why| lost(format!("cannot resolve --advertise: {}", why.0)))?;
                addresses.first().map(|ip| SocketAddr::new(*ip, advertise.port))
            }
            None => settings.app.as_ref().map(|_| reachable(self.member.inbound, connection.local)),
        };
        let instance = self.member.instance.clone();
        Ok(Hello {
            versions: Versions::own(),
            agent: settings.agent.clone(),
            namespace: settings.namespace.clone(),
            instance,
            labels: settings.labels.iter().cloned().collect(),
            locality: settings.locality.clone(),
            address,
            weight: 1,
            capabilities: control.capabilities.clone(),
            status: self.status().0,
            resume: self.resume.clone(),
            certificate_expires: self.member.certificate_expires(),
            signs_chains: true,
            dedup_epoch: Some(self.member.shared.dedup.epoch.to_string()),
            capacity: settings.supervise.capacity,
            reading: Reading {
                normalization: settings.reading.path_normalization.into(),
                trusted_hops: settings.reading.trusted_hops,
                default_deny: settings.default_deny,
            },
        })
    }

    /// How the agent is, and why.
    fn status(&self) -> (Status, Option<String>) {
        if self.member.shared.drain.phase() >= Phase::Unready {
            return (Status::Draining, None);
        }
        let health = self.member.shared.health.borrow();
        (health.status, health.detail.clone())
    }

    /// Everything after the welcome.
    async fn exchange(
        &mut self,
        messages: &mut Messages<ToSidecar>,
        welcome: &Welcome,
    ) -> Result<std::convert::Infallible, Ended> {
        let every = Duration::from_millis(welcome.heartbeat_ms.clamp(HEARTBEAT.0, HEARTBEAT.1));
        let member = self.member.clone();
        let (mut state, mut health) = (member.state.subscribe(), member.shared.health.subscribe());
        // Said once: the phases after the first are nobody else's business.
        let (mut phase, mut draining) = (member.shared.drain.watch(), false);
        let mut tick = tokio::time::interval(TICK.min(every));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut limits = tokio::time::interval(LIMITS.min(every));
        limits.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reports, mut beat) = (Reports::default(), Instant::now());
        // Who looks does so by this stream, and asks by it.
        let _looking = Looking(&member.shared.taps);
        self.asked = Asked::default();
        self.audit = Shipping::new(&member.shared);
        let mut look = tokio::time::interval(TAPPED);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0;
        let mut told = Told::default();
        let mut asks = tokio::time::interval(ASKS);
        asks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A new control plane has to be told, whether or not it changed since.
        state.mark_changed();
        loop {
            if looks != member.shared.taps.count() {
                looks = member.shared.taps.count();
                look = tokio::time::interval(TAPPED.max(TAPPED_EACH * u32::try_from(looks).unwrap_or(1)));
                look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            }
            tokio::select! {
                biased;
                message = messages.next() => {
                    let message = message?;
                    let slices = matches!(message, ToSidecar::Shares(_));
                    self.take(message).await?;
                    if slices {
                        // What a slice lost is given to others once it is said that it is not used any more.
                        let used = self.used(false);
                        send(messages, &self.heartbeat(Vec::new(), used)).await?;
                    }
                }
                Ok(()) = state.changed() => {
                    let now = state.borrow_and_update().clone();
                    if now != pilotfish_config::wire::State::default() {
                        send(messages, &ToControl::State(now)).await?;
                    }
                }
                Ok(()) = health.changed() => {
                    send(messages, &self.heartbeat(Vec::new(), Vec::new())).await?;
                    beat = Instant::now() + every;
                }
                Ok(()) = phase.changed(), if !draining => {
                    draining = true;
                    send(messages, &self.heartbeat(Vec::new(), Vec::new())).await?;
                }
                Some(answered) = self.asked.answer() => {
                    send(messages, &ToControl::Answered(answered)).await?;
                }
                () = member.shared.starts.asked.notified() => {
                    self.ask(&mut told, messages).await?;
                    asks.reset();
                }
                _ = asks.tick() => self.ask(&mut told, messages).await?,
                _ = look.tick(), if looks > 0 => {
                    for tapped in member.shared.taps.take(&member.shared) {
                        send(messages, &ToControl::Tapped(tapped)).await?;
                    }
                }
                traces = member.shared.recalls.next() => {
                    send(messages, &ToControl::Partial(traces)).await?;
                }
                batch = self.audit.next() => {
                    send(messages, &ToControl::Audit(batch)).await?;
                }
                _ = limits.tick() => {
                    let used = self.used(false);
                    if !used.is_empty() {
                        send(messages, &self.heartbeat(Vec::new(), used)).await?;
                    }
                }
                _ = tick.tick() => {
                    let shared = &member.shared;
                    let newest = shared.snapshots.newest();
                    let new = reports.collect(&newest.plan, shared.clock.now(), Instant::now());
                    let edges = self.edges.report(shared, Instant::now());
                    self.idle.look(shared, Instant::now());
                    if !new.is_empty() || !edges.is_empty() || Instant::now() >= beat {
                        let used = self.used(true);
                        let mut message = self.heartbeat(new, used);
                        if let ToControl::Heartbeat(heartbeat) = &mut message {
                            heartbeat.edges = edges;
                        }
                        send(messages, &message).await?;
                        beat = Instant::now() + every.saturating_sub(TICK.min(every) / 2);
                    }
                }
            }
        }
    }

    /// Says for which agents calls wait, and once that they do no more.
    async fn ask(&self, told: &mut Told, messages: &mut Messages<ToSidecar>) -> Result<(), Ended> {
        match told.next(&self.member.shared.starts) {
            Some(asked) => send(messages, &ToControl::Asked(asked)).await,
            None => Ok(()),
        }
    }

    /// What was used of fleet-wide rate limits.
    fn used(&mut self, all: bool) -> Vec<LimitUse> {
        let shared = &self.member.shared;
        self.uses.collect(&shared.snapshots.newest().plan, shared.clock.now(), all)
    }

    fn heartbeat(&mut self, reports: Vec<Report>, limits: Vec<LimitUse>) -> ToControl {
        let idle = self.idle.look(&self.member.shared, Instant::now());
        let (status, detail) = self.status();
        let workers = self.member.shared.metrics.iter();
        let in_flight: u64 =
            workers.map(|worker| worker.direction(Direction::Inbound).active_requests.get()).sum();
        ToControl::Heartbeat(Heartbeat {
            status,
            detail,
            in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
            reports,
            certificate_expires: self.member.certificate_expires(),
            limits,
            edges: Vec::new(),
            idle_ms: Some(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)),
            usage: self.member.shared.supervised.as_ref().and_then(|known| known.state().usage),
        })
    }

    async fn take(&mut self, message: ToSidecar) -> Result<(), Ended> {
        match message {
            ToSidecar::Update(update) => self.update(*update).await,
            ToSidecar::Ranks(ranks) => {
                let shared = &self.member.shared;
                let newest = shared.snapshots.newest();
                for Rank { endpoint, latency_us, success, .. } in ranks.ranks {
                    if success.is_finite() {
                        let latency = Duration::from_micros(latency_us);
                        newest.plan.merge_report(
                            shared.clock.now(),
                            &endpoint,
                            latency,
                            success.clamp(0.0, 1.0),
                        );
                    }
                }
                Ok(())
            }
            ToSidecar::Shares(shares) => {
                let shared = &self.member.shared;
                self.uses.take(&shared.snapshots.newest().plan, shared.clock.now(), &shares.shares);
                Ok(())
            }
            ToSidecar::Recall(traces) => {
                self.member.shared.recalls.ask(&traces);
                Ok(())
            }
            ToSidecar::Taps(taps) => {
                self.member.shared.taps.look(&taps.taps);
                Ok(())
            }
            ToSidecar::AuditTaken(taken) => {
                self.audit.taken(&taken);
                Ok(())
            }
            ToSidecar::Why(why) => {
                self.asked.ask(&self.member.shared, why);
                Ok(())
            }
            ToSidecar::NotStarted(NotStarted { agent, reason }) => {
                self.member.shared.starts.refuse(&agent, &reason);
                Ok(())
            }
            ToSidecar::Drained {} => {
                self.member.shared.drain.confirm();
                Ok(())
            }
            ToSidecar::Refused(refused) => {
                Err(Ended::Refused { reason: refused.reason, retry: refused.retry })
            }
            ToSidecar::Welcome(_) => Err(Ended::Broken("a second welcome".into())),
            ToSidecar::Unknown => Ok(()),
        }
    }

    async fn update(&mut self, mut update: Update) -> Result<(), Ended> {
        if !update.full && self.resume.is_none() {
            return Err(Ended::Broken("the first update is not a full one".into()));
        }
        // Whom not to trust any more does not wait for documents to be compiled.
        let trusted = update.trust.as_ref().map_or(Ok(()), |trust| self.member.trust(trust));
        let problem = trusted.err().map(|why| format!("whom to trust: {why}"));
        if problem.is_some() {
            update.trust = None;
        }
        // Nor does who is held.
        if let Some(actions) = &update.actions {
            self.member.hold(actions);
        }
        self.resume = Some(Resume { version: update.version, digest: update.digest.clone() });
        let place = self.places.clone().acquire_owned().await.map_err(lost)?;
        let offer = Offer { update, problem, place };
        self.configuration.send(Event::Update(Box::new(offer))).map_err(|_| lost("the process ends"))
    }
}

/// Sends the hello and waits for what it comes to.
async fn open(connection: &mut Connection, hello: Hello) -> Result<(Messages<ToSidecar>, Welcome), Ended> {
    let hello = ToControl::Hello(Box::new(hello));
    let mut messages = connection.messages("/v1/stream", &hello, LONGEST_TO_SIDECAR).await?;
    loop {
        match messages.next().await? {
            ToSidecar::Welcome(welcome) => return Ok((messages, welcome)),
            ToSidecar::Refused(refused) => {
                return Err(Ended::Refused { reason: refused.reason, retry: refused.retry });
            }
            ToSidecar::Unknown => {}
            _ => return Err(Ended::Broken("its first message is no welcome".into())),
        }
    }
}

/// Sends one message, as the other end takes it.
async fn send(messages: &mut Messages<ToSidecar>, message: &ToControl) -> Result<(), Ended> {
    Ok(messages.say(message, TAKES_NOTHING).await?)
}

/// An address that others can use, for a listener that may be on all addresses.
fn reachable(listener: SocketAddr, local: IpAddr) -> SocketAddr {
    let ip = if listener.ip().is_unspecified() { local.to_canonical() } else { listener.ip() };
    SocketAddr::new(ip, listener.port())
}
