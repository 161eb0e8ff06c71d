//! What people and monitoring may know of credentials: everything but what is shown.

use std::sync::atomic::Ordering::Relaxed;

use pilotfish_config::model::{KeyPlace, Secret};
use pilotfish_filters::clock::Micros;
use serde_json::{Value, json};

use super::flight::Seen;
use super::{How, Live};
use crate::server::Shared;
use crate::telemetry::metrics::family::{Families, Kind};

/// One credential as it is now.
#[derive(Debug, Default)]
struct State {
    /// It is there.
    ready: bool,
    /// Tokens that are there.
    tokens: usize,
    /// When the (last) one ends.
    ends: Option<Micros>,
    why: Option<String>,
    obtained: u64,
    failed: u64,
}

impl State {
    fn of(live: &Live, now: Micros) -> State {
        let seen = match &live.how {
            How::File(file) => {
                let why = file.problem();
                return State { ready: why.is_none(), why, ..State::default() };
            }
            How::Own(flight) => vec![flight.seen(now)],
            How::Exchanged(table) => table.seen(now),
        };
        let mut state = State::default();
        for Seen { ends, why, counts } in seen {
            state.tokens += usize::from(ends.is_some());
            state.ends = state.ends.max(ends);
            state.why = why.map(|why| why.to_string()).or(state.why);
            state.obtained += counts.obtained;
            state.failed += counts.failed;
        }
        state.ready = state.tokens > 0;
        state
    }

    fn word(&self) -> &'static str {
        match (self.ready, &self.why) {
            (true, _) => "ok",
            (false, Some(_)) => "failing",
            (false, None) => "not needed yet",
        }
    }
}

fn kind(secret: &Secret) -> &'static str {
    match secret {
        Secret::Key { place: KeyPlace::Header(name), .. } if name == super::AUTHORIZATION => "bearer",
        Secret::Key { .. } => "apiKey",
        Secret::Basic { .. } => "basic",
        Secret::Client(_) => "oauth2",
        Secret::Exchange(..) => "exchange",
    }
}

/// For `/config`.
pub fn render(shared: &Shared) -> Value {
    let now = shared.clock.now();
    let one = |live: &std::sync::Arc<Live>| {
        let state = State::of(live, now);
        json!({
            "name": live.credential.name,
            "kind": kind(&live.credential.secret),
            "hosts": live.credential.hosts,
            "state": state.word(),
            "tokens": state.tokens,
            "expires_in_seconds": state.ends.map(|ends| ends.since(now).as_secs()),
            "last_error": state.why,
            "obtained": state.obtained,
            "failed": state.failed,
            "shown": live.shown.load(Relaxed),
            "missed": live.missed.load(Relaxed),
            "elsewhere": live.elsewhere.load(Relaxed),
            "tunnels": live.tunnels.load(Relaxed),
        })
    };
    shared.credentials.all().iter().map(one).collect()
}

/// For `/metrics`.
pub fn collect(page: &mut Families, shared: &Shared) {
    let all = shared.credentials.all();
    if all.is_empty() {
        return;
    }
    let now = shared.clock.now();
    let states: Vec<_> = all.iter().map(|live| (&live.credential.name, State::of(live, now))).collect();
    page.family("pilotfish_credential_ready", Kind::Gauge, "Whether an OutboundCredential can be shown.");
    for (name, state) in &states {
        page.by("credential", name.to_string(), u64::from(state.ready));
    }
    let help = "For how long the token of an OutboundCredential is good.";
    page.family("pilotfish_credential_expires_seconds", Kind::Gauge, help);
    for (name, state) in &states {
        if let Some(ends) = state.ends {
            page.by("credential", name.to_string(), ends.since(now).as_secs());
        }
    }
    let help = "Answers of token endpoints.";
    page.family("pilotfish_credential_tokens_total", Kind::Counter, help);
    for (name, state) in &states {
        for (result, count) in [("obtained", state.obtained), ("failed", state.failed)] {
            page.sample(vec![("credential", name.to_string().into()), ("result", result.into())], count);
        }
    }
    let help = "Calls to hosts of an OutboundCredential: that carried it, were refused without it, went elsewhere, or tunnelled.";
    page.family("pilotfish_credential_calls_total", Kind::Counter, help);
    for live in &all {
        let counts = [
            ("shown", &live.shown),
            ("missed", &live.missed),
            ("elsewhere", &live.elsewhere),
            ("tunnel", &live.tunnels),
        ];
        for (result, count) in counts {
            let labels =
                vec![("credential", live.credential.name.to_string().into()), ("result", result.into())];
            page.sample(labels, count.load(Relaxed));
        }
    }
}
