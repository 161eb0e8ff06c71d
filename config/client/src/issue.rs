//! An identity from the control plane: the first one for a token, each further one for the one before, in time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use pilotfish_config::wire::{Join, Joined, Renew};
use pilotfish_identity::{
    Bundles, Credentials, IdentityError, KeyAndRequest, LiveIdentity, SpiffeId, TrustDomain,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use zeroize::Zeroize;

use crate::{Connection, Problem};

/// How far authorities put the beginning of a certificate back.
const BACKDATED: Duration = Duration::from_secs(300);
/// The longest that a wait is trusted: clocks are set, machines sleep.
const LOOK: Duration = Duration::from_secs(30);

/// Whose identity it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// An agent's, its sidecar has it.
    Agent {
        /// The agent's namespace.
        namespace: String,
        /// The agent's name.
        agent: String,
    },
    /// A node's, by its name.
    Node(String),
}

/// What is kept of an identity.
#[derive(Serialize, Deserialize)]
pub struct Stored {
    /// The SPIFFE ID.
    #[serde(default)]
    pub id: String,
    /// The private key, PEM.
    pub key: String,
    /// The leaf and its intermediates, PEM.
    pub chain: String,
    /// Roots by trust domain, PEM.
    pub bundles: BTreeMap<String, String>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Stored").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a control plane issued, looked at.
#[derive(Debug)]
pub struct Issued {
    /// Certificate and key.
    pub credentials: Credentials,
    /// Whom to trust.
    pub bundles: Bundles,
    /// Both, to be kept.
    pub stored: Stored,
}

impl Owner {
    /// Whether this is its identity.
    pub fn is(&self, id: &SpiffeId) -> bool {
        match self {
            Owner::Agent { namespace, agent } => id.as_agent() == Some((namespace, agent)),
            Owner::Node(name) => id.as_node() == Some(name),
        }
    }

    /// Its first identity, for a token, of whose mesh the control plane has to be: [`crate::Proof::Pinned`].
    ///
    /// # Errors
    /// The control plane is gone, refuses, or issues what is no use.
    pub async fn join(
        &self,
        connection: &mut Connection,
        token: &str,
        live: &LiveIdentity,
    ) -> Result<Issued, Problem> {
        let request = self.request(connection.peer.trust_domain())?;
        let (agent, namespace, node) = match self {
            Owner::Agent { namespace, agent } => (agent.clone(), namespace.clone(), false),
            Owner::Node(name) => (name.clone(), String::new(), true),
        };
        let message = Join { token: token.to_owned(), agent, namespace, csr: request.csr_pem.clone(), node };
        let joined: Joined = connection.post("/v1/join", &message).await?;
        self.look(joined, &request, live.now())
    }

    /// A new certificate for a new key, by the current certificate, which the connection has shown.
    ///
    /// # Errors
    /// The control plane is gone, refuses, or issues what is no use.
    pub async fn renew(&self, connection: &mut Connection, live: &LiveIdentity) -> Result<Issued, Problem> {
        let request = self.request(connection.peer.trust_domain())?;
        let message = Renew { csr: request.csr_pem.clone() };
        let joined: Joined = connection.post("/v1/renew", &message).await?;
        self.look(joined, &request, live.now())
    }

    fn request(&self, domain: &TrustDomain) -> Result<KeyAndRequest, Problem> {
        let id = match self {
            Owner::Agent { namespace, agent } => SpiffeId::agent(domain, namespace, agent),
            Owner::Node(name) => SpiffeId::node(domain, name),
        };
        let id = id.map_err(|error| Problem::Refused(error.to_string()))?;
        KeyAndRequest::new(&id).map_err(|error| Problem::Away(error.to_string()))
    }

    fn look(&self, joined: Joined, request: &KeyAndRequest, now: SystemTime) -> Result<Issued, Problem> {
        let bad = |why: String| Problem::Away(format!("what it issued is no use: {why}"));
        let unusable = |error: IdentityError| bad(error.to_string());
        let credentials = Credentials::from_pem(&joined.chain, &request.key_pem).map_err(unusable)?;
        if !self.is(&credentials.id) {
            return Err(bad(format!("it is for {}", credentials.id)));
        }
        let bundles = Bundles::from_wire(&joined.bundles).map_err(unusable)?;
        credentials.self_check(&bundles, now).map_err(|why| bad(why.to_string()))?;
        let Joined { id, chain, bundles: texts, .. } = joined;
        let stored = Stored { id, key: request.key_pem.to_string(), chain, bundles: texts };
        Ok(Issued { credentials, bundles, stored })
    }
}

/// Waits until the certificate in force is to be renewed: at 50 to 70 % of its life, as `random` (0 to 1) says. Whether there
/// is one.
pub async fn renewal(live: &LiveIdentity, random: f64) -> bool {
    let Some((from, until)) = validity(live) else { return false };
    let due = due(from, until, random);
    while let Ok(left) = due.duration_since(live.now()) {
        if left.is_zero() {
            break;
        }
        sleep(left.clamp(Duration::from_millis(100), LOOK)).await;
    }
    true
}

/// Whether there is no certificate in force that is still good.
pub fn expired(live: &LiveIdentity) -> bool {
    validity(live).is_none_or(|(_, until)| until <= live.now())
}

/// Since when the certificate is good as far as renewing goes, and until when.
fn validity(live: &LiveIdentity) -> Option<(SystemTime, SystemTime)> {
    let identity = live.load();
    let own = identity.credentials.as_ref()?;
    // Authorities put the beginning back for slow clocks: a new certificate's life begins now.
    let now = live.now();
    let young = now.duration_since(own.not_before).is_ok_and(|age| age < BACKDATED * 2);
    Some((if young { now } else { own.not_before }, own.not_after))
}

fn due(from: SystemTime, until: SystemTime, random: f64) -> SystemTime {
    let life = until.duration_since(from).unwrap_or_default();
    from + life.mul_f64(0.5 + 0.2 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_50_to_70_percent_of_its_life() {
        let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let until = from + Duration::from_secs(1000);
        let after = |random| due(from, until, random).duration_since(from).unwrap().as_secs();
        assert_eq!((after(0.0), after(1.0)), (500, 700));
        assert!(after(0.3) != after(0.6), "sidecars that started together renew apart");
        assert_eq!(due(until, from, 0.5), until, "one that is over is renewed at once");
    }

    #[test]
    fn an_identity_is_of_its_kind_and_name() {
        let domain = TrustDomain::parse("mesh.test").unwrap();
        let agent = Owner::Agent { namespace: "default".into(), agent: "n1".into() };
        let node = Owner::Node("n1".into());
        let (of_agent, of_node) =
            (SpiffeId::agent(&domain, "default", "n1").unwrap(), SpiffeId::node(&domain, "n1").unwrap());
        assert!(agent.is(&of_agent) && node.is(&of_node));
        assert!(!agent.is(&of_node) && !node.is(&of_agent));
        assert!(!node.is(&SpiffeId::node(&domain, "n2").unwrap()));
    }

    #[test]
    fn a_key_is_not_shown() {
        let stored = Stored {
            id: "spiffe://x".into(),
            key: "secret".into(),
            chain: String::new(),
            bundles: BTreeMap::new(),
        };
        assert!(!format!("{stored:?}").contains("secret"));
    }
}
