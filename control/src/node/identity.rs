//! The node's identity: the first certificate for a token, each further one for the one before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pilotfish_config::wire::{Join, Joined, Renew};
use pilotfish_identity::{
    Bundles, Credentials, Identity, IdentityError, JoinToken, KeyAndRequest, LiveIdentity, SpiffeId,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use zeroize::{Zeroize, Zeroizing};

use super::backoff::Backoff;
use super::connect::{Address, Problem, Proof, connect};
use super::disk;
use crate::log;

/// The file in the data folder.
const FILE: &str = "identity.json";
/// How often a wait that goes on is mentioned in the log.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How far authorities put the beginning of a certificate back.
const BACKDATED: Duration = Duration::from_secs(300);
/// The longest that a wait is trusted: clocks are set, machines sleep.
const LOOK: Duration = Duration::from_secs(30);

/// What is kept.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The private key, PEM.
    key: String,
    /// The leaf and its intermediates, PEM.
    chain: String,
    /// Roots by trust domain, PEM.
    bundles: BTreeMap<String, String>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// The node as a member of the mesh.
#[derive(Debug)]
pub(super) struct Member {
    /// Its name.
    pub(super) name: String,
    /// What is in force.
    pub(super) live: Arc<LiveIdentity>,
    controls: Vec<Address>,
    path: PathBuf,
}

impl Member {
    /// Reads the identity of an earlier start, else joins. Waits while every control plane is away.
    ///
    /// # Errors
    /// There is none to be had: why, and what to do.
    pub(super) async fn obtain(
        name: &str,
        controls: &[Address],
        data: &Path,
        token: Option<Zeroizing<String>>,
    ) -> Result<Arc<Member>, String> {
        let member = Arc::new(Member {
            name: name.to_owned(),
            live: LiveIdentity::new(Identity::default()),
            controls: controls.to_vec(),
            path: data.join(FILE),
        });
        match member.restore() {
            Ok(true) => return Ok(member),
            Ok(false) => {}
            Err(why) if token.is_some() => {
                log::warn!("the identity on the disk is no use, joining again", why = why);
            }
            Err(why) => return Err(format!("{why}; a new --token-file joins again")),
        }
        let token = token.ok_or_else(|| {
            format!(
                "{} has no identity yet: give a join token (--token-file), made by `pilotfish token create --node {name}`",
                data.display()
            )
        })?;
        member.join(&token).await?;
        Ok(member)
    }

    /// The identity on the disk, when there is one that is still good. An error says why it can never be.
    fn restore(&self) -> Result<bool, String> {
        let bytes = disk::read(&self.path).map_err(|error| error.to_string())?.map(Zeroizing::new);
        let Some(bytes) = bytes else { return Ok(false) };
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", self.path.display());
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| named(&error))?;
        let credentials = Credentials::from_pem(&stored.chain, &stored.key).map_err(|error| named(&error))?;
        if credentials.id.as_node() != Some(&self.name) {
            return Err(named(&format!(
                "it is of {}, not of the node {}: give each node a --data of its own, or that --name",
                credentials.id, self.name
            )));
        }
        if credentials.not_after <= SystemTime::now() {
            return Err(named(&"its certificate has expired"));
        }
        let bundles = Bundles::from_wire(&stored.bundles).map_err(|error| named(&error))?;
        self.put_in_force(credentials, bundles);
        Ok(true)
    }

    async fn join(&self, token: &str) -> Result<(), String> {
        let proof = Proof::Pinned(JoinToken::parse(token).map_err(|why| why.to_string())?.root);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let mut said: Option<Instant> = None;
        loop {
            for address in &self.controls {
                match self.join_at(address, &proof, token).await {
                    Ok(()) => {
                        log::info!("joined", control = address, node = self.name);
                        return Ok(());
                    }
                    Err(Problem::Impostor(why)) => {
                        return Err(format!(
                            "{address} is no control plane of this mesh: {why}; the token was not sent"
                        ));
                    }
                    Err(Problem::Refused(why)) => return Err(format!("{address} refuses the join: {why}")),
                    Err(Problem::Away(why)) => {
                        if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                            said = Some(Instant::now());
                            log::warn!(
                                "the control plane is away, trying again",
                                control = address,
                                why = why
                            );
                        }
                    }
                }
            }
            sleep(backoff.next()).await;
        }
    }

    async fn join_at(&self, address: &Address, proof: &Proof, token: &str) -> Result<(), Problem> {
        let mut connection = connect(address, proof).await?;
        let request = self.request(&connection.peer)?;
        let message = Join {
            token: token.to_owned(),
            agent: self.name.clone(),
            namespace: String::new(),
            csr: request.csr_pem.clone(),
            node: true,
        };
        let joined: Joined = connection.post("/v1/join", &message).await?;
        self.take(joined, &request)
    }

    /// A new certificate for a new key, by the current certificate.
    async fn renew_at(&self, address: &Address) -> Result<(), Problem> {
        let mut connection = connect(address, &Proof::Live(self.live.clone())).await?;
        let request = self.request(&connection.peer)?;
        let message = Renew { csr: request.csr_pem.clone() };
        let joined: Joined = connection.post("/v1/renew", &message).await?;
        self.take(joined, &request)
    }

    fn request(&self, control: &SpiffeId) -> Result<KeyAndRequest, Problem> {
        let id = SpiffeId::node(control.trust_domain(), &self.name);
        let id = id.map_err(|error| Problem::Refused(error.to_string()))?;
        KeyAndRequest::new(&id).map_err(|error| Problem::Away(error.to_string()))
    }

    /// Checks an answer, keeps it on the disk, puts it in force.
    fn take(&self, joined: Joined, request: &KeyAndRequest) -> Result<(), Problem> {
        let bad = |why: String| Problem::Away(format!("what it issued is no use: {why}"));
        let unusable = |error: IdentityError| bad(error.to_string());
        let credentials = Credentials::from_pem(&joined.chain, &request.key_pem).map_err(unusable)?;
        if credentials.id.as_node() != Some(&self.name) {
            return Err(bad(format!("it is for {}", credentials.id)));
        }
        let bundles = Bundles::from_wire(&joined.bundles).map_err(unusable)?;
        credentials.self_check(&bundles, SystemTime::now()).map_err(|why| bad(why.to_string()))?;
        let stored =
            Stored { key: request.key_pem.to_string(), chain: joined.chain, bundles: joined.bundles };
        let kept = serde_json::to_vec(&stored).map(Zeroizing::new).map_err(std::io::Error::other);
        if let Err(error) = kept.and_then(|bytes| disk::replace(&self.path, &bytes)) {
            log::error!("the identity is not kept on disk, a restart needs a new token", error = error);
        }
        self.put_in_force(credentials, bundles);
        Ok(())
    }

    fn put_in_force(&self, credentials: Credentials, bundles: Bundles) {
        let (credentials, bundles) = (Arc::new(credentials), Arc::new(bundles));
        self.live.update(|identity: &mut Identity| {
            identity.credentials = Some(credentials.clone());
            identity.bundles = bundles.clone();
        });
    }

    /// Renews the certificate for the life of the process, at 50 to 70 % of its life.
    pub(super) async fn keep_fresh(self: Arc<Member>) {
        loop {
            let Some((from, until)) = self.validity() else { return };
            let life = until.duration_since(from).unwrap_or_default();
            let due = from + life.mul_f64(0.5 + 0.2 * fastrand::f64());
            while let Ok(left) = due.duration_since(SystemTime::now()) {
                if left.is_zero() {
                    break;
                }
                sleep(left.clamp(Duration::from_millis(100), LOOK)).await;
            }
            self.renew().await;
        }
    }

    /// Since when the certificate is good as far as renewing goes, and until when.
    fn validity(&self) -> Option<(SystemTime, SystemTime)> {
        let identity = self.live.load();
        let own = identity.credentials.as_ref()?;
        // Authorities put the beginning back for slow clocks: a new certificate's life begins now.
        let now = SystemTime::now();
        let young = now.duration_since(own.not_before).is_ok_and(|age| age < BACKDATED * 2);
        Some((if young { now } else { own.not_before }, own.not_after))
    }

    /// Renews once, however long that takes.
    async fn renew(&self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            for address in &self.controls {
                match self.renew_at(address).await {
                    Ok(()) => return log::info!("certificate renewed", control = address),
                    Err(why) => log::warn!("cannot renew the certificate", control = address, why = why),
                }
            }
            if self.validity().is_none_or(|(_, until)| until <= SystemTime::now()) {
                log::error!(
                    "the certificate has expired, no order can come: start again with a new --token-file; what runs goes on"
                );
            }
            sleep(backoff.next()).await;
        }
    }
}
