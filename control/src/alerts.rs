//! Alerts: rules over what sidecars report, evaluated every 5 s, shown to who asks, sent to a webhook.
//!
//! [`evaluate`] decides and knows neither clock nor fleet; [`measure`] is what a rule sees; [`rules`] are the documents and
//! those that are there without one; [`webhook`] tells others. Each control plane looks at what it hears itself: calls and
//! calls in flight of the sidecars that are connected to it, and everybody's registrations. Several of one store send the
//! same labels for the same thing, which Alertmanager takes for one alert.

pub mod evaluate;
pub mod measure;
pub mod rules;
pub mod webhook;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::api::types::{AlertRow, AlertRuleRow, Alerts as Answer};
use crate::fleet::Fleet;
use crate::log;
use crate::resources::Committed;
use evaluate::{Evaluator, State, Turn};
use rules::Rules;
use webhook::{Outbox, Webhook};

/// How often rules are evaluated: as often as sidecars report.
const EVERY: Duration = Duration::from_secs(5);

/// The rules and their alerts. Dropping it ends its tasks.
#[derive(Debug)]
pub struct Alerts {
    now: Mutex<Now>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Now {
    rules: Rules,
    evaluator: Evaluator,
    /// When it was evaluated last, milliseconds since 1970.
    evaluated: u64,
}

impl Alerts {
    /// Starts to evaluate the rules of the newest documents, and to tell `webhook` what fires.
    pub fn start(
        fleet: Arc<Fleet>,
        documents: watch::Receiver<Arc<Committed>>,
        webhook: Option<Webhook>,
        page: Option<String>,
    ) -> Arc<Alerts> {
        let alerts = Arc::new(Alerts { now: Mutex::default(), tasks: Mutex::default() });
        let outbox = webhook.map(|webhook| (webhook, Arc::new(Outbox::new(page))));
        let mut tasks = Vec::new();
        let told = outbox.as_ref().map(|(_, outbox)| outbox.clone());
        tasks.push(tokio::spawn(run(Arc::downgrade(&alerts), fleet, documents, told)));
        if let Some((webhook, outbox)) = outbox {
            tasks.push(tokio::spawn(webhook::run(webhook, outbox)));
        }
        *alerts.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        alerts
    }

    /// Every rule, and every alert that is pending, fires, or was resolved a while ago.
    pub fn list(&self, control: &str) -> Answer {
        let now = self.lock();
        let rule = |rule: &Arc<rules::Rule>| {
            let alerts = || now.evaluator.alerts().filter(|alert| alert.rule.name == rule.name);
            let state = alerts().map(|alert| alert.state).max().unwrap_or(State::Inactive);
            AlertRuleRow {
                name: rule.name.to_string(),
                what: rule.rule.condition.word().into(),
                severity: rule.rule.severity.word().into(),
                condition: rules::words(&rule.rule),
                default: rule.default,
                disabled: rule.rule.disabled,
                state: if state == State::Resolved { State::Inactive } else { state }.word().into(),
            }
        };
        let mut alerts: Vec<_> = now.evaluator.alerts().collect();
        alerts.sort_by_key(|alert| {
            (std::cmp::Reverse(alert.state), std::cmp::Reverse(alert.rule.rule.severity), alert.since)
        });
        Answer {
            control: control.to_owned(),
            evaluated: now.evaluated / 1000,
            rules: now.rules.all().iter().map(rule).collect(),
            alerts: alerts.into_iter().map(AlertRow::from).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Alerts {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn run(
    alerts: std::sync::Weak<Alerts>,
    fleet: Arc<Fleet>,
    mut documents: watch::Receiver<Arc<Committed>>,
    outbox: Option<Arc<Outbox>>,
) {
    // The wall's clock once, then one that does not jump: what has to hold for two minutes holds for two minutes.
    let (started, from) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {}
            // Rules that are new are shown at once.
            changed = documents.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        let Some(alerts) = alerts.upgrade() else { return };
        let model = documents.borrow_and_update().model.clone();
        let now = u64::try_from((from + started.elapsed()).as_millis()).unwrap_or(u64::MAX);
        let turns = {
            let mut own = alerts.lock();
            let own = &mut *own;
            own.rules.follow(&model);
            own.evaluated = now;
            own.evaluator.step(own.rules.all(), &*fleet, now)
        };
        for turn in &turns {
            let (alert, said) = match turn {
                Turn::Fires(alert) => (alert, "an alert fires"),
                Turn::Resolved(alert) => (alert, "an alert is resolved"),
                Turn::StillFires(_) => continue,
            };
            log::warn!(said, rule = alert.rule.name, agent = alert.agent, why = alert.summary());
        }
        if let Some(outbox) = &outbox {
            outbox.put(turns);
        }
    }
}
