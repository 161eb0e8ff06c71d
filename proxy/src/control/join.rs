//! An identity from the control plane: the first one for a token, each further one for the one before.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pilotfish_config::wire::{Join, Joined, Renew};
use pilotfish_identity::{
    Bundles, Credentials, Fingerprint, Identity, IdentityError, JoinToken, KeyAndRequest, SpiffeId,
};

use super::backoff::Backoff;
use super::connect::{Connection, Problem, Proof, connect};
use super::disk::StoredIdentity;
use super::member::Member;
use crate::bootstrap::{ControlAddress, Secret};
use crate::telemetry::log;

/// How often a wait that goes on is mentioned in the log.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Retries of a renewal: there are hours left.
const RENEW_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The longest that a wait is trusted: clocks are set, machines sleep.
const LOOK: Duration = Duration::from_secs(30);

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
    if credentials.id.as_agent() != Some((&settings.namespace, &settings.agent)) {
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
    address: &ControlAddress,
    token: &Secret,
    root: Fingerprint,
) -> Result<(), Problem> {
    let mut connection = connect(&member.shared, address, &Proof::Pinned(root)).await?;
    let settings = &member.shared.settings;
    let request = key_and_request(member, connection.peer.trust_domain())?;
    let message = Join {
        token: token.expose().to_owned(),
        agent: settings.agent.clone(),
        namespace: settings.namespace.clone(),
        csr: request.csr_pem.clone(),
        node: false,
    };
    let joined: Joined = connection.post("/v1/join", &message).await?;
    take(member, joined, request, true)?;
    log::info!("joined", control = address, identity = own_id(member));
    Ok(())
}

/// A new certificate for a new key, by the current certificate.
async fn renew_at(member: &Member, address: &ControlAddress) -> Result<(), Problem> {
    let proof = Proof::Live(member.identity().clone());
    let mut connection: Connection = connect(&member.shared, address, &proof).await?;
    let request = key_and_request(member, connection.peer.trust_domain())?;
    let message = Renew { csr: request.csr_pem.clone() };
    let joined: Joined = connection.post("/v1/renew", &message).await?;
    take(member, joined, request, false)
}

fn key_and_request(
    member: &Member,
    domain: &pilotfish_identity::TrustDomain,
) -> Result<KeyAndRequest, Problem> {
    let settings = &member.shared.settings;
    let id = SpiffeId::agent(domain, &settings.namespace, &settings.agent);
    let id = id.map_err(|error| Problem::Refused(error.to_string()))?;
    KeyAndRequest::new(&id).map_err(|error| Problem::Away(error.to_string()))
}

/// Checks an answer, keeps it on the disk, puts it in force. `first`: whom to trust comes with it.
fn take(member: &Member, joined: Joined, request: KeyAndRequest, first: bool) -> Result<(), Problem> {
    let bad = |why: String| Problem::Away(format!("what it issued is no use: {why}"));
    let unusable = |error: IdentityError| bad(error.to_string());
    let credentials = Credentials::from_pem(&joined.chain, &request.key_pem).map_err(unusable)?;
    let settings = &member.shared.settings;
    if credentials.id.as_agent() != Some((&settings.namespace, &settings.agent)) {
        return Err(bad(format!("it is for {}", credentials.id)));
    }
    let bundles = Bundles::from_wire(&joined.bundles).map_err(unusable)?;
    credentials.self_check(&bundles, member.identity().now()).map_err(|why| bad(why.to_string()))?;
    let stored = StoredIdentity {
        id: joined.id,
        key: request.key_pem.to_string(),
        chain: joined.chain,
        bundles: joined.bundles,
    };
    if let Err(error) = member.disk.keep_identity(&stored) {
        log::error!("the identity is not kept on disk, a restart needs a new token", error = error);
    }
    put_in_force(member, credentials, first.then_some(bundles));
    Ok(())
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
    loop {
        let Some((from, until)) = validity(&member) else { return };
        let due = renewal(from, until, rng.f64());
        wait_until(&member, due).await;
        renew(&member, &mut rng).await;
    }
}

/// Since when the certificate is good as far as renewing goes, and until when.
fn validity(member: &Member) -> Option<(SystemTime, SystemTime)> {
    let identity = member.identity().load();
    let own = identity.credentials.as_ref()?;
    // Authorities put the beginning back for slow clocks: a new certificate's life begins now.
    let now = member.identity().now();
    let young = now.duration_since(own.not_before).is_ok_and(|age| age < BACKDATED * 2);
    Some((if young { now } else { own.not_before }, own.not_after))
}

/// How far authorities put the beginning of a certificate back.
const BACKDATED: Duration = Duration::from_secs(300);

/// When to renew: at 50 to 70 % of the life, as `random` (0 to 1) says.
fn renewal(from: SystemTime, until: SystemTime, random: f64) -> SystemTime {
    let life = until.duration_since(from).unwrap_or_default();
    from + life.mul_f64(0.5 + 0.2 * random.clamp(0.0, 1.0))
}

async fn wait_until(member: &Member, due: SystemTime) {
    while let Ok(left) = due.duration_since(member.identity().now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK).max(Duration::from_millis(100))).await;
    }
}

/// Renews once, however long that takes.
async fn renew(member: &Member, rng: &mut fastrand::Rng) {
    let settings = &member.shared.settings.control;
    let mut backoff = Backoff::new(RENEW_AGAIN.0, RENEW_AGAIN.1);
    loop {
        let expired = validity(member).is_none_or(|(_, until)| until <= member.identity().now());
        if expired && join_again(member).await {
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
    fn say(&mut self, address: &ControlAddress, why: &str) {
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.said = Some(tokio::time::Instant::now());
            log::warn!("the control plane is away, trying again", control = address, why = why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_50_to_70_percent_of_its_life() {
        let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let until = from + Duration::from_secs(1000);
        let after = |random| renewal(from, until, random).duration_since(from).unwrap().as_secs();
        assert_eq!((after(0.0), after(1.0)), (500, 700));
        assert!(after(0.3) != after(0.6), "sidecars that started together renew apart");
        assert_eq!(renewal(until, from, 0.5), until, "one that is over is renewed at once");
    }
}
