//! Response actions in force, as the control plane gave them; read by each call, without a lock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use pilotfish_config::wire::{self, AuditWhat, Hold};
use pilotfish_filters::held::Held;
use tokio::sync::watch;

use crate::server::Shared;

/// Those in force.
#[derive(Debug)]
pub struct Actions {
    newest: ArcSwapOption<Held>,
    changes: watch::Sender<()>,
    /// What the audit log knows of the own agent.
    noted: Mutex<Option<Hold>>,
}

impl Default for Actions {
    fn default() -> Self {
        Actions { newest: ArcSwapOption::empty(), changes: watch::Sender::new(()), noted: Mutex::default() }
    }
}

impl Actions {
    /// From now on these.
    pub fn replace(&self, shared: &Shared, actions: &wire::Actions) {
        let own = shared.tls.own();
        let domain = own.as_ref().map(|own| own.id.trust_domain().as_str());
        // Both clocks at one moment: what comes later goes by the process's own, which nobody sets.
        let now = shared.clock.now();
        let wall = shared.clock.epoch().nanos(now);
        let at = |seconds: u64| {
            let left = seconds.saturating_mul(1_000_000_000).saturating_sub(wall);
            now.after(Duration::from_nanos(left))
        };
        let held = Held::new(actions, domain, shared.serving.own(), at);
        self.newest.store(held.map(Arc::new));
        self.changes.send_replace(());
        self.note(shared, actions);
    }

    /// Records what becomes of the own agent.
    fn note(&self, shared: &Shared, actions: &wire::Actions) {
        let own = actions.actions.iter().find(|action| action.agent == shared.serving.own());
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, hold) = (noted.take(), own.map(|own| own.hold.clone()));
        let outcome = match &hold {
            Some(Hold::Quarantine) => "quarantined",
            Some(Hold::Restrict(_)) => "restricted",
            None => "released",
        };
        if before != hold {
            let detail = own.map_or_else(String::new, |own| because(&own.by, &own.why));
            let fields = vec![("outcome", outcome.to_owned()), ("detail", detail)];
            shared.audit.note(AuditWhat::Action, fields);
        }
        *noted = hold;
    }

    /// Who is held; `None`: nobody, as nearly always.
    #[inline]
    pub fn held(&self) -> Option<Arc<Held>> {
        // Cloned only when somebody is held.
        self.newest.load().as_ref().map(Arc::clone)
    }

    /// Rings when they change.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

/// Who did it, and why, as far as that is known.
fn because(by: &str, why: &str) -> String {
    match (by, why) {
        ("", why) => why.to_owned(),
        (by, "") => format!("by {by}"),
        (by, why) => format!("by {by}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::because;

    #[test]
    fn a_reason_is_there_only_when_somebody_gave_one() {
        assert_eq!(["", "odd"].map(|why| because("anna", why)), ["by anna", "by anna: odd"]);
        assert_eq!(["", "odd"].map(|why| because("", why)), ["", "odd"]);
    }
}
