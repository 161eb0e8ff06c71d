//! A token: obtained once for all who wait for it, renewed ahead, with patience after a failure.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use pilotfish_client::Backoff;
use pilotfish_filters::clock::Micros;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::Value;
use super::endpoint::Token;
use crate::server::Shared;
use crate::telemetry::log;

/// Waits after failures: the endpoint is not asked meanwhile.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// So often at most a host's 401 makes a token be obtained anew: a host that refuses every token must not make the endpoint busy.
const DROP_EVERY: Duration = Duration::from_secs(10);
/// A token is not shown in the last part of its life: one in so many parts, and at most this time.
const LAST_PART: u32 = 10;
const LAST: Duration = Duration::from_secs(10);

/// One token, at present or to come.
#[derive(Debug)]
pub(super) struct Flight {
    value: ArcSwapOption<Value>,
    state: Mutex<State>,
    /// Counts the answers of the endpoint.
    done: watch::Sender<u64>,
}

impl Default for Flight {
    fn default() -> Self {
        Flight { value: ArcSwapOption::empty(), state: Mutex::default(), done: watch::Sender::new(0) }
    }
}

#[derive(Debug)]
struct State {
    running: bool,
    /// Not asked again before.
    again: Option<Micros>,
    why: Option<Arc<str>>,
    backoff: Backoff,
    dropped: Option<Micros>,
    number: u64,
    counts: Counts,
}

/// What came of asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub obtained: u64,
    pub failed: u64,
}

impl Default for State {
    fn default() -> Self {
        State {
            running: false,
            again: None,
            why: None,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            dropped: None,
            number: 0,
            counts: Counts::default(),
        }
    }
}

/// What it is like now, for people.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// When the token ends, if there is one.
    pub ends: Option<Micros>,
    /// Why the last attempt failed.
    pub why: Option<Arc<str>>,
    pub counts: Counts,
}

impl Flight {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token. `ask` asks the endpoint for one.
    pub async fn value<F>(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        now: Micros,
        name: &str,
        ask: impl FnOnce() -> F,
    ) -> Result<Arc<Value>, String>
    where
        F: Future<Output = Result<Token, String>> + Send + 'static,
    {
        if let Some(value) = self.value.load_full().filter(|value| value.is_good(now)) {
            if value.renew.is_some_and(|renew| renew <= now) {
                // Whoever calls now has no need to know how it goes.
                let _ = self.begin(shared, now, name, ask);
            }
            return Ok(value);
        }
        let mut done = self.done.subscribe();
        let before = *done.borrow_and_update();
        self.begin(shared, now, name, ask)?;
        let _ = done.wait_for(|count| *count != before).await;
        // As new as it can be, so it is good however short its life is.
        let value = self.value.load_full();
        value.ok_or_else(|| self.state().why.as_deref().unwrap_or("nobody asked for it").to_owned())
    }

    /// Asks, unless somebody does already.
    fn begin<F>(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        now: Micros,
        name: &str,
        ask: impl FnOnce() -> F,
    ) -> Result<(), String>
    where
        F: Future<Output = Result<Token, String>> + Send + 'static,
    {
        let mut state = self.state();
        if state.running {
            return Ok(());
        }
        if let (Some(again), Some(why)) = (state.again, &state.why)
            && now < again
        {
            return Err(why.to_string());
        }
        let background = shared.asks.background().ok_or("there is no network for it")?;
        state.running = true;
        drop(state);
        let (asked, running) = (ask(), Running(self.clone()));
        let (shared, name) = (shared.clone(), Box::<str>::from(name));
        background.spawn(async move {
            // A token's life begins when it is made, which is not before it is asked for.
            let asked_at = shared.clock.now();
            let got = asked.await;
            running.0.settle(asked_at, shared.clock.now(), &name, got);
        });
        Ok(())
    }

    fn settle(&self, asked_at: Micros, now: Micros, name: &str, got: Result<Token, String>) {
        let mut state = self.state();
        match got {
            Ok(Token { text, life }) => {
                if state.why.take().is_some() {
                    log::info!("a credential is there again", credential = name);
                }
                state.again = None;
                state.backoff.reset();
                state.number += 1;
                state.counts.obtained += 1;
                let text = Zeroizing::new(format!("Bearer {}", &*text));
                let value = Value {
                    text,
                    ends: Some(asked_at.after(life - (life / LAST_PART).min(LAST))),
                    renew: Some(asked_at.after(life * 4 / 5)),
                    number: state.number,
                };
                self.value.store(Some(Arc::new(value)));
            }
            Err(why) => {
                if state.why.is_none() {
                    log::warn!("a credential cannot be had", credential = name, why = why);
                }
                state.counts.failed += 1;
                state.again = Some(now.after(state.backoff.next(&mut fastrand::Rng::new())));
                state.why = Some(why.into());
                if self.value.load().as_ref().is_some_and(|value| !value.is_good(now)) {
                    self.value.store(None);
                }
            }
        }
    }

    /// The host did not take it.
    pub fn drop_value(&self, now: Micros, value: &Value) {
        let mut state = self.state();
        let is_this = self.value.load().as_ref().is_some_and(|own| own.number == value.number);
        if is_this && state.dropped.is_none_or(|last| now.since(last) >= DROP_EVERY) {
            state.dropped = Some(now);
            self.value.store(None);
        }
    }

    /// Whether it may be forgotten: there is no token, and nobody waits for one.
    pub fn is_over(&self, now: Micros) -> bool {
        !self.state().running && !self.value.load().as_ref().is_some_and(|value| value.is_good(now))
    }

    pub fn seen(&self, now: Micros) -> Seen {
        let ends = self.value.load().as_ref().filter(|value| value.is_good(now)).and_then(|value| value.ends);
        let state = self.state();
        Seen { ends, why: state.why.clone(), counts: state.counts }
    }
}

/// Tells those who wait that it is over, by a panic too.
struct Running(Arc<Flight>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.state().running = false;
        self.0.done.send_modify(|count| *count += 1);
    }
}
