//! Response actions in force, as the control plane gave them; read by each call, without a lock.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use pilotfish_config::wire;

/// Those in force.
#[derive(Debug, Default)]
pub struct Actions {
    newest: ArcSwapOption<wire::Actions>,
}

impl Actions {
    /// From now on these.
    pub fn replace(&self, actions: wire::Actions) {
        let any = !actions.actions.is_empty();
        self.newest.store(any.then(|| Arc::new(actions)));
    }
}
