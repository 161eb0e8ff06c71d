//! The node's identity: the first certificate for a token, each further one for the one before.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pilotfish_client::{Address, Backoff, Issued, Owner, Problem, Proof, Stored, expired, renewal};
use pilotfish_identity::{Bundles, Credentials, Identity, JoinToken, LiveIdentity};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::connect::connect;
use super::disk;
use crate::log;

/// The file in the data folder.
const FILE: &str = "identity.json";
/// How often a wait that goes on is mentioned in the log.
const SAY_EVERY: Duration = Duration::from_secs(10);
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
        if !self.owner().is(&credentials.id) {
            return Err(named(&format!(
                "it is of {}, not of the node {}: give each node a --data of its own, or that --name",
                credentials.id, self.name
            )));
        }
        if credentials.not_after <= self.live.now() {
            return Err(named(&"its certificate has expired"));
        }
        let bundles = Bundles::from_wire(&stored.bundles).map_err(|error| named(&error))?;
        self.put_in_force(credentials, bundles);
        Ok(true)
    }

    async fn join(&self, token: &str) -> Result<(), String> {
        let proof = Proof::Pinned(JoinToken::parse(token).map_err(|why| why.to_string())?.root);
        let (mut rng, mut backoff) = (fastrand::Rng::new(), Backoff::default());
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
            sleep(backoff.next(&mut rng)).await;
        }
    }

    async fn join_at(&self, address: &Address, proof: &Proof, token: &str) -> Result<(), Problem> {
        let mut connection = connect(address, proof).await?;
        let issued = self.owner().join(&mut connection, token, &self.live).await?;
        self.take(issued);
        Ok(())
    }

    /// A new certificate for a new key, by the current certificate.
    async fn renew_at(&self, address: &Address) -> Result<(), Problem> {
        let mut connection = connect(address, &Proof::Live(self.live.clone())).await?;
        let issued = self.owner().renew(&mut connection, &self.live).await?;
        self.take(issued);
        Ok(())
    }

    fn owner(&self) -> Owner {
        Owner::Node(self.name.clone())
    }

    /// Keeps what was issued on the disk, and puts it in force.
    fn take(&self, issued: Issued) {
        let Issued { credentials, bundles, stored } = issued;
        let kept = serde_json::to_vec(&stored).map(Zeroizing::new).map_err(std::io::Error::other);
        if let Err(error) = kept.and_then(|bytes| disk::replace(&self.path, &bytes)) {
            log::error!("the identity is not kept on disk, a restart needs a new token", error = error);
        }
        self.put_in_force(credentials, bundles);
    }

    fn put_in_force(&self, credentials: Credentials, bundles: Bundles) {
        let (credentials, bundles) = (Arc::new(credentials), Arc::new(bundles));
        self.live.update(|identity: &mut Identity| {
            identity.credentials = Some(credentials.clone());
            identity.bundles = bundles.clone();
        });
    }

    /// Renews the certificate for the life of the process.
    pub(super) async fn keep_fresh(self: Arc<Member>) {
        while renewal(&self.live, fastrand::f64()).await {
            self.renew().await;
        }
    }

    /// Renews once, however long that takes.
    async fn renew(&self) {
        let mut rng = fastrand::Rng::new();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            for address in &self.controls {
                match self.renew_at(address).await {
                    Ok(()) => return log::info!("certificate renewed", control = address),
                    Err(why) => log::warn!("cannot renew the certificate", control = address, why = why),
                }
            }
            if expired(&self.live) {
                log::error!(
                    "the certificate has expired, no order can come: start again with a new --token-file; what runs goes on"
                );
            }
            sleep(backoff.next(&mut rng)).await;
        }
    }
}
