//! Whole TLS handshakes between two identities, in memory.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use pilotfish_identity::tls::{
    ClientAuth, any_name, client_config, expect, expect_control, peer_of, server_config,
};
use pilotfish_identity::{
    Bundles, Identity, LiveIdentity, Refused, TrustDomain, Usage, fingerprint, pinned_client_config,
};
use pilotfish_testkit::ca::{Ca, Issued, Leaf};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{
    ClientConfig, ClientConnection, Error, NamedGroup, ProtocolVersion, ServerConfig, ServerConnection,
};

use super::{ID, bundles, credentials, id, leaf, mesh};

const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

fn identity(issued: &Issued, bundles: &Bundles) -> Identity {
    Identity {
        credentials: Some(Arc::new(credentials(issued))),
        bundles: Arc::new(bundles.clone()),
        revoked: Arc::default(),
    }
}

fn live(issued: &Issued, bundles: &Bundles) -> Arc<LiveIdentity> {
    LiveIdentity::new(identity(issued, bundles))
}

fn server(name: &str) -> Leaf {
    Leaf::agent("mesh.test", "default", name)
}

/// Both ends after a handshake, or the first error.
fn shake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), Error> {
    let mut client = ClientConnection::new(client.clone(), any_name()).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut from = &bytes[..];
        while !from.is_empty() {
            server.read_tls(&mut from).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut from = &bytes[..];
        while !from.is_empty() {
            client.read_tls(&mut from).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok((client, server))
}

fn reason(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> &'static str {
    shake(client, server).map_or_else(|error| Refused::reason_of(&error), |_| "taken")
}

#[test]
fn both_ends_know_each_other() {
    let ca = Ca::new("mesh.test");
    let here = live(&ca.issue(&leaf()), &mesh(&ca));
    let there = live(&ca.issue(&server("coder")), &mesh(&ca));
    let client = client_config(here.clone(), ALPN).unwrap();
    let server = server_config(there.clone(), ClientAuth::Required, ALPN).unwrap();
    let (client, server) = shake(&client, &server).unwrap();
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
    let called = peer_of(client.peer_certificates(), &here, Usage::Server).unwrap();
    let caller = peer_of(server.peer_certificates(), &there, Usage::Client).unwrap();
    assert_eq!(caller.id, id(ID));
    let coder = id("spiffe://mesh.test/ns/default/agent/coder");
    assert!(expect(&called, &coder).is_ok());
    assert_eq!(expect(&called, &id(ID)).unwrap_err().reason(), "wrong-identity");
}

#[test]
fn older_tls_and_strangers_are_refused() {
    let (ca, stranger) = (Ca::new("mesh.test"), Ca::new("mesh.test"));
    let there = live(&ca.issue(&server("coder")), &mesh(&ca));
    let server = server_config(there, ClientAuth::Required, ALPN).unwrap();
    let good = ca.issue(&leaf());
    assert_eq!(reason(&ca.client(Some(&good), ALPN), &server), "taken");
    assert_eq!(reason(&ca.client(None, ALPN), &server), "no-certificate");
    assert_eq!(reason(&ca.client(Some(&stranger.issue(&leaf())), ALPN), &server), "untrusted");
    let expired = ca.issue(&Leaf { ends: -10, ..leaf() });
    assert_eq!(reason(&ca.client(Some(&expired), ALPN), &server), "expired");
    let two = Leaf { uris: vec![ID.into(), "spiffe://mesh.test/b".into()], ..leaf() };
    assert_eq!(reason(&ca.client(Some(&ca.issue(&two)), ALPN), &server), "several-uri-names");
    // The chain of another, without its key.
    let stolen = Issued { chain: good.chain.clone(), key: ca.issue(&leaf()).key };
    assert!(pilotfish_identity::Credentials::from_pem(&stolen.chain, &stolen.key).is_err());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let old = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    assert!(shake(&Arc::new(old), &server).is_err());
}

#[test]
fn a_client_without_a_certificate_is_nobody_where_that_is_allowed() {
    let ca = Ca::new("mesh.test");
    let there = live(&ca.issue(&server("coder")), &mesh(&ca));
    let server = server_config(there.clone(), ClientAuth::Optional, ALPN).unwrap();
    let (_, accepted) = shake(&ca.client(None, ALPN), &server).unwrap();
    let peer = peer_of(accepted.peer_certificates(), &there, Usage::Client);
    assert_eq!(peer.unwrap_err(), Refused::NoCertificate);
    let expired = ca.issue(&Leaf { ends: -10, ..leaf() });
    assert_eq!(reason(&ca.client(Some(&expired), ALPN), &server), "expired");
}

#[test]
fn nobody_answers_before_there_is_an_identity() {
    let ca = Ca::new("mesh.test");
    let empty = LiveIdentity::new(Identity::default());
    let server = server_config(empty.clone(), ClientAuth::Required, ALPN).unwrap();
    assert!(shake(&ca.client(Some(&ca.issue(&leaf())), ALPN), &server).is_err());
    let client = client_config(empty, ALPN).unwrap();
    assert_eq!(reason(&client, &ca.server(&ca.issue(&leaf()), false, ALPN)), "unknown-trust-domain");
}

#[test]
fn servers_are_verified_as_clients_are() {
    let (ca, stranger) = (Ca::new("mesh.test"), Ca::new("mesh.test"));
    let here = live(&ca.issue(&leaf()), &mesh(&ca));
    let client = client_config(here, ALPN).unwrap();
    assert_eq!(reason(&client, &ca.server(&ca.issue(&leaf()), true, ALPN)), "taken");
    assert_eq!(reason(&client, &stranger.server(&stranger.issue(&leaf()), false, ALPN)), "untrusted");
    let only_client = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let wrong = ca.issue(&Leaf { usages: only_client, ..leaf() });
    assert_eq!(reason(&client, &ca.server(&wrong, false, ALPN)), "wrong-usage");
    let dns = ca.issue(&Leaf { uris: vec![], dns: vec!["localhost".into()], ..leaf() });
    assert_eq!(reason(&client, &ca.server(&dns, false, ALPN)), "no-spiffe-id");
}

#[test]
fn rotation_closes_nothing_and_the_next_handshake_sees_it() {
    let (mut old, new) = (Ca::new("mesh.test"), Ca::new("mesh.test"));
    let both = bundles(&[("mesh.test", old.root_pem() + &new.root_pem())]);
    let here = live(&old.issue(&leaf()), &mesh(&old));
    let there = live(&old.issue(&server("coder")), &mesh(&old));
    let client = client_config(here.clone(), ALPN).unwrap();
    let server = server_config(there.clone(), ClientAuth::Required, ALPN).unwrap();
    let (first, _) = shake(&client, &server).unwrap();
    let before = peer_of(first.peer_certificates(), &here, Usage::Server).unwrap();

    old.new_intermediate();
    there.replace(identity(&old.issue(&self::server("coder")), &mesh(&old)));
    let (second, _) = shake(&client, &server).unwrap();
    let renewed = peer_of(second.peer_certificates(), &here, Usage::Server).unwrap();
    assert_eq!((renewed.root, &renewed.id), (before.root, &before.id));
    assert_ne!(renewed.leaf, before.leaf);

    // Two roots at once; then the new one signs; then the old one goes.
    for end in [&here, &there] {
        end.update(|identity| identity.bundles = Arc::new(both.clone()));
    }
    assert!(here.still_trusted(&renewed).is_ok());
    there.replace(identity(&new.issue(&self::server("coder")), &both));
    let (third, _) = shake(&client, &server).unwrap();
    let moved = peer_of(third.peer_certificates(), &here, Usage::Server).unwrap();
    assert_eq!(moved.root, fingerprint(&new.root_der()));
    here.update(|identity| identity.bundles = Arc::new(mesh(&new)));
    assert!(here.still_trusted(&moved).is_ok());
    assert_eq!(here.still_trusted(&renewed).unwrap_err().reason(), "untrusted");
    assert_eq!(peer_of(second.peer_certificates(), &here, Usage::Server).unwrap_err().reason(), "untrusted");
}

#[test]
fn the_revoked_are_refused_at_once_though_they_were_seen() {
    let ca = Ca::new("mesh.test");
    let there = live(&ca.issue(&server("coder")), &mesh(&ca));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    there.watch(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let server = server_config(there.clone(), ClientAuth::Required, ALPN).unwrap();
    let client = ca.client(Some(&ca.issue(&leaf())), ALPN);
    let (_, accepted) = shake(&client, &server).unwrap();
    let peer = peer_of(accepted.peer_certificates(), &there, Usage::Client).unwrap();
    let version = there.version();
    there.update(|identity| identity.revoked = Arc::new(HashSet::from([id(ID)])));
    assert_eq!((there.version(), calls.load(Ordering::Relaxed)), (version + 1, 1));
    assert_eq!(reason(&client, &server), "revoked");
    assert_eq!(there.still_trusted(&peer).unwrap_err().reason(), "revoked");
    there.update(|identity| identity.revoked = Arc::default());
    assert_eq!(reason(&client, &server), "taken");
}

#[derive(Debug)]
struct Clock(AtomicI64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let shifted = now.as_secs().checked_add_signed(self.0.load(Ordering::Relaxed))?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(shifted)))
    }
}

#[test]
fn what_was_seen_still_expires() {
    let ca = Ca::new("mesh.test");
    let clock = Arc::new(Clock(AtomicI64::new(-299)));
    let there = LiveIdentity::with_clock(identity(&ca.issue(&server("coder")), &mesh(&ca)), clock.clone());
    let server = server_config(there, ClientAuth::Required, ALPN).unwrap();
    let client = ca.client(Some(&ca.issue(&leaf())), ALPN);
    for (shift, word) in [
        (-299, "taken"),
        (0, "taken"),
        (299, "taken"),
        (86_500, "expired"),
        (-400, "not-yet-valid"),
        (0, "taken"),
    ] {
        clock.0.store(shift, Ordering::Relaxed);
        assert_eq!(reason(&client, &server), word, "{shift}");
    }
}

#[test]
fn no_session_is_resumed() {
    let ca = Ca::new("mesh.test");
    let here = live(&ca.issue(&leaf()), &mesh(&ca));
    let there = live(&ca.issue(&server("coder")), &mesh(&ca));
    let server = server_config(there, ClientAuth::Required, ALPN).unwrap();
    for client in [client_config(here, ALPN).unwrap(), ca.client(Some(&ca.issue(&leaf())), ALPN)] {
        for _ in 0..3 {
            let (mut client, mut accepted) = shake(&client, &server).unwrap();
            let mut bytes = Vec::new();
            while accepted.wants_write() {
                accepted.write_tls(&mut bytes).unwrap();
            }
            let state = client.read_tls(&mut &bytes[..]).map(|_| client.process_new_packets().unwrap());
            assert_eq!(state.map(|state| state.tls_bytes_to_write()).unwrap_or(0), 0);
            assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        }
    }
}

#[test]
fn joining_needs_the_root_of_the_token_and_a_control_plane() {
    let (ca, stranger) = (Ca::new("mesh.test"), Ca::new("mesh.test"));
    let control = Leaf::of("spiffe://mesh.test/ns/pilotfish-system/control/one");
    let with_root = |ca: &Ca, leaf: &Leaf| {
        let mut issued = ca.issue(leaf);
        issued.chain.push_str(&ca.root_pem());
        issued
    };
    let joining = pinned_client_config(fingerprint(&ca.root_der()), ALPN).unwrap();
    let against = |ca: &Ca, issued: &Issued| reason(&joining, &ca.server(issued, false, ALPN));
    assert_eq!(against(&ca, &with_root(&ca, &control)), "taken");
    assert_eq!(against(&ca, &ca.issue(&control)), "untrusted");
    assert_eq!(against(&stranger, &with_root(&stranger, &control)), "untrusted");
    assert_eq!(against(&ca, &with_root(&ca, &leaf())), "wrong-identity");
    let expired = Leaf { ends: -10, ..control };
    assert_eq!(against(&ca, &with_root(&ca, &expired)), "expired");
    // The known root beside a chain that it did not sign.
    let mut forged = stranger.issue(&Leaf::of("spiffe://mesh.test/ns/pilotfish-system/control/one"));
    forged.chain.push_str(&ca.root_pem());
    assert_eq!(against(&stranger, &forged), "untrusted");
    // A leaf of the known root, pinned as if it were one.
    let agent = ca.issue(&leaf());
    let pinned = pinned_client_config(fingerprint(&agent.chain_der()[0]), ALPN).unwrap();
    assert_ne!(reason(&pinned, &ca.server(&agent, false, ALPN)), "taken");
}

#[test]
fn a_control_plane_is_known_by_its_id_and_domain() {
    let ca = Ca::new("mesh.test");
    let control = ca.issue(&Leaf::of("spiffe://mesh.test/ns/pilotfish-system/control/one"));
    let here = live(&ca.issue(&leaf()), &mesh(&ca));
    let verify = |issued: &Issued| here.verify(&issued.chain_der(), Usage::Server).unwrap();
    let (ours, other) = (TrustDomain::parse("mesh.test").unwrap(), TrustDomain::parse("other.test").unwrap());
    assert!(expect_control(&verify(&control), &ours).is_ok());
    assert!(expect_control(&verify(&control), &other).is_err());
    assert!(expect_control(&verify(&ca.issue(&leaf())), &ours).is_err());
}
