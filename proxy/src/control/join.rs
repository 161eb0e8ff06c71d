//! An identity from the control plane: the first one for a token, each further one for the one before.

use std::sync::Arc;
use std::time::Duration;

use pilotfish_client::{Address, Backoff, Issued, Problem, Proof, expired, renewal};
use pilotfish_identity::{Bundles, Credentials, Fingerprint, Identity, JoinToken};

use super::connect::connect;
use super::member::Member;
use crate::bootstrap::Secret;
use crate::telemetry::log;

/// How often a wait that goes on is mentioned in the log.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Retries of a renewal: there are hours left.
const RENEW_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why a sidecar has no identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoIdentity {
    /// The control plane refuses, or is not the one that the token is of.
    Refused(String),
    /// What the user gave, or what is on the disk, is no use.
    Unusable(String),
}

/// Puts an identity in force: the one on the disk, else one for the token. Waits while the control plane is away.
///
/// # Errors
/// There is none to be had.
pub async fn obtain(member: &Member) -> Result<(), NoIdentity> {
    let unusable = |why: String| NoIdentity::Unusable(why);
    let token = member.shared.settings.control.token().map_err(unusable)?;
    match restore(member) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(why) if token.is_some() => log::warn!("the identity on disk is no use, joining again", why = why),
        Err(why) => return Err(unusable(format!("{why}; a new --token joins again"))),
    }
    let path = member.disk.path().display();
    let token = token.ok_or_else(|| {
        unusable(format!(
            "there is no identity in {path} yet: give a join token (--token-file, made by `pilotfish token create`)"
        ))
    })?;
    join(member, &token).await
}

/// The identity on the disk, when it is still good. An error says why it can never be.
fn restore(member: &Member) -> Result<bool, String> {
    let Some(stored) = member.disk.identity().map_err(|error| error.to_string())? else { return Ok(false) };
    let credentials = Credentials::from_pem(&stored.chain, &stored.key).map_err(|error| error.to_string())?;
    let settings = &member.shared.settings;
    if !member.owner().is(&credentials.id) {
        let path = member.disk.path().display();
        return Err(format!(
            "{path} is the state of {}, not of {}/{}: give each agent a --state-dir of its own",
            credentials.id, settings.namespace, settings.agent
        ));
    }
    let expired = credentials.not_after <= member.identity().now();
    let has_token = settings.control.token().is_ok_and(|token| token.is_some());
    if expired && has_token {
        log::warn!("the certificate on disk has expired, joining again");
        return Ok(false);
    }
    let bundles = Bundles::from_wire(&stored.bundles).map_err(|error| error.to_string())?;
    if expired {
        log::error!(
            "the certificate on disk has expired: no mesh call can work until a new --token joins again"
        );
    }
    put_in_force(member, credentials, Some(bundles));
    Ok(true)
}

/// Joins by token, at whichever control plane answers.
///
/// # Errors
/// One of them refuses the token, or is not of this mesh. While all are away it waits.
pub async fn join(member: &Member, token: &Secret) -> Result<(), NoIdentity> {
    let settings = &member.shared.settings.control;
    let root = match (settings.ca_fingerprint, JoinToken::parse(token.expose())) {
        (Some(root), _) => root,
        (None, Ok(token)) => token.root,
        (None, Err(why)) => return Err(NoIdentity::Unusable(why.to_string())),
    };
    let mut wait = Wait::default();
    loop {
        for address in &settings.addresses {
            match join_at(member, address, token, root).await {
                Ok(()) => return Ok(()),
                Err(Problem::Away(why)) => wait.say(address, &why),
                Err(Problem::Impostor(why)) => {
                    let why =
                        format!("{address} is no control plane of this mesh: {why}; the token was not sent");
                    return Err(NoIdentity::Refused(why));
                }
                Err(Problem::Refused(why)) => {
                    return Err(NoIdentity::Refused(format!("{address} refuses the join: {why}")));
                }
            }
        }
        tokio::time::sleep(wait.backoff.next(&mut wait.rng)).await;
    }
}

async fn join_at(
    member: &Member,
    address: &Address,
    token: &Secret,
    root: Fingerprint,
) -> Result<(), Problem> {
    let mut connection = connect(&member.shared, address, &Proof::Pinned(root)).await?;
    let issued = member.owner().join(&mut connection, token.expose(), member.identity()).await?;
    take(member, issued, true);
    log::info!("joined", control = address, identity = own_id(member));
    Ok(())
}

/// A new certificate for a new key, by the current certificate.
async fn renew_at(member: &Member, address: &Address) -> Result<(), Problem> {
    let proof = Proof::Live(member.identity().clone());
    let mut connection = connect(&member.shared, address, &proof).await?;
    let issued = member.owner().renew(&mut connection, member.identity()).await?;
    take(member, issued, false);
    Ok(())
}

/// Keeps what was issued on the disk, and puts it in force. `first`: whom to trust comes with it.
fn take(member: &Member, issued: Issued, first: bool) {
    let Issued { credentials, bundles, stored } = issued;
    if let Err(error) = member.disk.keep_identity(&stored) {
        log::error!("the identity is not kept on disk, a restart needs a new token", error = error);
    }
    put_in_force(member, credentials, first.then_some(bundles));
}

fn put_in_force(member: &Member, credentials: Credentials, bundles: Option<Bundles>) {
    let (credentials, bundles) = (Arc::new(credentials), bundles.map(Arc::new));
    member.identity().update(|identity: &mut Identity| {
        identity.credentials = Some(Arc::clone(&credentials));
        if let Some(bundles) = &bundles {
            identity.bundles = Arc::clone(bundles);
        }
    });
}

fn own_id(member: &Member) -> String {
    member.identity().load().credentials.as_ref().map(|own| own.id.to_string()).unwrap_or_default()
}

/// Renews the certificate for the life of the process.
pub async fn keep_fresh(member: Arc<Member>) {
    let mut rng = fastrand::Rng::new();
    while renewal(member.identity(), rng.f64()).await {
        renew(&member, &mut rng).await;
    }
}

/// Renews once, however long that takes.
async fn renew(member: &Member, rng: &mut fastrand::Rng) {
    let settings = &member.shared.settings.control;
    let mut backoff = Backoff::new(RENEW_AGAIN.0, RENEW_AGAIN.1);
    loop {
        if expired(member.identity()) && join_again(member).await {
            return;
        }
        for address in &settings.addresses {
            match renew_at(member, address).await {
                Ok(()) => {
                    log::info!("certificate renewed", control = address);
                    return;
                }
                Err(why) => log::warn!("cannot renew the certificate", control = address, why = why),
            }
        }
        tokio::time::sleep(backoff.next(rng)).await;
    }
}

/// The certificate has expired: only a token helps.
async fn join_again(member: &Member) -> bool {
    let token = member.shared.settings.control.token().ok().flatten();
    let why = match token {
        None => "there is no token".to_owned(),
        Some(token) => match join(member, &token).await {
            Ok(()) => return true,
            Err(NoIdentity::Refused(why) | NoIdentity::Unusable(why)) => why,
        },
    };
    log::error!(
        "the certificate has expired, no mesh call can work: start again with a new --token",
        why = why
    );
    false
}

/// A wait for control planes that are away, which says so now and then.
#[derive(Default)]
struct Wait {
    backoff: Backoff,
    rng: fastrand::Rng,
    said: Option<tokio::time::Instant>,
}

impl Wait {
    fn say(&mut self, address: &Address, why: &str) {
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.said = Some(tokio::time::Instant::now());
            log::warn!("the control plane is away, trying again", control = address, why = why);
        }
    }
}
