//! What the tasks of a sidecar that belongs to a mesh share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use pilotfish_client::Owner;
use pilotfish_config::wire::{Actions, State, Trust};
use pilotfish_identity::{Bundles, IdentityError, LiveIdentity, SpiffeId};
use tokio::sync::watch;

use super::disk::StateDir;
use crate::net;
use crate::server::Shared;
use crate::source::control::Progress;

/// A sidecar of a mesh.
#[derive(Debug)]
pub struct Member {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// The folder of what outlives the process.
    pub disk: StateDir,
    /// This process, for the control plane: 32 hexadecimal digits.
    pub instance: String,
    /// Where the inbound listener is.
    pub inbound: SocketAddr,
    /// How far the configuration thread has come.
    pub progress: Arc<watch::Sender<Progress>>,
    /// What the control plane is to know of that.
    pub state: watch::Sender<State>,
    /// Whether whom to trust is for the control plane to say; not so when the Workload API says it.
    pub trust_from_control: bool,
    connected: AtomicBool,
}

impl Member {
    /// A member that has nothing yet.
    pub fn new(shared: Arc<Shared>, disk: StateDir, inbound: SocketAddr) -> Arc<Member> {
        let mut instance = [0; 16];
        net::fill_unique(&mut instance);
        let trust_from_control = shared.settings.control.workload_api.is_none();
        Arc::new(Member {
            shared,
            disk,
            instance: HEXLOWER.encode(&instance),
            inbound,
            progress: Arc::new(watch::Sender::new(Progress::default())),
            state: watch::Sender::new(State::default()),
            trust_from_control,
            connected: AtomicBool::new(false),
        })
    }

    /// The identity in force.
    pub fn identity(&self) -> &Arc<LiveIdentity> {
        &self.shared.tls.live
    }

    /// Whose identity that is.
    pub fn owner(&self) -> Owner {
        let settings = &self.shared.settings;
        Owner::Agent { namespace: settings.namespace.clone(), agent: settings.agent.clone() }
    }

    /// When the own certificate ends, seconds since 1970.
    pub fn certificate_expires(&self) -> Option<u64> {
        let identity = self.identity().load();
        let end = identity.credentials.as_ref()?.not_after;
        end.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
    }

    /// Puts in force what the control plane says of trust.
    ///
    /// # Errors
    /// A bundle that cannot be read; then nothing changes.
    pub fn trust(&self, trust: &Trust) -> Result<(), IdentityError> {
        let bundles = Arc::new(Bundles::from_wire(&trust.bundles)?);
        // An ID that cannot be read is nobody's here: no certificate with it is taken anyway.
        let revoked = trust.revoked.iter().filter_map(|id| SpiffeId::parse(id).ok());
        let revoked = Arc::new(revoked.collect());
        self.identity().update(|identity| {
            if self.trust_from_control {
                identity.bundles = Arc::clone(&bundles);
            }
            identity.revoked = Arc::clone(&revoked);
        });
        Ok(())
    }

    /// Puts in force what the control plane says of who is held.
    pub fn hold(&self, actions: &Actions) {
        self.shared.actions.replace(&self.shared, actions);
    }

    /// Whether a control plane is connected.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }
}
