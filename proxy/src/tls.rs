//! TLS of the data path: who this sidecar is, whom it takes on its inbound port, and how it calls others.
//!
//! | file | what |
//! |---|---|
//! | [`files`] | certificate, key and trust bundle from files, taken anew when they change |
//! | [`accept`] | the inbound port: mTLS, or plaintext as far as the policy allows it |
//! | [`dial`] | what a new upstream connection has to prove before a byte of a request is sent on it |
//! | [`check`] | the same for a health check, off the workers |
//! | [`client`] | the sidecar's own connections to services outside of the mesh |
//! | [`outside`] | TLS to hosts outside of the mesh, as a DestinationRule asks for it |
//! | [`peers`] | open connections by peer, to be closed when it is not trusted any more |

pub mod accept;
pub mod check;
pub mod client;
pub mod dial;
pub mod files;
pub mod outside;
pub mod peers;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use pilotfish_filters::authz::Principal;
use pilotfish_filters::authz::policies::CallerRules;
use pilotfish_identity::tls::{ClientAuth, client_config, server_config};
use pilotfish_identity::{Credentials, Identity, LiveIdentity, Peer, SpiffeId, hex};
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::Notify;

use crate::request::dial::Protocol;
use crate::snapshot::Snapshot;

/// What the inbound port offers by ALPN. What is spoken is told by the first bytes, so a mismatch harms nobody.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Identity and trust of the process, and what rustls makes of them.
#[derive(Debug)]
pub struct Tls {
    /// Who we are and whom we trust; replaced by whatever is the source of it.
    pub live: Arc<LiveIdentity>,
    /// Rung when `live` changes.
    pub changed: Arc<Notify>,
    server: Arc<ServerConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Tls {
    /// Without an identity until one is put into `live`.
    ///
    /// # Errors
    /// Never in practice: the cryptography has TLS 1.3.
    pub fn new() -> io::Result<Tls> {
        let live = LiveIdentity::new(Identity::default());
        let changed = Arc::new(Notify::new());
        let bell = changed.clone();
        live.watch(move || bell.notify_waiters());
        Ok(Tls {
            server: server_config(live.clone(), ClientAuth::Required, &ALPN).map_err(io::Error::other)?,
            http1: client_config(live.clone(), &[ALPN[1]]).map_err(io::Error::other)?,
            http2: client_config(live.clone(), &[ALPN[0]]).map_err(io::Error::other)?,
            live,
            changed,
        })
    }

    /// Whether this sidecar can prove who it is.
    pub fn has_identity(&self) -> bool {
        self.live.load().credentials.is_some()
    }

    /// Who this sidecar is.
    pub fn own(&self) -> Option<Arc<Credentials>> {
        self.live.load().credentials.clone()
    }

    fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        match protocol {
            Protocol::Http1 => self.http1.clone(),
            Protocol::Http2 => self.http2.clone(),
        }
    }
}

/// A verified peer in the mesh, at the other end of one connection.
#[derive(Debug)]
pub struct MeshPeer {
    /// Who, until when, and by which root.
    pub peer: Peer,
    /// Its `x-forwarded-client-cert`, in Envoy's format.
    pub forwarded: Box<str>,
    /// `namespace/name`, when its identity is an agent's.
    pub agent: Option<Box<str>>,
    /// The server name that it asked for; an address is none.
    pub server_name: Option<Box<str>>,
    /// The same as policies see it.
    pub principal: Principal,
    /// What this sidecar showed to it, when that is known: a link that another key signs has to bring its certificate.
    pub shown: Weak<Credentials>,
    rules: RefCell<Option<(u64, Option<Rc<CallerRules>>)>>,
}

impl MeshPeer {
    /// `own` is who was called.
    pub fn new(peer: Peer, own: Option<&Credentials>) -> MeshPeer {
        let mut forwarded = String::with_capacity(256);
        if let Some(own) = own {
            let _ = write!(forwarded, "By={};", own.id);
        }
        let _ = write!(forwarded, "Hash={};Subject=\"\";URI={}", hex(&peer.leaf), peer.id);
        let agent = peer.id.as_agent().map(|(namespace, name)| format!("{namespace}/{name}").into());
        let principal = principal(&peer.id);
        let shown = Weak::new();
        let rules = RefCell::new(None);
        MeshPeer { peer, forwarded: forwarded.into(), agent, server_name: None, principal, shown, rules }
    }

    /// The AuthorizationPolicies' rules that can be about this peer, found once for each configuration; `None`: it has no such policies.
    pub fn rules(&self, snapshot: &Snapshot) -> Option<Rc<CallerRules>> {
        let mut rules = self.rules.borrow_mut();
        if let Some((_, known)) = rules.as_ref().filter(|(version, _)| *version == snapshot.version) {
            return known.clone();
        }
        let found = snapshot.plan.caller_rules(Some(&self.principal)).map(Rc::new);
        *rules = Some((snapshot.version, found.clone()));
        found
    }
}

/// A SPIFFE ID as policies see it.
pub fn principal(id: &SpiffeId) -> Principal {
    let named = id.as_agent().or_else(|| id.as_service_account());
    Principal {
        id: id.as_str().trim_start_matches("spiffe://").into(),
        trust_domain: id.trust_domain().as_str().into(),
        namespace: named.map(|(namespace, _)| namespace.into()),
        name: named.map(|(_, name)| name.into()),
    }
}
