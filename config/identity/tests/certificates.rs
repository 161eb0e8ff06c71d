//! Which certificates are taken, and which word each other one gets.

use pilotfish_identity::{
    Bundles, Credentials, IdentityError, KeyAndRequest, Refused, TrustDomain, Usage, fingerprint, verify_peer,
};
use pilotfish_testkit::ca::{Ca, Leaf};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;

use super::{ID, after, bundles, credentials, id, leaf, mesh};

fn reason(ca: &Ca, leaf: &Leaf, bundles: &Bundles) -> &'static str {
    let chain = ca.issue(leaf).chain_der();
    match verify_peer(&chain, bundles, Usage::Client, after(0)) {
        Ok(_) => "taken",
        Err(refused) => refused.reason(),
    }
}

#[test]
fn a_good_peer_is_known_with_its_root() {
    let ca = Ca::new("mesh.test");
    let issued = ca.issue(&leaf());
    let peer = verify_peer(&issued.chain_der(), &mesh(&ca), Usage::Server, after(0)).unwrap();
    assert_eq!(peer.id, id(ID));
    assert_eq!(peer.root, fingerprint(&ca.root_der()));
    assert_eq!(peer.leaf, fingerprint(&issued.chain_der()[0]));
    let left = peer.not_after.duration_since(after(0)).unwrap().as_secs();
    assert!((24 * 3600 - 60..=24 * 3600).contains(&left), "{left}");
    assert!(credentials(&issued).self_check(&mesh(&ca), after(0)).is_ok());
}

#[test]
fn names_besides_the_one_uri_do_not_matter() {
    let ca = Ca::new("mesh.test");
    let with_dns = Leaf { dns: vec!["localhost".into()], ..leaf() };
    assert_eq!(reason(&ca, &with_dns, &mesh(&ca)), "taken");
    assert_eq!(reason(&ca, &Leaf { by_root: true, ..leaf() }, &mesh(&ca)), "taken");
    assert_eq!(reason(&ca, &Leaf { usages: vec![], key_usages: vec![], ..leaf() }, &mesh(&ca)), "taken");
}

#[test]
fn every_bad_leaf_gets_its_word() {
    let ca = Ca::new("mesh.test");
    let good = leaf();
    let other = "spiffe://mesh.test/ns/default/agent/other".to_owned();
    let bad = [
        ("no-spiffe-id", Leaf { uris: vec![], ..good.clone() }),
        ("no-spiffe-id", Leaf { uris: vec![], dns: vec!["planner.test".into()], ..good.clone() }),
        ("no-spiffe-id", Leaf::of("https://mesh.test/ns/default/agent/planner")),
        ("no-spiffe-id", Leaf::of("spiffe://mesh.test/a//b")),
        ("no-spiffe-id", Leaf::of("spiffe://mesh.test")),
        ("several-uri-names", Leaf { uris: vec![ID.into(), other], ..good.clone() }),
        ("several-uri-names", Leaf { uris: vec![ID.into(), "urn:x".into()], ..good.clone() }),
        ("several-uri-names", Leaf { uris: vec![ID.into(), ID.into()], ..good.clone() }),
        ("unknown-trust-domain", Leaf::of("spiffe://elsewhere.test/ns/default/agent/planner")),
        ("expired", Leaf { starts: -7200, ends: -3600, ..good.clone() }),
        ("expired", Leaf { ends: -1, ..good.clone() }),
        ("not-yet-valid", Leaf { starts: 3600, ..good.clone() }),
        ("leaf-is-authority", Leaf { authority: true, by_root: true, ..good.clone() }),
        (
            "leaf-is-authority",
            Leaf {
                key_usages: vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
                ..good.clone()
            },
        ),
        ("wrong-usage", Leaf { key_usages: vec![KeyUsagePurpose::KeyEncipherment], ..good.clone() }),
        ("wrong-usage", Leaf { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..good.clone() }),
        ("wrong-usage", Leaf { usages: vec![ExtendedKeyUsagePurpose::CodeSigning], ..good.clone() }),
        ("chain-too-long", Leaf { padding: 65 << 10, ..good }),
    ];
    for (word, leaf) in bad {
        assert_eq!(reason(&ca, &leaf, &mesh(&ca)), word, "{:?} {:?}", leaf.uris, leaf.dns);
    }
}

#[test]
fn another_authority_vouches_for_nobody() {
    let (ours, stranger) = (Ca::new("mesh.test"), Ca::new("mesh.test"));
    assert_eq!(reason(&stranger, &leaf(), &mesh(&ours)), "untrusted");
    // A federated root speaks for its own domain only.
    let federated = bundles(&[("mesh.test", ours.root_pem()), ("other.test", stranger.root_pem())]);
    assert_eq!(reason(&stranger, &leaf(), &federated), "untrusted");
    assert_eq!(reason(&ours, &Leaf::agent("other.test", "n", "a"), &federated), "untrusted");
    assert_eq!(reason(&stranger, &Leaf::agent("other.test", "n", "a"), &federated), "taken");
}

#[test]
fn a_leaf_vouches_for_nobody() {
    let ca = Ca::new("mesh.test");
    let agent = ca.issue(&leaf());
    // An agent signs a leaf for another one with its own key.
    let key = rcgen::KeyPair::from_pem(&agent.key).unwrap();
    let forged_key = rcgen::KeyPair::generate().unwrap();
    let mut wanted = rcgen::CertificateParams::default();
    wanted.distinguished_name = rcgen::DistinguishedName::new();
    wanted.subject_alt_names =
        vec![rcgen::SanType::URI("spiffe://mesh.test/ns/default/agent/admin".try_into().unwrap())];
    let mut issuer = rcgen::CertificateParams::default();
    issuer.distinguished_name = rcgen::DistinguishedName::new();
    let forged = wanted.signed_by(&forged_key, &rcgen::Issuer::new(issuer, key)).unwrap();
    let mut chain = vec![forged.der().clone()];
    chain.extend(agent.chain_der());
    let refused = verify_peer(&chain, &mesh(&ca), Usage::Client, after(0)).unwrap_err();
    assert_eq!(refused.reason(), "untrusted");
}

#[test]
fn bytes_that_are_no_chain_are_refused() {
    let ca = Ca::new("mesh.test");
    let chain = ca.issue(&leaf()).chain_der();
    let verify = |chain: &[CertificateDer<'_>]| {
        verify_peer(chain, &mesh(&ca), Usage::Client, after(0)).map_err(|refused| refused.reason())
    };
    assert_eq!(verify(&[]), Err("no-certificate"));
    assert_eq!(verify(&[CertificateDer::from(vec![])]), Err("certificate-unreadable"));
    assert_eq!(verify(&[CertificateDer::from(vec![0x30, 0x80, 1, 2])]), Err("certificate-unreadable"));
    let mut longer = chain[0].to_vec();
    longer.push(0);
    assert_eq!(verify(&[CertificateDer::from(longer)]), Err("certificate-unreadable"));
    // Every cut and every flipped byte is refused, and none panics.
    for at in 0..chain[0].len() {
        assert!(verify(&[CertificateDer::from(&chain[0][..at]), chain[1].clone()]).is_err());
        let mut flipped = chain[0].to_vec();
        flipped[at] ^= 0x55;
        assert!(verify(&[CertificateDer::from(flipped), chain[1].clone()]).is_err(), "byte {at}");
    }
    let mut long = chain.clone();
    long.extend(std::iter::repeat_n(chain[1].clone(), 7));
    assert_eq!(verify(&long), Err("chain-too-long"));
    // Without its intermediate, nobody known signed it; a broken one beside is as none.
    assert_eq!(verify(&chain[..1]), Err("untrusted"));
}

#[test]
fn clocks_may_differ_by_five_minutes() {
    let ca = Ca::new("mesh.test");
    let chain = ca.issue(&leaf()).chain_der();
    let at =
        |seconds| verify_peer(&chain, &mesh(&ca), Usage::Client, after(seconds)).map_err(|why| why.reason());
    assert!(at(-299).is_ok());
    assert!(at(299).is_ok());
    assert_eq!(at(-360), Err("not-yet-valid"));
    assert_eq!(at(24 * 3600 + 1), Err("expired"));
}

#[test]
fn an_authority_that_ended_vouches_for_nobody() {
    let ended = Ca::lasting("mesh.test", -7200, -3600);
    assert_eq!(reason(&ended, &Leaf { by_root: true, ..leaf() }, &mesh(&ended)), "expired");
    assert_eq!(reason(&ended, &leaf(), &mesh(&ended)), "expired");
    // The chain ends when the first of its certificates does.
    let soon = Ca::lasting("mesh.test", -7200, 600);
    let peer = verify_peer(&soon.issue(&leaf()).chain_der(), &mesh(&soon), Usage::Client, after(0)).unwrap();
    assert!(peer.not_after <= after(600));
    assert!(credentials(&soon.issue(&leaf())).not_after <= after(600));
}

#[test]
fn two_roots_of_one_domain_are_both_trusted() {
    let (old, new) = (Ca::new("mesh.test"), Ca::new("mesh.test"));
    let both = bundles(&[("mesh.test", old.root_pem() + &new.root_pem())]);
    for ca in [&old, &new] {
        let peer = verify_peer(&ca.issue(&leaf()).chain_der(), &both, Usage::Client, after(0)).unwrap();
        assert_eq!(peer.root, fingerprint(&ca.root_der()));
    }
    let domain = TrustDomain::parse("mesh.test").unwrap();
    assert_eq!(both.fingerprints()[&domain].len(), 2);
    assert!(both.has_root(&domain, &fingerprint(&new.root_der())));
    assert_ne!(both, mesh(&old));
    assert_eq!(both, bundles(&[("mesh.test", new.root_pem() + &old.root_pem() + &new.root_pem())]));
}

#[test]
fn credentials_say_which_part_is_wrong() {
    let ca = Ca::new("mesh.test");
    let (one, two) = (ca.issue(&leaf()), ca.issue(&leaf()));
    let read = |chain: &str, key: &str| Credentials::from_pem(chain, key).unwrap_err();
    assert!(matches!(read("", &one.key), IdentityError::Chain(_)));
    assert!(matches!(read(&one.chain, ""), IdentityError::Key(_)));
    assert!(matches!(read(&one.key, &one.chain), IdentityError::Chain(_)));
    assert!(matches!(read(&one.chain, &two.key), IdentityError::Mismatch(_)));
    let nobody = ca.issue(&Leaf { uris: vec![], ..leaf() });
    assert!(matches!(read(&nobody.chain, &nobody.key), IdentityError::Identity(Refused::NoIdentity(_))));
    let broken = one.key.replacen("M", "!", 1);
    let said = read(&one.chain, &broken).to_string();
    assert!(!said.contains(&one.key[40..60]), "{said}");
    assert!(!format!("{:?}", credentials(&one)).contains("PRIVATE"));
}

#[test]
fn bundles_say_which_domain_is_wrong() {
    let ca = Ca::new("mesh.test");
    let domain = TrustDomain::parse("mesh.test").unwrap();
    let said = |pem: &str| Bundles::one(&domain, pem).unwrap_err().to_string();
    assert!(said("").contains("mesh.test"), "{}", said(""));
    assert!(said(&ca.issue(&leaf()).chain).contains("certificate 1: it is no authority's"));
    assert!(said("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").contains("certificate 1"));
}

#[test]
fn a_request_is_signed_with_the_key_that_stays() {
    let ca = Ca::new("mesh.test");
    let wanted = KeyAndRequest::new(&id(ID)).unwrap();
    let chain = ca.sign(&wanted.csr_pem, &leaf());
    let own = Credentials::from_pem(&chain, &wanted.key_pem).unwrap();
    assert_eq!(own.id, id(ID));
    assert!(own.self_check(&mesh(&ca), after(0)).is_ok());
    assert!(!format!("{wanted:?}").contains("KEY-"));
}
